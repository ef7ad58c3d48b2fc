// y = W x for I2_S weights, with the arithmetic that BitNet b1.58 was trained with. For each token:
//
//     s = 127 / max(1e-5, max |x|)      q = clamp(round(x s), -128, 127)
//     y = (sum(code q) - sum(q)) * scale / s
//
// Sums are exact integers and the rest is the same few float operations everywhere, so results are bit-identical
// on all instruction sets, for any number of threads and in batches of any size.

#include "matmul.h"
#include "kernels.h"
#include "layout.h"

#include "../rows.h"
#include "../ternary/kernels.h"

#include "ggml-backend.h"
#include "ggml-cpu-impl.h"

#include <algorithm>

namespace edgellm::i2_s {

namespace {

constexpr int64_t ROWS_PER_CHUNK = 32;
constexpr size_t  ALIGNMENT      = 64;

struct token_scale {
    float   s;      // 127 / max |x|
    int32_t sum_q;
};

// The work buffer: a token_scale for each token, then the tokens' int8 activations.
struct workspace {
    token_scale * scales;
    int8_t      * q;
    int64_t       n;

    workspace(void * data, const ggml_tensor * x)
        : scales((token_scale *) data), q((int8_t *) data + scales_size(x)), n(x->ne[0]) {}

    int8_t * token(int64_t i) const { return q + i*n; }

    static size_t scales_size(const ggml_tensor * x) { return GGML_PAD(ggml_nrows(x)*sizeof(token_scale), ALIGNMENT); }
    static size_t size(const ggml_tensor * x) { return scales_size(x) + (size_t) ggml_nelements(x); }
};

bool is_i2_s(const ggml_tensor * t) {
    return t != nullptr && t->type == GGML_TYPE_I2_S;
}

bool is_product(const ggml_tensor * op) {
    return op->op == GGML_OP_MUL_MAT && is_i2_s(op->src[0]);
}

// The scale lies behind the codes of the whole tensor, of which `weights` may be a view.
float tensor_scale(const ggml_tensor * weights) {
    const ggml_tensor * whole = weights->view_src != nullptr ? weights->view_src : weights;
    return i2_s_read_scale((const char *) whole->data + ggml_nelements(whole)/4);
}

// Quantised by the scalar ternary kernels, so that this product and theirs agree by construction.
token_scale quantize_token(const float * x, int8_t * q, int64_t n) {
    const ternary::kernels & k = ternary::scalar_kernels()->rows;
    const float s = ternary::scale_of(k.absolute_maximum(x, n));
    return { s, k.quantize(x, s, q, n) };
}

void multiply_rows(const ggml_tensor * op, const workspace & work, float scale, int64_t first, int64_t last) {
    const ggml_tensor * weights = op->src[0];
    const int64_t n_tokens = ggml_nrows(op->src[1]);
    const auto dot = chosen().dot;
    for (int64_t token = 0; token < n_tokens; ++token) {
        const token_scale ts = work.scales[token];
        const int8_t * q = work.token(token);
        float * y = (float *) row_address(op, token);
        for (int64_t row = first; row < last; ++row) {
            const uint8_t * codes = (const uint8_t *) weights->data + row*weights->nb[1];
            y[row] = (float) (dot(codes, q, work.n) - ts.sum_q) * scale / ts.s;
        }
    }
}

}  // namespace

bool supports_op(const ggml_tensor * op) {
    if (!is_product(op)) {
        return !is_i2_s(op) && std::none_of(op->src, op->src + GGML_MAX_SRC, is_i2_s);
    }
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * x       = op->src[1];
    return ggml_is_matrix(weights) && weights->ne[0] <= MAX_COLUMNS && weights->nb[0] == I2_S_BLOCK_BYTES &&
           x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && op->type == GGML_TYPE_F32;
}

bool work_size(const ggml_tensor * op, size_t * size) {
    if (!is_product(op)) {
        return false;
    }
    *size = workspace::size(op->src[1]);
    return true;
}

bool compute_forward(const ggml_compute_params * params, ggml_tensor * op) {
    if (!is_product(op)) {
        return false;
    }
    const ggml_tensor * weights = op->src[0];
    const ggml_tensor * x       = op->src[1];
    // an RPC server computes graphs for which nobody asked supports_op
    GGML_ASSERT(supports_op(op));
    GGML_ASSERT(weights->buffer == nullptr || ggml_backend_buffer_is_host(weights->buffer));
    GGML_ASSERT(params->wsize >= workspace::size(x));

    const workspace work(params->wdata, x);
    for (int64_t token = params->ith; token < ggml_nrows(x); token += params->nth) {
        work.scales[token] = quantize_token((const float *) row_address(x, token), work.token(token), work.n);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const float   scale  = tensor_scale(weights);
    const int64_t n_rows = weights->ne[1];
    for (int64_t chunk = params->ith; chunk*ROWS_PER_CHUNK < n_rows;) {
        const int64_t first = chunk*ROWS_PER_CHUNK;
        multiply_rows(op, work, scale, first, std::min(first + ROWS_PER_CHUNK, n_rows));
        chunk = ggml_threadpool_chunk_add(params->threadpool, 1);
    }
    return true;
}

}  // namespace edgellm::i2_s
