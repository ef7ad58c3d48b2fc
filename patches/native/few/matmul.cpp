// A server and a batch compute a few tokens at once, and so does the end of a prompt. On x86 upstream unpacks every
// block of these types again for each token; here each block is unpacked once for all of them.

#include "matmul.h"
#include "kernels.h"

#include "ggml-backend.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <algorithm>
#include <cstring>

namespace edgellm::few {

namespace {

constexpr int64_t ROWS_PER_CHUNK = 64;

static_assert(sizeof(block_q6_K) == 210 && QK_K == 256, "as x86/q6_k_avx512_vnni.cpp has it");
static_assert(sizeof(block_q4_0) == 18 && sizeof(block_q4_1) == 20 && sizeof(block_q8_0) == 34,
              "as x86/blocks32_avx512_vnni.cpp has them");

// One token's activations: `x` to `row`, which is upstream's quantisation of it, to `token`.
using quantize_token = void (*)(const float * x, int64_t n, void * row, void * token);

void quantize_q8_k(const float * x, int64_t n, void * row, void * token) {
    ggml_get_type_traits_cpu(GGML_TYPE_Q8_K)->from_float(x, row, n);
    const block_q8_K * source = (const block_q8_K *) row;
    q8_k_block * blocks = (q8_k_block *) token;
    for (int64_t b = 0; b < n/QK_K; ++b) {
        memcpy(blocks[b].q, source[b].qs, sizeof(blocks[b].q));
        memcpy(blocks[b].sums, source[b].bsums, sizeof(blocks[b].sums));
        blocks[b].d = source[b].d;
    }
}

struct scale_and_sum {
    float d, sum;  // sum: d times the sum of a block's q
};

// Q8_0 or Q8_1 to the layout of kernels.h.
template <typename Block, typename Scales>
void arrange(const Block * source, int64_t n, void * token, Scales && scales_of) {
    const q8_0_token to(token, n);
    for (int64_t b = 0; b < n/32; ++b) {
        int8_t * q = to.q + b/2*64 + b%2*4;
        for (int i = 0; i < 32; ++i) {
            q[8*(i/4) + i%4] = source[b].qs[i];
        }
        const scale_and_sum scales = scales_of(source[b]);
        to.d[b]   = scales.d;
        to.sum[b] = scales.sum;
    }
    for (int64_t b = n/32; b < q8_0_token::padded(n); ++b) {
        to.sum[b] = 0;
    }
}

void quantize_q8_0(const float * x, int64_t n, void * row, void * token) {
    ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float(x, row, n);
    arrange((const block_q8_0 *) row, n, token, [](const block_q8_0 & block) {
        const float d = ggml_fp16_to_fp32(block.d);
        int sum = 0;
        for (int8_t q : block.qs) {
            sum += q;
        }
        return scale_and_sum{ d, d*sum };
    });
}

// With upstream's sums, which are rounded to half precision: batching must not change the result.
void quantize_q8_1(const float * x, int64_t n, void * row, void * token) {
    ggml_get_type_traits_cpu(GGML_TYPE_Q8_1)->from_float(x, row, n);
    arrange((const block_q8_1 *) row, n, token, [](const block_q8_1 & block) {
        const ggml_half * halves = (const ggml_half *) &block;  // d, then s
        return scale_and_sum{ ggml_fp16_to_fp32(halves[0]), ggml_fp16_to_fp32(halves[1]) };
    });
}

int64_t q8_k_bytes(int64_t n) {
    return n/QK_K*sizeof(q8_k_block);
}

// How a type of weights is computed. Any number of tokens takes the same product, so that company does not change the bits
// of a token.
struct format {
    ggml_type      type, row_type;
    int64_t        unit, most_cols;  // weights that are taken at once: a row has a whole number of them
    int64_t     (* token_bytes)(int64_t n);
    quantize_token quantize;
    multiply_rows kernels::* multiply;

