// A tensor of this buffer type is its packed matrix (layout.h). Four kinds of products go with it:
//
//     per token     int8 activations with one scale a token, as BitNet models were trained: I2_S, and TQ1_0 and TQ2_0
//                   tensors whose rows all have the same scale
//     per segment   a scale for each 256 columns, as upstream quantises activations: rows with scales of their own,
//                   models that were trained with 16-bit activations (Bonsai)
//     per group     a scale for each 32 columns, as upstream has it for these types: Q4_0, Q4_1, Q8_0, Q2_0, Q1_0, and
//                   TQ1_0 and TQ2_0 tensors with blocks of different scales in a row
//     nested        a scale for each 256 columns, as upstream has it for K-quants: Q4_K, Q5_K, Q6_K
//
// Experts are a tensor of three dimensions; packed, they lie below each other in one matrix.

#include "buffer.h"
#include "activations.h"
#include "experts.h"
#include "kernels.h"
#include "pack.h"

#include "../mapping.h"
#include "../packed/storage.h"
#include "../rows.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>

namespace edgellm::ternary {

namespace {

constexpr size_t TENSOR_ALIGNMENT_BYTES = 64;
// Small enough to share a matrix among threads evenly, large enough that taking a share costs nothing.
constexpr int64_t PANELS_PER_CHUNK = 8;
constexpr int64_t CHUNKS_PER_THREAD = 4;

// All rows of a tensor, those of experts below each other.
int64_t n_rows(const ggml_tensor * t) {
    return t->ne[1]*t->ne[2];
}

choices choices_of(const ggml_tensor * op) {
    const ggml_tensor * ids = op->src[2];
    return { (const char *) ids->data, ids->ne[0], ids->ne[1], ids->nb[0], ids->nb[1] };
}

// Products with matrices of one format.
class product : public ggml::cpu::tensor_traits {
  public:
    // `segment_columns` of activations share a scale; 0: all of a token.
    product(format packed, int64_t segment_columns) : packed_(packed), segment_columns_(segment_columns) {}

    const format & packed() const { return packed_; }

    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        const int64_t n_columns = op->src[0]->ne[0];
        size = op->op == GGML_OP_MUL_MAT_ID
            ? expert_product::work_size(level(), sizes_of(op, n_threads))
            : quantizer::work_size(level(), ggml_nrows(op->src[1]), n_columns, segment_columns(n_columns), n_threads);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (op->op == GGML_OP_MUL_MAT_ID) {
            multiply_experts(params, op);
        } else {
            multiply(params, op);
        }
        return true;
    }

  private:
    void multiply(ggml_compute_params * params, ggml_tensor * op) const {
        const kernels & k = level();
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * x = op->src[1];
        const int64_t n_tokens = ggml_nrows(x);
        const matrix w = packed_matrix(packed_, weights->data, weights->ne[1], weights->ne[0]);
        const quantizer quantize(k, params->wdata, n_tokens, w.n_columns, segment_columns(w.n_columns), params->nth);

        // whole tiles if there are enough: threads that write to one tile contend for its cache lines
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
    }

