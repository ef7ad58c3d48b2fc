// How much of a prompt llama-server may compute in one step while other answers wait for their next token.
#pragma once

#include <algorithm>
#include <cstdint>

// A step computes one token of every answer that is being written and, beside them, as much of the waiting prompts as a
// batch holds. On a slow CPU a full batch takes many seconds, in which all those answers stand still. So the time that a
// token of a prompt takes is followed, and beside answers a step gets no more of them than fit into STEP_US; a prompt
// that is alone gets whole batches.
class edgellm_steps {
  public:
    // Tokens that the step may have in all; it has `n_answers` so far.
    int32_t limit(int32_t n_batch, int32_t n_answers) const {
        if (n_answers == 0) {
            return n_batch;
        }
        const double n_prompt = us_per_token > 0 ? STEP_US / us_per_token : FIRST;
        return std::min(n_batch, n_answers + std::max(LEAST, (int32_t) std::min(n_prompt, 65536.0)));
    }

    // A step with so many tokens took so long. Small ones are not counted: they cost as much as their weights take to
    // read, however many tokens they have.
    void took(int32_t n_tokens, int64_t us) {
        if (n_tokens >= LEAST) {
            const double now = (double) us / n_tokens;
            us_per_token = us_per_token > 0 ? (3 * us_per_token + now) / 4 : now;
        }
    }

  private:
    static constexpr double  STEP_US = 300000;
    static constexpr double  FIRST   = 32;
    static constexpr int32_t LEAST   = 16;

    double us_per_token = 0;
};

// One server has one model.
static edgellm_steps edgellm_step;
