#include "dispatch.h"

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

namespace edgellm::ternary {

namespace {

constexpr int MAX_KERNELS = 5;

#if defined(__x86_64__)

// What the operating system saves of the registers (XCR0); without it an instruction set is of no use.
uint64_t saved_state() {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t) high << 32 | low;
}

struct features {
    bool avx2 = false, avx_vnni = false, avx512_vnni = false, amx = false;

    features() {
        uint32_t a, b, c, d;
        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0 || (c & bit_FMA) == 0) {
            return;
        }
        const uint64_t saved = saved_state();
        if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
            return;
        }
        avx2 = b >> 5 & 1;
        const bool avx512 = (saved & 0xe6) == 0xe6 && (b >> 16 & 1) && (b >> 30 & 1) && (b >> 31 & 1);  // F, BW, VL
        avx512_vnni = avx2 && avx512 && (c >> 11 & 1);
        amx = avx512_vnni && (saved & 0x60000) == 0x60000 && (d >> 24 & 1) && (d >> 25 & 1);  // TILE, INT8
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
            avx_vnni = avx2 && (a >> 4 & 1);
        }
    }
};

// Linux gives the tiles only to processes that ask.
bool may_use_tiles() {
#    if defined(__linux__)
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#    else
    return false;
#    endif
}

#elif defined(__aarch64__)

#    if defined(__APPLE__)
bool has(const char * name) {
    int    value = 0;
    size_t size  = sizeof(value);
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
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

#endif

// All kernels that this machine can run, the best one last.
struct list {
    const kernels * items[MAX_KERNELS] = {};
    int n = 0;

    void add(bool usable, const kernels * (*get)()) {
        if (usable) {
            items[n++] = get();
        }
    }

    list() {
        add(true, scalar_kernels);
#if defined(__x86_64__)
        const features has;
#endif
#if defined(EDGELLM_HAS_AVX2)
        add(has.avx2, avx2_kernels);
#endif
#if defined(EDGELLM_HAS_AVX_VNNI)
        add(has.avx_vnni, avx_vnni_kernels);
#endif
#if defined(EDGELLM_HAS_AVX512_VNNI)
        add(has.avx512_vnni, avx512_vnni_kernels);
#endif
#if defined(EDGELLM_HAS_AMX)
        add(has.amx && may_use_tiles(), amx_kernels);
#endif
#if defined(EDGELLM_HAS_NEON_DOTPROD)
        add(has_dotprod(), neon_dotprod_kernels);
#endif
#if defined(EDGELLM_HAS_NEON_I8MM)
        add(has_dotprod() && has_i8mm(), neon_i8mm_kernels);
#endif
    }
};

const list & all() {
    static const list kernels_here;
    return kernels_here;
}

const kernels * choose() {
    const kernels * best = all().items[all().n - 1];
    const char * wanted = getenv("EDGELLM_KERNELS");
    if (wanted == nullptr || *wanted == '\0') {
        return best;
    }
    if (strcmp(wanted, "stock") == 0) {
        return nullptr;
    }
    for (int i = 0; i < all().n; ++i) {
        if (strcmp(wanted, all().items[i]->name) == 0) {
            return all().items[i];
        }
    }
    fprintf(stderr, "edgellm: EDGELLM_KERNELS=%s is not among this machine's kernels; using %s\n", wanted, best->name);
    return best;
}

}  // namespace

const kernels * chosen() {
    static const kernels * const choice = choose();
    return choice;
}

}  // namespace edgellm::ternary