    void multiply_experts(ggml_compute_params * params, ggml_tensor * op) const {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * x = op->src[1];
        const expert_product experts(level(), sizes_of(op, params->nth), params->wdata);

        // by the last thread, because with one token the first one has a row to quantise
        if (params->ith == params->nth - 1) {
            const choices taken = choices_of(op);
            for (int64_t i = 0; i < taken.n(); ++i) {
                GGML_ASSERT(taken[i] >= 0 && taken[i] < weights->ne[2]);
            }
            experts.route(taken);
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        for (int64_t row = params->ith; row < ggml_nrows(x); row += params->nth) {
            experts.add(row, (const float *) row_address(x, row), params->ith);
        }
        ggml_barrier(params->threadpool);

        const matrix w = packed_matrix(packed_, weights->data, n_rows(weights), weights->ne[0]);
        for (int64_t task = params->ith; task < experts.n_tasks();) {
            experts.compute(task, w, (float *) op->data, params->ith);
            task = ggml_threadpool_chunk_add(params->threadpool, 1);
        }
    }

    expert_sizes sizes_of(const ggml_tensor * op, int n_threads) const {
        const ggml_tensor * w = op->src[0];
        const int64_t n_inputs = op->src[1]->ne[1];
        return { w->ne[2], w->ne[1], w->ne[0], op->ne[2], op->ne[1], n_inputs, segment_columns(w->ne[0]), n_threads };
    }

    const kernels & level() const { return (*chosen())[packed_]; }
    int64_t segment_columns(int64_t n_columns) const { return segment_columns_ == 0 ? n_columns : segment_columns_; }

    const format  packed_;
    const int64_t segment_columns_;
};

product by_token(ROW_SCALES, 0);
product by_segment(ROW_SCALES, SEGMENT_COLUMNS);
product by_group[] = {
    { { 2, 64 }, GROUP_SEGMENT_COLUMNS },
    { { 2, 128 }, GROUP_SEGMENT_COLUMNS },
    { { 2, 256 }, GROUP_SEGMENT_COLUMNS },
    { { 1, 128 }, GROUP_SEGMENT_COLUMNS },
    { { 4, 32 }, GROUP_SEGMENT_COLUMNS },
    { { 4, 32, false, true }, GROUP_SEGMENT_COLUMNS },
    { { 8, 32 }, GROUP_SEGMENT_COLUMNS },
    { { 4, 256, true }, SEGMENT_COLUMNS },
    { { 5, 256, true }, SEGMENT_COLUMNS },
    { { 6, 256, true }, SEGMENT_COLUMNS },
};

product * product_for(const packing & found) {
    if (found.packed == ROW_SCALES) {
        return found.one_scale ? &by_token : &by_segment;
    }
    return std::find_if(std::begin(by_group), std::end(by_group), [&](const product & p) {
        return p.packed() == found.packed;
    });
}

// Bytes that a tensor takes: packed, or as it is, whichever is more.
size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * t) {
    return std::max(ggml_nbytes(t), packed_size(t->type, n_rows(t), t->ne[0]));
}

packed::storage & storage_of(ggml_backend_buffer_t buffer) {
    return *(packed::storage *) buffer->context;
}

ggml_status init_tensor(ggml_backend_buffer_t buffer, ggml_tensor * t) {
    return t->view_src != nullptr || storage_of(buffer).add(t) ? GGML_STATUS_SUCCESS : GGML_STATUS_ALLOC_FAILED;
}

void set_tensor(ggml_backend_buffer_t buffer, ggml_tensor * t, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(t));
    packed::storage & storage = storage_of(buffer);
    if (const packing * found = storage.find(t)) {
        populate_mapped(t->data, alloc_size(buffer->buft, t));
        t->extra = product_for(*found);
        return;
    }
    will_read(data, size);
    const packing how = pack(t->type, data, n_rows(t), t->ne[0], t->data);
    t->extra = product_for(how);
    storage.packed(t, how);
}

void free_buffer(ggml_backend_buffer_t buffer) {
    delete &storage_of(buffer);
}

void * get_base(ggml_backend_buffer_t buffer) {
    return storage_of(buffer).data();
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    memset(get_base(buffer), value, buffer->size);
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    static const ggml_backend_buffer_i interface = {
        /* .free_buffer   = */ free_buffer,
        /* .get_base      = */ get_base,
        /* .init_tensor   = */ init_tensor,
        /* .memset_tensor = */ nullptr,
        /* .set_tensor    = */ set_tensor,
        /* .get_tensor    = */ nullptr,
        /* .set_tensor_2d = */ nullptr,
        /* .get_tensor_2d = */ nullptr,
        /* .cpy_tensor    = */ nullptr,
        /* .clear         = */ clear,
        /* .reset         = */ nullptr,
    };
    std::unique_ptr<packed::storage> storage = packed::storage::make(size);
    if (storage == nullptr) {
        GGML_LOG_ERROR("%s: no memory for %zu bytes of packed weights\n", __func__, size);
        return nullptr;
    }
    return ggml_backend_buffer_init(type, interface, storage.release(), size);
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

bool in_reach(const ggml_tensor * t) {
    return t->buffer == nullptr || ggml_backend_buft_is_host(t->buffer->buft);
}

// A matrix, or experts that begin with a panel.
bool has_shape(const ggml_tensor * op) {
    const ggml_tensor * w = op->src[0];
    if (op->op == GGML_OP_MUL_MAT_ID) {
        return w->ne[3] == 1 && w->ne[1] % PANEL_ROWS == 0 && in_reach(op->src[2]);
    }
    return op->op == GGML_OP_MUL_MAT && ggml_is_matrix(w);
}

// Not everywhere for four bits and more: upstream's are used there.
bool has_kernels(ggml_type type) {
    return (*chosen())[format_of(type)].multiply != nullptr;
}

// An embedding in Q6_K or Q8_0 that is also the output head is a third of many models: it is read where it is.
bool may_be_copied(const ggml_tensor * w) {
    return (w->type != GGML_TYPE_Q6_K && w->type != GGML_TYPE_Q8_0) || strcmp(w->name, "token_embd.weight") != 0;
}

class ternary_buffers : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * w = op->src[0];
        const ggml_tensor * x = op->src[1];
        return has_shape(op) && is_ours(w) && can_pack(w->type, w->ne[0]) && has_kernels(w->type) &&
               may_be_copied(w) && x->type == GGML_TYPE_F32 &&
               x->nb[0] == sizeof(float) && op->type == GGML_TYPE_F32 && ggml_is_contiguous(op) && in_reach(x);
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        const bool is_product = op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID;
        return is_product && is_ours(op->src[0]) ? (ggml::cpu::tensor_traits *) op->src[0]->extra : nullptr;
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
