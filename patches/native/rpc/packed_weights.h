// Weights on an RPC server, packed as the loader packs those at home.
//
// A client writes its weights into the plain buffer of the server, as they are in the file. The kernels for plain weights
// are slower, and sum in another order. So the matrices of a graph are packed when they are first used, into the first
// buffer type of the device that takes the product, which is also the loader's choice; and the pages that they had are
// given back. Weights are written once and not read back: whoever does either finds what is left of the plain ones.
#pragma once

#include "../mapping.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-impl.h"

#include <cstring>
#include <map>
#include <unordered_set>

namespace edgellm::rpc {

class packed_weights {
  public:
    // Has the products of a graph read packed weights.
    void use(ggml_cgraph * graph, ggml_backend_dev_t device) {
        std::unordered_set<const ggml_tensor *> plain;  // read by something else than products
        for (int i = 0; i < graph->n_nodes; ++i) {
            const ggml_tensor * node = graph->nodes[i];
            for (int j = is_product(node) ? 1 : 0; node != nullptr && j < GGML_MAX_SRC; ++j) {
                plain.insert(node->src[j]);
            }
            plain.insert(node == nullptr ? nullptr : node->view_src);
        }
        for (int i = 0; i < graph->n_nodes; ++i) {
            ggml_tensor * node = graph->nodes[i];
            if (is_product(node) && is_weight(node->src[0]) && plain.count(node->src[0]) == 0) {
                node->src[0] = packed(node, device);
            }
        }
    }

    // Drops what was packed from a plain buffer; before it is freed, because another one may have its address.
    void forget(const void * base, size_t size) {
        matrices_.erase(matrices_.lower_bound((uintptr_t) base), matrices_.lower_bound((uintptr_t) base + size));
    }

  private:
    struct matrix {
        ggml_context_ptr        context;
        ggml_backend_buffer_ptr buffer;
        ggml_tensor *           tensor = nullptr;  // null if no buffer type takes it
    };

    static bool is_product(const ggml_tensor * node) {
        return node != nullptr && (node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_MUL_MAT_ID);
    }

    static bool is_weight(const ggml_tensor * t) {
        return t != nullptr && t->op == GGML_OP_NONE && t->view_src == nullptr && t->buffer != nullptr &&
               t->data != nullptr && strstr(t->name, ".weight") != nullptr && ggml_is_contiguous(t);
    }

    // The packed form of a product's weights; the plain one if there is none.
    ggml_tensor * packed(ggml_tensor * product, ggml_backend_dev_t device) {
        ggml_tensor * plain = product->src[0];
        auto found = matrices_.find((uintptr_t) plain->data);
        if (found == matrices_.end()) {
            found = matrices_.emplace((uintptr_t) plain->data, pack(product, device)).first;
        }
        ggml_tensor * t = found->second.tensor;
        return t != nullptr && t->type == plain->type && ggml_are_same_shape(t, plain) ? t : plain;
    }

    static matrix pack(ggml_tensor * product, ggml_backend_dev_t device) {
        ggml_tensor * plain = product->src[0];
        matrix m;
        m.context.reset(ggml_init({ ggml_tensor_overhead(), nullptr, true }));
        ggml_backend_buffer_type_t type = type_for(product, device);
        if (type == nullptr || m.context == nullptr) {
            return m;
        }
        ggml_tensor * t = ggml_dup_tensor(m.context.get(), plain);
        ggml_set_name(t, plain->name);
        m.buffer.reset(ggml_backend_buft_alloc_buffer(type, ggml_backend_buft_get_alloc_size(type, t)));
        if (m.buffer == nullptr) {
            return m;
        }
        ggml_backend_buffer_set_usage(m.buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        if (ggml_backend_tensor_alloc(m.buffer.get(), t, ggml_backend_buffer_get_base(m.buffer.get())) != GGML_STATUS_SUCCESS) {
            return m;
        }
        ggml_backend_tensor_set(t, plain->data, 0, ggml_nbytes(plain));
        release_mapped(plain->data, ggml_nbytes(plain));
        m.tensor = t;
        return m;
    }

    // The first of the device's extra buffer types that takes a product, asked as llama's loader asks; null: none.
    static ggml_backend_buffer_type_t type_for(ggml_tensor * product, ggml_backend_dev_t device) {
        ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(device);
        const auto get_types = (ggml_backend_dev_get_extra_bufts_t)
            ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts");
        ggml_tensor * weights = product->src[0];
        ggml_backend_buffer_t home = weights->buffer;
        for (auto * type = get_types == nullptr ? nullptr : get_types(device); type != nullptr && *type != nullptr; ++type) {
            ggml_backend_buffer_ptr empty(ggml_backend_buft_alloc_buffer(*type, 0));
            weights->buffer = empty.get();
            const bool takes = empty != nullptr && ggml_backend_dev_supports_op(device, product);
            weights->buffer = home;
            if (takes) {
                return *type;
            }
        }
        return nullptr;
    }

    std::map<uintptr_t, matrix> matrices_;  // by the address of the plain ones
};

}  // namespace edgellm::rpc
