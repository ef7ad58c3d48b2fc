// AVX-512 VNNI: one 64-byte block is one vector; VPDPBUSD adds four products to each of 16 int32 lanes, one a row.

#include "avx512_vnni.h"
#include "../nested.h"

namespace edgellm::ternary {

namespace {

// What groups.h asks for.
struct group_isa_many {
    static constexpr int STEPS = 8, WIDTH = 1;
    using sums   = __m512i;
    using floats = __m512;
    using codes  = __m512i;
    template <int BITS>
    struct segment { __m512i of[BITS]; };
    // Four vectors more would not stay in registers: each is loaded where it is used.
    struct wide_segment { const uint8_t * blocks; };

    // Into all caches: on a Cascade Lake even a single token is faster so than with NTA.
    static __m512i load_block(const uint8_t * block) {
        _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
        return _mm512_loadu_si512(block);
    }
    template <int BITS>
    static auto load(const uint8_t * blocks) {
        if constexpr (BITS == 1) {
            return segment<1>{ { load_block(blocks) } };
        } else if constexpr (BITS == 2) {
            return segment<2>{ { load_block(blocks), load_block(blocks + BLOCK_BYTES) } };
        } else {
            for (int64_t b = 0; b < BITS; ++b) {
                _mm_prefetch((const char *) blocks + b*BLOCK_BYTES + PREFETCH_BYTES, _MM_HINT_T0);
            }
            return wide_segment{ blocks };
        }
    }

    // Bits of bytes, shifted right by RIGHT (left where it is negative) and masked.
    template <int RIGHT>
    static __m512i bits(__m512i v, int mask) {
        const __m512i shifted = RIGHT == -1 ? _mm512_add_epi8(v, v) : RIGHT < 0 ? _mm512_slli_epi16(v, RIGHT < 0 ? -RIGHT : 0)
                              : _mm512_srli_epi16(v, RIGHT < 0 ? 0 : RIGHT);
        return _mm512_and_si512(RIGHT == 0 ? v : shifted, _mm512_set1_epi8((char) mask));
    }
    template <int BITS, int STEP>
    static codes field(const segment<BITS> & s) {
        return BITS == 2 ? bits<STEP%4*2>(s.of[STEP/4*(BITS - 1)], 3) : bits<STEP - 1>(s.of[0], 2);
    }
    template <int BITS, int STEP>
    static codes field(const wide_segment & s) {
        if constexpr (BITS == 8) {
            return _mm512_loadu_si512(s.blocks + STEP*BLOCK_BYTES);
        }
        const __m512i low = bits<STEP%2*4>(_mm512_loadu_si512(s.blocks + STEP/2*BLOCK_BYTES), 15);
        if constexpr (BITS > 4) {  // the high bits, moved to bit 4
            constexpr int HIGH = BITS - 4;
            const __m512i high = _mm512_loadu_si512(s.blocks + (4 + STEP*HIGH/8)*BLOCK_BYTES);
            return _mm512_or_si512(low, bits<STEP*HIGH%8 - 4>(high, HIGH == 1 ? 16 : 48));
        } else {
            return low;
        }
    }

    static sums start(const int32_t * offset, int64_t) { return _mm512_set1_epi32(*offset); }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, codes c, const int8_t * q, int token) {
        s = add_products(s, c, q + (STEP*TOKENS + token)*4);
    }
    static floats zero() { return _mm512_setzero_ps(); }
    static void add_sums(floats & total, sums s, const float * factor, int64_t) {
        total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(*factor), total);
    }
    static void add_part(floats & total, floats part, floats scales) { total = _mm512_fmadd_ps(part, scales, total); }
    static floats scales(const uint16_t * halves) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) halves));
    }
    static void store(floats f, float (*y)[PANEL_ROWS]) { _mm512_store_ps(y, f); }
};

// One token: as single_isa_256.
struct group_isa_single : group_isa_many {
    struct sums { __m512i once, four; };

    template <int BITS, int STEP>
    static constexpr bool four_times() { return BITS == 2 ? STEP%2 == 1 : STEP%4 >= 2; }

    template <int BITS, int STEP>
    static codes field(const segment<BITS> & s) {
        constexpr int LOW = BITS == 2 ? 3 : 2, RIGHT = BITS == 2 ? STEP%4/2*4 : STEP/4*4 - (STEP%2 == 0);
        return bits<RIGHT>(s.of[STEP/4*(BITS - 1)], four_times<BITS, STEP>() ? 4*LOW : LOW);
    }
    static sums start(const int32_t * offset, int64_t) {
        return { group_isa_many::start(offset, 0), _mm512_setzero_si512() };
    }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, codes c, const int8_t * q, int token) {
        group_isa_many::add<BITS, STEP, TOKENS>(four_times<BITS, STEP>() ? s.four : s.once, c, q, token);
    }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        group_isa_many::add_sums(total, _mm512_add_epi32(s.once, _mm512_srai_epi32(s.four, 2)), factor, 0);
    }
};

template <int N>
struct group_isa : group_isa_many {};
template <>
struct group_isa<1> : group_isa_single {};

// Four bits keep even a single token waiting for memory, without tricks.
template <int>
struct nibble_isa : group_isa_many {
    using group_isa_many::scales;

    // What nested.h asks for.
    static sums none() { return _mm512_setzero_si512(); }
    static floats scales(const uint8_t * bytes) {
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) bytes)));
    }
    static floats scales(const int8_t * bytes) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) bytes)));
    }
    static void add_scaled(floats & part, sums s, floats scales) {
        part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), scales, part);
    }
    static sums minima(const uint8_t (*pairs)[PANEL_ROWS][2], const int32_t * offsets) {
        sums s = _mm512_setzero_si512();
        for (int i = 0; i < 4; ++i) {
            const __m512i pair = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *) pairs[i]));
            s = _mm512_dpwssd_epi32(s, pair, _mm512_set1_epi32(offsets[i]));
        }
        return s;
    }
    static void add_nested(floats & total, floats part, sums minima, floats d, floats d_minima, const float * factor) {
        const floats whole = _mm512_fnmadd_ps(d_minima, _mm512_cvtepi32_ps(minima), _mm512_mul_ps(d, part));
        total = _mm512_fmadd_ps(whole, _mm512_set1_ps(*factor), total);
    }
    static void add_minima(floats & total, floats part, floats minima, const int32_t * offset, const float * factor) {
        const floats whole = _mm512_fnmadd_ps(minima, _mm512_cvtepi32_ps(_mm512_set1_epi32(*offset)), part);
        total = _mm512_fmadd_ps(whole, _mm512_set1_ps(*factor), total);
    }
    static void add_nested(floats & total, floats part, floats d, const float * factor) {
        total = _mm512_fmadd_ps(_mm512_mul_ps(d, part), _mm512_set1_ps(*factor), total);
    }
};

}  // namespace

const kernel_set * avx512_vnni_kernels() {
    constexpr int TILE = AVX512_TILE;
    static const kernel_set k = {
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<rows<avx512_dot>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<group_isa, 2>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<group_isa, 1>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<nibble_isa, 4>::tile, TILE, 1>, 8 },
        {
            nested_kernels<nibble_isa, TILE>(4, absolute_maximum_256, quantize_256),
            nested_kernels<nibble_isa, TILE>(5, absolute_maximum_256, quantize_256),
            nested_kernels<nibble_isa, TILE>(6, absolute_maximum_256, quantize_256),
        },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<minima<nibble_isa, 4>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<nibble_isa, 8>::tile, TILE, 1>, 128 },
    };
    return &k;
}

}  // namespace edgellm::ternary
