// The output head of ternary models is over a third of the bytes that a token reads, and Q6_K is its usual type. On x86
// upstream unpacks every block again for each token until eight come together; here one unpacking serves all tokens.

#include "matmul.h"
#include "dot.h"

#include "../ternary/dispatch.h"

#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <algorithm>
#include <cstring>

namespace edgellm::q6_k {

namespace {

constexpr int64_t ROWS_PER_CHUNK = 64;
// A single token waits for memory, and upstream's row by row product keeps up with that; many are tiled there.
constexpr int64_t MIN_TOKENS = 2;
constexpr int64_t MAX_ALL_TOKENS = 16;

static_assert(sizeof(block_q6_K) == 210 && QK_K == BLOCK_WEIGHTS, "as dot.h has it");

multiply_rows kernel() {
#if defined(EDGELLM_HAS_AVX512_VNNI)
    const ternary::kernels * k = ternary::chosen();
    if (k != nullptr && (strcmp(k->name, "avx512-vnni") == 0 || strcmp(k->name, "amx") == 0)) {
        return multiply_avx512_vnni;
    }
#endif
    return nullptr;
}

bool is_ours(const ggml_tensor * op) {
    if (op->op != GGML_OP_MUL_MAT || op->src[0]->type != GGML_TYPE_Q6_K) {
        return false;
    }
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * x = op->src[1];
    return kernel() != nullptr && ggml_is_matrix(weights) && ggml_is_contiguous(weights) &&
           x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && op->type == GGML_TYPE_F32 && ggml_is_contiguous(op) &&
           ggml_nrows(x) >= MIN_TOKENS && ggml_nrows(x) <= MAX_ALL_TOKENS &&
           (weights->buffer == nullptr || ggml_backend_buffer_is_host(weights->buffer));
}

struct workspace {
    activation_block * tokens;
    uint8_t          * q8_k;  // one row a thread

    static size_t q8_k_size(const ggml_tensor * x) { return GGML_PAD(ggml_row_size(GGML_TYPE_Q8_K, x->ne[0]), 64); }
    static size_t tokens_size(const ggml_tensor * x) { return ggml_nrows(x)*(x->ne[0]/QK_K)*sizeof(activation_block); }
    static size_t size(const ggml_tensor * x, int n_threads) { return 64 + tokens_size(x) + n_threads*q8_k_size(x); }

    workspace(void * data, const ggml_tensor * x)
        : tokens((activation_block *) GGML_PAD((uintptr_t) data, 64)), q8_k((uint8_t *) tokens + tokens_size(x)) {}
};

void quantize(const float * x, int64_t n, void * row, activation_block * blocks) {
    ggml_get_type_traits_cpu(GGML_TYPE_Q8_K)->from_float(x, row, n);
    const block_q8_K * source = (const block_q8_K *) row;
    for (int64_t b = 0; b < n/QK_K; ++b) {
        memcpy(blocks[b].q, source[b].qs, sizeof(blocks[b].q));
        memcpy(blocks[b].sums, source[b].bsums, sizeof(blocks[b].sums));
        blocks[b].d = source[b].d;
    }
}

}  // namespace

bool work_size(int n_threads, const ggml_tensor * op, size_t * size) {
    if (!is_ours(op)) {
        return false;
    }
    *size = workspace::size(op->src[1], n_threads);
    return true;
}

bool compute_forward(const ggml_compute_params * params, ggml_tensor * op) {
    if (!is_ours(op)) {
        return false;
    }
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * x = op->src[1];
    const int64_t n_blocks = x->ne[0]/QK_K;
    const int64_t n_tokens = ggml_nrows(x);
    const workspace work(params->wdata, x);

    for (int64_t t = params->ith; t < n_tokens; t += params->nth) {
        void * row = work.q8_k + params->ith*workspace::q8_k_size(x);
        quantize((const float *) x->data + t*x->ne[0], x->ne[0], row, work.tokens + t*n_blocks);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t n_rows = weights->ne[1];
    float * y = (float *) op->data;
    for (int64_t chunk = params->ith; chunk*ROWS_PER_CHUNK < n_rows;) {
        const int64_t first = chunk*ROWS_PER_CHUNK;
        const int64_t last  = std::min(first + ROWS_PER_CHUNK, n_rows);
        for (int64_t t = 0; t < n_tokens; t += MAX_TOKENS) {
            const int n = (int) std::min<int64_t>(MAX_TOKENS, n_tokens - t);
            kernel()(weights->data, n_blocks, first, last, work.tokens + t*n_blocks, n, y + t*n_rows, n_rows);
        }
        chunk = ggml_threadpool_chunk_add(params->threadpool, 1);
    }
    return true;
}

}  // namespace edgellm::q6_k
