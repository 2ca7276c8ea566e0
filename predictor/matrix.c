/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sums of tiles of 4 rows by 16 columns are held in registers; the same code
 * is compiled twice, for any x86-64 and with AVX2 (without FMA: see matrix.h),
 * on compilers' vector types. These never cross a call: their ABI depends on
 * the target.
 */
#include <stdbool.h>
#include <stdint.h>

#include "matrix.h"

typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t v4i __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline))

/* 4 rows by 16 columns */
INLINE void tile(size_t terms, size_t n, struct fc_matrix_view a,
                 const float *b, float *c)
{
    const float *a0 = a.at, *a1 = a0 + a.row_stride;
    const float *a2 = a1 + a.row_stride, *a3 = a2 + a.row_stride;
    v8 *c0 = (v8 *)c, *c1 = (v8 *)(c + n);
    v8 *c2 = (v8 *)(c + 2 * n), *c3 = (v8 *)(c + 3 * n);
    v8 s00 = c0[0], s01 = c0[1], s10 = c1[0], s11 = c1[1];
    v8 s20 = c2[0], s21 = c2[1], s30 = c3[0], s31 = c3[1];

    for (size_t k = 0; k < terms; k++, b += n) {
        v8 b0 = ((const v8 *)b)[0], b1 = ((const v8 *)b)[1];
        size_t at = k * a.k_stride;
        s00 += a0[at] * b0;
        s01 += a0[at] * b1;
        s10 += a1[at] * b0;
        s11 += a1[at] * b1;
        s20 += a2[at] * b0;
        s21 += a2[at] * b1;
        s30 += a3[at] * b0;
        s31 += a3[at] * b1;
    }
    c0[0] = s00, c0[1] = s01, c1[0] = s10, c1[1] = s11;
    c2[0] = s20, c2[1] = s21, c3[0] = s30, c3[1] = s31;
}

/* 1 row by 4 columns */
INLINE void small_tile(size_t terms, size_t n, struct fc_matrix_view a,
                       const float *b, float *c)
{
    v4 sum = *(v4 *)c;
    for (size_t k = 0; k < terms; k++, b += n)
        sum += a.at[k * a.k_stride] * *(const v4 *)b;
    *(v4 *)c = sum;
}

INLINE void muladd(size_t rows, size_t terms, size_t n, struct fc_matrix_view a,
                   const float *b, float *c)
{
    size_t wide = n / 16 * 16, whole = rows / 4 * 4;
    struct fc_matrix_view at = a;

    for (size_t row = 0; row < rows; row++) {
        at.at = a.at + row * a.row_stride;
        if (row < whole && row % 4 == 0)
            for (size_t j = 0; j < wide; j += 16)
                tile(terms, n, at, b + j, c + row * n + j);
        for (size_t j = row < whole ? wide : 0; j < n; j += 4)
            small_tile(terms, n, at, b + j, c + row * n + j);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void
muladd_avx2(size_t rows, size_t terms, size_t n, struct fc_matrix_view a,
            const float *b, float *c)
{
    muladd(rows, terms, n, a, b, c);
}
#endif

void fc_matrix_muladd(size_t rows, size_t terms, size_t n,
                      struct fc_matrix_view a, const float *b, float *c)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        muladd_avx2(rows, terms, n, a, b, c);
        return;
    }
#endif
    muladd(rows, terms, n, a, b, c);
}

void fc_matrix_add_rows(size_t rows, size_t n, const float *d, float *c)
{
    for (size_t row = 0; row < rows; row++, d += n)
        for (size_t j = 0; j < n; j++)
            c[j] += d[j];
}

/* ---- functions of one number ------------------------------------------- */

/* e^v: 2^n by the exponent's bits, 2^f on [-1/2, 1/2] by Taylor's terms */
INLINE void exp_v4(v4 *v)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: rounds when added */
    v4 t = *v * 1.44269504f;
    v4 n = t + magic - magic;
    v4 f = t - n;
    v4 p = f * 1.5403530e-4f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    v4i e = (__builtin_convertvector(n, v4i) + 127) << 23;
    *v = p * (v4)e;
}

/* The clamp also turns what is not a number into a number. */
INLINE void clamp_v4(v4 *v)
{
    for (unsigned i = 0; i < 4; i++) {
        float x = (*v)[i];
        (*v)[i] = x > -40.0f ? (x < 40.0f ? x : 40.0f) : -40.0f;
    }
}

void fc_matrix_sigmoid(size_t n, float *v)
{
    for (size_t i = 0; i < n; i += 4) {
        v4 x = -*(v4 *)(v + i);
        clamp_v4(&x);
        exp_v4(&x);
        *(v4 *)(v + i) = 1.0f / (1.0f + x);
    }
}

void fc_matrix_tanh(size_t n, float *v)
{
    for (size_t i = 0; i < n; i += 4) {
        v4 x = 2.0f * *(v4 *)(v + i);
        clamp_v4(&x);
        exp_v4(&x);
        *(v4 *)(v + i) = 1.0f - 2.0f / (1.0f + x);
    }
}