    size_t row_bytes(int64_t n) const { return GGML_PAD(ggml_row_size(row_type, n), 64); }
};

constexpr int64_t ANY = INT64_MAX, MOST_COLS = 32*q8_0_token::MOST_BLOCKS;
constexpr format FORMATS[] = {
    { GGML_TYPE_Q6_K, GGML_TYPE_Q8_K, 256, ANY,       q8_k_bytes,        quantize_q8_k, &kernels::q6_k },
    { GGML_TYPE_Q4_1, GGML_TYPE_Q8_1, 64,  MOST_COLS, q8_0_token::bytes, quantize_q8_1, &kernels::q4_1 },
    { GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, 64,  MOST_COLS, q8_0_token::bytes, quantize_q8_0, &kernels::q4_0 },
    { GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 64,  MOST_COLS, q8_0_token::bytes, quantize_q8_0, &kernels::q8_0 },
};

const format * format_of(const ggml_tensor * op) {
    if (op->op != GGML_OP_MUL_MAT) {
        return nullptr;
    }
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * x = op->src[1];
    for (const format & f : FORMATS) {
        if (weights->type == f.type) {
            const bool ours = weights->ne[0]%f.unit == 0 && weights->ne[0] <= f.most_cols &&
                ggml_is_matrix(weights) && ggml_is_contiguous(weights) && x->type == GGML_TYPE_F32 &&
                ggml_is_contiguous(x) && op->type == GGML_TYPE_F32 && ggml_is_contiguous(op) &&
                (weights->buffer == nullptr || ggml_backend_buffer_is_host(weights->buffer));
            return ours && chosen().*f.multiply != nullptr ? &f : nullptr;
        }
    }
    return nullptr;
}

// The tokens' activations, then a row for each thread.
struct workspace {
    uint8_t * tokens;
    uint8_t * rows;

    static size_t size(const format & f, const ggml_tensor * x, int n_threads) {
        return 64 + ggml_nrows(x)*f.token_bytes(x->ne[0]) + 64 + n_threads*f.row_bytes(x->ne[0]);
    }
    workspace(const format & f, void * data, const ggml_tensor * x)
        : tokens((uint8_t *) GGML_PAD((uintptr_t) data, 64)),
          rows((uint8_t *) GGML_PAD((uintptr_t) tokens + ggml_nrows(x)*f.token_bytes(x->ne[0]), 64)) {}
};

}  // namespace

bool work_size(int n_threads, const ggml_tensor * op, size_t * size) {
    const format * f = format_of(op);
    if (f == nullptr) {
        return false;
    }
    *size = workspace::size(*f, op->src[1], n_threads);
    return true;
}

bool compute_forward(const ggml_compute_params * params, ggml_tensor * op) {
    const format * f = format_of(op);
    if (f == nullptr) {
        return false;
    }
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * x = op->src[1];
    const int64_t n_cols   = x->ne[0];
    const int64_t n_tokens = ggml_nrows(x);
    const int64_t stride   = f->token_bytes(n_cols);
    const workspace work(*f, params->wdata, x);

    for (int64_t t = params->ith; t < n_tokens; t += params->nth) {
        void * row = work.rows + params->ith*f->row_bytes(n_cols);
        f->quantize((const float *) x->data + t*n_cols, n_cols, row, work.tokens + t*stride);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t n_rows = weights->ne[1];
    const multiply_rows multiply = chosen().*f->multiply;
    float * y = (float *) op->data;
    for (int64_t chunk = params->ith; chunk*ROWS_PER_CHUNK < n_rows;) {
        const int64_t first = chunk*ROWS_PER_CHUNK;
        const int64_t last  = std::min(first + ROWS_PER_CHUNK, n_rows);
        for (int64_t t = 0; t < n_tokens; t += MAX_TOKENS) {
            const int n = (int) std::min<int64_t>(MAX_TOKENS, n_tokens - t);
            multiply(weights->data, n_cols, first, last, work.tokens + t*stride, n, y + t*n_rows, n_rows);
        }
        chunk = ggml_threadpool_chunk_add(params->threadpool, 1);
    }
    return true;
}

}  // namespace edgellm::few
