/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_int.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

/*
 * What is handed out beyond the mixture's chances: made when asked for, for
 * all regions as of the last tick, in arrays that exist once somebody asked.
 */
#define MIXED_SHARE 64u /* of 255: a page touched with its region */

static void *sized(void *array, uint32_t *capacity, uint32_t wanted,
                   size_t item)
{
    if (array && *capacity >= wanted)
        return array;
    void *larger = realloc(array, (wanted ? wanted : 1) * item);
    if (larger)
        *capacity = wanted;
    return larger;
}

/* Bit i: byte i of the eight is at least MIXED_SHARE, a power of two below 128.
 * The product brings the bytes' lowest bits side by side. */
static uint16_t mixed_of(const uint8_t *share)
{
    const uint64_t ones = 0x0101010101010101ull;
    uint64_t v = fc_le_load(share, 8);
    uint64_t low = (v & ones * 0x7f) + ones * (128 - MIXED_SHARE);
    uint64_t at = (v | low) >> 7 & ones;
    return (uint16_t)(at * 0x0102040810204080ull >> 56);
}

const struct fc_region_ref *fc_engine_regions(struct fc_engine *e)
{
    const struct fc_regions *rs = &e->regions;
    struct fc_engine_view *v = &e->view;
    struct fc_region_ref *refs =
        sized(v->refs, &v->refs_capacity, rs->capacity, sizeof(*refs));
    if (!refs)
        return NULL;
    v->refs = refs;
    for (uint32_t slot = 0; slot < rs->n; slot++) {
        const struct fc_region *r = &rs->all[slot];
        uint64_t first = (uint64_t)r->number << rs->shift;
        uint64_t pages = 1ull << rs->shift;
        pages = pages < rs->pages - first ? pages : rs->pages - first;
        refs[slot] = (struct fc_region_ref){
            .first = first,
            .pages = (uint32_t)pages,
            .quiet = e->now - rs->last[slot],
            .now = (uint16_t)(r->now & ((1u << pages) - 1)),
        };
        unsigned mixed = rs->shift ? mixed_of(r->share) |
                                         (unsigned)mixed_of(r->share + 8) << 8
                                   : 1;
        refs[slot].mixed = (uint16_t)(mixed & ((1u << pages) - 1));
    }
    return refs;
}

/* Slots at .. at+n-1, at most a block. Returns n. */
static uint32_t slots_from(const struct fc_engine *e, uint32_t at,
                           uint32_t *slot)
{
    uint32_t n = e->regions.n - at;
    n = n < FC_ENGINE_BLOCK ? n : FC_ENGINE_BLOCK;
    for (uint32_t i = 0; i < n; i++)
        slot[i] = at + i;
    return n;
}

const float *fc_engine_features(struct fc_engine *e)
{
    struct fc_engine_view *v = &e->view;
    uint32_t slot[FC_ENGINE_BLOCK], n;
    float *x = sized(v->x, &v->x_capacity, e->regions.capacity,
                     FC_FEATURE_STRIDE * sizeof(*x));
    if (!x)
        return NULL;
    v->x = x;
    for (uint32_t at = 0; at < e->regions.n; at += n) {
        n = slots_from(e, at, slot);
        fc_rows_make(&e->rows, n, slot, x + (size_t)at * FC_FEATURE_STRIDE,
                     e->work->raw);
    }
    return x;
}

/* All scorers at all horizons: one costs what all do. */
static bool make_scores(struct fc_engine *e)
{
    struct fc_engine_view *v = &e->view;
    uint32_t slot[FC_ENGINE_BLOCK], n, capacity = 0;
    for (unsigned id = 0; id < FC_SCORERS; id++)
        for (unsigned z = 0; z < FC_HORIZONS; z++) {
            capacity = v->p_capacity;
            float *p =
                sized(v->p[id][z], &capacity, e->regions.capacity, sizeof(*p));
            if (!p)
                return false;
            v->p[id][z] = p;
        }
    v->p_capacity = capacity;
    for (uint32_t at = 0; at < e->regions.n; at += n) {
        n = slots_from(e, at, slot);
        fc_engine_block(e, n, slot);
        for (unsigned id = 0; id < FC_SCORERS; id++)
            for (unsigned z = 0; z < FC_HORIZONS; z++)
                memcpy(v->p[id][z] + at, e->work->raw[id][z],
                       n * sizeof(float));
    }
    v->p_tick = e->now;
    v->p_made = true;
    return true;
}

const float *fc_engine_scores(struct fc_engine *e, enum fc_scorer_id id,
                              unsigned horizon)
{
    struct fc_engine_view *v = &e->view;
    if (horizon >= FC_HORIZONS || e->round || e->config.features_only)
        return NULL;
    if (id == FC_SCORER_MIXTURE)
        return e->score[horizon];
    if (!fc_engine_has(e, id))
        return NULL;
    if ((!v->p_made || v->p_tick != e->now) && !make_scores(e))
        return NULL;
    return v->p[id][horizon];
}

void fc_engine_view_dispose(struct fc_engine *e)
{
    struct fc_engine_view *v = &e->view;
    free(v->refs);
    free(v->x);
    for (unsigned id = 0; id < FC_SCORERS; id++)
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            free(v->p[id][z]);
    *v = (struct fc_engine_view){ .p_made = false };
}

uint64_t fc_engine_view_bytes(const struct fc_engine *e)
{
    const struct fc_engine_view *v = &e->view;
    return (uint64_t)v->refs_capacity * sizeof(*v->refs) +
           (uint64_t)v->x_capacity * FC_FEATURE_STRIDE * sizeof(*v->x) +
           (uint64_t)v->p_capacity * FC_SCORERS * FC_HORIZONS * sizeof(float);
}
