// When llama-server passes tokens on to the readers of its answers.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

// Every token wakes the thread of its answer, the threads of all other answers (each checks whether the token is its
// own), and the readers. With few cores, all of these delay the threads that compute the next token. So tokens that
// come faster than a beat are kept, and passed on together when the beat is over and a step is about to begin. The end
// of an answer is passed on at once, with everything that was kept.
//
// EDGELLM_STREAM_BEAT_MS sets the length of a beat. Without it tokens are passed on at once, as llama-server does.
class edgellm_beats {
  public:
    // Whether to keep a token that has just come.
    bool keep() {
        kept = length_us > 0;
        return kept;
    }

    // Before a step with so many tokens: whether to pass on what was kept. A step with part of a prompt may take long,
    // so nothing waits for it.
    bool due(int32_t n_tokens, int64_t now_us) {
        if (!kept || (n_tokens < PROMPT && now_us - last_us < length_us)) {
            return false;
        }
        kept    = false;
        last_us = now_us;
        return true;
    }

  private:
    static constexpr int32_t PROMPT  = 16;
    static constexpr int64_t LONGEST = 1000;

    static int64_t length() {
        const char *    text = std::getenv("EDGELLM_STREAM_BEAT_MS");
        const long long ms   = text ? std::atoll(text) : 0;
        return 1000 * (ms < 0 ? 0 : ms > LONGEST ? LONGEST : ms);
    }

    const int64_t length_us = length();
    int64_t       last_us   = 0;
    bool          kept      = false;
};

// Joins the pieces of an answer that are ready. `next` appends the next piece and returns whether more will come;
// `reader` knows whether one is ready.
template <class Reader, class Next> auto edgellm_together(Reader & reader, Next next) {
    return [&reader, next](std::string & output) {
        bool more = next(output);
        while (more && reader.edgellm_is_ready()) {
            std::string piece;
            more = next(piece);
            output += piece;
        }
        return more;
    };
}
