/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lr.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "approx.h"

/*
 * Each call is one Newton step on its samples, with the curvature of all
 * samples seen, decayed: recursive logistic regression with forgetting (an
 * extended Kalman filter in information form). Gradient descent would take
 * hundreds of passes over features as alike as ours; this takes one. The
 * ridge, which does not decay, ties what was never seen to the initial
 * weights.
 *
 * No weight moves by more than STEP at a time: the curvature of the first few
 * samples says little about what comes.
 */
#define DECAY 0.997
#define RIDGE 4.0
#define STEP 2.0
#define CHUNK 64u

void fc_lr_init(struct fc_lr *lr)
{
    static const unsigned like[FC_HORIZONS] = { FC_FEATURE_HAZARD_0,
                                                FC_FEATURE_HAZARD_1,
                                                FC_FEATURE_HAZARD_2,
                                                FC_FEATURE_HAZARD_2 };
    memset(lr, 0, sizeof(*lr));
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        lr->w[like[z]][z] = 12.0f / FC_LOG2_E; /* the feature's scale */
}

/* Two rows at a time: the four horizons of one beside those of the other. */
FC_APPROX_INLINE void p_any(const float weights[FC_LR_DIM][FC_HORIZONS],
                            uint32_t n, const float *x,
                            const float (*base)[FC_HORIZONS],
                            float *const p[FC_HORIZONS])
{
    const uint32_t stride = FC_FEATURE_STRIDE;
    fc_float8 w[FC_LR_DIM];
    for (unsigned k = 0; k < FC_LR_DIM; k++)
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            w[k][z] = w[k][z + FC_HORIZONS] = weights[k][z];
    for (uint32_t i = 0; i < n; i += 2) {
        const float *row = x + i * stride;
        const float *next = i + 1 < n ? row + stride : row;
        fc_float8 a[4] = { w[FC_FEATURE_STRIDE] };
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++) {
            float s = row[k], t = next[k];
            a[k & 3] += (fc_float8){ s, s, s, s, t, t, t, t } * w[k];
        }
        for (unsigned z = 0; base && z < FC_HORIZONS; z++) {
            a[1][z] += base[i][z];
            a[1][z + FC_HORIZONS] += base[i + 1 < n ? i + 1 : i][z];
        }
        fc_float8 u = (a[0] + a[1] + a[2] + a[3]) * -FC_LOG2_E;
        fc_approx_exp2_8(&u);
        u = 1.0f / (1.0f + u);
        for (unsigned z = 0; z < FC_HORIZONS; z++) {
            p[z][i] = u[z];
            if (i + 1 < n)
                p[z][i + 1] = u[z + FC_HORIZONS];
        }
    }
}

#ifdef FC_APPROX_AVX2
FC_APPROX_AVX2
static void p_avx2(const float w[FC_LR_DIM][FC_HORIZONS], uint32_t n,
                   const float *x, const float (*base)[FC_HORIZONS],
                   float *const p[FC_HORIZONS])
{
    p_any(w, n, x, base, p);
}
#endif

void fc_lr_p(const float w[FC_LR_DIM][FC_HORIZONS], uint32_t n, const float *x,
             const float (*base)[FC_HORIZONS], float *const p[FC_HORIZONS])
{
#ifdef FC_APPROX_AVX2
    if (fc_approx_avx2()) {
        p_avx2(w, n, x, base, p);
        return;
    }
#endif
    p_any(w, n, x, base, p);
}

/* In place: the lower triangle of a positive definite matrix becomes its
 * Cholesky factor, then solves for b. */
static void solve(double a[FC_LR_DIM][FC_LR_DIM], double b[FC_LR_DIM])
{
    for (unsigned j = 0; j < FC_LR_DIM; j++) {
        for (unsigned k = 0; k < j; k++)
            a[j][j] -= a[j][k] * a[j][k];
        a[j][j] = sqrt(fmax(a[j][j], 1e-9));
        for (unsigned i = j + 1; i < FC_LR_DIM; i++) {
            for (unsigned k = 0; k < j; k++)
                a[i][j] -= a[i][k] * a[j][k];
            a[i][j] /= a[j][j];
        }
    }
    for (unsigned i = 0; i < FC_LR_DIM; i++) {
        for (unsigned k = 0; k < i; k++)
            b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (unsigned i = FC_LR_DIM; i-- > 0;) {
        for (unsigned k = i + 1; k < FC_LR_DIM; k++)
            b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
}

/* Sums of a chunk in float: rows are padded so that loops are of vectors. */
#define PADDED 44u
struct sums {
    float h[FC_LR_DIM][PADDED];
    float g[PADDED];
};

static void add_sample(struct sums *s, const struct fc_lr *lr, unsigned z,
                       const float *x, float base, bool touched)
{
    float row[PADDED] = { 0 }, score = lr->w[FC_FEATURE_STRIDE][z] + base;
    memcpy(row, x, FC_FEATURE_STRIDE * sizeof(*row));
    row[FC_FEATURE_STRIDE] = 1.0f;
    for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
        score += x[k] * lr->w[k][z];
    float p = fc_approx_sigmoid(score);
    float err = (touched ? 1.0f : 0.0f) - p;
    float curve = fmaxf(p * (1.0f - p), 1e-4f);
    for (unsigned k = 0; k < PADDED; k++)
        s->g[k] += err * row[k];
    for (unsigned i = 0; i < FC_LR_DIM; i++) {
        float c = curve * row[i];
        if (c == 0.0f)
            continue;
        /* the lower triangle, to the end of a vector */
        for (unsigned k = 0; k < (i & ~3u) + 4u; k++)
            s->h[i][k] += c * row[k];
    }
}

void fc_lr_learn(struct fc_lr *lr, unsigned horizon, uint32_t n, const float *x,
                 const float *base, const uint8_t *touched)
{
    static const size_t stride = FC_FEATURE_STRIDE;
    double(*h)[FC_LR_DIM] = lr->h[horizon];
    double a[FC_LR_DIM][FC_LR_DIM], b[FC_LR_DIM] = { 0 };
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        for (unsigned k = 0; k <= i; k++)
            h[i][k] *= DECAY;
    for (uint32_t at = 0; at < n; at += CHUNK) {
        struct sums s = { .g = { 0 } };
        for (uint32_t i = at; i < n && i < at + CHUNK; i++)
            add_sample(&s, lr, horizon, x + i * stride, base ? base[i] : 0,
                       touched[i]);
        for (unsigned i = 0; i < FC_LR_DIM; i++) {
            b[i] += (double)s.g[i];
            for (unsigned k = 0; k <= i; k++)
                h[i][k] += (double)s.h[i][k];
        }
    }
    memcpy(a, h, sizeof(a));
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        a[i][i] += RIDGE;
    solve(a, b);
    double most = 0;
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        most = fmax(most, fabs(b[i]));
    double scale = most > STEP ? STEP / most : 1.0;
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        lr->w[i][horizon] += (float)(scale * b[i]);
    lr->steps[horizon]++;
}
