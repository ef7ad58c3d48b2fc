// Q6_K with AVX-512 VNNI.
//
// A block (ggml-common.h) is ql[128], qh[64], sixteen int8 scales and d: weight i is d * scale[i/16] * (q_i - 32). In
// each half of 128 weights, with L = 64 bytes of ql and H = 32 bytes of qh:
//
//     q[0 .. 63]    low nibbles of L  | bits 1-0 of H, then bits 3-2 of H, << 4
//     q[64 .. 127]  high nibbles of L | bits 5-4 of H, then bits 7-6 of H, << 4
//
// Bounds: a pair of products is at most 2 * 63 * 128 = 16128 < 32768; times a scale, eight a lane: below 2^25.

#include "ladder.h"

#include <immintrin.h>
#include <string.h>

namespace edgellm::few {

namespace {

struct block {
    uint8_t  ql[128];
    uint8_t  qh[64];
    int8_t   scales[16];
    uint16_t d;
};
static_assert(sizeof(block) == 210, "block_q6_K");

constexpr int64_t PREFETCH_BYTES = 4096;

// One block, unpacked: 256 codes 0 .. 63, and for each 64 of them the scales, once for each pair of codes.
struct unpacked {
    __m512i codes[4];
    __m512i scales[4];
    __m256i all_scales;
    float   d;
};

inline void unpack_half(const uint8_t * ql, const uint8_t * qh, __m512i & first, __m512i & second) {
    const __m512i nibble = _mm512_set1_epi8(0x0f), top = _mm512_set1_epi8(0x30);
    const __m512i low  = _mm512_loadu_si512(ql);
    const __m256i bits = _mm256_loadu_si256((const __m256i *) qh);
    const __m512i high = _mm512_inserti64x4(_mm512_castsi256_si512(bits), _mm256_srli_epi16(bits, 2), 1);
    first  = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(_mm512_slli_epi16(high, 4), top));
    second = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), nibble), _mm512_and_si512(high, top));
}

inline unpacked unpack(const block & b) {
    unpacked u;
    unpack_half(b.ql, b.qh, u.codes[0], u.codes[1]);
    unpack_half(b.ql + 64, b.qh + 32, u.codes[2], u.codes[3]);
    u.all_scales = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *) b.scales));
    const __m512i scales = _mm512_castsi256_si512(u.all_scales);
    // sixteen codes are eight pairs, so each scale comes eight times
    const __m256i which_low  = _mm256_setr_epi64x(0, 0, 0x0001000100010001, 0x0001000100010001);
    const __m256i which_high = _mm256_add_epi16(which_low, _mm256_set1_epi16(2));
    __m512i which = _mm512_inserti64x4(_mm512_castsi256_si512(which_low), which_high, 1);
    for (int i = 0; i < 4; ++i, which = _mm512_add_epi16(which, _mm512_set1_epi16(4))) {
        u.scales[i] = _mm512_permutexvar_epi16(which, scales);
    }
    u.d = _cvtsh_ss(b.d);
    return u;
}

template <int N>
struct totals {
    totals<N - 1> before;
    __m512 sum;

    void clear() {
        before.clear();
        sum = _mm512_setzero_ps();
    }
    void add(const unpacked & u, const q8_k_block * token, int64_t n_blocks) {
        before.add(u, token, n_blocks);
        const q8_k_block & a = token[(N - 1)*n_blocks];
        // sum (q - 32) a = sum q a - 32 sum a
        const __m256i offset = _mm256_slli_epi32(
            _mm256_madd_epi16(u.all_scales, _mm256_load_si256((const __m256i *) a.sums)), 5);
        __m512i total = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_zextsi256_si512(offset));
        for (int i = 0; i < 4; ++i) {
            const __m512i pairs = _mm512_maddubs_epi16(u.codes[i], _mm512_load_si512(a.q + 64*i));
            total = _mm512_dpwssd_epi32(total, pairs, u.scales[i]);
        }
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(u.d*a.d), sum);
    }
    void store(float * y, int64_t y_stride) const {
        before.store(y, y_stride);
        y[(N - 1)*y_stride] = _mm512_reduce_add_ps(sum);
    }
};

template <>
struct totals<0> {
    void clear() {}
    void add(const unpacked &, const q8_k_block *, int64_t) {}
    void store(float *, int64_t) const {}
};

template <int N>
void multiply(const block * rows, int64_t n_blocks, int64_t n_rows, const q8_k_block * tokens, float * y,
              int64_t y_stride) {
    for (int64_t r = 0; r < n_rows; ++r) {
        totals<N> sums;
        sums.clear();
        for (int64_t b = 0; b < n_blocks; ++b, ++rows) {
            for (int i = 0; i < 4; ++i) {
                _mm_prefetch((const char *) rows + PREFETCH_BYTES + 64*i, _MM_HINT_T0);
            }
            sums.add(unpack(*rows), tokens + b, n_blocks);
        }
        sums.store(y + r, y_stride);
    }
}

}  // namespace

void q6_k_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride) {
    const int64_t n_blocks = n_cols/256;
    const block * rows = (const block *) weights + first*n_blocks;
    with_constant<MAX_TOKENS>(n_tokens, [&](auto n) {
        multiply<n.value>(rows, n_blocks, last - first, (const q8_k_block *) tokens, y + first, y_stride);
    });
}

}  // namespace edgellm::few
