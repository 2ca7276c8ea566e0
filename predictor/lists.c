/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lists.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "io.h"

/*
 * To know what a list came to, a sample of the active regions is kept with
 * what was said of each, until the horizon has passed; a region was touched
 * since when it has been quiet for less. Samples are spaced so that at most
 * PENDING wait, however long the horizon is in ticks.
 */
#define SAMPLE 256u
#define PENDING 64u
/* What is less likely to be written within the short horizon than this is of no
 * use as a delta, and most of memory is. */
#define DELTA_LEAST_P 0.02f

struct sample {
    uint64_t taken_ms; /* on the clock of elapsed time */
    float threshold;
    uint32_t n;
    uint64_t first[SAMPLE];
    uint32_t pages[SAMPLE];
    float p[SAMPLE];
};

struct fc_lists {
    struct fc_lists_config config;
    struct fc_ranklist *ranks;
    struct fc_rank_reader reader;
    struct fc_staleness staleness;
    uint64_t clock_ms, ticks, sampled_ms;
    uint32_t space_ms;   /* between samples */
    struct sample *ring; /* [PENDING] */
    unsigned oldest, waiting;
    uint64_t random;
};

static int open_reader(struct fc_lists *l)
{
    int fd = fc_ranklist_fd(l->ranks);
    if (fd < 0)
        return fd;
    int rc = fc_rank_reader_map(&l->reader, fd);
    fc_close(&fd);
    return rc;
}

static void set_risk(struct fc_lists *l, float risk)
{
    uint32_t calls = l->config.horizon_ms[l->config.calm] / l->space_ms;
    fc_staleness_init(&l->staleness, risk, calls);
    l->config.risk = risk;
}

int fc_lists_create(const struct fc_lists_config *config,
                    struct fc_lists **lists_r)
{
    if (config->calm >= FC_HORIZONS || config->busy >= FC_HORIZONS ||
        !config->tick_ms)
        return FC_EINVAL;
    struct fc_ranklist_config ranks = { .kind = config->kind };
    bool disk = config->kind == FC_ENGINE_DISK;
    ranks.room[FC_RANK_STAGING] = disk ? 0 : config->room;
    ranks.room[FC_RANK_DELTA] = disk ? 0 : config->room;
    ranks.room[FC_RANK_SHADOW] = disk ? config->room : 0;
    struct fc_lists *l = calloc(1, sizeof(*l));
    if (!l)
        return FC_ENOMEM;
    l->config = *config;
    l->random = 0x2545f4914f6cdd1dull;
    l->space_ms = config->horizon_ms[config->calm] / (PENDING - 1) + 1;
    if (l->space_ms < config->tick_ms)
        l->space_ms = config->tick_ms;
    set_risk(l, config->risk);
    l->ring = calloc(PENDING, sizeof(*l->ring));
    int rc = l->ring ? fc_ranklist_create(&ranks, &l->ranks) : FC_ENOMEM;
    if (!rc)
        rc = open_reader(l);
    if (rc) {
        fc_lists_destroy(l);
        return rc;
    }
    *lists_r = l;
    return 0;
}

void fc_lists_destroy(struct fc_lists *l)
{
    if (!l)
        return;
    fc_rank_reader_unmap(&l->reader);
    fc_ranklist_destroy(l->ranks);
    free(l->ring);
    free(l);
}

/* What became of the regions of a sample. */
static void judge(struct fc_lists *l, struct fc_engine *engine,
                  const struct fc_region_ref *regions, const struct sample *s)
{
    uint8_t touched[SAMPLE];
    uint64_t age_ms = l->clock_ms - s->taken_ms;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t slot = fc_engine_find(engine, s->first[i]);
        touched[i] = slot != UINT32_MAX &&
                     (uint64_t)regions[slot].quiet * l->config.tick_ms < age_ms;
    }
    fc_staleness_learn(&l->staleness, s->n, s->p, touched, s->pages,
                       s->threshold);
}

static uint32_t random_below(struct fc_lists *l, uint32_t n)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return (uint32_t)((l->random >> 32) * n >> 32);
}

static void take_sample(struct fc_lists *l, uint32_t n,
                        const struct fc_region_ref *regions, const float *p)
{
    struct sample *s = &l->ring[(l->oldest + l->waiting++) % PENDING];
    s->taken_ms = l->sampled_ms = l->clock_ms;
    s->threshold = fc_staleness_threshold(&l->staleness);
    s->n = n < SAMPLE ? n : SAMPLE;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t slot = n <= SAMPLE ? i : random_below(l, n);
        s->first[i] = regions[slot].first;
        s->pages[i] = regions[slot].pages;
        s->p[i] = p[slot];
    }
}

static void publish(struct fc_lists *l, struct fc_rank_source *source,
                    uint64_t now_ms)
{
    struct fc_staleness_view view;
    fc_staleness_look(&l->staleness, &view);
    fc_ranklist_begin(l->ranks, l->ticks, now_ms);
    source->horizon = l->config.busy;
    source->min_p = 0;
    source->max_p = 1;
    if (l->config.kind == FC_ENGINE_DISK) {
        fc_ranklist_fill(l->ranks, FC_RANK_SHADOW, source);
    } else {
        source->min_p = DELTA_LEAST_P;
        fc_ranklist_fill(l->ranks, FC_RANK_DELTA, source);
        source->min_p = 0;
        source->horizon = l->config.calm;
        source->max_p = view.threshold;
        source->confidence = view.confidence;
        fc_ranklist_fill(l->ranks, FC_RANK_STAGING, source);
    }
    fc_ranklist_publish(l->ranks);
}

void fc_lists_tick(struct fc_lists *l, struct fc_engine *engine,
                   uint32_t elapsed_ms, uint64_t now_ms)
{
    uint32_t n = fc_engine_active(engine);
    const struct fc_region_ref *regions = fc_engine_regions(engine);
    const float *p[FC_HORIZONS];
    bool there = n == 0 || regions;
    for (unsigned h = 0; h < FC_HORIZONS; h++) {
        p[h] = fc_engine_scores(engine, FC_SCORER_MIXTURE, h);
        there = there && (n == 0 || p[h]);
    }
    l->clock_ms += elapsed_ms;
    l->ticks++;
    if (!there)
        return; /* no memory: the lists of before stand */
    while (l->waiting && l->clock_ms - l->ring[l->oldest].taken_ms >=
                             l->config.horizon_ms[l->config.calm]) {
        judge(l, engine, regions, &l->ring[l->oldest]);
        l->oldest = (l->oldest + 1) % PENDING;
        l->waiting--;
    }
    if (n && l->waiting < PENDING &&
        (l->clock_ms - l->sampled_ms >= l->space_ms || !l->sampled_ms))
        take_sample(l, n, regions, p[l->config.calm]);
    struct fc_rank_source source = { .n = n,
                                     .regions = regions,
                                     .p = p,
                                     .horizon_ms = l->config.horizon_ms,
                                     .horizons = FC_HORIZONS };
    publish(l, &source, now_ms);
}

void fc_lists_set_horizon(struct fc_lists *l, unsigned horizon, uint32_t ms)
{
    if (horizon < FC_HORIZONS && horizon != l->config.calm)
        l->config.horizon_ms[horizon] = ms;
}

int fc_lists_fd(const struct fc_lists *l)
{
    return fc_ranklist_fd(l->ranks);
}

void fc_lists_look(const struct fc_lists *l, struct fc_staleness_view *view_r)
{
    fc_staleness_look(&l->staleness, view_r);
}

const struct fc_rank_reader *fc_lists_reader(const struct fc_lists *l)
{
    return &l->reader;
}
