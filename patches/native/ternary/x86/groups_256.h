// What groups.h asks for and 256-bit vectors share. Included like finish.h.
#pragma once

#include "../nested.h"
#include "activations.h"

namespace edgellm::ternary {

namespace {

struct group_isa_256 {
    static constexpr int STEPS = 8, WIDTH = 1;
    struct codes { __m256i lo, hi; };  // rows 0-7 and 8-15
    struct floats { __m256 lo, hi; };
    template <int BITS>
    struct segment { codes of[BITS]; };
    // Each block is loaded where it is used.
    struct wide_segment { const uint8_t * blocks; };

    // Into all caches, as group_isa_many of AVX-512.
    static codes load_block(const uint8_t * block) {
        _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
        return read_block(block);
    }
    static codes read_block(const uint8_t * block) {
        return { _mm256_loadu_si256((const __m256i *) block), _mm256_loadu_si256((const __m256i *) (block + 32)) };
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
    static codes bits(const codes & c, int mask) { return { bits<RIGHT>(c.lo, mask), bits<RIGHT>(c.hi, mask) }; }
    template <int RIGHT>
    static __m256i bits(__m256i v, int mask) {
        const __m256i shifted = RIGHT == -1 ? _mm256_add_epi8(v, v) : RIGHT < 0 ? _mm256_slli_epi16(v, RIGHT < 0 ? -RIGHT : 0)
                              : _mm256_srli_epi16(v, RIGHT < 0 ? 0 : RIGHT);
        return _mm256_and_si256(RIGHT == 0 ? v : shifted, _mm256_set1_epi8((char) mask));
    }
    template <int BITS, int STEP>
    static codes field(const segment<BITS> & s) {
        return BITS == 2 ? bits<STEP%4*2>(s.of[STEP/4*(BITS - 1)], 3) : bits<STEP - 1>(s.of[0], 2);
    }
    template <int BITS, int STEP>
    static codes field(const wide_segment & s) {
        if constexpr (BITS == 8) {
            return read_block(s.blocks + STEP*BLOCK_BYTES);
        }
        const codes low = bits<STEP%2*4>(read_block(s.blocks + STEP/2*BLOCK_BYTES), 15);
        if constexpr (BITS > 4) {  // the high bits, moved to bit 4
            constexpr int HIGH = BITS - 4;
            const codes both = read_block(s.blocks + (4 + STEP*HIGH/8)*BLOCK_BYTES);
            const codes high = bits<STEP*HIGH%8 - 4>(both, HIGH == 1 ? 16 : 48);
            return { _mm256_or_si256(low.lo, high.lo), _mm256_or_si256(low.hi, high.hi) };
        } else {
            return low;
        }
    }

    static floats zero() { return { _mm256_setzero_ps(), _mm256_setzero_ps() }; }
    static void add_part(floats & total, const floats & part, const floats & scales) {
        total.lo = _mm256_fmadd_ps(part.lo, scales.lo, total.lo);
        total.hi = _mm256_fmadd_ps(part.hi, scales.hi, total.hi);
    }
    static void add_sums(floats & total, __m256i lo, __m256i hi, const float * factor) {
        total.lo = _mm256_fmadd_ps(_mm256_cvtepi32_ps(lo), _mm256_broadcast_ss(factor), total.lo);
        total.hi = _mm256_fmadd_ps(_mm256_cvtepi32_ps(hi), _mm256_broadcast_ss(factor), total.hi);
    }
    static floats scales(const uint16_t * halves) {
        return { _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) halves)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (halves + 8))) };
    }
    static void store(const floats & f, float (*y)[PANEL_ROWS]) {
        _mm256_store_ps(&y[0][0], f.lo);
        _mm256_store_ps(&y[0][8], f.hi);
    }
};

// What nested.h asks for.
struct nested_isa_256 : group_isa_256 {
    using group_isa_256::scales;

    static floats scales(const uint8_t * bytes) { return { eight(bytes), eight(bytes + 8) }; }
    static floats scales(const int8_t * bytes) { return { eight(bytes), eight(bytes + 8) }; }
    static __m256 eight(const int8_t * bytes) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) bytes)));
    }
    static __m256 eight(const uint8_t * bytes) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) bytes)));
    }
    static void add_scaled(floats & part, __m256i lo, __m256i hi, const floats & scales) {
        part.lo = _mm256_fmadd_ps(_mm256_cvtepi32_ps(lo), scales.lo, part.lo);
        part.hi = _mm256_fmadd_ps(_mm256_cvtepi32_ps(hi), scales.hi, part.hi);
    }
    static floats minima(const uint8_t (*pairs)[PANEL_ROWS][2], const int32_t * offsets) {
        __m256i lo = _mm256_setzero_si256(), hi = lo;
        for (int i = 0; i < 4; ++i) {
            const __m256i sums = _mm256_set1_epi32(offsets[i]);
            lo = _mm256_add_epi32(lo, _mm256_madd_epi16(pairs_of_eight(pairs[i]), sums));
            hi = _mm256_add_epi32(hi, _mm256_madd_epi16(pairs_of_eight(pairs[i] + 8), sums));
        }
        return { _mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi) };
    }
    static __m256i pairs_of_eight(const uint8_t (*rows)[2]) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *) rows));
    }
    static void add_nested(floats & total, const floats & part, const floats & minima, const floats & d,
                           const floats & d_minima, const float * factor) {
        const __m256 f = _mm256_broadcast_ss(factor);
        total.lo = _mm256_fmadd_ps(_mm256_fnmadd_ps(d_minima.lo, minima.lo, _mm256_mul_ps(d.lo, part.lo)), f, total.lo);
        total.hi = _mm256_fmadd_ps(_mm256_fnmadd_ps(d_minima.hi, minima.hi, _mm256_mul_ps(d.hi, part.hi)), f, total.hi);
    }
    static void add_minima(floats & total, const floats & part, const floats & minima, const int32_t * offset,
                           const float * factor) {
        const __m256 o = _mm256_cvtepi32_ps(_mm256_set1_epi32(*offset)), f = _mm256_broadcast_ss(factor);
        total.lo = _mm256_fmadd_ps(_mm256_fnmadd_ps(minima.lo, o, part.lo), f, total.lo);
        total.hi = _mm256_fmadd_ps(_mm256_fnmadd_ps(minima.hi, o, part.hi), f, total.hi);
    }
    static void add_nested(floats & total, const floats & part, const floats & d, const float * factor) {
        const __m256 f = _mm256_broadcast_ss(factor);
        total.lo = _mm256_fmadd_ps(_mm256_mul_ps(d.lo, part.lo), f, total.lo);
        total.hi = _mm256_fmadd_ps(_mm256_mul_ps(d.hi, part.hi), f, total.hi);
    }
};

// One token has registers to spare: fields are masked in place, shifted once at most, and those that come out four times
// too large have sums of their own, which are divided at the end, exactly.
struct single_isa_256 : group_isa_256 {
    template <int BITS, int STEP>
    static constexpr bool four_times() { return BITS == 2 ? STEP%2 == 1 : STEP%4 >= 2; }

    template <int BITS, int STEP>
    static codes field(const segment<BITS> & s) {
        constexpr int LOW = BITS == 2 ? 3 : 2, RIGHT = BITS == 2 ? STEP%4/2*4 : STEP/4*4 - (STEP%2 == 0);
        return bits<RIGHT>(s.of[STEP/4*(BITS - 1)], four_times<BITS, STEP>() ? 4*LOW : LOW);
    }
};

}  // namespace

}  // namespace edgellm::ternary
