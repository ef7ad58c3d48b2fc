// How much of a prompt llama-server computes in one step while other answers wait for their next token.
#pragma once

#include <algorithm>
#include <cstdint>

// A step computes one token of every running answer, and fills the rest of the batch with waiting prompts. On a slow
// CPU a full batch takes many seconds, during which all answers stall. So we track how long a prompt token takes, and
// next to answers a step gets only as many as fit into STEP_US. A prompt on its own gets full batches.
class edgellm_steps {
  public:
    // The most tokens that a step may have; `n_answers` of them are taken.
    int32_t limit(int32_t n_batch, int32_t n_answers) const {
        if (n_answers == 0) {
            return n_batch;
        }
        const double n_prompt = us_per_token > 0 ? STEP_US / us_per_token : FIRST;
        return std::min(n_batch, n_answers + std::max(LEAST, (int32_t) std::min(n_prompt, 65536.0)));
    }

    // Records how long a step took. Small steps do not count: they take as long as the weights take to read, however
    // many tokens they have.
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
