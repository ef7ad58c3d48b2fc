// The checker's report, and its main: `check [--bench]`.

#include "check.h"

#include "cpu.h"

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace check {

namespace {

// The quickest of some rounds, in ns a call: whatever disturbs a round only makes it longer.
double quickest(const std::function<void()> & call) {
    using clock = std::chrono::steady_clock;
    constexpr double LEAST_NS = 2e6;
    const auto round = [&](int64_t n) {
        const auto begin = clock::now();
        for (int64_t i = 0; i < n; ++i) {
            call();
        }
        return (double) std::chrono::duration_cast<std::chrono::nanoseconds>(clock::now() - begin).count();
    };
    int64_t n = 1;
    while (round(n) < LEAST_NS) {
        n *= 2;
    }
    double best = round(n);
    for (int i = 0; i < 15; ++i) {
        best = std::min(best, round(n));
    }
    return best/(double) n;
}

}  // namespace

bool report::begin_at(const char * name, void * function) {
    if (function == nullptr || seen_[name] == function) {
        return false;
    }
    seen_[name] = function;
    name_ = name;
    failure_.clear();
    times_.clear();
    return true;
}

bool report::expect(bool right, const char * format, ...) {
    if (!right && failure_.empty()) {
        char text[300];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        failure_ = text;
    }
    return failure_.empty();
}

void report::time(const std::string & what, const std::function<void()> & call, const std::function<void()> & truth) {
    if (!bench_ || !failure_.empty()) {
        return;
    }
    double & reference = truth_times_[name_ + what];
    if (reference == 0) {
        reference = quickest(truth);
    }
    const double ns = quickest(call);
    char line[200];
    snprintf(line, sizeof(line), "    %-34s %12.1f ns %8.2f x\n", what.c_str(), ns, reference/ns);
    times_ += line;
}

void report::end() {
    ++n_checked_;
    n_failed_ += !failure_.empty();
    const std::string result = failure_.empty() ? "ok" : "FAILED at " + failure_;
    printf("%-26s %-18s %s\n%s", name_.c_str(), level_.c_str(), result.c_str(), times_.c_str());
    fflush(stdout);
}

namespace {

using namespace edgellm;

// Built for models (CMakeLists.txt), AMX runs on tiles in plain C++, and AVX-VNNI in AVX-512's encoding, or both and
// AVX-512 VNNI on vectors in plain C++: those of `ternary`.
#if defined(EDGELLM_MODEL_AVX512)
constexpr unsigned MODELLED = cpu::AVX_VNNI | cpu::AVX512_VNNI | cpu::AMX;
constexpr unsigned BASE     = cpu::AVX2;
#elif defined(EDGELLM_MODELS)
constexpr unsigned BASE     = cpu::AVX512_VNNI;
constexpr unsigned MODELLED = cpu::AVX_VNNI | cpu::AMX;
#else
constexpr unsigned MODELLED = 0, BASE = 0;
#endif

unsigned levels_here() {
    const unsigned real = cpu::supported() & ~MODELLED;
    return real & BASE ? real | MODELLED : real;
}

std::string name_of(cpu::level l) {
    return std::string(cpu::name(l)) + (l & MODELLED ? " (model)" : "");
}

int run(bool bench) {
    report r(bench);
    unsigned listed = 0;
    for (const cpu::level l : cpu::LEVELS) { listed |= l; }
    if (levels_here() & ~listed) {
        printf("cpu::LEVELS does not list every level: %x of %x\n", listed, levels_here());
        return 1;
    }
    for (const auto product : { attention, few, i2_s, ternary }) {
        const unsigned levels = product == ternary ? levels_here() : levels_here() & ~MODELLED;
        for (const cpu::level l : cpu::LEVELS) {
            if (levels & l) {
                r.level(name_of(l));
                product(r, levels & (2*l - 1));
            }
        }
    }
    printf("%d checked, %d failed\n", r.n_checked(), r.n_failed());
    return r.n_failed() > 0;
}

}  // namespace

}  // namespace check

int main(int n_arguments, char ** arguments) {
    const bool bench = n_arguments == 2 && strcmp(arguments[1], "--bench") == 0;
    if (n_arguments > 1 && !bench) {
        fprintf(stderr, "usage: %s [--bench]\n", arguments[0]);
        return 2;
    }
    return check::run(bench);
}
