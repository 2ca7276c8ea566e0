/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "windows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt.h"
#include "engine_int.h"
#include "err.h"

/*
 * A region's last touch, noted at each step, tells afterwards whether one came
 * within a horizon of any step before. A horizon that is much shorter than the
 * time between two looks cannot be told, nor one that is not over.
 *
 * A step that is missed by far (the guest was paused) ends all windows: what
 * the GRU makes of them is not what it was trained for.
 */
#define TRACKED 16u
#define AFTER 12u /* steps for the labels of the last rows */
#define KEPT (FC_ADAPT_STEPS + AFTER)
#define TRIES 8u /* to find a region with a state */
#define MISSED 4u

struct window {
    uint32_t number; /* region; FC_REGION_NONE: free */
    uint32_t n;      /* steps noted */
    uint32_t now[KEPT], last[KEPT];
    float said[FC_ADAPT_STEPS][FC_GRU_OUTPUTS];
    int16_t x[FC_ADAPT_STEPS][FC_FEATURE_STRIDE]; /* as samples.h has them */
};

struct fc_windows {
    uint32_t noted; /* tick of the last step */
    struct window window[TRACKED];
};

int fc_windows_new(struct fc_windows **windows_r)
{
    struct fc_windows *w = calloc(1, sizeof(*w));
    if (!w)
        return FC_ENOMEM;
    for (unsigned i = 0; i < TRACKED; i++)
        w->window[i].number = FC_REGION_NONE;
    *windows_r = w;
    return 0;
}

void fc_windows_free(struct fc_windows *w)
{
    free(w);
}

uint64_t fc_windows_bytes(void)
{
    return sizeof(struct fc_windows);
}

/* Whether a touch came within `ticks` of step i; -1: that is not known. */
static signed char label(const struct window *w, unsigned i, uint32_t ticks)
{
    uint32_t then = w->now[i];
    if (w->now[i + 1] - then > 2 * ticks || w->now[w->n - 1] - then < ticks)
        return -1;
    for (unsigned j = i + 1; j < w->n; j++)
        if ((int32_t)(w->last[j] - then) > 0)
            return w->last[j] - then <= ticks + ticks / 10;
    return 0;
}

static void offer(const struct window *w, const struct fc_engine *e,
                  struct fc_adapt *adapt)
{
    float x[FC_ADAPT_STEPS][FC_FEATURE_STRIDE];
    signed char touched[FC_ADAPT_STEPS][FC_GRU_OUTPUTS];
    for (unsigned i = 0; i < FC_ADAPT_STEPS; i++) {
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
            x[i][k] = (float)w->x[i][k] / FC_SAMPLES_ONE;
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
            touched[i][z] = label(w, i, e->rows.horizon[z]);
    }
    const struct fc_adapt_window window = {
        .x = x[0],
        .said = w->said,
        .touched = (const signed char(*)[FC_GRU_OUTPUTS])touched,
    };
    (void)fc_adapt_offer(adapt, &window);
}

/* A region with a state, that no window follows yet. */
static void choose(struct fc_windows *all, struct window *w,
                   struct fc_engine *e)
{
    const struct fc_engine_gru *g = &e->gru;
    for (unsigned t = 0; t < TRIES && e->regions.n; t++) {
        uint32_t slot = fc_engine_random(e) % e->regions.n;
        uint32_t number = e->regions.all[slot].number;
        bool good = slot < g->places && g->place[slot];
        for (unsigned i = 0; i < TRACKED; i++)
            good = good && all->window[i].number != number;
        if (!good)
            continue;
        w->number = number;
        w->n = 0;
        return;
    }
}

/* Rows of those windows that are not full yet. */
static void note_rows(struct fc_windows *all, struct fc_engine *e,
                      const uint32_t *slot)
{
    uint32_t wanted[TRACKED], of[TRACKED], n = 0;
    const struct fc_engine_work *work = e->work;
    for (unsigned i = 0; i < TRACKED; i++)
        if (slot[i] != FC_REGION_NONE && all->window[i].n < FC_ADAPT_STEPS) {
            wanted[n] = slot[i];
            of[n++] = i;
        }
    if (n)
        fc_engine_block(e, n, wanted);
    for (uint32_t i = 0; i < n; i++) {
        struct window *w = &all->window[of[i]];
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
            w->x[w->n][k] = fc_samples_fixed(work->x[i][k]);
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
            w->said[w->n][z] = work->raw[FC_SCORER_GRU][z][i];
    }
}

static void note(struct fc_windows *all, struct fc_engine *e)
{
    uint32_t slot[TRACKED];
    for (unsigned i = 0; i < TRACKED; i++) {
        struct window *w = &all->window[i];
        if (w->number == FC_REGION_NONE)
            choose(all, w, e);
        slot[i] = w->number == FC_REGION_NONE
                      ? FC_REGION_NONE
                      : fc_regions_find(&e->regions, w->number);
        if (slot[i] == FC_REGION_NONE) /* dropped, or none found */
            w->number = FC_REGION_NONE;
    }
    note_rows(all, e, slot);
    for (unsigned i = 0; i < TRACKED; i++) {
        struct window *w = &all->window[i];
        if (slot[i] == FC_REGION_NONE)
            continue;
        w->now[w->n] = e->now;
        w->last[w->n++] = e->regions.last[slot[i]];
    }
}

void fc_windows_tick(struct fc_windows *all, struct fc_engine *e,
                     struct fc_adapt *adapt)
{
    uint32_t since = e->now - all->noted;
    if (!e->gru.model || e->round || since < e->gru.step)
        return;
    for (unsigned i = 0; i < TRACKED && since > MISSED * e->gru.step; i++)
        all->window[i].number = FC_REGION_NONE;
    all->noted = e->now;
    note(all, e);
    for (unsigned i = 0; i < TRACKED; i++) {
        struct window *w = &all->window[i];
        if (w->number == FC_REGION_NONE || w->n < KEPT)
            continue;
        offer(w, e, adapt);
        w->number = FC_REGION_NONE;
    }
}
