// Attention of any number of tokens, from one to a prompt, over a cache of any type.
//
// Heads of queries that share a head of keys, and tokens, are rows of one block; a tile of keys, or of values, is converted
// once for a whole block. A block is computed in three steps: the scores of all keys, the weights, the sums of values.
//
// A prompt has more blocks than there are threads, so each thread computes whole ones. Of a few tokens the threads share
// each step: scores by keys, weights by rows, sums by dimensions.

#include "forward.h"
#include "kernels.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgellm::attention {

namespace {

constexpr int      BLOCK_ROWS = 64;
constexpr uint16_t HIDDEN = 0xfc00;  // -infinity
constexpr int64_t  TASKS_PER_THREAD = 4;
// Of scores at most: of a block where each thread has its own, and of all rows where threads share them.
constexpr int64_t  BLOCK_BYTES = 4 << 20, SHARED_BYTES = 16 << 20;

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1)/b;
}

int64_t padded(int64_t n) {
    return (n + 15)/16*16;
}

bool can_convert(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float != nullptr;
}

bool is_ours(const ggml_tensor * op) {
    if (op->op != GGML_OP_FLASH_ATTN_EXT || chosen() == nullptr) {
        return false;
    }
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3];
    return q->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32 && ggml_is_contiguous(op) &&
           q->nb[0] == sizeof(float) && can_convert(k) && can_convert(v) && k->nb[0] == ggml_type_size(k->type) &&
           v->nb[0] == ggml_type_size(v->type) && k->ne[1] > 0 && k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] &&
           q->ne[2] % k->ne[2] == 0 && q->ne[3] % k->ne[3] == 0 && (mask == nullptr || mask->type == GGML_TYPE_F16);
}

// Columns first .. first + n - 1 of a row of a cache.
void to_floats(const ggml_tensor * cache, const char * row, int64_t first, int64_t n, float * out) {
    row += ggml_row_size(cache->type, first);
    if (cache->type == GGML_TYPE_F32) {
        memcpy(out, row, n*sizeof(float));
    } else {
        ggml_get_type_traits(cache->type)->to_float(row, out, n);
    }
}

// How the rows are cut into blocks and who computes them; the same for planning and computing.
struct plan {
    int64_t n_tokens, n_heads, group, n_units;  // a unit: one head of keys of one stream
    int64_t n_keys, n_tiles, key_size, value_size;
    int64_t unit_rows, block_rows, n_blocks;    // of a unit
    bool    shared;

    plan(const ggml_tensor * op, int n_threads) {
        const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2];
        n_tokens   = q->ne[1];
        n_heads    = q->ne[2];
        group      = n_heads/k->ne[2];
        n_units    = k->ne[2]*q->ne[3];
        n_keys     = k->ne[1];
        n_tiles    = ceil_div(n_keys, TILE);
        key_size   = k->ne[0];
        value_size = v->ne[0];
        unit_rows  = n_tokens*group;
        int64_t most = BLOCK_ROWS;
        while (most > 8 && most*row_bytes() > BLOCK_BYTES) {
            most /= 2;
        }
        n_blocks   = ceil_div(unit_rows, most);
        block_rows = std::min<int64_t>(ceil_div(ceil_div(unit_rows, n_blocks), 4)*4, most);
        n_blocks   = ceil_div(unit_rows, block_rows);
        shared     = n_units*n_blocks < TASKS_PER_THREAD*n_threads && n_rows()*row_bytes() <= SHARED_BYTES;
    }

    int64_t n_rows() const { return n_units*unit_rows; }
    // Scores of a row, the largest of each tile, and the inverse of their weights' sum.
    int64_t row_bytes() const { return (n_tiles*(TILE + 1) + 1)*sizeof(float); }

    // Keys as columns; rows of keys or values; sums.
    int64_t keys_floats() const { return padded(key_size)*TILE; }
    int64_t cache_floats() const { return std::max(padded(key_size), padded(value_size))*TILE; }
    int64_t sums_floats() const { return padded(value_size)*BLOCK_ROWS; }
    int64_t scratch_bytes() const { return (keys_floats() + cache_floats() + sums_floats())*sizeof(float) + 64; }

    size_t work_bytes(int n_threads) const {
        const int64_t scores = shared ? n_rows()*row_bytes() : n_threads*block_rows*row_bytes();
        return 64 + n_threads*(scratch_bytes() + 64) + scores + 64*n_threads;
    }
    // Dimensions of values that are a task where threads share the sums.
    int64_t slice_size(int n_threads) const {
        if (value_size % 32 != 0) {
            return value_size;
        }
        const int64_t wanted = ceil_div(TASKS_PER_THREAD*n_threads, n_units*n_blocks);
        return ceil_div(value_size/32, std::min(wanted, value_size/32))*32;
    }
};

