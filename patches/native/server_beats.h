// When llama-server hands on what its answers have come to.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

// Every token wakes the thread of its answer, that of every other answer to look whether it was meant, and whoever reads
// them; where the cores are few, all of these stop the threads that compute the next token. So tokens that come faster
// than a beat are kept and handed on together, when a step is about to begin and the beat is over. What ends an answer
// is handed on at once, with all that was kept.
//
// The length of a beat comes from the environment, in milliseconds; without it there are none, as in llama-server itself.
class edgellm_beats {
  public:
    // Whether a token that has just come is kept.
    bool keep() {
        kept = length_us > 0;
        return kept;
    }

    // Before a step with so many tokens: whether what was kept is to be handed on. A step with a part of a prompt may
    // take long, and nothing waits for it.
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

// The pieces of an answer that are there already, in one: `next` appends nothing but the next piece and says whether
// more will come, `reader` whether one can be had without waiting.
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
