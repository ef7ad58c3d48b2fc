// Drafts of llama-server: the next tokens of an answer, from what stands already in its own prompt and answer.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <unordered_map>
#include <utility>
#include <vector>

// A draft only decides which rows a pass computes; each token is still drawn from its own row. So a wrong draft costs
// time and changes nothing. A drafter belongs to one slot and forgets everything with its next answer: what one user
// wrote never decides how another's answer is computed.
//
// This is the twin of edgellm/run/drafts.py, draft_lengths.py and draft_costs.py, which explain it; a test compares
// them. EDGELLM_DRAFT_COSTS holds what passes over 2, 4, 8 and 16 rows cost at an empty context, then at a full one, in
// passes over one row: "1.5,2.1,3.2,5.5,1.8,2.8,4.7,8.6". Without it nothing is drafted.

// See ../alone.h: the rows of a pass that have the same bits as alone.
enum { EDGELLM_MOST_ROWS = 16 };

class edgellm_drafter {
  public:
    // Begins with what the answer may look like, and with the prompt. Both are searched, but say nothing about how well
    // drafts do.
    void begin(const std::vector<int32_t> & hint, const std::vector<int32_t> & prompt) {
        *this = edgellm_drafter();
        n_hint = hint.size();
        for (const auto * part : { &hint, &prompt }) {
            for (int32_t token : *part) {
                add(token);
            }
        }
        search();
    }

    // The tokens of prompt and answer.
    size_t size() const { return tokens.size() - n_hint; }

    // Appends the next token of the answer.
    void feed(int32_t token) {
        if (length == 0) {
            add(token);
            search();
            return;
        }
        const int  index    = bucket(length);
        const bool is_right = token == tokens[next];
        tried[index] = FADING*tried[index] + 1;
        right[index] = FADING*right[index] + is_right;
        add(token);
        if (is_right) {
            next++;
            length = std::min(length + 1, (int) MOST_LENGTH);
        } else {
            search();
        }
    }

    // How many tokens of a draft of 1, 2 ... tokens will be right, as far as can be expected.
    std::vector<double> gains(int most) const {
        std::vector<double> found;
        double total = 0, reach = 1;
        for (int i = 0; length > 0 && i < std::min(most, EDGELLM_MOST_ROWS - 1); i++) {
            const int index = bucket(length + i);
            reach *= (right[index] + PRIOR_WEIGHT*EXPECTED[index])/(tried[index] + PRIOR_WEIGHT);
            if (reach < LEAST_REACH) {
                break;
            }
            total += reach;
            found.push_back(total);
        }
        return found;
    }

    // The tokens that followed the match; where it runs into the end of the text, the draft goes on from itself.
    std::vector<int32_t> draft(int most) const {
        std::vector<int32_t> found;
        for (int i = 0; length > 0 && i < most; i++) {
            const size_t place = next + i;
            found.push_back(place < tokens.size() ? tokens[place] : found[place - tokens.size()]);
        }
        return found;
    }

  private:
    enum { N_BUCKETS = 9, MOST_PLACES = 8, MOST_LENGTH = 32 };

    static constexpr int    LENGTHS[N_BUCKETS]  = { 2, 3, 4, 5, 6, 8, 12, 16, 24 };
    static constexpr double EXPECTED[N_BUCKETS] = { 0.25, 0.40, 0.50, 0.58, 0.64, 0.72, 0.80, 0.86, 0.92 };
    static constexpr double PRIOR_WEIGHT = 6, FADING = 0.93, LEAST_REACH = 0.02;

    static int bucket(int length) {
        return (int) (std::upper_bound(LENGTHS, LENGTHS + N_BUCKETS, length) - LENGTHS) - 1;
    }

    void add(int32_t token) {
        const size_t place = tokens.size();
        earlier.push_back(0);
        if (place > 0) {
            const uint64_t pair = (uint64_t) (uint32_t) tokens.back() << 32 | (uint32_t) token;
            auto & last = latest[pair];
            earlier[place] = last;
            last = (int32_t) place;
        }
        tokens.push_back(token);
    }

