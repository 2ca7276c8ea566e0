/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guestwide.h"

#include <math.h>

#define TREND_OCTAVES 4.0f
#define RATE_OCTAVES 20.0f  /* a million regions a tick */
#define BYTES_OCTAVES 36.0f /* 64 GB/s */

void fc_guestwide_init(struct fc_guestwide *g, float fast_half_life,
                       float slow_half_life)
{
    *g = (struct fc_guestwide){ .fast_half_life = fast_half_life,
                                .slow_half_life = slow_half_life };
    fc_cycle_init(&g->cycle);
}

static void follow(float *mean, float value, float ticks, float half_life)
{
    *mean += (value - *mean) * (1.0f - exp2f(-ticks / half_life));
}

void fc_guestwide_add(struct fc_guestwide *g, uint32_t touched, uint32_t born,
                      uint32_t ticks)
{
    float n = (float)ticks;
    follow(&g->fast, (float)touched / n, n, g->fast_half_life);
    follow(&g->slow, (float)touched / n, n, g->slow_half_life);
    follow(&g->born, (float)born / n, n, g->slow_half_life);
    fc_cycle_add(&g->cycle, (float)touched, ticks);
}

static float clip(float x, float low, float high)
{
    return x > low ? x < high ? x : high : low; /* NaN: low */
}

static float bytes(float a, float b)
{
    float sum = clip(a, 0, 1e12f) + clip(b, 0, 1e12f);
    return log2f(1.0f + sum) / BYTES_OCTAVES;
}

void fc_guestwide_row(const struct fc_guestwide *g,
                      const struct fc_rates *rates, uint32_t mid_ticks,
                      float row[FC_FEATURE_STRIDE])
{
    static const struct fc_rates unknown;
    const struct fc_cycle *c = &g->cycle;
    const struct fc_rates *r = rates ? rates : &unknown;
    float trend = log2f((1.0f + g->fast) / (1.0f + g->slow)) / TREND_OCTAVES;
    float turn = 6.2831853f * fc_cycle_phase(c);
    float soon = 0, busy = 0, cpu = clip(r->cpu, 0, 4096.0f);
    for (unsigned i = 0; i < FC_HINTS; i++) {
        float hint = clip(r->hint[i], 0, 1);
        busy = hint >= 1 ? 1 : busy;
        soon = hint < 1 && hint > soon ? hint : soon;
    }
    row[FC_FEATURE_GUEST_RATE] = log2f(1.0f + g->fast) / RATE_OCTAVES;
    row[FC_FEATURE_GUEST_TREND] = clip(trend, -1, 1);
    row[FC_FEATURE_CPU] = cpu / (1.0f + cpu);
    row[FC_FEATURE_NET] = bytes(r->net_rx, r->net_tx);
    row[FC_FEATURE_VBD_READ] = bytes(r->vbd_rd, 0);
    row[FC_FEATURE_VBD_WRITE] = bytes(r->vbd_wr, 0);
    row[FC_FEATURE_CYCLE_SIN] = c->clear * sinf(turn);
    row[FC_FEATURE_CYCLE_COS] = c->clear * cosf(turn);
    row[FC_FEATURE_CYCLE_AHEAD] =
        clip(c->clear * fc_cycle_ahead(c, mid_ticks) / TREND_OCTAVES, -1, 1);
    row[FC_FEATURE_HINT_SOON] = soon;
    row[FC_FEATURE_HINT_BUSY] = busy;
}
