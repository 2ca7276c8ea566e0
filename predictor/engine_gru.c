/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

/*
 * The GRU steps each region that was touched more than once, and within the
 * last minute, once in the model's step_ms, whatever the tick; only these have
 * a state, so that memory written once costs next to nothing. Slots take turns,
 * so that each tick has its even part of the work. What its state says stands
 * until its next turn; the read-out of the inputs goes on top at each tick,
 * with the features of then: once as the model has it, once as it was learned
 * from this guest (lr.h), in place of the regression's own beginning.
 */
#define RECENT_TICKS 1200u /* a minute, of memory */

/*
 * The read-out of the inputs. The one that learns keeps what it has learned
 * beyond the model's when another takes its place.
 */
static void take_readout(struct fc_engine *e, bool had)
{
    struct fc_engine_gru *g = &e->gru;
    const struct fc_gru_model *m = g->model;
    const float *s = m->params + fc_gru_offsets(m->shape).ws;
    if (!had)
        memset(&g->tuned, 0, sizeof(g->tuned));
    for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
        for (unsigned z = 0; z < FC_HORIZONS; z++) {
            float now = s[k * FC_GRU_OUTPUTS + z];
            g->tuned.w[k][z] += now - (had ? g->shipped[k][z] : 0);
            g->shipped[k][z] = now;
        }
}

/* In place of one of the same shape; the states go on. */
static void replace(struct fc_engine *e, struct fc_gru_model *model)
{
    fc_gru_model_unref(e->gru.model);
    e->gru.model = model;
    take_readout(e, true);
}

static uint32_t steps(const struct fc_engine *e, const struct fc_gru_model *m)
{
    uint32_t tick_ms = e->config.tick_ms;
    uint32_t step = (m->purpose.step_ms + tick_ms / 2) / tick_ms;
    return step ? step : 1;
}

int fc_engine_set_gru(struct fc_engine *e, const struct fc_gru_model *given)
{
    struct fc_engine_gru *g = &e->gru;
    if (given && (given->shape.inputs != FC_FEATURE_STRIDE ||
                  given->purpose.features_hash != fc_feature_hash()))
        return FC_EINVAL;
    bool had = g->model != NULL;
    /* the count of references is the one thing in it that changes */
    struct fc_gru_model *model =
        given ? fc_gru_model_ref((struct fc_gru_model *)(uintptr_t)given)
              : NULL;
    if (had && model && model->shape.hidden == g->model->shape.hidden &&
        steps(e, model) == g->step) {
        replace(e, model);
        return 0;
    }
    fc_engine_gru_dispose(e);
    if (!model)
        return had || !e->mixture ? fc_engine_mixture_new(e) : 0;
    g->model = model;
    g->step = steps(e, model);
    take_readout(e, false);
    int rc = fc_engine_gru_reserve(e, e->capacity);
    if (rc) {
        fc_engine_gru_dispose(e);
        if (had)
            fc_engine_mixture_new(e);
        return rc;
    }
    return had && e->mixture ? 0 : fc_engine_mixture_new(e);
}

int fc_engine_gru_reserve(struct fc_engine *e, uint32_t capacity)
{
    struct fc_engine_gru *g = &e->gru;
    if (!g->model || capacity <= g->places)
        return 0;
    uint32_t *place = realloc(g->place, capacity * sizeof(*place));
    if (!place)
        return FC_ENOMEM;
    memset(place + g->places, 0, (capacity - g->places) * sizeof(*place));
    g->place = place;
    g->places = capacity;
    return 0;
}

static int grow(struct fc_engine_gru *g)
{
    uint32_t room = g->room ? g->room + g->room / 4 : 256;
    size_t row = g->model->shape.hidden * sizeof(*g->h);
    int16_t *h = realloc(g->h, room * row);
    if (!h)
        return FC_ENOMEM;
    g->h = h;
    void *said = realloc(g->said, room * sizeof(*g->said));
    if (!said)
        return FC_ENOMEM;
    g->said = said;
    uint32_t *stepped = realloc(g->stepped, room * sizeof(*stepped));
    if (!stepped)
        return FC_ENOMEM;
    g->stepped = stepped;
    g->room = room;
    return 0;
}

/* A state for the slot, of zeros. False: no memory, it goes without. */
static bool take(struct fc_engine_gru *g, uint32_t slot)
{
    uint32_t at = g->free;
    if (at)
        g->free = g->stepped[at - 1];
    else if (g->used == g->room && grow(g))
        return false;
    else
        at = ++g->used;
    uint32_t hidden = g->model->shape.hidden;
    memset(g->h + (size_t)(at - 1) * hidden, 0, hidden * sizeof(*g->h));
    g->place[slot] = at;
    return true;
}