    void search() {
        length = 0;
        const int end = (int) tokens.size() - 1;
        int place = end > 0 ? earlier[end] : 0;
        for (int i = 0; i < MOST_PLACES && place > 0; i++, place = earlier[place]) {
            int same = 2;
            while (same < MOST_LENGTH && same <= place && tokens[place - same] == tokens[end - same]) {
                same++;
            }
            if (same > length) {
                length = same;
                next   = place + 1;
            }
        }
    }

    std::vector<int32_t> tokens;
    std::vector<int32_t> earlier;                 // the place before that of the pair that ends here, 0 for none
    std::unordered_map<uint64_t, int32_t> latest; // the last place of each pair of tokens
    size_t n_hint = 0;                            // tokens before the prompt
    size_t next   = 0;                            // the token after the match
    int    length = 0;                            // of the match, 0 for none
    std::array<double, N_BUCKETS> tried{};
    std::array<double, N_BUCKETS> right{};
};

class edgellm_draft_costs {
  public:
    enum { N_KNOTS = 4, CONTEXT = 2048, STEP = 64 };

    // Reads the variable; false if it is not there or makes no sense.
    bool read(const char * text) {
        double * each[2*N_KNOTS];
        for (int i = 0; i < 2*N_KNOTS; i++) {
            each[i] = &table[i/N_KNOTS][i%N_KNOTS];
        }
        for (int i = 0; text && i < 2*N_KNOTS; i++) {
            char * end = nullptr;
            *each[i] = std::strtod(text, &end);
            const bool is_last = i == 2*N_KNOTS - 1;
            if (end == text || *end != (is_last ? '\0' : ',') || !(*each[i] >= 1 && *each[i] <= 2*ROWS[i%N_KNOTS])) {
                return false;
            }
            text = end + 1;
        }
        return text != nullptr;
    }

    // What passes over 0 to 16 rows cost after so many tokens, in passes over one row.
    std::array<double, EDGELLM_MOST_ROWS + 1> times(int n_context) const {
        const double share = (double) (std::min(n_context, (int) CONTEXT)/STEP*STEP)/CONTEXT;
        std::array<double, EDGELLM_MOST_ROWS + 1> found{};
        found[1] = 1;
        double before = 1;
        for (int i = 0; i < N_KNOTS; i++) {
            const double known = table[0][i] + share*(table[1][i] - table[0][i]);
            const int    half  = ROWS[i]/2;
            for (int row = half + 1; row <= ROWS[i]; row++) {
                found[row] = before + (known - before)*(row - half)/half;
            }
            before = known;
        }
        return found;
    }

    // Learns from a pass over so many rows of one sequence.
    void observe(int n_rows, int n_context, double seconds) {
        if (n_rows == 1) {
            const double usual = one > 0 ? std::min(seconds, MOST_SURPRISE*one) : seconds;
            one += (usual - one)*(one > 0 ? RECENT : 1);
        } else if (one > 0 && n_rows <= EDGELLM_MOST_ROWS) {
            const double ratio = seconds/one/times(n_context)[n_rows];
            const double step  = LEARNED*std::log(std::min(std::max(ratio, 1/MOST_SURPRISE), (double) MOST_SURPRISE));
            const double share = (double) std::min(n_context, (int) CONTEXT)/CONTEXT;
            for (int side = 0; side < 2; side++) {
                double least = 1;
                for (int i = 0; i < N_KNOTS; i++) {
                    const double near   = 1 - std::fabs(std::log2((double) n_rows/ROWS[i]));
                    const double weight = std::max((double) SPREAD, (side ? share : 1 - share)*std::max(0.0, near));
                    double & cost = table[side][i];
                    cost = least = std::max(least, std::min(cost*std::exp(weight*step), 1.25*ROWS[i]));
                }
            }
        }
    }

  private:
    static constexpr int    ROWS[N_KNOTS] = { 2, 4, 8, 16 };
    static constexpr double LEARNED = 0.1, SPREAD = 0.2, MOST_SURPRISE = 2, RECENT = 0.15;

    double table[2][N_KNOTS] = {};
    double one = 0; // seconds of a pass over one row, lately
};

// One answer under way: the number of its sequence, what drafts would gain, and how long its draft is to be.
struct edgellm_draft {
    int                 seq;
    std::vector<double> gains;
    int                 length = 0;
};

