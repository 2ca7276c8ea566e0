/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

#define MANTISSA_SHIFT 15  /* 23 bits to the 8 that tell slots apart */
#define LEAST_EXPONENT 95u /* of 2^-32 */

/* 0 .. FC_CURVE_HALF - 1, rising, of 0 <= p <= 0.5: by exponent and the first
 * bits of the mantissa. */
static uint32_t half_slot(float p)
{
    uint32_t bits;
    memcpy(&bits, &p, sizeof(bits));
    uint32_t least = LEAST_EXPONENT << 23;
    if (bits < least)
        return 0;
    uint32_t slot = (bits - least) >> MANTISSA_SHIFT;
    return slot < FC_CURVE_HALF ? slot : FC_CURVE_HALF - 1;
}

void fc_curve_add(struct fc_curve *c, float score, bool touched)
{
    float p = score > 0 ? score < 1 ? score : 1 : 0;
    uint32_t slot =
        p <= 0.5f ? half_slot(p) : FC_CURVE_SLOTS - 1 - half_slot(1 - p);
    unsigned bin = (unsigned)(p * FC_EVAL_BINS);
    if (bin >= FC_EVAL_BINS)
        bin = FC_EVAL_BINS - 1;
    if (touched)
        c->touched[slot]++;
    else
        c->clean[slot]++;
    c->bin[bin].said += p;
    c->bin[bin].touched += touched;
    c->bin[bin].all++;
}

double fc_curve_precision(const struct fc_curve *c)
{
    double found = 0, listed = 0, sum = 0;
    for (uint32_t i = FC_CURVE_SLOTS; i-- > 0;) {
        found += c->touched[i];
        listed += (double)c->touched[i] + c->clean[i];
        if (c->touched[i])
            sum += c->touched[i] * found / listed;
    }
    return found > 0 ? sum / found : 0;
}

double fc_curve_calibration(const struct fc_curve *c)
{
    double off = 0, all = 0;
    for (unsigned i = 0; i < FC_EVAL_BINS; i++) {
        off += fabs(c->bin[i].said - (double)c->bin[i].touched);
        all += (double)c->bin[i].all;
    }
    return all > 0 ? off / all : 0;
}

double fc_curve_clean(const struct fc_curve *c,
                      const struct fc_curve_idle *idle, double risk)
{
    double stale = idle ? idle->touched : 0, clean = idle ? idle->clean : 0;
    double best = stale <= risk * (stale + clean) ? clean : 0;
    for (uint32_t i = 0; i < FC_CURVE_SLOTS; i++) {
        stale += c->touched[i];
        clean += c->clean[i];
        if (c->clean[i] && stale <= risk * (stale + clean))
            best = clean;
    }
    return clean > 0 ? best / clean : 0;
}

double fc_curve_base(const struct fc_curve *c)
{
    double touched = 0, all = 0;
    for (unsigned i = 0; i < FC_EVAL_BINS; i++) {
        touched += (double)c->bin[i].touched;
        all += (double)c->bin[i].all;
    }
    return all > 0 ? touched / all : 0;
}

/* The value that would be at [k] were the array sorted, largest first
 * (Hoare's selection). */
static float largest(float *v, uint32_t n, uint32_t k)
{
    uint32_t low = 0, high = n - 1;
    while (low < high) {
        float pivot = v[low + (high - low) / 2];
        uint32_t i = low, j = high;
        for (;;) {
            while (v[i] > pivot)
                i++;
            while (v[j] < pivot)
                j--;
            if (i >= j)
                break;
            float t = v[i];
            v[i++] = v[j];
            v[j--] = t;
        }
        if (k <= j)
            high = j;
        else
            low = j + 1;
    }
    return v[k];
}

double fc_curve_top(uint32_t n, const float *score, const uint32_t *weight,
                    uint32_t keep, float *scratch)
{
    double above_sum = 0, equal_sum = 0;
    uint32_t above = 0, equal = 0;
    if (n == 0 || keep == 0)
        return 0;
    keep = keep < n ? keep : n;
    for (uint32_t i = 0; i < n; i++)
        scratch[i] = score[i] >= 0 ? score[i] : 0;
    float least = largest(scratch, n, keep - 1);
    for (uint32_t i = 0; i < n; i++) {
        float s = score[i] >= 0 ? score[i] : 0;
        above += s > least;
        above_sum += s > least ? weight[i] : 0;
        equal += s == least;
        equal_sum += s == least ? weight[i] : 0;
    }
    return above_sum + equal_sum * (keep - above) / equal;
}
