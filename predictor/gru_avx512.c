/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GRU's step with AVX-512F. Eight regions and 16 hidden units at a time:
 * the three gates' sums of eight regions are 24 registers; each row of weights
 * is loaded once for all eight. The input's share of the candidate (which the
 * reset gate must not touch) is put by between the two walks.
 *
 * The regions are spelled out by EACH(): gcc at -O2 would leave arrays of
 * registers in memory.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "gru_rows.h"

#define ROWS 8u
#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* 2^f on [-1/2, 1/2]: Taylor's terms to the sixth, error below 2e-7 */
INLINE __m512 exp_v(__m512 v)
{
    __m512 t = _mm512_mul_ps(v, _mm512_set1_ps(1.44269504f));
    __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT);
    __m512 f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

INLINE __m512 clamp(__m512 v)
{
    v = _mm512_min_ps(v, _mm512_set1_ps(FC_GRU_CLAMP));
    return _mm512_max_ps(v, _mm512_set1_ps(-FC_GRU_CLAMP));
}

/* 1 / (1 + e^v), the quotient by one step of Newton's from 14 bits */
INLINE __m512 one_over_one_plus_exp(__m512 v)
{
    __m512 d = _mm512_add_ps(_mm512_set1_ps(1.0f), exp_v(v));
    __m512 q = _mm512_rcp14_ps(d);
    return _mm512_mul_ps(q, _mm512_fnmadd_ps(d, q, _mm512_set1_ps(2.0f)));
}

INLINE __m512 sigmoid_v(__m512 v)
{
    return one_over_one_plus_exp(_mm512_sub_ps(_mm512_setzero_ps(), clamp(v)));
}

INLINE __m512 tanh_v(__m512 v)
{
    v = clamp(_mm512_add_ps(v, v));
    return _mm512_fnmadd_ps(_mm512_set1_ps(2.0f), one_over_one_plus_exp(v),
                            _mm512_set1_ps(1.0f));
}

/* The new states of 16 units of ROWS regions, from block's weights `w`. */
INLINE void block(const float *w, struct fc_gru_shape s, const float *x,
                  const float *h, unsigned unit, float *next)
{
    const float *bias = w + (size_t)(s.inputs + s.hidden) * FC_GRU_ROW;
    float put_by[ROWS][FC_GRU_LANES];
    __m512 wr, wz, wn, v;

#define START(i)                                                               \
    __m512 r##i = _mm512_loadu_ps(bias);                                       \
    __m512 z##i = _mm512_loadu_ps(bias + 16);                                  \
    __m512 n##i = _mm512_loadu_ps(bias + 32);
#define WEIGHTS                                                                \
    wr = _mm512_loadu_ps(w);                                                   \
    wz = _mm512_loadu_ps(w + 16);                                              \
    wn = _mm512_loadu_ps(w + 32);
#define ADD(i, in, width)                                                      \
    v = _mm512_set1_ps(in[(size_t)(i) * (width) + k]);                         \
    r##i = _mm512_fmadd_ps(v, wr, r##i);                                       \
    z##i = _mm512_fmadd_ps(v, wz, z##i);                                       \
    n##i = _mm512_fmadd_ps(v, wn, n##i);
#define ADD_X(i) ADD(i, x, s.inputs)
#define ADD_H(i) ADD(i, h, s.hidden)
#define PUT_BY(i)                                                              \
    _mm512_storeu_ps(put_by[i], n##i);                                         \
    n##i = _mm512_loadu_ps(bias + 48);
#define FINISH(i)                                                              \
    n##i = tanh_v(                                                             \
        _mm512_fmadd_ps(sigmoid_v(r##i), n##i, _mm512_loadu_ps(put_by[i])));   \
    v = _mm512_loadu_ps(h + (size_t)(i)*s.hidden + unit);                      \
    v = _mm512_fmadd_ps(sigmoid_v(z##i), _mm512_sub_ps(v, n##i), n##i);        \
    _mm512_storeu_ps(next + (size_t)(i)*s.hidden + unit, v);

    EACH(START)
    for (uint32_t k = 0; k < s.inputs; k++, w += FC_GRU_ROW) {
        WEIGHTS
        EACH(ADD_X)
    }
    EACH(PUT_BY)
    for (uint32_t k = 0; k < s.hidden; k++, w += FC_GRU_ROW) {
        WEIGHTS
        EACH(ADD_H)
    }
    EACH(FINISH)
}

INLINE __m256 fold(__m512 v)
{
    __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1);
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(high));
}

#define DOT(o) a##o = _mm512_fmadd_ps(v, _mm512_loadu_ps(w + (o)*n + k), a##o);

INLINE void readout(const float *w, struct fc_gru_shape s, const float *x,
                    const float *h, float *logits)
{
    __m512 a0 = _mm512_setzero_ps(), a1 = a0, a2 = a0, a3 = a0, v;
    size_t n = s.hidden;

    for (size_t k = 0; k < n; k += FC_GRU_LANES) {
        v = _mm512_loadu_ps(h + k);
        DOT(0) DOT(1) DOT(2) DOT(3)
    }
    w += FC_GRU_OUTPUTS * n;
    n = fc_gru_padded(s.inputs);
    for (size_t k = 0; k < n; k += FC_GRU_LANES) {
        unsigned left = s.inputs - (unsigned)k;
        v = _mm512_maskz_loadu_ps(
            left >= FC_GRU_LANES ? 0xffff : (__mmask16)((1u << left) - 1),
            x + k);
        DOT(0) DOT(1) DOT(2) DOT(3)
    }
    w += FC_GRU_OUTPUTS * n;
    __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(fold(a0), fold(a1)),
                                 _mm256_hadd_ps(fold(a2), fold(a3)));
    _mm_storeu_ps(logits,
                  _mm_add_ps(_mm_loadu_ps(w),
                             _mm_add_ps(_mm256_castps256_ps128(sums),
                                        _mm256_extractf128_ps(sums, 1))));
}

TARGET static void step_rows(const struct fc_gru_model *m, const float *x,
                             float *h, float *logits)
{
    struct fc_gru_shape s = m->shape;
    float next[ROWS * FC_GRU_MAX_HIDDEN];
    const float *w = m->packed;

    for (unsigned unit = 0; unit < s.hidden; unit += FC_GRU_LANES) {
        block(w, s, x, h, unit, next);
        w += fc_gru_block_floats(s);
    }
    memcpy(h, next, ROWS * s.hidden * sizeof(float));
    for (unsigned i = 0; i < ROWS; i++)
        readout(w, s, x + (size_t)i * s.inputs, h + (size_t)i * s.hidden,
                logits + (size_t)i * FC_GRU_OUTPUTS);
}

void fc_gru_step_avx512(const struct fc_gru_model *m, uint32_t n,
                        const float *x, float *h, float *logits)
{
    fc_gru_each_rows(m, n, ROWS, step_rows, x, h, logits);
}
#endif
