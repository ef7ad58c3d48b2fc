// The instruction sets of this CPU, and which of them our kernels may use.
//
// A level is an instruction set that some kernel is written for. Levels are bits, so a set of them is a number; a
// higher bit is preferred to a lower one. Each product (ternary, few, attention, i2_s) has one ladder per architecture,
// a function that takes a set of levels and fills in the product's table of kernels.
#pragma once

namespace edgellm::cpu {

enum level : unsigned {
    SCALAR       = 1 << 0,
    AVX2         = 1 << 1,  // with FMA and F16C
    AVX_VNNI     = 1 << 2,
    AVX512       = 1 << 3,  // F, BW and VL
    AVX512_VNNI  = 1 << 4,
    AMX          = 1 << 5,  // tiles and int8
    NEON_DOTPROD = 1 << 6,
    NEON_I8MM    = 1 << 7,
};

constexpr level LEVELS[] = { SCALAR, AVX2, AVX_VNNI, AVX512, AVX512_VNNI, AMX, NEON_DOTPROD, NEON_I8MM };

// As EDGELLM_KERNELS spells it: "avx512-vnni".
const char * name(level l);

// The levels that run on this machine: the CPU has them, the operating system saves their registers, and the compiler
// could compile them.
unsigned supported();

// The levels that kernels may use: all supported ones, or those up to the level that EDGELLM_KERNELS names.
unsigned allowed();

// Whether EDGELLM_KERNELS is `stock`: upstream computes whatever it can.
bool stock();

// The name of the level in use, or "stock".
const char * chosen();

}  // namespace edgellm::cpu
