// Products with experts: each choice gets, to the bit, what the C truth computes for its row and its expert alone.

#include "ternary.h"

#include "ternary/experts.h"

#include <atomic>
#include <cmath>
#include <functional>
#include <thread>
#include <vector>

namespace check {

namespace {

using namespace edgellm::ternary;

// How tokens choose: the first one takes the last experts in the third case, so some are chosen by one or by none.
enum class routing { RANDOM, ALL_THE_SAME, FIRST_APART };

// Experts with random codes and scales, and tokens that choose some of them.
struct experts_case {
    expert_sizes    sizes;
    format          packed;
    buffer<uint8_t> panels;
    buffer<float>   scales, x;
    buffer<int32_t> ids;  // [token][slot], with a gap behind each token

    experts_case(const expert_sizes & sizes, const format & packed, routing kind)
        : sizes(sizes), packed(packed), panels(matrix{ nullptr, nullptr, n_rows(), sizes.n_columns, packed }.panel_bytes()*
          n_rows()/PANEL_ROWS), scales(n_rows()), x(sizes.n_tokens*sizes.n_inputs*sizes.n_columns),
          ids(sizes.n_tokens*stride(), -1) {  // the gaps are never to be read
        random numbers((uint32_t) (panels.size() + sizes.n_tokens));
        for (auto & byte : panels) { byte = (uint8_t) numbers.next(); }
        for (auto & scale : scales) { scale = numbers.uniform(); }
        for (auto & value : x) { value = numbers.uniform(); }
        const matrix all = experts();
        for (int64_t p = 0; packed.group_columns != 0 && p < all.n_panels(); ++p) {
            uint16_t * halves = const_cast<uint16_t *>(all.group_scales(p));
            for (int64_t i = 0; i < all.n_groups()*all.scale_bytes()/2; ++i) { halves[i] = (uint16_t) (0x2000 + numbers.next()%0x2000); }
        }
        for (int64_t t = 0; t < sizes.n_tokens; ++t) {
            const int first = kind == routing::RANDOM ? numbers.between(0, (int) sizes.n_experts - 1) :
                kind == routing::FIRST_APART && t == 0 ? (int) sizes.n_experts - 1 : 0;
            for (int64_t s = 0; s < sizes.n_slots; ++s) { ids[t*stride() + s] = (int32_t) ((first + s)%sizes.n_experts); }
        }
    }

    int64_t n_rows() const { return sizes.n_experts*sizes.n_rows; }
    int64_t stride() const { return sizes.n_slots + 3; }
    matrix experts() const { return { panels.data(), scales.data(), n_rows(), sizes.n_columns, packed }; }
    choices chosen() const {
        return { (const char *) ids.data(), sizes.n_slots, sizes.n_tokens, sizeof(int32_t), stride()*sizeof(int32_t) };
    }

    void in_threads(const std::function<void(int)> & work) const {
        std::vector<std::thread> threads;
        for (int i = 1; i < sizes.n_threads; ++i) { threads.emplace_back(work, i); }
        work(0);
        for (auto & thread : threads) { thread.join(); }
    }

    void compute(const kernels & k, float * y) const {
        buffer<uint8_t> work((int64_t) expert_product::work_size(k, sizes), 0xaa);
        const expert_product product(k, sizes, work.data());
        in_threads([&](int thread) {
            if (thread == 0) { product.route(chosen()); }
            for (int64_t row = thread; row < sizes.n_tokens*sizes.n_inputs; row += sizes.n_threads) {
                product.add(row, x.data() + row*sizes.n_columns, thread);
            }
        });
        std::atomic<int64_t> next{0};
        in_threads([&](int thread) {
            for (int64_t task; (task = next.fetch_add(1)) < product.n_tasks();) {
                product.compute(task, experts(), y, thread);
            }
        });
    }

    // The rows of one expert times one row of activations, where each choice has its own place.
    void truth(float * y) const {
        const kernels & k = (*scalar_kernels())[packed];
        buffer<uint8_t> work((int64_t) quantizer::work_size(k, 1, sizes.n_columns, sizes.segment_columns, 1));
        for (int64_t i = 0; i < sizes.n_choices(); ++i) {
            const int64_t token = i/sizes.n_slots, slot = i%sizes.n_slots;
            const int64_t input = token*sizes.n_inputs + slot%sizes.n_inputs;
            const quantizer quantize(k, work.data(), 1, sizes.n_columns, sizes.segment_columns, 1);
            quantize.add(0, x.data() + input*sizes.n_columns, 0);
            const int64_t expert = ids[token*stride() + slot];
            buffer<float> all(n_rows());
            k.multiply(experts(), quantize.result(), expert*sizes.n_rows/PANEL_ROWS,
                       (expert + 1)*sizes.n_rows/PANEL_ROWS, all.data(), n_rows());
            memcpy(y + i*sizes.n_rows, all.data() + expert*sizes.n_rows, sizes.n_rows*sizeof(float));
        }
    }

