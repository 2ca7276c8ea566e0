/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_int.h"

#include <stdlib.h>

#include "err.h"

/*
 * What is fed between two ticks, and the regions that come and go by it.
 */
#define IDLE_TICKS 12000u       /* 10 minutes of memory */
#define IDLE_DISK_MS 691200000u /* 8 days: a week must be in it */
#define IDLE_LEAST 20u

uint32_t fc_engine_idle_limit(const struct fc_engine *e)
{
    if (e->config.kind == FC_ENGINE_MEMORY)
        return IDLE_TICKS;
    uint32_t ticks = fc_engine_ticks(e, IDLE_DISK_MS);
    return ticks > IDLE_TICKS ? ticks : IDLE_TICKS;
}

int fc_engine_slots_add(struct fc_slots *s, uint32_t slot)
{
    if (s->n == s->capacity) {
        uint32_t capacity = s->capacity ? s->capacity + s->capacity / 4 : 1024;
        uint32_t *at = realloc(s->at, capacity * sizeof(*at));
        if (!at)
            return FC_ENOMEM;
        s->at = at;
        s->capacity = capacity;
    }
    s->at[s->n++] = slot;
    return 0;
}

static void drop(struct fc_engine *e, uint32_t slot)
{
    fc_regions_drop(&e->regions, slot);
    uint32_t from = e->regions.n;
    fc_engine_gru_drop(e, slot, from);
    if (from == slot)
        return;
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        e->score[z][slot] = e->score[z][from];
}

/* Looks at some regions a tick; when the limit is near, at more of them, and
 * with less patience. */
static void drop_idle(struct fc_engine *e)
{
    uint32_t n = e->regions.n, limit = fc_engine_idle_limit(e);
    bool pressed = n >= e->config.max_active - e->config.max_active / 8;
    if (pressed && e->idle > IDLE_LEAST)
        e->idle -= e->idle / 16 + 1;
    else if (!pressed && e->idle < limit)
        e->idle += (limit - e->idle) / 64 + 1;
    for (uint32_t some = n / (pressed ? 16 : 256) + 4; some && e->regions.n;
         some--) {
        e->hand = e->hand < e->regions.n ? e->hand : 0;
        if (e->now - e->regions.last[e->hand] > e->idle)
            drop(e, e->hand);
        else
            e->hand++;
    }
}

/* The first thing after a tick: what was touched in it is no longer, and as
 * nothing points at slots now, some may go. */
void fc_engine_begin_round(struct fc_engine *e)
{
    if (e->round)
        return;
    for (uint32_t i = 0; i < e->touched.n; i++)
        e->regions.all[e->touched.at[i]].now = 0;
    for (uint32_t i = 0; i < e->other.n; i++)
        e->regions.all[e->other.at[i]].now = 0;
    e->touched.n = 0;
    e->other.n = 0;
    e->born = 0;
    drop_idle(e);
    e->round = true;
}

static int feed(struct fc_engine *e, uint32_t number, uint16_t pages,
                struct fc_slots *list)
{
    uint32_t slot = fc_regions_find(&e->regions, number);
    if (slot == FC_REGION_NONE) {
        int rc = fc_regions_make(&e->regions, number, e->now, e->now, &slot);
        if (rc)
            return rc == FC_ELIMIT ? 0 : rc;
        e->born++;
    }
    struct fc_region *r = &e->regions.all[slot];
    uint16_t mine =
        list == &e->other ? FC_REGION_OTHER : (uint16_t)~FC_REGION_OTHER;
    if (e->config.kind == FC_ENGINE_MEMORY)
        mine = UINT16_MAX;
    if (!(r->now & mine)) {
        int rc = fc_engine_slots_add(list, slot);
        if (rc)
            return rc;
    }
    r->now |= pages;
    return 0;
}

static int feed_range(struct fc_engine *e, uint64_t first, uint64_t count,
                      uint16_t bit, struct fc_slots *list)
{
    uint64_t pages = e->config.pages;
    if (first >= pages || !count)
        return 0;
    uint64_t end = count < pages - first ? first + count : pages;
    unsigned shift = e->regions.shift;
    uint64_t size = 1ull << shift;
    fc_engine_begin_round(e);
    while (first < end) {
        uint64_t base = first >> shift << shift;
        uint64_t stop = base + size < end ? base + size : end;
        uint32_t mask =
            ((1u << (stop - base)) - 1) & ~((1u << (first - base)) - 1);
        int rc = feed(e, (uint32_t)(base >> shift),
                      shift ? (uint16_t)mask : bit, list);
        if (rc)
            return rc;
        first = stop;
    }
    return 0;
}

int fc_engine_write(struct fc_engine *e, uint64_t first, uint64_t count)
{
    bool disk = e->config.kind == FC_ENGINE_DISK;
    return feed_range(e, first, count, disk ? FC_REGION_OTHER : 1,
                      disk ? &e->other : &e->touched);
}

int fc_engine_read(struct fc_engine *e, uint64_t first, uint64_t count)
{
    if (e->config.kind != FC_ENGINE_DISK)
        return FC_EINVAL;
    return feed_range(e, first, count, 1, &e->touched);
}
