/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "calibrate.h"

#include <math.h>

/*
 * Two numbers, a slope and a shift on the scale of fc_stretch(): Platt's
 * scaling (Platt 1999), learned online by Newton steps on the log loss, drawn
 * towards the identity by a ridge. With u the stretched chance and p the
 * calibrated one, the loss in nats has the derivative ln 2 (p - y) /
 * max(p, 1-p) by slope u + shift, and the expected square of this, the
 * curvature (Fisher's), is (ln 2)^2 min(p, 1-p) / max(p, 1-p).
 *
 * A finer map, such as one by isotonic regression, follows the labels of late
 * better than those to come: labels of one time are correlated, and a map that
 * is flat where they were noisy takes a scorer's order away in a mixture.
 */
#define CURVE_DECAY 0.995
#define RIDGE 0.001
#define STEP 0.005 /* of a whole Newton step, at the least */
#define FIRST_CALLS 8.0
#define LEAST_SLOPE 0.2f
#define MOST_SLOPE 4.0f
#define MOST_SHIFT 8.0f
#define BIN_DECAY 0.999f
#define LN2 0.693147180559945

void fc_calibrate_init(struct fc_calibrate *c)
{
    *c = (struct fc_calibrate){ .slope = 1 };
}

static inline __attribute__((always_inline)) void
apply_any(float slope, float shift, uint32_t n, const float *p, float *out)
{
    for (uint32_t j = 0; j < n; j++)
        out[j] = fc_squash(slope * fc_stretch(p[j]) + shift);
}

#define BLOCK 256u

/* In blocks of a fixed length, which compilers turn into vector code. */
static inline __attribute__((always_inline)) void
apply_blocks(const struct fc_calibrate *c, uint32_t n, const float *p,
             float *out)
{
    float in[BLOCK];
    uint32_t at = 0;
    for (; at + BLOCK <= n; at += BLOCK) {
        memcpy(in, p + at, sizeof(in)); /* `out` may be `p` */
        apply_any(c->slope, c->shift, BLOCK, in, out + at);
    }
    apply_any(c->slope, c->shift, n - at, p + at, out + at);
}

static void apply_plain(const struct fc_calibrate *c, uint32_t n,
                        const float *p, float *out)
{
    apply_blocks(c, n, p, out);
}

#ifdef FC_STRETCH_AVX2
FC_STRETCH_AVX2
static void apply_avx2(const struct fc_calibrate *c, uint32_t n, const float *p,
                       float *out)
{
    apply_blocks(c, n, p, out);
}
#endif

void fc_calibrate_apply(const struct fc_calibrate *c, uint32_t n,
                        const float *p, float *out)
{
#ifdef FC_STRETCH_AVX2
    if (fc_stretch_avx2()) {
        apply_avx2(c, n, p, out);
        return;
    }
#endif
    apply_plain(c, n, p, out);
}

/* One call's sums. */
struct batch {
    double gradient[2], curve[3];
    float said[FC_CALIBRATE_BINS], hit[FC_CALIBRATE_BINS],
        seen[FC_CALIBRATE_BINS];
};

static void add(struct batch *b, float u, float p, float y)
{
    float most = p > 0.5f ? p : 1.0f - p;
    float g = (p - y) / most, curve = (1.0f - most) / most;
    int bin = (int)(p * FC_CALIBRATE_BINS);
    bin = bin < FC_CALIBRATE_BINS ? bin : FC_CALIBRATE_BINS - 1;
    b->gradient[0] += (double)g;
    b->gradient[1] += (double)(g * u);
    b->curve[0] += (double)curve;
    b->curve[1] += (double)(curve * u);
    b->curve[2] += (double)(curve * u * u);
    b->said[bin] += p;
    b->hit[bin] += y;
    b->seen[bin] += 1.0f;
}

static float within(double x, float least, float most)
{
    return (float)fmin(fmax(x, (double)least), (double)most);
}

static void step(struct fc_calibrate *c, const struct batch *b, uint32_t n)
{
    double h[3], g[2];
    c->calls = c->calls * CURVE_DECAY + 1;
    for (unsigned i = 0; i < 3; i++) {
        c->curve[i] = c->curve[i] * CURVE_DECAY + b->curve[i] / n;
        h[i] = c->curve[i] / c->calls * LN2;
    }
    g[0] = b->gradient[0] / n + RIDGE * (double)c->shift;
    g[1] = b->gradient[1] / n + RIDGE * (double)(c->slope - 1);
    h[0] += RIDGE;
    h[2] += RIDGE;
    double det = h[0] * h[2] - h[1] * h[1];
    if (!(det > 0))
        return;
    double part = fmax(STEP, 1 / (c->calls + FIRST_CALLS));
    double shift = part * (h[2] * g[0] - h[1] * g[1]) / det;
    double slope = part * (h[0] * g[1] - h[1] * g[0]) / det;
    c->shift = within((double)c->shift - shift, -MOST_SHIFT, MOST_SHIFT);
    c->slope = within((double)c->slope - slope, LEAST_SLOPE, MOST_SLOPE);
}

void fc_calibrate_learn(struct fc_calibrate *c, uint32_t n,
                        const float *raw_then, const uint8_t *touched)
{
    struct batch b = { .gradient = { 0 } };
    if (!n)
        return;
    for (uint32_t j = 0; j < n; j++) {
        float u = fc_stretch(raw_then[j]);
        add(&b, u, fc_squash(c->slope * u + c->shift), touched[j] ? 1 : 0);
    }
    for (unsigned i = 0; i < FC_CALIBRATE_BINS; i++) {
        c->bins[i].said = c->bins[i].said * BIN_DECAY + b.said[i];
        c->bins[i].hit = c->bins[i].hit * BIN_DECAY + b.hit[i];
        c->bins[i].seen = c->bins[i].seen * BIN_DECAY + b.seen[i];
    }
    c->labels += n;
    step(c, &b, n);
}

float fc_calibrate_error(const struct fc_calibrate *c)
{
    float off = 0, seen = 0;
    for (int i = 0; i < FC_CALIBRATE_BINS; i++) {
        off += fabsf(c->bins[i].said - c->bins[i].hit);
        seen += c->bins[i].seen;
    }
    return seen > 0 ? off / seen : 0;
}
