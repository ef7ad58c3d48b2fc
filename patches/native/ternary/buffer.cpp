// A tensor of this buffer type is its packed matrix (layout.h). Three kinds of products go with it:
//
//     per token     int8 activations with one scale a token, as BitNet models were trained: I2_S, and TQ1_0 and TQ2_0
//                   tensors whose rows all have the same scale
//     per segment   a scale for each 256 columns, as upstream quantises activations: rows with scales of their own,
//                   models that were trained with 16-bit activations (Bonsai)
//     as it is      a row has blocks with different scales, which the layout cannot hold: the tensor's own bytes are
//                   kept and upstream's product is taken

#include "buffer.h"
#include "activations.h"
#include "dispatch.h"
#include "pack.h"

#include "../rows.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#if defined(__linux__)
#    include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace edgellm::ternary {

namespace {

constexpr size_t TENSOR_ALIGNMENT_BYTES = 64;
// Small enough to share a matrix among threads evenly, large enough that taking a share costs nothing.
constexpr int64_t PANELS_PER_CHUNK = 8;
constexpr int64_t CHUNKS_PER_THREAD = 4;

class product : public ggml::cpu::tensor_traits {
  public:
    explicit product(bool by_segment) : by_segment_(by_segment) {}

    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = quantizer::work_size(*chosen(), ggml_nrows(op->src[1]), op->src[0]->ne[0], n_threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const kernels & k = *chosen();
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * x = op->src[1];
        const int64_t n_tokens = ggml_nrows(x);
        const matrix w = packed_matrix(weights->data, weights->ne[1], weights->ne[0]);
        const quantizer quantize(k, params->wdata, n_tokens, w.n_columns, by_segment_, params->nth);

        // whole tiles where there are enough: threads that write to the same one take its cache lines from each other
        const int64_t step = n_tokens >= k.tile*params->nth ? k.tile : 1;
        for (int64_t first = params->ith*step; first < n_tokens; first += params->nth*step) {
            for (int64_t token = first; token < std::min(first + step, n_tokens); ++token) {
                quantize.add(token, (const float *) row_address(x, token), params->ith);
            }
        }
        if (params->ith == 0) {
            quantize.pad();
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        // an even number, because kernels take panels in pairs
        const int64_t share    = w.n_panels()/(params->nth*CHUNKS_PER_THREAD)/2*2;
        const int64_t per_task = std::clamp<int64_t>(share, 2, PANELS_PER_CHUNK);
        const activations a = quantize.result();
        for (int64_t chunk = params->ith; chunk*per_task < w.n_panels();) {
            const int64_t first = chunk*per_task;
            k.multiply(w, a, first, std::min(first + per_task, w.n_panels()), (float *) op->data, op->nb[1]/sizeof(float));
            chunk = ggml_threadpool_chunk_add(params->threadpool, 1);
        }
        return true;
    }

  private:
    bool by_segment_;
};

product by_token(false);
product by_segment(true);

// Bytes that a tensor takes: packed, or as it is, whichever is more.
size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * t) {
    return std::max(ggml_nbytes(t), ggml_is_matrix(t) ? packed_size(t->ne[1], t->ne[0]) : 0);
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * t, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(t));
    const packing packed = pack(t->type, data, t->ne[1], t->ne[0], t->data);
    if (!packed.exact) {
        GGML_LOG_WARN("%s: blocks of %s have different scales in a row; it takes upstream's path\n", __func__, t->name);
        memcpy(t->data, data, size);
        t->extra = nullptr;
        return;
    }
    t->extra = packed.one_scale ? &by_token : &by_segment;
}

// Memory for weights that are read from one end to the other for every token: huge pages, where there are any, spare
// a large part of the page walks.
void * allocate(size_t size) {
    constexpr size_t HUGE_PAGE = size_t(2) << 20;
    void * data = nullptr;
    if (posix_memalign(&data, size < HUGE_PAGE ? TENSOR_ALIGNMENT_BYTES : HUGE_PAGE, std::max(size, TENSOR_ALIGNMENT_BYTES)) != 0) {
        return nullptr;
    }
#if defined(__linux__)
    if (size >= HUGE_PAGE) {
        madvise(data, size, MADV_HUGEPAGE);
    }
#endif
    return data;
}

void free_buffer(ggml_backend_buffer_t buffer) {
    free(buffer->context);
}

void * get_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    memset(buffer->context, value, buffer->size);
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    static const ggml_backend_buffer_i interface = {
        /* .free_buffer   = */ free_buffer,
        /* .get_base      = */ get_base,
        /* .init_tensor   = */ nullptr,
        /* .memset_tensor = */ nullptr,
        /* .set_tensor    = */ set_tensor,
        /* .get_tensor    = */ nullptr,
        /* .set_tensor_2d = */ nullptr,
        /* .get_tensor_2d = */ nullptr,
        /* .cpy_tensor    = */ nullptr,
        /* .clear         = */ clear,
        /* .reset         = */ nullptr,
    };
    void * data = allocate(size);
    if (data == nullptr) {
        GGML_LOG_ERROR("%s: no memory for %zu bytes of ternary weights\n", __func__, size);
        return nullptr;
    }
    return ggml_backend_buffer_init(type, interface, data, size);
}

const char * get_name(ggml_backend_buffer_type_t) {
    return "CPU_TERNARY";
}

size_t get_alignment(ggml_backend_buffer_type_t) {
    return TENSOR_ALIGNMENT_BYTES;
}

bool is_ours(const ggml_tensor * t) {
    return t != nullptr && t->buffer != nullptr && t->buffer->buft == buffer_type();
}

class ternary_buffers : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * w = op->src[0];
        const ggml_tensor * x = op->src[1];
        return op->op == GGML_OP_MUL_MAT && is_ours(w) && ggml_is_matrix(w) && can_pack(w->type, w->ne[0]) &&
               x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && op->type == GGML_TYPE_F32 &&
               ggml_is_contiguous(op) && (x->buffer == nullptr || ggml_backend_buft_is_host(x->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        return op->op == GGML_OP_MUL_MAT && is_ours(op->src[0]) ? (ggml::cpu::tensor_traits *) op->src[0]->extra : nullptr;
    }
};

}  // namespace

ggml_backend_buffer_type_t buffer_type() {
    static ggml_backend_buffer_type type = {
        /* .iface = */ {
            /* .get_name       = */ get_name,
            /* .alloc_buffer   = */ alloc_buffer,
            /* .get_alignment  = */ get_alignment,
            /* .get_max_size   = */ nullptr,
            /* .get_alloc_size = */ alloc_size,
            /* .is_host        = */ nullptr,
        },
        /* .device  = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context = */ new ternary_buffers(),
    };
    return chosen() == nullptr ? nullptr : &type;
}

}  // namespace edgellm::ternary