// Some rows of a unit.
struct block {
    int64_t unit, first, n;
    float * scores;   // [row][n_tiles*TILE], then weights
    float * largest;  // [row][tile]: -infinity where the row sees nothing of the tile
    float * inverse;  // [row]: of the sum of weights
};

class attention {
  public:
    attention(const plan & p, const ggml_tensor * op, float * scratch)
        : p_(p), kernels_(*chosen()), op_(op), q_(op->src[0]), k_(op->src[1]), v_(op->src[2]), mask_(op->src[3]),
          sinks_(op->src[4]), keys_(scratch), cache_(keys_ + p.keys_floats()), sums_(cache_ + p.cache_floats()) {
        float softcap, max_bias;
        memcpy(&scale_, (const float *) op->op_params, sizeof(float));
        memcpy(&max_bias, (const float *) op->op_params + 1, sizeof(float));
        memcpy(&softcap, (const float *) op->op_params + 2, sizeof(float));
        softcap_  = softcap;
        max_bias_ = max_bias;
    }

    void add_scores(const block & b, int64_t first_tile, int64_t last_tile) const {
        row_facts facts[BLOCK_ROWS];
        for (int64_t row = 0; row < b.n; ++row) {
            facts[row] = facts_of(b, row);
        }
        for (int64_t tile = first_tile; tile < last_tile; ++tile) {
            const float * queries[BLOCK_ROWS];
            float * scores[BLOCK_ROWS];
            int64_t rows[BLOCK_ROWS];
            int n = 0;
            bool seen = false;
            for (int64_t row = 0; row < b.n; ++row) {
                if (row == 0 || facts[row].mask != facts[row - 1].mask) {
                    seen = sees(facts[row], tile);
                }
                b.largest[row*p_.n_tiles + tile] = -INFINITY;
                if (seen) {
                    rows[n]    = row;
                    queries[n] = facts[row].query;
                    scores[n]  = scores_of(b, row, tile);
                    ++n;
                }
            }
            if (n == 0) {
                continue;
            }
            if (load_keys(b, tile)) {
                kernels_.multiply_halfs(queries, scores, n, (const char *) keys_, TILE*sizeof(uint16_t), p_.key_size, TILE,
                                        false);
            } else {
                kernels_.multiply(queries, scores, n, (const char *) keys_, TILE*sizeof(float), p_.key_size, TILE, false);
            }
            for (int i = 0; i < n; ++i) {
                b.largest[rows[i]*p_.n_tiles + tile] = finish_scores(facts[rows[i]], tile, scores[i]);
            }
        }
    }

    void weigh(const block & b, int64_t row) const {
        const float * largest = b.largest + row*p_.n_tiles;
        float most = *std::max_element(largest, largest + p_.n_tiles);
        const float sink = sinks_ == nullptr ? -INFINITY : ((const float *) sinks_->data)[head(b, row)];
        most = std::max(most, sink);
        int64_t sum = 0;
        for (int64_t tile = 0; tile < p_.n_tiles; ++tile) {
            if (largest[tile] != -INFINITY) {
                sum += kernels_.weigh(scores_of(b, row, tile), most);
            }
        }
        const double total = (double) sum/ONE + (sinks_ == nullptr ? 0.0 : exp((double) sink - most));
        b.inverse[row] = total == 0 ? 0.0f : (float) (1/total);
    }

    // The dimensions first .. first + n - 1 of the results.
    void add_values(const block & b, int64_t first, int64_t n) const {
        const int64_t width = padded(n);
        std::fill_n(sums_, b.n*width, 0.0f);
        for (int64_t tile = 0; tile < p_.n_tiles; ++tile) {
            const float * weights[BLOCK_ROWS];
            float * sums[BLOCK_ROWS];
            int n_here = 0;
            for (int64_t row = 0; row < b.n; ++row) {
                if (b.largest[row*p_.n_tiles + tile] != -INFINITY) {
                    weights[n_here] = scores_of(b, row, tile);
                    sums[n_here]    = sums_ + row*width;
                    ++n_here;
                }
            }
            if (n_here == 0) {
                continue;
            }
            const int64_t n_keys = keys_in(tile);
            const char * values  = cache_row(v_, b.unit, tile);
            if (v_->type == GGML_TYPE_F16 && n % 16 == 0) {
                kernels_.multiply_halfs(weights, sums, n_here, values + first*sizeof(uint16_t), v_->nb[1], n_keys, n, true);
                continue;
            }
            for (int64_t key = 0; key < n_keys; ++key) {
                to_floats(v_, values + key*v_->nb[1], first, n, cache_ + key*width);
                std::fill(cache_ + key*width + n, cache_ + (key + 1)*width, 0.0f);
            }
            kernels_.multiply(weights, sums, n_here, (const char *) cache_, width*sizeof(float), n_keys, width, true);
        }
        for (int64_t row = 0; row < b.n; ++row) {
            float * to = result(b, row) + first;
            for (int64_t i = 0; i < n; ++i) {
                to[i] = sums_[row*width + i]*b.inverse[row];
            }
        }
    }

