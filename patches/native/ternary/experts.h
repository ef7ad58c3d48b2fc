// Products with experts: a token meets the rows of the few experts that it chose, not those of all.
#pragma once

#include "activations.h"

namespace edgellm::ternary {

// Which experts the tokens chose: int32 [token][slot], with ggml's strides in bytes.
struct choices {
    const char * data;
    int64_t      n_slots;
    int64_t      n_tokens;
    size_t       slot_stride;
    size_t       token_stride;

    int64_t n() const { return n_slots*n_tokens; }

    // Choice number i; the choices of one token lie behind each other.
    int32_t operator[](int64_t i) const {
        return *(const int32_t *) (data + i%n_slots*slot_stride + i/n_slots*token_stride);
    }
};

struct expert_sizes {
    int64_t n_experts;
    int64_t n_rows;           // of one expert; a multiple of PANEL_ROWS
    int64_t n_columns;
    int64_t n_tokens;
    int64_t n_slots;          // experts that a token chose
    int64_t n_inputs;         // rows of activations of a token: one for all slots, or one for each
    int64_t segment_columns;  // of activations that share a scale
    int     n_threads;

    int64_t n_choices() const { return n_tokens*n_slots; }

    // The row of activations that choice i takes.
    int64_t input_of(int64_t i) const { return i/n_slots*n_inputs + i%n_slots%n_inputs; }
};

// One product, whose threads share the same `buffer` of work_size() bytes. Row i of its result belongs to choice i.
//
//     1. `route` once, by one thread, and `add` for each row of activations, by any
//     2. all threads wait for each other
//     3. `compute` for each task below n_tasks(), by any
class expert_product {
  public:
    expert_product(const kernels & k, const expert_sizes & sizes, void * buffer);
    expert_product(const expert_product &) = delete;

    static size_t work_size(const kernels & k, const expert_sizes & sizes);

    // Groups the choices by expert, because those of one expert share its rows.
    void route(const choices & chosen) const;

    // Quantises a row of activations, once for all experts that it meets.
    void add(int64_t row, const float * x, int thread) const { quantize_.add(row, x, thread); }

    int64_t n_tasks() const;

    // Some panels of one expert times the activations that chose it; `experts` lie below each other in one matrix.
    void compute(int64_t task, const matrix & experts, float * y, int thread) const;

  private:
    // The choices of one expert: `order_` from first to last - 1.
    struct batch {
        int32_t expert, first, last;
    };

    int64_t rows_per_task() const;
    int64_t tasks_per_batch() const;
    void    multiply_one(const matrix & w, int64_t choice, float * y) const;
    void    multiply_several(const matrix & w, const int32_t * chosen, int64_t n, float * y, int thread) const;

    const kernels & k_;
    kernels         single_;
    expert_sizes    sizes_;
    int64_t       * n_batches_;
    batch         * batches_;  // [n_experts], those in use first
    int32_t       * order_;    // [n_choices]
    uint8_t       * scratch_;  // [n_threads]
    quantizer       quantize_;
};

}  // namespace edgellm::ternary
