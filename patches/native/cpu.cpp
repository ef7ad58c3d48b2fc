#include "cpu.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#    include <cpuid.h>
#    if defined(__linux__)
#        include <sys/syscall.h>
#        include <unistd.h>
#    endif
#elif defined(__aarch64__)
#    if defined(__linux__)
#        include <sys/auxv.h>
#    elif defined(__APPLE__)
#        include <sys/sysctl.h>
#    endif
#endif

namespace edgellm::cpu {

namespace {

// The levels that the compiler could compile.
constexpr unsigned COMPILED = EDGELLM_COMPILED;

#if defined(__x86_64__)

// The registers that the operating system saves (XCR0); an instruction set is useless without its registers.
uint64_t saved_state() {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t) high << 32 | low;
}

// Linux allows the tiles only to processes that ask for them.
bool may_use_tiles() {
#    if defined(__linux__)
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#    else
    return false;
#    endif
}

unsigned detect() {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0 || (c & bit_FMA) == 0 || (c & bit_F16C) == 0) {
        return SCALAR;
    }
    const uint64_t saved = saved_state();
    if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b >> 5 & 1) == 0) {
        return SCALAR;
    }
    unsigned levels = SCALAR | AVX2;
    if ((saved & 0xe6) == 0xe6 && (b >> 16 & 1) && (b >> 30 & 1) && (b >> 31 & 1)) {  // F, BW, VL
        levels |= AVX512;
        if (c >> 11 & 1) {
            levels |= AVX512_VNNI;
            if ((saved & 0x60000) == 0x60000 && (d >> 24 & 1) && (d >> 25 & 1) && may_use_tiles()) {  // TILE, INT8
                levels |= AMX;
            }
        }
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1)) {
        levels |= AVX_VNNI;
    }
    return levels;
}

#elif defined(__aarch64__)

#    if defined(__APPLE__)
bool has(const char * feature) {
    int    value = 0;
    size_t size  = sizeof(value);
    return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm()    { return has("hw.optional.arm.FEAT_I8MM"); }
#    elif defined(__linux__)
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }
bool has_i8mm()    { return getauxval(AT_HWCAP2) >> 13 & 1; }
#    else
bool has_dotprod() { return false; }
bool has_i8mm()    { return false; }
#    endif

unsigned detect() {
    unsigned levels = SCALAR;
    if (has_dotprod()) {
        levels |= NEON_DOTPROD;
        if (has_i8mm()) {
            levels |= NEON_I8MM;
        }
    }
    return levels;
}

#else

unsigned detect() {
    return SCALAR;
}

#endif

constexpr const char * STOCK = "stock";

// Only attention has kernels for AVX512 without VNNI. EDGELLM_KERNELS does not take it, and it is never reported.
bool can_be_chosen(level l) {
    return l != AVX512 && (supported() & l) != 0;
}

struct choice {
    unsigned     levels;
    const char * name;
};

choice choose() {
    choice best = {};
    for (const level l : LEVELS) {
        if (can_be_chosen(l)) {
            best = { supported(), name(l) };
        }
    }
    const char * wanted = getenv("EDGELLM_KERNELS");
    if (wanted == nullptr || *wanted == '\0') {
        return best;
    }
    if (strcmp(wanted, STOCK) == 0) {
        return { supported(), STOCK };
    }
    for (const level l : LEVELS) {
        if (can_be_chosen(l) && strcmp(wanted, name(l)) == 0) {
            return { supported() & (2*l - 1), name(l) };
        }
    }
    fprintf(stderr, "edgellm: EDGELLM_KERNELS=%s is not among this machine's kernels; using %s\n", wanted, best.name);
    return best;
}

const choice & choice_here() {
    static const choice here = choose();
    return here;
}

}  // namespace

const char * name(level l) {
    switch (l) {
        case SCALAR:       return "scalar";
        case AVX2:         return "avx2";
        case AVX_VNNI:     return "avx-vnni";
        case AVX512:       return "avx512";
        case AVX512_VNNI:  return "avx512-vnni";
        case AMX:          return "amx";
        case NEON_DOTPROD: return "neon-dotprod";
        case NEON_I8MM:    return "neon-i8mm";
    }
    return "unknown";
}

unsigned supported() {
    static const unsigned levels = detect() & COMPILED;
    return levels;
}

unsigned allowed() {
    return choice_here().levels;
}

bool stock() {
    return choice_here().name == STOCK;
}

const char * chosen() {
    return choice_here().name;
}

}  // namespace edgellm::cpu