class edgellm_draft_rule {
  public:
    using times = std::array<double, EDGELLM_MOST_ROWS + 1>;

    // What a pass costs: sequences are computed together that have consecutive numbers and as many tokens.
    static double cost(const std::vector<edgellm_draft> & drafts, const times & times) {
        std::vector<std::pair<int, int>> left;
        for (const auto & each : drafts) {
            left.emplace_back(each.seq, 1 + each.length);
        }
        double total = 0;
        while (!left.empty()) {
            size_t n_run = 1;
            while (n_run < left.size() && left[n_run].first == left[n_run - 1].first + 1) {
                n_run++;
            }
            const auto shorter = [](const auto & a, const auto & b) { return a.second < b.second; };
            const int  step    = std::min_element(left.begin(), left.begin() + n_run, shorter)->second;
            total += times[step*n_run];
            for (size_t i = 0; i < n_run; i++) {
                left[i].second -= step;
            }
            left.erase(std::remove_if(left.begin(), left.end(), [](const auto & each) { return each.second == 0; }), left.end());
        }
        return total;
    }

    // Chooses the lengths, by number of sequence in ascending order. No pass may cost more than `most_cost`.
    static void choose(std::vector<edgellm_draft> & drafts, const times & times, double most_cost = INFINITY) {
        if (drafts.empty() || drafts.size() > MOST_SLOTS) {
            return;
        }
        int    n_left   = EDGELLM_MOST_ROWS - (int) drafts.size();
        double expected = (double) drafts.size();
        double rate     = expected/cost(drafts, times);
        while (true) {
            double best = LEAST_GAIN*rate, expected_then = 0;
            edgellm_draft * choice = nullptr;
            int length = 0;
            for (auto & each : drafts) {
                const int    now  = each.length;
                const double have = now ? each.gains[now - 1] : 0;
                for (int n = now + 1; n <= std::min((int) each.gains.size(), now + n_left); n++) {
                    each.length = n;
                    const double total = expected + each.gains[n - 1] - have, time = cost(drafts, times);
                    if (total/time > best && time <= most_cost) {
                        best = total/time, choice = &each, length = n, expected_then = total;
                    }
                }
                each.length = now;
            }
            if (!choice) {
                return;
            }
            n_left -= length - choice->length;
            choice->length = length;
            expected = expected_then;
            rate     = best;
        }
    }

    // With more answers under way a pass is so full that drafts no longer pay.
    enum { MOST_SLOTS = 4 };

  private:
    static constexpr double LEAST_GAIN = 1.02;
};

// The drafts of a server, which has one model.
class edgellm_drafting {
  public:
    bool is_on() const { return on; }
    void turn_off() { on = false; }

    // Chooses the lengths of a pass. Beside other answers, tokens come at most 1.5 times later: a pass may take longer
    // by as much as earlier ones have saved up.
    void choose(std::vector<edgellm_draft> & drafts, int n_context) {
        if (drafts.empty() || drafts.size() > edgellm_draft_rule::MOST_SLOTS) {
            return;
        }
        const auto   times = costs.times(n_context);
        const bool   alone = drafts.size() == 1;
        const double plain = edgellm_draft_rule::cost(drafts, times);
        saved = std::min(saved + DELAY*plain, MOST_SAVED*plain);
        edgellm_draft_rule::choose(drafts, times, alone ? INFINITY : plain + saved);
        if (!alone) {
            saved -= edgellm_draft_rule::cost(drafts, times) - plain;
        }
        n_rows  = alone ? 1 + drafts[0].length : 0;
        context = n_context;
    }

    // The pass took so long.
    void took(int n_tokens, double seconds) {
        if (on && n_rows > 0 && n_tokens == n_rows) {
            costs.observe(n_rows, context, seconds);
        }
        n_rows = 0;
    }

  private:
    static constexpr double DELAY = 0.5, MOST_SAVED = 4;

    edgellm_draft_costs costs;
    bool   on      = costs.read(std::getenv("EDGELLM_DRAFT_COSTS"));
    double saved   = 0;
    int    n_rows  = 0; // of the pass that was planned, 0 for none
    int    context = 0;
};

static edgellm_drafting edgellm_drafts;
