/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_APPROX_H
#define FC_APPROX_H

#include <stdint.h>
#include <string.h>

/*
 * Logarithm and exponential good to 1e-4, of one number and of eight at a
 * time, without a branch or a call: features and chances need no more.
 *
 * The vectors are the compilers' own, so that the same source becomes AVX2
 * code within a function marked FC_APPROX_AVX2 and SSE2 elsewhere; all that
 * takes part must be inlined there. They go by pointer, as the way to pass
 * them depends on the target.
 */
#define FC_APPROX_INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define FC_APPROX_AVX2 __attribute__((target("avx2,fma")))
#define fc_approx_avx2()                                                       \
    (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#endif

typedef float fc_float8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint16_t fc_short8 __attribute__((vector_size(16)));
typedef int32_t fc_int8 __attribute__((vector_size(32)));

FC_APPROX_INLINE float fc_approx_float(int32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

FC_APPROX_INLINE int32_t fc_approx_bits(float f)
{
    int32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* The mantissa's logarithm over m = mantissa - 1, exact at both ends. */
#define FC_APPROX_LOG2(m)                                                      \
    (1.4424185785f +                                                           \
     (m) *                                                                     \
         (-0.7119965935f +                                                     \
          (m) * (0.4201112115f + (m) * (-0.1954071519f + (m)*0.0448739553f))))
/* 2^f for 0 <= f < 1. */
#define FC_APPROX_EXP2(f)                                                      \
    (1.0f + (f) * (0.6930912130f +                                             \
                   (f) * (0.2412836918f +                                      \
                          (f) * (0.0519274315f + (f)*0.0136976637f))))

/* log2 of a normal, positive x. */
FC_APPROX_INLINE float fc_approx_log2(float x)
{
    int32_t bits = fc_approx_bits(x);
    float whole = (float)((bits >> 23) - 127);
    float m = fc_approx_float((bits & 0x007fffff) | 0x3f800000) - 1.0f;
    return whole + m * FC_APPROX_LOG2(m);
}

/* 2^x, x clipped to -126 .. 126. */
FC_APPROX_INLINE float fc_approx_exp2(float x)
{
    x = x > -126.0f ? x : -126.0f;
    x = x < 126.0f ? x : 126.0f;
    /* 126 makes it positive, so that cutting off rounds down */
    int32_t whole = (int32_t)(x + 126.0f);
    float f = x + 126.0f - (float)whole;
    float p = FC_APPROX_EXP2(f);
    return fc_approx_float(fc_approx_bits(p) +
                           (int32_t)((uint32_t)(whole - 126) << 23));
}

/* The same in place. */
FC_APPROX_INLINE void fc_approx_log2_8(fc_float8 *x)
{
    fc_int8 bits = (fc_int8)*x;
    fc_float8 whole = __builtin_convertvector((bits >> 23) - 127, fc_float8);
    fc_float8 m = (fc_float8)((bits & 0x007fffff) | 0x3f800000) - 1.0f;
    *x = whole + m * FC_APPROX_LOG2(m);
}

/* x clipped to 0 .. most, in place. */
FC_APPROX_INLINE void fc_approx_clip_8(fc_float8 *x, const fc_float8 *most)
{
    fc_int8 above = *x > 0.0f;
    fc_int8 bits = (fc_int8)*x & above;
    fc_int8 below = (fc_float8)bits < *most;
    *x = (fc_float8)((bits & below) | ((fc_int8)*most & ~below));
}

FC_APPROX_INLINE void fc_approx_exp2_8(fc_float8 *x)
{
    fc_float8 most = { 252, 252, 252, 252, 252, 252, 252, 252 };
    fc_float8 y = *x + 126.0f;
    fc_approx_clip_8(&y, &most);
    fc_int8 whole = __builtin_convertvector(y, fc_int8);
    fc_float8 f = y - __builtin_convertvector(whole, fc_float8);
    fc_float8 p = FC_APPROX_EXP2(f);
    *x = (fc_float8)((fc_int8)p + (whole - 126) * (1 << 23));
}

#define FC_LOG2_E 1.44269504f

FC_APPROX_INLINE float fc_approx_sigmoid(float x)
{
    return 1.0f / (1.0f + fc_approx_exp2(-FC_LOG2_E * x));
}

/* Chance of at least one touch in `ticks` ticks with chance p in each. */
FC_APPROX_INLINE float fc_approx_within(float p, float ticks)
{
    float miss = 1.0f - p;
    miss = miss > 1e-6f ? miss : 1e-6f;
    return 1.0f - fc_approx_exp2(ticks * fc_approx_log2(miss));
}

#endif
