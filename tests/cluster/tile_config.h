// Included ahead of llama.cpp's C++ sources: GCC before 14 tells its optimizer that `_tile_loadconfig` reads eight
// bytes. It reads 64: the stores to the others are dropped, all tiles are configured to be empty, and the first
// `tilezero` on a processor with AMX ends the process with SIGILL.
#pragma once
#if defined(__AMX_TILE__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(config)))
#endif
