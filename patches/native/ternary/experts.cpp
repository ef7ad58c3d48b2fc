#include "experts.h"

#include <algorithm>
#include <cstring>

namespace edgellm::ternary {

namespace {

constexpr int64_t ALIGNMENT = 64;
// Activations that meet the rows of an expert together, and rows whose results are kept until they are copied to where
// they belong: both fit the second-level cache.
constexpr int64_t MOST_TOGETHER = 64;
constexpr int64_t ROWS_AT_ONCE  = 8*PANEL_ROWS;
// Enough that no thread waits long for the last one.
constexpr int64_t TASKS_PER_THREAD = 8;

int64_t align(int64_t n) {
    return (n + ALIGNMENT - 1)/ALIGNMENT*ALIGNMENT;
}

int64_t most_together(const expert_sizes & sizes) {
    return std::min(sizes.n_choices(), MOST_TOGETHER);
}

int64_t results_bytes(const expert_sizes & sizes) {
    return most_together(sizes)*ROWS_AT_ONCE*sizeof(float);
}

// Activations laid out for the kernels, and their results.
int64_t scratch_bytes(const kernels & k, const expert_sizes & sizes) {
    const int64_t n = most_together(sizes);
    return align(results_bytes(sizes) + quantizer::work_size(k, n, sizes.n_columns, sizes.segment_columns, 1));
}

}  // namespace

size_t expert_product::work_size(const kernels & k, const expert_sizes & sizes) {
    return ALIGNMENT + align(sizeof(int64_t)) + align(sizes.n_experts*sizeof(batch)) +
           align(sizes.n_choices()*sizeof(int32_t)) + sizes.n_threads*scratch_bytes(k, sizes) +
           quantizer::work_size(one_by_one(k), sizes.n_tokens*sizes.n_inputs, sizes.n_columns, sizes.segment_columns,
                                sizes.n_threads);
}

expert_product::expert_product(const kernels & k, const expert_sizes & sizes, void * buffer)
    : k_(k), single_(one_by_one(k)), sizes_(sizes), n_batches_((int64_t *) align((int64_t) buffer)),
      batches_((batch *) ((uint8_t *) n_batches_ + align(sizeof(int64_t)))),
      order_((int32_t *) ((uint8_t *) batches_ + align(sizes.n_experts*sizeof(batch)))),
      scratch_((uint8_t *) order_ + align(sizes.n_choices()*sizeof(int32_t))),
      quantize_(single_, scratch_ + sizes.n_threads*scratch_bytes(k, sizes), sizes.n_tokens*sizes.n_inputs,
                sizes.n_columns, sizes.segment_columns, sizes.n_threads) {}

void expert_product::route(const choices & chosen) const {
    for (int64_t e = 0; e < sizes_.n_experts; ++e) {
        batches_[e] = { (int32_t) e, 0, 0 };
    }
    for (int64_t i = 0; i < chosen.n(); ++i) {
        batches_[chosen[i]].last += 1;
    }
    int32_t first = 0;
    for (int64_t e = 0; e < sizes_.n_experts; ++e) {
        const int32_t n = batches_[e].last;
        batches_[e].first = batches_[e].last = first;
        first += n;
    }
    for (int64_t i = 0; i < chosen.n(); ++i) {
        order_[batches_[chosen[i]].last++] = (int32_t) i;
    }
    const auto nobody = [](const batch & b) { return b.first == b.last; };
    *n_batches_ = std::remove_if(batches_, batches_ + sizes_.n_experts, nobody) - batches_;
}

// An even number of panels, because kernels take them in pairs.
int64_t expert_product::rows_per_task() const {
    const int64_t share = *n_batches_*sizes_.n_rows/(sizes_.n_threads*TASKS_PER_THREAD);
    return std::max<int64_t>(share/(2*PANEL_ROWS), 1)*2*PANEL_ROWS;
}

int64_t expert_product::tasks_per_batch() const {
    return (sizes_.n_rows + rows_per_task() - 1)/rows_per_task();
}

int64_t expert_product::n_tasks() const {
    return *n_batches_*tasks_per_batch();
}

void expert_product::compute(int64_t task, const matrix & experts, float * y, int thread) const {
    const batch & b     = batches_[task/tasks_per_batch()];
    const int64_t first = task%tasks_per_batch()*rows_per_task();
    const int64_t last  = std::min(first + rows_per_task(), sizes_.n_rows);
    const matrix  w     = experts.slice(b.expert*sizes_.n_rows + first, last - first);
    for (int64_t i = b.first; i < b.last; i += MOST_TOGETHER) {
        const int64_t n = std::min(b.last - i, MOST_TOGETHER);
        if (n == 1) {
            multiply_one(w, order_[i], y + first);
        } else {
            multiply_several(w, order_ + i, n, y + first, thread);
        }
    }
}

// The kernels take a single row as it lies, and write where the result belongs.
void expert_product::multiply_one(const matrix & w, int64_t choice, float * y) const {
    const activations row = quantize_.row(sizes_.input_of(choice));
    k_.multiply(w, row, 0, w.n_panels(), y + choice*sizes_.n_rows, sizes_.n_rows);
}

void expert_product::multiply_several(const matrix & w, const int32_t * chosen, int64_t n, float * y,
                                      int thread) const {
    uint8_t * scratch = scratch_ + thread*scratch_bytes(k_, sizes_);
    float   * results = (float *) scratch;
    const quantizer together(k_, scratch + results_bytes(sizes_), n, sizes_.n_columns, sizes_.segment_columns, 1);
    const activations rows = quantize_.result();
    for (int64_t i = 0; i < n; ++i) {
        together.copy(i, rows, sizes_.input_of(chosen[i]));
    }
    together.pad();
    for (int64_t first = 0; first < w.n_rows; first += ROWS_AT_ONCE) {
        const matrix some = w.slice(first, std::min(ROWS_AT_ONCE, w.n_rows - first));
        k_.multiply(some, together.result(), 0, some.n_panels(), results, ROWS_AT_ONCE);
        for (int64_t i = 0; i < n; ++i) {
            memcpy(y + chosen[i]*sizes_.n_rows + first, results + i*ROWS_AT_ONCE, some.n_rows*sizeof(float));
        }
    }
}

}  // namespace edgellm::ternary
