// The types with blocks of 32 and AVX-512 VNNI: Q4_0, Q4_1, Q8_0.
//
// Each is read as unsigned codes c with w = d c + m for its block: Q4_1 is that already, Q4_0 has m = -8 d, and Q8_0
// with 128 added to its codes has m = -128 d. Then w x = d_w d_x (sum of c q) + m (d_x sum of q). The first part is
// added block by block, the second for sixteen blocks at a time when a row is over. The sums are exact.
//
// Bounds: a lane adds four products for one block of 32 and starts again: at most 4 * 255 * 127 < 2^17.

#include "ladder.h"

#include <immintrin.h>
#include <string.h>

namespace edgellm::few {

namespace {

constexpr int64_t PREFETCH_BYTES = 2048;

// Two blocks, unpacked: four codes of the first, four of the second, and so on; d for each lane of their sums.
struct unpacked {
    __m512i codes;
    __m512  d;
};

// The first word of two blocks, one behind the other.
template <typename Word>
inline __m128i heads(const uint8_t * first, const uint8_t * second) {
    Word words[2];
    memcpy(&words[0], first, sizeof(Word));
    memcpy(&words[1], second, sizeof(Word));
    return sizeof(Word) == 4 ? _mm_set_epi32(0, 0, (int) words[1], (int) words[0])
                             : _mm_cvtsi32_si128((int) ((uint32_t) words[1] << 16 | words[0]));
}

inline __m512 in_turn(__m128 pair) {
    return _mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_castps_pd(pair)));
}

// Four of `first`, four of `second`, and so on.
inline __m512i interleaved(__m256i first, __m256i second) {
    const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_epi32(_mm512_castsi256_si512(first), order, _mm512_castsi256_si512(second));
}

// Code i is the low nibble of byte i, code i + 16 the high one.
inline __m256i nibbles(const uint8_t * p) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *) p);
    const __m256i both  = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(0x0f));
}

// half d; 16 bytes of nibbles
struct q4_0 {
    static constexpr size_t BYTES = 18;

    static unpacked unpack(const uint8_t * p, float * m) {
        const __m128 d = _mm_cvtph_ps(heads<uint16_t>(p, p + BYTES));
        _mm_storel_pi((__m64 *) m, _mm_mul_ps(d, _mm_set1_ps(-8.0f)));
        return { interleaved(nibbles(p + 2), nibbles(p + BYTES + 2)), in_turn(d) };
    }
};

// half d; half m; 16 bytes of nibbles
struct q4_1 {
    static constexpr size_t BYTES = 20;

    static unpacked unpack(const uint8_t * p, float * m) {
        const __m128 both = _mm_cvtph_ps(heads<uint32_t>(p, p + BYTES));                // d0 m0 d1 m1
        const __m128 apart = _mm_shuffle_ps(both, both, _MM_SHUFFLE(3, 1, 2, 0));       // d0 d1 m0 m1
        _mm_storeh_pi((__m64 *) m, apart);
        return { interleaved(nibbles(p + 4), nibbles(p + BYTES + 4)), in_turn(apart) };
    }
};

// half d; 32 int8
struct q8_0 {
    static constexpr size_t BYTES = 34;

    static unpacked unpack(const uint8_t * p, float * m) {
        const __m128 d = _mm_cvtph_ps(heads<uint16_t>(p, p + BYTES));
        _mm_storel_pi((__m64 *) m, _mm_mul_ps(d, _mm_set1_ps(-128.0f)));
        const __m512i q = interleaved(_mm256_loadu_si256((const __m256i *) (p + 2)),
                                      _mm256_loadu_si256((const __m256i *) (p + BYTES + 2)));
        return { _mm512_xor_si512(q, _mm512_set1_epi8((char) 0x80)), in_turn(d) };
    }
};

inline __m512 both(const float * pair) {
    double bits;
    memcpy(&bits, pair, sizeof(bits));
    return _mm512_castpd_ps(_mm512_set1_pd(bits));
}

template <typename Format, int N>
void multiply(const uint8_t * rows, int64_t n_cols, int64_t n_rows, const uint8_t * tokens, float * y,
              int64_t y_stride) {
    const int64_t stride = q8_0_token::bytes(n_cols);
    q8_0_token token[N];
    for (int t = 0; t < N; ++t) {
        token[t] = q8_0_token((void *) (tokens + t*stride), n_cols);
    }
    alignas(64) float m[q8_0_token::MOST_BLOCKS];
    for (int64_t b = n_cols/32; b < q8_0_token::padded(n_cols); ++b) {
        m[b] = 0;
    }
    for (int64_t r = 0; r < n_rows; ++r) {
        __m512 sums[N];
        for (int t = 0; t < N; ++t) {
            sums[t] = _mm512_setzero_ps();
        }
        for (int64_t b = 0; b < n_cols/32; b += 2, rows += 2*Format::BYTES) {
            _mm_prefetch((const char *) rows + PREFETCH_BYTES, _MM_HINT_T0);
            const unpacked u = Format::unpack(rows, m + b);
            for (int t = 0; t < N; ++t) {
                const __m512i q   = _mm512_load_si512(token[t].q + 32*b);
                const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u.codes, q);
                sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), both(token[t].d + b)), u.d, sums[t]);
            }
        }
        for (int64_t b = 0; b < n_cols/32; b += 16) {
            const __m512 offsets = _mm512_load_ps(m + b);
            for (int t = 0; t < N; ++t) {
                sums[t] = _mm512_fmadd_ps(offsets, _mm512_load_ps(token[t].sum + b), sums[t]);
            }
        }
        for (int t = 0; t < N; ++t) {
            y[t*y_stride + r] = _mm512_reduce_add_ps(sums[t]);
        }
    }
}

template <typename Format>
void multiply_rows_of(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride) {
    const uint8_t * rows = (const uint8_t *) weights + first*(n_cols/32)*(int64_t) Format::BYTES;
    with_constant<MAX_TOKENS>(n_tokens, [&](auto n) {
        multiply<Format, n.value>(rows, n_cols, last - first, (const uint8_t *) tokens, y + first, y_stride);
    });
}

}  // namespace

void q4_0_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride) {
    multiply_rows_of<q4_0>(weights, n_cols, first, last, tokens, n_tokens, y, y_stride);
}

void q4_1_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride) {
    multiply_rows_of<q4_1>(weights, n_cols, first, last, tokens, n_tokens, y, y_stride);
}

void q8_0_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride) {
    multiply_rows_of<q8_0>(weights, n_cols, first, last, tokens, n_tokens, y, y_stride);
}

}  // namespace edgellm::few
