// AMX tiles in plain C++, put in front of amx.cpp by the compiler (-include), so that the kernel's logic is tested on
// machines without AMX: what each instruction does is written after the instruction set reference.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EDGELLM_AMX_MODEL
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_release

namespace amx_model {

struct tile { uint8_t rows[16][64]; };
// Of each thread, as in the CPU.
inline thread_local tile    tiles[8];
inline thread_local uint8_t config[64];  // as LDTILECFG reads it: palette at 0, bytes a row at 16, rows at 48

inline int row_bytes(int t) { uint16_t n; memcpy(&n, config + 16 + 2*t, sizeof(n)); return n; }
inline int n_rows(int t) { return config[48 + t]; }

inline void require_configured(int t) {
    if (config[0] != 1 || n_rows(t) == 0) { printf("tile %d is not configured\n", t); abort(); }
}

inline void load(int t, const void * base, int64_t stride) {
    require_configured(t);
    memset(&tiles[t], 0, sizeof(tile));
    for (int r = 0; r < n_rows(t); ++r) memcpy(tiles[t].rows[r], (const char *) base + r*stride, row_bytes(t));
}

inline void store(int t, void * base, int64_t stride) {
    require_configured(t);
    for (int r = 0; r < n_rows(t); ++r) memcpy((char *) base + r*stride, tiles[t].rows[r], row_bytes(t));
}

// TDPBSUD: c += signed bytes of a times unsigned bytes of b, four to an int32.
inline void multiply(int c, int a, int b) {
    require_configured(c);
    for (int m = 0; m < n_rows(c); ++m)
        for (int k = 0; k < row_bytes(a)/4; ++k)
            for (int n = 0; n < row_bytes(c)/4; ++n) {
                int32_t sum;
                memcpy(&sum, &tiles[c].rows[m][4*n], sizeof(sum));
                for (int j = 0; j < 4; ++j) sum += (int8_t) tiles[a].rows[m][4*k + j]*(int32_t) tiles[b].rows[k][4*n + j];
                memcpy(&tiles[c].rows[m][4*n], &sum, sizeof(sum));
            }
}

inline void load_config(const void * from) { memcpy(config, from, sizeof(config)); memset(tiles, 0, sizeof(tiles)); }
inline void store_config(void * to) { memcpy(to, config, sizeof(config)); }
inline void release() { memset(config, 0, sizeof(config)); }

}  // namespace amx_model

#define _tile_loadd(t, base, stride)  amx_model::load(t, base, stride)
#define _tile_stored(t, base, stride) amx_model::store(t, base, stride)
#define _tile_dpbsud(c, a, b)         amx_model::multiply(c, a, b)
#define _tile_release()               amx_model::release()
#define EDGELLM_TILE_STORE_CONFIG(p)  amx_model::store_config(p)
#define EDGELLM_TILE_LOAD_CONFIG(p)   amx_model::load_config(p)
