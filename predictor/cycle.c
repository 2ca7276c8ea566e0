/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cycle.h"

#include <math.h>
#include <string.h>

/*
 * The autocorrelation is computed anew every LOOK bins: 512 x 170 products,
 * some tens of microseconds every few seconds. A cycle must be seen three
 * times, so a third of the ring is the longest. Of the lags that correlate
 * nearly as well as the best the shortest local peak is taken: the multiples
 * of a cycle correlate as well as it does.
 */
#define LOOK 16u
#define LONGEST (FC_CYCLE_BINS / 3)
#define LEAST_CLEAR 0.3f
#define NEARLY 0.85f
#define TICKS_AT_MOST 1000u /* a gap in sampling beyond that is no data */

void fc_cycle_init(struct fc_cycle *c)
{
    memset(c, 0, sizeof(*c));
}

/* The bin `back` before the last full one. */
static float bin_at(const struct fc_cycle *c, uint32_t back)
{
    return c->rate[(c->bins - 1 - back) % FC_CYCLE_BINS];
}

static void find_crest(struct fc_cycle *c, uint32_t have)
{
    float best = -1.0f;
    for (uint32_t at = 0; at < c->length; at++) {
        float sum = 0, n = 0;
        for (uint32_t back = at; back < have; back += c->length) {
            sum += bin_at(c, back);
            n += 1.0f;
        }
        if (sum / n > best) {
            best = sum / n;
            c->crest = c->bins - 1 - at;
        }
    }
}

static void look(struct fc_cycle *c)
{
    float x[FC_CYCLE_BINS], r[LONGEST + 1], mean = 0, power = 0, best = 0;
    uint32_t have = c->bins < FC_CYCLE_BINS ? c->bins : FC_CYCLE_BINS;
    uint32_t longest = have / 3;
    c->length = 0;
    c->clear = 0;
    for (uint32_t i = 0; i < have; i++)
        mean += bin_at(c, i) / (float)have;
    for (uint32_t i = 0; i < have; i++) {
        x[i] = bin_at(c, i) - mean;
        power += x[i] * x[i];
    }
    if (longest <= FC_CYCLE_SHORTEST || power < 1e-3f * (float)have)
        return;
    for (uint32_t lag = 1; lag <= longest; lag++) {
        float sum = 0;
        for (uint32_t i = 0; i + lag < have; i++)
            sum += x[i] * x[i + lag];
        r[lag] = sum / power * (float)have / (float)(have - lag);
    }
    for (uint32_t lag = FC_CYCLE_SHORTEST; lag < longest; lag++)
        if (r[lag] > r[lag - 1] && r[lag] >= r[lag + 1])
            best = fmaxf(best, r[lag]);
    if (best < LEAST_CLEAR)
        return;
    for (uint32_t lag = FC_CYCLE_SHORTEST; lag < longest && !c->length; lag++)
        if (r[lag] > r[lag - 1] && r[lag] >= r[lag + 1] &&
            r[lag] >= NEARLY * best)
            c->length = lag;
    c->clear = fminf(r[c->length], 1.0f);
    find_crest(c, have);
}

void fc_cycle_add(struct fc_cycle *c, float touches, uint32_t ticks)
{
    ticks = ticks < TICKS_AT_MOST ? ticks : TICKS_AT_MOST;
    float each = log2f(1.0f + touches / (float)ticks);
    for (; ticks; ticks--) {
        c->sum += each;
        if (++c->ticks < FC_CYCLE_TICKS)
            continue;
        c->rate[c->bins++ % FC_CYCLE_BINS] = c->sum / FC_CYCLE_TICKS;
        c->sum = 0;
        c->ticks = 0;
        if (c->bins % LOOK == 0)
            look(c);
    }
}

float fc_cycle_phase(const struct fc_cycle *c)
{
    if (!c->length)
        return 0;
    uint32_t since = (c->bins - c->crest) % c->length;
    float part = (float)c->ticks / FC_CYCLE_TICKS;
    return ((float)since + part) / (float)c->length;
}

float fc_cycle_ahead(const struct fc_cycle *c, uint32_t ticks)
{
    if (!c->length)
        return 0;
    uint32_t ahead = (ticks + FC_CYCLE_TICKS - 1) / FC_CYCLE_TICKS % c->length;
    return bin_at(c, c->length - ahead) - bin_at(c, 0);
}
