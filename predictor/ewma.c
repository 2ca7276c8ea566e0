/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <stdlib.h>

#include "err.h"
#include "scorer.h"
#include "sparse.h"

/*
 * Exponentially weighted write rate. A window of w seconds in which a page was
 * written says "one write in w" and a quiet one says "none"; each observation
 * weighs 1 - 2^(-w/H), what came before 2^(-w/H). Quiet windows need no work:
 * their decay is applied when the page is next looked at, from the time of its
 * last write. Writes are taken as Poisson, so P(h) = 1 - exp(-rate * h).
 *
 * A page that was written at a high rate and has now been quiet for t has most
 * likely changed its habit, which the half-life alone is slow to believe: with
 * an exponential prior of mean r for its rate, the mean after a gap of t is
 * r / (1 + r * t), and that is what scores.
 *
 * Four bytes a page: the rate in 2048ths of an octave from 2^-24 to 2^8 per
 * second (0: never written, or so long ago that it does not count) and the
 * time of the last write in quarter seconds. That time wraps after 4.5 hours;
 * well before, a sweep forgets pages whose rate has decayed to nothing anyway.
 */
#define HALF_LIFE_S 20.0f
#define TICK_MS 250u
#define FORGET_TICKS 8192u /* 34 minutes: 2^-102 of the rate is left */
#define SWEEP_TICKS 8192u
#define RATE_OCTAVE 2048.0f
#define RATE_LOWEST_LOG2 (-24.0f)

struct item {
    uint16_t rate, last;
};

struct ewma {
    struct fc_sparse items;
    uint64_t now_ms;
    uint64_t swept_tick;
};

static uint16_t rate_pack(float per_s)
{
    float code = 1.0f + (log2f(per_s) - RATE_LOWEST_LOG2) * RATE_OCTAVE;
    if (!(code >= 1.0f))
        return 0;
    return code > 65535.0f ? 65535 : (uint16_t)lrintf(code);
}

static float rate_unpack(uint16_t code)
{
    return code ? exp2f((float)(code - 1) / RATE_OCTAVE + RATE_LOWEST_LOG2)
                : 0.0f;
}

static uint16_t tick_of(const struct ewma *e)
{
    return (uint16_t)(e->now_ms / TICK_MS);
}

/* The rate as of now. */
static float rate_now(const struct ewma *e, const struct item *item)
{
    if (!item->rate)
        return 0.0f;
    uint16_t age = (uint16_t)(tick_of(e) - item->last);
    return rate_unpack(item->rate) *
           exp2f(-(float)age * (TICK_MS / 1000.0f) / HALF_LIFE_S);
}

static int ewma_create(uint64_t pages, void **state_r)
{
    struct ewma *e = calloc(1, sizeof(*e));
    if (!e)
        return FC_ENOMEM;
    int rc = fc_sparse_init(&e->items, pages, sizeof(struct item));
    if (rc) {
        free(e);
        return rc;
    }
    *state_r = e;
    return 0;
}

struct step {
    const struct ewma *e;
    float gain; /* what one written window adds, per second */
};

static void written(void *user, void *item)
{
    const struct step *step = user;
    struct item *it = item;
    it->rate = rate_pack(rate_now(step->e, it) + step->gain);
    it->last = tick_of(step->e);
}

static void forget_old(void *user, void *item)
{
    const struct ewma *e = user;
    struct item *it = item;
    if (it->rate && (uint16_t)(tick_of(e) - it->last) > FORGET_TICKS)
        it->rate = 0;
}

static int ewma_update(void *state, const uint64_t *dirty, uint32_t elapsed_ms)
{
    struct ewma *e = state;
    float window_s = (float)elapsed_ms / 1000.0f;
    /* A window longer than the sweep's period must not wrap the clock. */
    e->now_ms +=
        elapsed_ms < SWEEP_TICKS * TICK_MS ? elapsed_ms : SWEEP_TICKS * TICK_MS;
    struct step step = { e,
                         (1.0f - exp2f(-window_s / HALF_LIFE_S)) / window_s };
    int rc = fc_sparse_each_bit(&e->items, dirty, written, &step);
    if (e->now_ms / TICK_MS - e->swept_tick >= SWEEP_TICKS) {
        fc_sparse_each_item(&e->items, forget_old, e);
        e->swept_tick = e->now_ms / TICK_MS;
    }
    return rc;
}

static float ewma_p_dirty(const void *state, uint64_t page, uint32_t horizon_ms)
{
    const struct ewma *e = state;
    const struct item *item = fc_sparse_get(&e->items, page);
    /* Never seen written in T seconds: about half a write in T. */
    float floor_rate = 0.5f / ((float)e->now_ms / 1000.0f + 30.0f);
    float rate = 0.0f;
    if (item && item->rate) {
        float gap_s =
            (float)(uint16_t)(tick_of(e) - item->last) * (TICK_MS / 1000.0f);
        /* What was before the first window is unknown, not "no writes". */
        float weight = 1.0f - exp2f(-(float)e->now_ms / 1000.0f / HALF_LIFE_S);
        rate = rate_now(e, item) / weight;
        rate /= 1.0f + rate_unpack(item->rate) * gap_s;
    }
    if (rate < floor_rate)
        rate = floor_rate;
    return 1.0f - expf(-rate * (float)horizon_ms / 1000.0f);
}

static size_t ewma_bytes(const void *state)
{
    const struct ewma *e = state;
    return sizeof(*e) + fc_sparse_bytes(&e->items);
}

static void ewma_destroy(void *state)
{
    struct ewma *e = state;
    fc_sparse_dispose(&e->items);
    free(e);
}

const struct fc_scorer_ops fc_scorer_ewma = {
    .name = "ewma",
    .create = ewma_create,
    .update = ewma_update,
    .p_dirty = ewma_p_dirty,
    .bytes = ewma_bytes,
    .destroy = ewma_destroy,
};