    void check(report & r, const kernel_set & set) const {
        buffer<float> y(sizes.n_choices()*sizes.n_rows, 12345.0f), expected(y.size());
        compute(set[packed], y.data());
        truth(expected.data());
        for (int64_t i = 0; i < y.size(); ++i) {
            if (!r.expect(same(&y[i], &expected[i], sizeof(float)),
                          "%lld experts of %lld x %lld, %d bits, groups of %lld, %lld slots of %lld tokens, %lld inputs, "
                          "%d threads: %g, not %g, for choice %lld, row %lld", (long long) sizes.n_experts,
                          (long long) sizes.n_rows, (long long) sizes.n_columns, packed.bits,
                          (long long) packed.group_columns, (long long) sizes.n_slots, (long long) sizes.n_tokens,
                          (long long) sizes.n_inputs, sizes.n_threads, y[i], expected[i],
                          (long long) (i/sizes.n_rows), (long long) (i%sizes.n_rows))) { return; }
        }
    }
};

void check_experts(report & r, const kernel_set & set) {
    constexpr int64_t GROUP = GROUP_SEGMENT_COLUMNS;
    for (int64_t tokens : { 1, 2, 3, 9, 33, 64, 70 }) {
        for (int64_t slots : { 1, 8 }) {
            for (int64_t inputs : { (int64_t) 1, slots }) {
                const int n_threads = (int) (1 + tokens%4);
                for (routing kind : { routing::RANDOM, routing::ALL_THE_SAME, routing::FIRST_APART }) {
                    experts_case({ 9, 48, 64, tokens, slots, inputs, 64, n_threads }, ROW_SCALES, kind).check(r, set);
                }
                experts_case({ 16, 16, 512, tokens, slots, inputs, 256, n_threads }, ROW_SCALES, routing::RANDOM).check(r, set);
                experts_case({ 9, 32, 128, tokens, slots, inputs, GROUP, n_threads }, { 2, 64 }, routing::RANDOM).check(r, set);
            }
        }
    }
    // all experts at once, as the engine warms up; many panels; inputs that two slots share; other formats
    experts_case({ 8, 16, 64, 2, 8, 1, 64, 3 }, ROW_SCALES, routing::RANDOM).check(r, set);
    experts_case({ 3, 656, 256, 5, 2, 1, 256, 2 }, ROW_SCALES, routing::RANDOM).check(r, set);
    experts_case({ 8, 32, 128, 6, 8, 4, 128, 2 }, ROW_SCALES, routing::RANDOM).check(r, set);
    experts_case({ 5, 32, 256, 7, 2, 1, GROUP, 2 }, { 2, 256 }, routing::RANDOM).check(r, set);
    experts_case({ 5, 32, 256, 7, 2, 2, GROUP, 3 }, { 1, 128 }, routing::RANDOM).check(r, set);
    if (set.nibbles.multiply != nullptr) {
        experts_case({ 5, 32, 256, 7, 2, 2, GROUP, 3 }, { 4, 32 }, routing::RANDOM).check(r, set);
        experts_case({ 5, 32, 256, 7, 2, 2, GROUP, 3 }, { 4, 32, false, true }, routing::RANDOM).check(r, set);
        experts_case({ 5, 32, 256, 7, 2, 1, GROUP, 2 }, { 8, 32 }, routing::RANDOM).check(r, set);
        experts_case({ 5, 32, 512, 7, 2, 2, 256, 3 }, { 4, 256, true }, routing::RANDOM).check(r, set);
        experts_case({ 5, 32, 256, 20, 3, 1, 256, 2 }, { 5, 256, true }, routing::ALL_THE_SAME).check(r, set);
        experts_case({ 5, 32, 256, 20, 3, 1, 256, 2 }, { 6, 256, true }, routing::RANDOM).check(r, set);
    }
}

}  // namespace

void experts(report & r, const kernel_set & set) {
    if (!r.begin("ternary experts", set.rows.multiply)) {
        return;
    }
    check_experts(r, set);
    r.end();
}

}  // namespace check