  private:
    const plan        & p_;
    const kernels     & kernels_;
    const ggml_tensor * op_, * q_, * k_, * v_, * mask_, * sinks_;
    float * const keys_, * const cache_, * const sums_;
    float scale_, softcap_, max_bias_;

    int64_t keys_in(int64_t tile) const { return std::min<int64_t>(TILE, p_.n_keys - tile*TILE); }
    int64_t stream(const block & b) const { return b.unit/k_->ne[2]; }
    int64_t token(const block & b, int64_t row) const { return (b.first + row)/p_.group; }
    int64_t head(const block & b, int64_t row) const { return b.unit%k_->ne[2]*p_.group + (b.first + row)%p_.group; }

    // What is the same for all tiles of a row: finding it takes a dozen divisions.
    struct row_facts {
        const float    * query;
        const uint16_t * mask;  // of the first key; null where there is none
        float            slope;
    };
    row_facts facts_of(const block & b, int64_t row) const {
        const int64_t head = this->head(b, row);
        const char * mask  = nullptr;
        if (mask_ != nullptr) {
            mask = (const char *) mask_->data + token(b, row)*mask_->nb[1] + head%mask_->ne[2]*mask_->nb[2] +
                   stream(b)%mask_->ne[3]*mask_->nb[3];
        }
        const char * query = (const char *) q_->data + token(b, row)*q_->nb[1] + head*q_->nb[2] + stream(b)*q_->nb[3];
        return { (const float *) query, (const uint16_t *) mask, slope(head) };
    }

    float * scores_of(const block & b, int64_t row, int64_t tile) const {
        return b.scores + (row*p_.n_tiles + tile)*TILE;
    }
    float * result(const block & b, int64_t row) const {
        return (float *) op_->data + ((stream(b)*p_.n_tokens + token(b, row))*p_.n_heads + head(b, row))*p_.value_size;
    }
    const char * cache_row(const ggml_tensor * cache, int64_t unit, int64_t tile) const {
        const int64_t per_stream = q_->ne[3]/cache->ne[3];
        return (const char *) cache->data + tile*TILE*cache->nb[1] + unit%cache->ne[2]*cache->nb[2] +
               unit/cache->ne[2]/per_stream*cache->nb[3];
    }
    bool sees(const row_facts & row, int64_t tile) const {
        if (row.mask == nullptr) {
            return true;
        }
        const uint16_t * mask = row.mask + tile*TILE;
        const int64_t n = keys_in(tile);
        bool seen = false;
        for (int64_t i = 0; i < n; ++i) {
            seen |= mask[i] != HIDDEN;
        }
        return seen;
    }

    // As columns; whether they are halfs.
    bool load_keys(const block & b, int64_t tile) const {
        const char * rows = cache_row(k_, b.unit, tile);
        const int n = (int) keys_in(tile);
        const int64_t width = padded(p_.key_size);
        if (k_->type == GGML_TYPE_F16 && width == p_.key_size) {
            kernels_.transpose_halfs(rows, k_->nb[1], n, width, keys_);
            return true;
        }
        for (int key = 0; key < n; ++key) {
            to_floats(k_, rows + key*k_->nb[1], 0, p_.key_size, cache_ + key*width);
            std::fill(cache_ + key*width + p_.key_size, cache_ + (key + 1)*width, 0.0f);
        }
        kernels_.transpose_floats((const char *) cache_, width*sizeof(float), n, width, keys_);
        return false;
    }

    // ALiBi's.
    float slope(int64_t head) const {
        if (max_bias_ <= 0) {
            return 1.0f;
        }
        const int64_t n = int64_t(1) << (int64_t) std::floor(std::log2(p_.n_heads));
        return head < n ? powf(powf(2.0f, -max_bias_/n), head + 1)
                        : powf(powf(2.0f, -max_bias_/2/n), 2*(head - n) + 1);
    }

    float finish_scores(const row_facts & row, int64_t tile, float * scores) const {
        uint16_t mask[TILE] = {};
        const uint16_t * masks = mask;
        const int64_t n = keys_in(tile);
        if (row.mask != nullptr && n == TILE) {
            masks = row.mask + tile*TILE;
        } else {
            if (row.mask != nullptr) {
                memcpy(mask, row.mask + tile*TILE, n*sizeof(uint16_t));
            }
            std::fill(mask + n, mask + TILE, HIDDEN);
        }
        float scale = scale_;
        if (softcap_ != 0) {
            for (int i = 0; i < TILE; ++i) {
                scores[i] = softcap_*tanhf(scores[i]*(scale_/softcap_));
            }
            scale = 1.0f;
        }
        return kernels_.mask_scores(scores, masks, scale, row.slope);
    }
};

