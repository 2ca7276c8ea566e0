/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GRU's step with AVX2 and FMA: as gru_avx512.c, with four regions and
 * eight hidden units at a time (12 of 16 registers hold sums), so a block of
 * the packed weights is walked twice.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "gru_rows.h"

#define ROWS 4u
#define WIDTH 8u
#define EACH(M) M(0) M(1) M(2) M(3)
#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* 2^f on [-1/2, 1/2]: Taylor's terms to the sixth, error below 2e-7 */
INLINE __m256 exp_v(__m256 v)
{
    __m256 t = _mm256_mul_ps(v, _mm256_set1_ps(1.44269504f));
    __m256 n =
        _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 f = _mm256_sub_ps(t, n);
    __m256 p = _mm256_set1_ps(1.5403530e-4f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.3333558e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.6181291e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.5504109e-2f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.4022651e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.9314718e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

INLINE __m256 clamp(__m256 v)
{
    v = _mm256_min_ps(v, _mm256_set1_ps(FC_GRU_CLAMP));
    return _mm256_max_ps(v, _mm256_set1_ps(-FC_GRU_CLAMP));
}

INLINE __m256 one_over_one_plus_exp(__m256 v)
{
    __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp_v(v)));
}

INLINE __m256 sigmoid_v(__m256 v)
{
    return one_over_one_plus_exp(_mm256_sub_ps(_mm256_setzero_ps(), clamp(v)));
}

INLINE __m256 tanh_v(__m256 v)
{
    v = clamp(_mm256_add_ps(v, v));
    return _mm256_fnmadd_ps(_mm256_set1_ps(2.0f), one_over_one_plus_exp(v),
                            _mm256_set1_ps(1.0f));
}

/* The new states of 8 units of ROWS regions; `w` at their first weight. */
INLINE void block(const float *w, struct fc_gru_shape s, const float *x,
                  const float *h, unsigned unit, float *next)
{
    const float *bias = w + (size_t)(s.inputs + s.hidden) * FC_GRU_ROW;
    float put_by[ROWS][WIDTH];
    __m256 wr, wz, wn, v;

#define START(i)                                                               \
    __m256 r##i = _mm256_loadu_ps(bias);                                       \
    __m256 z##i = _mm256_loadu_ps(bias + 16);                                  \
    __m256 n##i = _mm256_loadu_ps(bias + 32);
#define WEIGHTS                                                                \
    wr = _mm256_loadu_ps(w);                                                   \
    wz = _mm256_loadu_ps(w + 16);                                              \
    wn = _mm256_loadu_ps(w + 32);
#define ADD(i, in, width)                                                      \
    v = _mm256_broadcast_ss(in + (size_t)(i) * (width) + k);                   \
    r##i = _mm256_fmadd_ps(v, wr, r##i);                                       \
    z##i = _mm256_fmadd_ps(v, wz, z##i);                                       \
    n##i = _mm256_fmadd_ps(v, wn, n##i);
#define ADD_X(i) ADD(i, x, s.inputs)
#define ADD_H(i) ADD(i, h, s.hidden)
#define PUT_BY(i)                                                              \
    _mm256_storeu_ps(put_by[i], n##i);                                         \
    n##i = _mm256_loadu_ps(bias + 48);
#define FINISH(i)                                                              \
    n##i = tanh_v(                                                             \
        _mm256_fmadd_ps(sigmoid_v(r##i), n##i, _mm256_loadu_ps(put_by[i])));   \
    v = _mm256_loadu_ps(h + (size_t)(i)*s.hidden + unit);                      \
    v = _mm256_fmadd_ps(sigmoid_v(z##i), _mm256_sub_ps(v, n##i), n##i);        \
    _mm256_storeu_ps(next + (size_t)(i)*s.hidden + unit, v);

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

#define DOT(o) a##o = _mm256_fmadd_ps(v, _mm256_loadu_ps(w + (o)*n + k), a##o);

/* `x` has zeros behind it up to a whole block. */
INLINE void readout(const float *w, struct fc_gru_shape s, const float *x,
                    const float *h, float *logits)
{
    __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0, v;
    size_t n = s.hidden;

    for (size_t k = 0; k < n; k += WIDTH) {
        v = _mm256_loadu_ps(h + k);
        DOT(0) DOT(1) DOT(2) DOT(3)
    }
    w += FC_GRU_OUTPUTS * n;
    n = fc_gru_padded(s.inputs);
    for (size_t k = 0; k < n; k += WIDTH) {
        v = _mm256_loadu_ps(x + k);
        DOT(0) DOT(1) DOT(2) DOT(3)
    }
    w += FC_GRU_OUTPUTS * n;
    __m256 sums =
        _mm256_hadd_ps(_mm256_hadd_ps(a0, a1), _mm256_hadd_ps(a2, a3));
    _mm_storeu_ps(logits,
                  _mm_add_ps(_mm_loadu_ps(w),
                             _mm_add_ps(_mm256_castps256_ps128(sums),
                                        _mm256_extractf128_ps(sums, 1))));
}

TARGET static void step_rows(const struct fc_gru_model *m, const float *x,
                             float *h, float *logits)
{
    struct fc_gru_shape s = m->shape;
    float next[ROWS * FC_GRU_MAX_HIDDEN], padded[FC_GRU_MAX_INPUTS];
    size_t whole = fc_gru_padded(s.inputs);
    const float *w = m->packed;

    for (unsigned unit = 0; unit < s.hidden; unit += FC_GRU_LANES) {
        block(w, s, x, h, unit, next);
        block(w + WIDTH, s, x, h, unit + WIDTH, next);
        w += fc_gru_block_floats(s);
    }
    memcpy(h, next, ROWS * s.hidden * sizeof(float));
    memset(padded + s.inputs, 0, (whole - s.inputs) * sizeof(float));
    for (unsigned i = 0; i < ROWS; i++) {
        const float *row = x + (size_t)i * s.inputs;
        if (whole > s.inputs)
            row = memcpy(padded, row, s.inputs * sizeof(float));
        readout(w, s, row, h + (size_t)i * s.hidden,
                logits + (size_t)i * FC_GRU_OUTPUTS);
    }
}

void fc_gru_step_avx2(const struct fc_gru_model *m, uint32_t n, const float *x,
                      float *h, float *logits)
{
    fc_gru_each_rows(m, n, ROWS, step_rows, x, h, logits);
}
#endif
