/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_int.h"

#include <stdlib.h>
#include <string.h>

#include "approx.h"
#include "err.h"

/*
 * The GRU steps each region that was touched within the last minute once in
 * the model's step_ms, whatever the tick. Slots take turns, so that each tick
 * has its even part of the work. What it said stands until its next turn.
 */
#define RECENT_TICKS 1200u /* a minute, of memory */

int fc_engine_set_gru(struct fc_engine *e, const struct fc_gru_model *model)
{
    if (model && (model->shape.inputs != FC_FEATURE_STRIDE ||
                  model->purpose.features_hash != fc_feature_hash()))
        return FC_EINVAL;
    bool had = e->gru.model != NULL;
    fc_engine_gru_dispose(e);
    if (!model)
        return had || !e->mixture ? fc_engine_mixture_new(e) : 0;
    /* the count of references is the one thing in it that changes */
    e->gru.model = fc_gru_model_ref((struct fc_gru_model *)(uintptr_t)model);
    e->gru.step =
        (model->purpose.step_ms + e->config.tick_ms / 2) / e->config.tick_ms;
    e->gru.step = e->gru.step ? e->gru.step : 1;
    int rc = fc_engine_gru_reserve(e, e->capacity);
    if (rc) {
        fc_engine_gru_dispose(e);
        if (had)
            fc_engine_mixture_new(e);
        return rc;
    }
    for (uint32_t slot = 0; slot < e->capacity; slot++)
        fc_engine_gru_new(e, slot);
    return had && e->mixture ? 0 : fc_engine_mixture_new(e);
}

int fc_engine_gru_reserve(struct fc_engine *e, uint32_t capacity)
{
    struct fc_engine_gru *g = &e->gru;
    if (!g->model || !capacity)
        return 0;
    size_t row = g->model->shape.hidden * sizeof(*g->h);
    float *h = realloc(g->h, capacity * row);
    if (!h)
        return FC_ENOMEM;
    g->h = h;
    void *logit = realloc(g->logit, capacity * sizeof(*g->logit));
    if (!logit)
        return FC_ENOMEM;
    g->logit = logit;
    uint32_t *stepped = realloc(g->stepped, capacity * sizeof(*stepped));
    if (!stepped)
        return FC_ENOMEM;
    g->stepped = stepped;
    for (uint32_t slot = e->capacity; slot < capacity; slot++)
        fc_engine_gru_new(e, slot);
    return 0;
}

void fc_engine_gru_new(struct fc_engine *e, uint32_t slot)
{
    struct fc_engine_gru *g = &e->gru;
    if (!g->model)
        return;
    uint32_t hidden = g->model->shape.hidden;
    memset(g->h + (size_t)slot * hidden, 0, hidden * sizeof(*g->h));
    g->stepped[slot] = 0;
}

/* The place left free by the one that moved is for a new region. */
void fc_engine_gru_move(struct fc_engine *e, uint32_t to, uint32_t from)
{
    struct fc_engine_gru *g = &e->gru;
    if (!g->model)
        return;
    uint32_t hidden = g->model->shape.hidden;
    memcpy(g->h + (size_t)to * hidden, g->h + (size_t)from * hidden,
           hidden * sizeof(*g->h));
    memcpy(g->logit[to], g->logit[from], sizeof(*g->logit));
    g->stepped[to] = g->stepped[from];
    fc_engine_gru_new(e, from);
}

static void step_block(struct fc_engine *e, uint32_t n, const uint32_t *slot)
{
    struct fc_engine_gru *g = &e->gru;
    struct fc_engine_work *w = e->work;
    uint32_t hidden = g->model->shape.hidden;
    float h[FC_ENGINE_BLOCK * FC_GRU_MAX_HIDDEN];
    float logit[FC_ENGINE_BLOCK][FC_HORIZONS];
    fc_rows_make(&e->rows, n, slot, w->x[0], w->raw);
    for (uint32_t i = 0; i < n; i++)
        memcpy(h + i * hidden, g->h + (size_t)slot[i] * hidden,
               hidden * sizeof(*h));
    fc_gru_step(g->model, n, w->x[0], h, logit[0]);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(g->h + (size_t)slot[i] * hidden, h + i * hidden,
               hidden * sizeof(*h));
        memcpy(g->logit[slot[i]], logit[i], sizeof(*g->logit));
        g->stepped[slot[i]] = e->now;
    }
}

void fc_engine_gru_step(struct fc_engine *e, uint32_t ticks)
{
    struct fc_engine_gru *g = &e->gru;
    uint32_t slots[FC_ENGINE_BLOCK], n = 0;
    if (!g->model)
        return;
    /* whose turn fell into the ticks that have passed */
    uint32_t turns = ticks < g->step ? ticks : g->step;
    for (uint32_t t = 0; t < turns; t++)
        for (uint32_t slot = (e->now - t) % g->step; slot < e->regions.n;
             slot += g->step) {
            if (e->now - e->regions.last[slot] > RECENT_TICKS)
                continue;
            slots[n++] = slot;
            if (n == FC_ENGINE_BLOCK) {
                step_block(e, n, slots);
                n = 0;
            }
        }
    if (n)
        step_block(e, n, slots);
}

void fc_engine_gru_p(struct fc_engine *e, uint32_t n, const uint32_t *slot)
{
    fc_rows_p *raw = e->work->raw;
    const struct fc_engine_gru *g = &e->gru;
    uint32_t old = RECENT_TICKS + 2 * g->step;
    for (uint32_t i = 0; i < n; i++) {
        bool has = g->stepped[slot[i]] && e->now - g->stepped[slot[i]] <= old &&
                   e->now - e->regions.last[slot[i]] <= RECENT_TICKS;
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            raw[FC_SCORER_GRU][z][i] =
                has ? fc_approx_sigmoid(g->logit[slot[i]][z])
                    : raw[FC_SCORER_LR][z][i];
    }
}

void fc_engine_gru_dispose(struct fc_engine *e)
{
    struct fc_engine_gru *g = &e->gru;
    fc_gru_model_unref(g->model);
    free(g->h);
    free(g->logit);
    free(g->stepped);
    *g = (struct fc_engine_gru){ .model = NULL };
}

uint64_t fc_engine_gru_bytes(const struct fc_engine *e)
{
    const struct fc_engine_gru *g = &e->gru;
    if (!g->model)
        return 0;
    return (uint64_t)e->capacity * (g->model->shape.hidden * sizeof(*g->h) +
                                    sizeof(*g->logit) + sizeof(*g->stepped));
}
