// float16 to float32 in plain C++.
#pragma once

#include <cmath>
#include <cstdint>

namespace check {

inline float half_to_float(uint16_t half) {
    const int   exponent = half >> 10 & 31, fraction = half & 1023;
    const float sign     = half >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) {
        return fraction != 0 ? NAN : sign*INFINITY;
    }
    return sign*std::ldexp((float) (exponent == 0 ? fraction : fraction + 1024), exponent == 0 ? -24 : exponent - 25);
}

}  // namespace check