static void release(struct fc_engine_gru *g, uint32_t slot)
{
    uint32_t at = g->place[slot];
    if (!at)
        return;
    g->stepped[at - 1] = g->free;
    g->free = at;
    g->place[slot] = 0;
}

void fc_engine_gru_drop(struct fc_engine *e, uint32_t slot, uint32_t from)
{
    struct fc_engine_gru *g = &e->gru;
    if (!g->model || slot >= g->places)
        return;
    release(g, slot);
    if (from == slot || from >= g->places)
        return;
    g->place[slot] = g->place[from];
    g->place[from] = 0;
}

static int16_t fixed(float v, float one)
{
    return (int16_t)lrintf(fmaxf(fminf(v * one, 32767.0f), -32767.0f));
}

static void step_block(struct fc_engine *e, uint32_t n, const uint32_t *slot)
{
    struct fc_engine_gru *g = &e->gru;
    struct fc_engine_work *w = e->work;
    uint32_t hidden = g->model->shape.hidden;
    float h[FC_ENGINE_BLOCK * FC_GRU_MAX_HIDDEN];
    float logit[FC_ENGINE_BLOCK][FC_HORIZONS];
    fc_rows_make(&e->rows, n, slot, w->x[0], w->raw);
    for (uint32_t i = 0; i < n; i++) {
        const int16_t *state = g->h + (g->place[slot[i]] - 1ull) * hidden;
        for (uint32_t k = 0; k < hidden; k++)
            h[i * hidden + k] = (float)state[k] * (1.0f / FC_GRU_STATE_ONE);
    }
    fc_gru_step(g->model, n, w->x[0], h, logit[0]);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = g->place[slot[i]] - 1;
        for (uint32_t k = 0; k < hidden; k++)
            g->h[(size_t)at * hidden + k] =
                fixed(h[i * hidden + k], FC_GRU_STATE_ONE);
        for (unsigned z = 0; z < FC_HORIZONS; z++) {
            for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
                logit[i][z] -= w->x[i][k] * g->shipped[k][z];
            g->said[at][z] = fixed(logit[i][z], FC_GRU_SAID_ONE);
        }
        g->stepped[at] = e->now;
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
            if (e->now - e->regions.last[slot] > RECENT_TICKS) {
                release(g, slot);
                continue;
            }
            if (e->regions.all[slot].touches < 2 ||
                (!g->place[slot] && !take(g, slot)))
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
    struct fc_engine_work *w = e->work;
    struct fc_engine_gru *g = &e->gru;
    float *p[2][FC_HORIZONS];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = slot[i] < g->places ? g->place[slot[i]] : 0;
        w->stepped[i] = at && e->now - e->regions.last[slot[i]] <= RECENT_TICKS;
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            w->base[i][z] =
                at ? (float)g->said[at - 1][z] * (1.0f / FC_GRU_SAID_ONE) : 0;
    }
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        p[0][z] = w->raw[FC_SCORER_GRU][z];
        p[1][z] = w->raw[FC_SCORER_TUNED][z];
    }
    const float(*base)[FC_HORIZONS] = (const float(*)[FC_HORIZONS])w->base;
    fc_lr_p(g->shipped, n, w->x[0], base, p[0]);
    fc_lr_p(g->tuned.w, n, w->x[0], base, p[1]);
    for (uint32_t i = 0; i < n; i++)
        for (unsigned z = 0; z < FC_HORIZONS && !w->stepped[i]; z++)
            p[0][z][i] = p[1][z][i] = w->raw[FC_SCORER_LR][z][i];
}

void fc_engine_gru_dispose(struct fc_engine *e)
{
    struct fc_engine_gru *g = &e->gru;
    fc_gru_model_unref(g->model);
    free(g->place);
    free(g->h);
    free(g->said);
    free(g->stepped);
    *g = (struct fc_engine_gru){ .model = NULL };
}

uint64_t fc_engine_gru_bytes(const struct fc_engine *e)
{
    const struct fc_engine_gru *g = &e->gru;
    if (!g->model)
        return 0;
    return (uint64_t)g->places * sizeof(*g->place) +
           (uint64_t)g->room * (g->model->shape.hidden * sizeof(*g->h) +
                                sizeof(*g->said) + sizeof(*g->stepped));
}