// Scratch of each thread, then what is known of rows: of all, or of a block of each thread.
class workspace {
  public:
    workspace(const plan & p, const ggml_compute_params * params) : p_(p) {
        char * data = (char *) GGML_PAD((uintptr_t) params->wdata, 64);
        const int64_t scratch = GGML_PAD(p.scratch_bytes(), 64);
        scratch_ = (float *) (data + params->ith*scratch);
        rows_    = data + params->nth*scratch;
        if (!p.shared) {
            rows_ += params->ith*GGML_PAD(p.block_rows*p.row_bytes(), 64);
        }
    }
    float * scratch() const { return scratch_; }

    block block_of(int64_t i) const {
        const int64_t first = i%p_.n_blocks*p_.block_rows, unit = i/p_.n_blocks;
        const int64_t n     = std::min(p_.block_rows, p_.unit_rows - first);
        const int64_t n_all = p_.shared ? p_.n_rows() : p_.block_rows;
        const int64_t row   = p_.shared ? unit*p_.unit_rows + first : 0;
        float * scores  = (float *) rows_;
        float * largest = scores + n_all*p_.n_tiles*TILE;
        float * inverse = largest + n_all*p_.n_tiles;
        return { unit, first, n, scores + row*p_.n_tiles*TILE, largest + row*p_.n_tiles, inverse + row };
    }

  private:
    const plan & p_;
    float * scratch_;
    char  * rows_;
};

// Numbers the tasks of all steps in one row, so that threads need one counter; a thread that comes to the next step waits
// until all have left the one before.
class steps {
  public:
    explicit steps(const ggml_compute_params * params) : params_(params), task_(params->ith) {}

    template <typename Compute>
    void take(int64_t n_tasks, Compute && compute) {
        while (task_ < begin_ + n_tasks) {
            compute(task_ - begin_);
            task_ = ggml_threadpool_chunk_add(params_->threadpool, 1);
        }
        begin_ += n_tasks;
    }
    void wait() const { ggml_barrier(params_->threadpool); }

  private:
    const ggml_compute_params * params_;
    int64_t task_, begin_ = 0;
};

void compute_shared(const plan & p, const attention & a, const workspace & work, steps & tasks, int n_threads) {
    const int64_t n_blocks  = p.n_units*p.n_blocks;
    const int64_t per_task  = std::clamp<int64_t>(p.n_tiles*n_blocks/(TASKS_PER_THREAD*n_threads), 1, 8);
    const int64_t per_block = ceil_div(p.n_tiles, per_task);
    tasks.take(n_blocks*per_block, [&](int64_t i) {
        const int64_t tile = i%per_block*per_task;
        a.add_scores(work.block_of(i/per_block), tile, std::min(tile + per_task, p.n_tiles));
    });
    tasks.wait();
    tasks.take(n_blocks*p.block_rows, [&](int64_t i) {
        const block b = work.block_of(i/p.block_rows);
        if (i%p.block_rows < b.n) {
            a.weigh(b, i%p.block_rows);
        }
    });
    tasks.wait();
    const int64_t slice = p.slice_size(n_threads), n_slices = ceil_div(p.value_size, slice);
    tasks.take(n_blocks*n_slices, [&](int64_t i) {
        const int64_t first = i%n_slices*slice;
        a.add_values(work.block_of(i/n_slices), first, std::min(slice, p.value_size - first));
    });
}

void compute_blocks(const plan & p, const attention & a, const workspace & work, steps & tasks) {
    tasks.take(p.n_units*p.n_blocks, [&](int64_t i) {
        const block b = work.block_of(i);
        a.add_scores(b, 0, p.n_tiles);
        for (int64_t row = 0; row < b.n; ++row) {
            a.weigh(b, row);
        }
        a.add_values(b, 0, p.value_size);
    });
}

}  // namespace

bool work_size(int n_threads, const ggml_tensor * op, size_t * size) {
    if (!is_ours(op)) {
        return false;
    }
    // fewer threads than planned may come, and then hold blocks of their own
    *size = 0;
    for (int n = 1; n <= n_threads; ++n) {
        *size = std::max(*size, plan(op, n).work_bytes(n));
    }
    return true;
}

bool compute_forward(const ggml_compute_params * params, ggml_tensor * op) {
    if (!is_ours(op)) {
        return false;
    }
    const plan p(op, params->nth);
    const workspace work(p, params);
    const attention a(p, op, work.scratch());
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    steps tasks(params);
    if (p.shared) {
        compute_shared(p, a, work, tasks, params->nth);
    } else {
        compute_blocks(p, a, work, tasks);
    }
    return true;
}

}  // namespace edgellm::attention
