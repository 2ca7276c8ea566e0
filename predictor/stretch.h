/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STRETCH_H
#define FC_STRETCH_H

#include <stdint.h>
#include <string.h>

/*
 * A chance 0 to 1 on a scale of octaves of doubt: 0 is 0.5, -1 is 0.25, -14 is
 * 2^-15, the opposite above 0.5. Monotone, piecewise linear between powers of
 * two, read straight from a float's bits: no logarithm and no branch, so that
 * compilers turn loops over it into vector code.
 */
#define FC_STRETCH_OCTAVES 14
#define FC_STRETCH_LEAST 0x1p-15f

/* The bits of 0.5, 2^-15 and 1 - 2^-15. */
#define FC_STRETCH_HALF 0x3f000000
#define FC_STRETCH_LOW 0x38000000
#define FC_STRETCH_HIGH 0x3f7ffe00

static inline float fc_stretch_float(int32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline int32_t fc_stretch_bits(float f)
{
    int32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* `p` within 2^-15 .. 1 - 2^-15; what is negative or not a number is taken for
 * certain (that a page will be written is the safe belief). */
static inline float fc_stretch_clip(float p)
{
    int32_t bits = fc_stretch_bits(p) & 0x7fffffff;
    bits = bits > FC_STRETCH_LOW ? bits : FC_STRETCH_LOW;
    bits = bits < FC_STRETCH_HIGH ? bits : FC_STRETCH_HIGH;
    return fc_stretch_float(bits);
}

static inline float fc_stretch(float p)
{
    p = fc_stretch_clip(p);
    int32_t low = fc_stretch_bits(p), high = fc_stretch_bits(1.0f - p);
    int32_t upper = -(low > FC_STRETCH_HALF);
    int32_t side = (high & upper) | (low & ~upper);
    float u = (float)(side - FC_STRETCH_HALF) * 0x1p-23f;
    return fc_stretch_float(fc_stretch_bits(u) ^ (upper & INT32_MIN));
}

/* The way back; beyond the scale's ends it gives the ends. `u` is a number. */
static inline float fc_squash(float u)
{
    const int32_t end = 0x41600000; /* the bits of 14 */
    int32_t sign = fc_stretch_bits(u) >> 31;
    int32_t size = fc_stretch_bits(u) & 0x7fffffff;
    size = size < end ? size : end;
    float q = fc_stretch_float(FC_STRETCH_HALF -
                               (int32_t)(fc_stretch_float(size) * 0x1p23f));
    int32_t low = fc_stretch_bits(q), high = fc_stretch_bits(1.0f - q);
    return fc_stretch_float((low & sign) | (high & ~sign));
}

#if defined(__x86_64__)
#define FC_STRETCH_AVX2 __attribute__((target("avx2,fma")))
#define fc_stretch_avx2()                                                      \
    (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#endif

#endif
