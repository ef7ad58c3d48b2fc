// NEON: sixteen floats are four vectors.

#include "ladder.h"
#include "../rows.h"

#include <arm_neon.h>

namespace edgellm::attention {

namespace {

struct neon {
    static constexpr int ROWS = 4, VECTORS = 1;
    struct vector { float32x4_t of[4]; };
    struct counts { int32x4_t of[4]; };

    template <typename F>
    static vector each(F && f) { return { { f(0), f(1), f(2), f(3) } }; }

    static vector load(const float * p) { return each([&](int i) { return vld1q_f32(p + 4*i); }); }
    static vector load_halfs(const uint16_t * p) {
        return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4*i))); });
    }
    static vector load_any(const float * p) { return load(p); }
    static vector load_any(const uint16_t * p) { return load_halfs(p); }
    static void store(float * p, const vector & v) {
        for (int i = 0; i < 4; ++i) {
            vst1q_f32(p + 4*i, v.of[i]);
        }
    }
    static vector all(float x) { return each([&](int) { return vdupq_n_f32(x); }); }
    static vector fma(const vector & a, const vector & b, const vector & c) {
        return each([&](int i) { return vfmaq_f32(c.of[i], a.of[i], b.of[i]); });
    }
    static vector mul(const vector & a, const vector & b) {
        return each([&](int i) { return vmulq_f32(a.of[i], b.of[i]); });
    }
    static vector sub(const vector & a, const vector & b) {
        return each([&](int i) { return vsubq_f32(a.of[i], b.of[i]); });
    }
    static float32x4_t larger_of(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
    static vector larger(const vector & a, const vector & b) {
        return each([&](int i) { return larger_of(a.of[i], b.of[i]); });
    }
    static float largest(const vector & v) {
        return vmaxvq_f32(larger_of(larger_of(v.of[0], v.of[1]), larger_of(v.of[2], v.of[3])));
    }
    static vector hide(const vector & v, const vector & mask) {
        const float32x4_t none = vdupq_n_f32(-__builtin_inff());
        return each([&](int i) { return vbslq_f32(vceqq_f32(mask.of[i], none), none, v.of[i]); });
    }
    static vector zero_below(const vector & v, const vector & x, float limit) {
        return each([&](int i) {
            const uint32x4_t below = vcltq_f32(x.of[i], vdupq_n_f32(limit));
            return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v.of[i]), below));
        });
    }
    static vector times_power_of_two(const vector & v, const vector & bits) {
        return each([&](int i) {
            const int32x4_t n = vshlq_n_s32(vreinterpretq_s32_f32(bits.of[i]), 23);
            return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(v.of[i]), n));
        });
    }
    static counts no_counts() {
        const int32x4_t zero = vdupq_n_s32(0);
        return { { zero, zero, zero, zero } };
    }
    static counts count(const vector & v, counts c) {
        for (int i = 0; i < 4; ++i) {
            c.of[i] = vaddq_s32(c.of[i], vcvtnq_s32_f32(v.of[i]));
        }
        return c;
    }
    static int64_t sum(const counts & c) {
        int64x2_t sum = vdupq_n_s64(0);
        for (int i = 0; i < 4; ++i) {
            sum = vpadalq_s32(sum, c.of[i]);
        }
        return vaddvq_s64(sum);
    }

    template <typename Element>
    static void transpose(const Element * rows, size_t stride, Element * out) {
        for (int i = 0; i < 16; i += 4) {
            for (int j = 0; j < 16; j += 4) {
                transpose_four((const Element *) ((const char *) rows + i*stride) + j, stride, out + j*TILE + i);
            }
        }
    }
    static void transpose_four(const uint16_t * rows, size_t stride, uint16_t * out) {
        uint16x4_t x[4];
        for (int i = 0; i < 4; ++i) {
            x[i] = vld1_u16((const uint16_t *) ((const char *) rows + i*stride));
        }
        const uint16x4x2_t a = vzip_u16(x[0], x[2]), b = vzip_u16(x[1], x[3]);
        const uint16x4x2_t low = vzip_u16(a.val[0], b.val[0]), high = vzip_u16(a.val[1], b.val[1]);
        vst1_u16(out, low.val[0]);
        vst1_u16(out + TILE, low.val[1]);
        vst1_u16(out + 2*TILE, high.val[0]);
        vst1_u16(out + 3*TILE, high.val[1]);
    }
    static void transpose_four(const float * rows, size_t stride, float * out) {
        float32x4_t x[4];
        for (int i = 0; i < 4; ++i) {
            x[i] = vld1q_f32((const float *) ((const char *) rows + i*stride));
        }
        const float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
        vst1q_f32(out, vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0])));
        vst1q_f32(out + TILE, vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1])));
        vst1q_f32(out + 2*TILE, vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0])));
        vst1q_f32(out + 3*TILE, vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1])));
    }
};

}  // namespace

kernels neon_kernels() {
    return kernels_of<neon>();
}

}  // namespace edgellm::attention
