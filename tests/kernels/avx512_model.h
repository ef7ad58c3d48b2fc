// AVX-512 VNNI in plain C++, put in front of the kernels of ternary/x86 by the compiler (-include), so that their logic is
// tested on machines without it: what each instruction does is written after the instruction set reference.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#define EDGELLM_AVX512_MODEL

namespace avx512_model {

// A vector as numbers of one type.
template <typename T, typename Vector>
struct numbers {
    T of[sizeof(Vector)/sizeof(T)];

    numbers() = default;
    explicit numbers(const Vector & v) { memcpy(of, &v, sizeof(v)); }
    Vector vector() const { Vector v; memcpy(&v, of, sizeof(v)); return v; }
};

// Of each number of a, or of a and b, or of a, b and c, the result of f.
template <typename T, typename Vector, typename F>
inline Vector each(const Vector & a, F && f) {
    numbers<T, Vector> x(a);
    for (T & n : x.of) { n = (T) f(n); }
    return x.vector();
}

template <typename T, typename Vector, typename F>
inline Vector each(const Vector & a, const Vector & b, F && f) {
    numbers<T, Vector> x(a);
    const numbers<T, Vector> y(b);
    for (size_t i = 0; i < sizeof(x.of)/sizeof(T); ++i) { x.of[i] = (T) f(x.of[i], y.of[i]); }
    return x.vector();
}

template <typename F>
inline __m512 each(const __m512 & a, const __m512 & b, const __m512 & c, F && f) {
    numbers<float, __m512> x(a);
    const numbers<float, __m512> y(b), z(c);
    for (int i = 0; i < 16; ++i) { x.of[i] = f(x.of[i], y.of[i], z.of[i]); }
    return x.vector();
}

template <typename Vector, typename T>
inline Vector all(T value) {
    numbers<T, Vector> x;
    for (T & n : x.of) { n = value; }
    return x.vector();
}

// The numbers of `from`, each as a wider one.
template <typename From, typename To, typename Result, typename Vector>
inline Result widened(const Vector & from) {
    const numbers<From, Vector> x(from);
    numbers<To, Result> y;
    for (size_t i = 0; i < sizeof(y.of)/sizeof(To); ++i) { y.of[i] = (To) x.of[i]; }
    return y.vector();
}

// VPDPBUSD: four unsigned bytes times four signed ones, added to each int32.
template <typename Vector>
inline Vector add_byte_products(const Vector & sums, const Vector & codes, const Vector & q) {
    numbers<int32_t, Vector> s(sums);
    const numbers<uint8_t, Vector> a(codes);
    const numbers<int8_t, Vector> b(q);
    for (size_t i = 0; i < sizeof(a.of); ++i) { s.of[i/4] += a.of[i]*b.of[i]; }
    return s.vector();
}

// VPDPWSSD: two signed words times two, likewise.
inline __m512i add_word_products(const __m512i & sums, const __m512i & x, const __m512i & y) {
    numbers<int32_t, __m512i> s(sums);
    const numbers<int16_t, __m512i> a(x), b(y);
    for (int i = 0; i < 32; ++i) { s.of[i/2] += a.of[i]*b.of[i]; }
    return s.vector();
}

inline __m512i repeated(const int8_t * four) {
    int32_t bits;
    memcpy(&bits, four, sizeof(bits));
    return all<__m512i>(bits);
}

// VCVTPH2PS, by its half of AVX2.
inline __m512 floats_of(const __m256i & halves) {
    const __m256 parts[2] = { _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                              _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)) };
    __m512 v;
    memcpy(&v, parts, sizeof(v));
    return v;
}

inline __m512i load(const void * p) { __m512i v; memcpy(&v, p, sizeof(v)); return v; }
template <typename Vector>
inline void store(void * p, const Vector & v) { memcpy(p, &v, sizeof(v)); }

}  // namespace avx512_model

#define _mm512_loadu_si512(p)        avx512_model::load(p)
#define _mm512_store_si512(p, v)     avx512_model::store(p, v)
#define _mm512_store_ps(p, v)        avx512_model::store(p, v)
#define _mm512_set1_epi8(n)          avx512_model::all<__m512i>((int8_t) (n))
#define _mm512_set1_epi32(n)         avx512_model::all<__m512i>((int32_t) (n))
#define _mm512_set1_ps(n)            avx512_model::all<__m512>((float) (n))
#define _mm512_setzero_si512()       avx512_model::all<__m512i>(0)
#define _mm512_setzero_ps()          avx512_model::all<__m512>(0.0f)
#define _mm512_and_si512(a, b)       avx512_model::each<uint64_t, __m512i>(a, b, [](auto m, auto n) { return m & n; })
#define _mm512_or_si512(a, b)        avx512_model::each<uint64_t, __m512i>(a, b, [](auto m, auto n) { return m | n; })
#define _mm512_add_epi8(a, b)        avx512_model::each<uint8_t, __m512i>(a, b, [](auto m, auto n) { return m + n; })
#define _mm512_add_epi32(a, b)       avx512_model::each<uint32_t, __m512i>(a, b, [](auto m, auto n) { return m + n; })
#define _mm512_srli_epi16(a, bits)   avx512_model::each<uint16_t, __m512i>(a, [=](auto n) { return n >> (bits); })
#define _mm512_slli_epi16(a, bits)   avx512_model::each<uint16_t, __m512i>(a, [=](auto n) { return n << (bits); })
#define _mm512_srai_epi32(a, bits)   avx512_model::each<int32_t, __m512i>(a, [=](auto n) { return n >> (bits); })
#define _mm512_mul_ps(a, b)          avx512_model::each<float, __m512>(a, b, [](auto m, auto n) { return m*n; })
#define _mm512_fmadd_ps(a, b, c)     avx512_model::each(a, b, c, [](float x, float y, float z) { return std::fma(x, y, z); })
#define _mm512_fnmadd_ps(a, b, c)    avx512_model::each(a, b, c, [](float x, float y, float z) { return std::fma(-x, y, z); })
#define _mm512_cvtepi32_ps(v)        avx512_model::widened<int32_t, float, __m512>(v)
#define _mm512_cvtepu8_epi32(v)      avx512_model::widened<uint8_t, int32_t, __m512i>(v)
#define _mm512_cvtepi8_epi32(v)      avx512_model::widened<int8_t, int32_t, __m512i>(v)
#define _mm512_cvtepu8_epi16(v)      avx512_model::widened<uint8_t, int16_t, __m512i>(v)
#define _mm512_cvtph_ps(v)           avx512_model::floats_of(v)
#define _mm512_dpwssd_epi32(s, a, b) avx512_model::add_word_products(s, a, b)
#define _mm512_dpbusd_epi32(s, a, q) avx512_model::add_byte_products<__m512i>(s, a, avx512_model::repeated(q))
#define _mm256_dpbusd_avx_epi32(s, a, b) avx512_model::add_byte_products<__m256i>(s, a, b)
