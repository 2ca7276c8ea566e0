/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "approx.h"
#include "engine_int.h"
#include "err.h"

/*
 * A tick: what was touched is entered into its regions; samples taken a
 * horizon ago are now labelled, and everything learns from them; guest-wide
 * numbers move on; a few regions are looked at for being idle; the GRU steps
 * those whose turn it is; regions that are due are scored anew, in blocks that
 * stay in the cache; samples are taken for later.
 *
 * Due are the regions just touched and, while there are few, all others. With
 * many, the quiet ones take turns, the longer quiet the rarer: their chances
 * change slowly. So a tick costs what was touched, and a share of the rest
 * that shrinks with its quiet.
 *
 * The engine's clock counts ticks of tick_ms. Half-lives, gaps and horizons
 * are in ticks.
 */
#define ALL_DUE 32768u /* regions that are all scored each tick */
#define MEMORY_MOST (16u << 20)
#define DISK_MOST (1u << 20)
#define WALL_APART_MS 600000
#define WALL_MOST_S (1ull << 40)
#define DISK_PHASE_MS 50 /* for a disk's tick, as with its half-lives */
#define AHEAD_EXTENTS 8u /* made active before a stream that is followed */

static const char *const names[FC_SCORERS + 2] = {
    "lru", "ewma", "frequency", "markov",  "readahead",
    "lr",  "gru",  "tuned",     "mixture",
};

const char *fc_scorer_name(enum fc_scorer_id id)
{
    return (unsigned)id <= FC_SCORER_MIXTURE ? names[id] : NULL;
}

bool fc_engine_has(const struct fc_engine *e, enum fc_scorer_id id)
{
    if (id == FC_SCORER_READAHEAD)
        return e->config.kind == FC_ENGINE_DISK;
    if (id == FC_SCORER_GRU || id == FC_SCORER_TUNED)
        return e->gru.model != NULL;
    return (unsigned)id < FC_SCORERS;
}

/* xorshift64*: samples need no more. */
uint32_t fc_engine_random(struct fc_engine *e)
{
    e->seed ^= e->seed >> 12;
    e->seed ^= e->seed << 25;
    e->seed ^= e->seed >> 27;
    return (uint32_t)((e->seed * 0x2545f4914f6cdd1dull) >> 32);
}

uint32_t fc_engine_ticks(const struct fc_engine *e, uint32_t ms)
{
    uint32_t ticks =
        (uint32_t)(((uint64_t)ms + e->config.tick_ms / 2) / e->config.tick_ms);
    return ticks ? ticks : 1;
}

static int config_check(const struct fc_engine_config *c)
{
    if (!c->pages || !c->tick_ms || c->tick_ms > 86400000u)
        return FC_EINVAL;
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        if (c->horizon_ms[z] < c->tick_ms)
            return FC_EINVAL;
    return c->kind == FC_ENGINE_MEMORY || c->kind == FC_ENGINE_DISK ? 0
                                                                    : FC_EINVAL;
}

static void init_scorers(struct fc_engine *e)
{
    bool disk = e->config.kind == FC_ENGINE_DISK;
    float scale = disk ? 1.0f : 50.0f / (float)e->config.tick_ms;
    fc_decay_init(&e->decay, scale);
    fc_gaps_init(&e->gaps);
    fc_lr_init(&e->lr);
    fc_samples_init(&e->samples);
    fc_guestwide_init(
        &e->guest,
        (float)fc_feature_table[FC_FEATURE_GUEST_RATE].half_life_ms * scale /
            50.0f,
        (float)fc_feature_table[FC_FEATURE_GUEST_TREND].half_life_ms * scale /
            50.0f);
    e->rows = (struct fc_rows){ .regions = &e->regions,
                                .decay = &e->decay,
                                .gaps = &e->gaps,
                                .tick_ms = e->config.tick_ms,
                                .disk = disk };
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        fc_halflife_init(&e->halflife[z]);
        e->rows.horizon[z] = fc_engine_ticks(e, e->config.horizon_ms[z]);
        for (unsigned id = 0; id < FC_SCORERS; id++)
            fc_calibrate_init(&e->calibrate[id][z]);
    }
}

int fc_engine_mixture_new(struct fc_engine *e)
{
    struct fc_mixture_config config = { .horizons = FC_HORIZONS,
                                        .names = e->live_names,
                                        .by_order =
                                            e->config.kind == FC_ENGINE_DISK };
    fc_mixture_destroy(e->mixture);
    e->mixture = NULL;
    e->nlive = 0;
    for (unsigned id = 0; id < FC_SCORERS; id++) {
        if (!fc_engine_has(e, id))
            continue;
        if (id < FC_SCORER_LR) /* has nothing trained in it */
            config.simple |= 1u << e->nlive;
        e->live_names[e->nlive] = names[id];
        e->live[e->nlive++] = id;
    }
    config.scorers = e->nlive;
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        config.late[z] = fc_engine_overlap(e, z);
    return fc_mixture_create(&config, &e->mixture);
}

int fc_engine_create(const struct fc_engine_config *config,
                     struct fc_engine **engine_r)
{
    bool disk = config->kind == FC_ENGINE_DISK;
    int rc = config_check(config);
    if (rc)
        return rc;
    struct fc_engine *e = calloc(1, sizeof(*e));
    if (!e)
        return FC_ENOMEM;
    e->config = *config;
    e->config.gru = NULL;
    if (!e->config.max_active)
        e->config.max_active = disk ? DISK_MOST : MEMORY_MOST;
    e->now = FC_ENGINE_EPOCH;
    e->seed = 0x9e3779b97f4a7c15ull;
    e->idle = fc_engine_idle_limit(e);
    rc = fc_regions_init(&e->regions, config->pages, disk ? 0 : 4,
                         e->config.max_active, disk);
    if (!rc && !(e->work = calloc(1, sizeof(*e->work))))
        rc = FC_ENOMEM;
    if (!rc) {
        init_scorers(e);
        rc = fc_engine_set_gru(e, config->gru);
    }
    if (rc) {
        fc_engine_destroy(e);
        return rc;
    }
    *engine_r = e;
    return 0;
}

void fc_engine_destroy(struct fc_engine *e)
{
    if (!e)
        return;
    fc_engine_gru_dispose(e);
    fc_engine_view_dispose(e);
    fc_samples_dispose(&e->samples);
    fc_mixture_destroy(e->mixture);
    fc_regions_dispose(&e->regions);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        free(e->score[z]);
    free(e->touched.at);
    free(e->other.at);
    free(e->due.at);
    free(e->work);
    free(e);
}

int fc_engine_set_horizon(struct fc_engine *e, unsigned horizon, uint32_t ms)
{
    if (horizon >= FC_HORIZONS || ms < e->config.tick_ms)
        return FC_EINVAL;
    if (e->rows.horizon[horizon] == fc_engine_ticks(e, ms))
        return 0;
    e->config.horizon_ms[horizon] = ms;
    e->rows.horizon[horizon] = fc_engine_ticks(e, ms);
    fc_samples_forget(&e->samples, horizon);
    return 0;
}

/* A disk's stream: extents ahead of it become active, so that they can be
 * ranked before they were ever read. */
static void follow_streams(struct fc_engine *e)
{
    struct fc_regions *rs = &e->regions;
    uint32_t quiet_since = e->now - e->idle / 2;
    for (uint32_t i = 0; i < e->touched.n; i++) {
        uint32_t number = rs->all[e->touched.at[i]].number, slot;
        uint32_t below =
            number ? fc_regions_find(rs, number - 1) : FC_REGION_NONE;
        if (below == FC_REGION_NONE || !rs->all[below].touches ||
            e->now - rs->last[below] > 2)
            continue;
        for (uint32_t d = 1; d <= AHEAD_EXTENTS; d++) {
            if (number + d >= rs->numbers ||
                fc_regions_make(rs, number + d, e->now, quiet_since, &slot))
                break;
        }
    }
}

static int reserve(struct fc_engine *e)
{
    uint32_t capacity = e->regions.capacity;
    if (capacity <= e->capacity)
        return 0;
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        float *score = realloc(e->score[z], capacity * sizeof(*score));
        if (!score)
            return FC_ENOMEM;
        e->score[z] = score;
    }
    int rc = fc_engine_gru_reserve(e, capacity);
    if (rc)
        return rc;
    e->capacity = capacity;
    return 0;
}

/* Slots from `fresh` on were made by follow_streams() just now. */
static int find_due(struct fc_engine *e, uint32_t fresh)
{
    uint32_t n = e->regions.n;
    bool all = n <= ALL_DUE;
    int rc = 0;
    e->due.n = 0;
    for (uint32_t slot = 0; slot < n; slot++) {
        uint32_t quiet = e->now - e->regions.last[slot];
        uint32_t every = quiet < 2     ? 1
                         : quiet < 8   ? 2
                         : quiet < 32  ? 4
                         : quiet < 128 ? 16
                                       : 64;
        if (!all && ((slot + e->now) & (every - 1)) && slot < fresh)
            continue;
        if ((rc = fc_engine_slots_add(&e->due, slot)))
            break;
    }
    return rc;
}

void fc_engine_block(struct fc_engine *e, uint32_t n, const uint32_t *slot)
{
    struct fc_engine_work *w = e->work;
    const float *p[FC_SCORERS];
    float *lr[FC_HORIZONS];
    fc_rows_make(&e->rows, n, slot, w->x[0], w->raw);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        lr[z] = w->raw[FC_SCORER_LR][z];
    fc_lr_p(e->lr.w, n, w->x[0], NULL, lr);
    if (e->gru.model)
        fc_engine_gru_p(e, n, slot);
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        for (unsigned k = 0; k < e->nlive; k++) {
            unsigned id = e->live[k];
            fc_engine_recalibrated(e, id, z, n, w->raw[id][z],
                                   w->calibrated[id]);
            p[k] = w->calibrated[id];
        }
        fc_mixture_combine(e->mixture, z, n, p, w->out[z]);
    }
}

static void score_due(struct fc_engine *e)
{
    const struct fc_slots *due = &e->due;
    for (uint32_t at = 0; at < due->n; at += FC_ENGINE_BLOCK) {
        uint32_t n = due->n - at;
        n = n < FC_ENGINE_BLOCK ? n : FC_ENGINE_BLOCK;
        fc_engine_block(e, n, due->at + at);
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            for (uint32_t i = 0; i < n; i++)
                e->score[z][due->at[at + i]] = e->work->out[z][i];
    }
}

static uint32_t pass_time(struct fc_engine *e, uint32_t elapsed_ms)
{
    int64_t ms = (int64_t)elapsed_ms + e->behind_ms;
    int64_t ticks = (ms + e->config.tick_ms / 2) / e->config.tick_ms;
    ticks = ticks > 0 ? ticks : 1;
    ms -= ticks * e->config.tick_ms;
    int64_t most = 4 * (int64_t)e->config.tick_ms; /* ahead: forgotten */
    e->behind_ms = (int32_t)(ms < -most ? -most : ms);
    e->now += (uint32_t)ticks;
    e->rows.now = e->now;
    return (uint32_t)ticks;
}

/* Our own clock is steady; the wall's is taken over when they have parted: at
 * first, and after the host slept. */
static void set_wall(struct fc_engine *e, uint64_t wall_s)
{
    uint64_t own_ms = (uint64_t)e->now * e->config.tick_ms;
    uint64_t ms = wall_s < WALL_MOST_S ? wall_s * 1000 : 0;
    int64_t apart = (int64_t)(ms - own_ms - e->rows.wall_ms);
    if (ms > own_ms && (apart > WALL_APART_MS || apart < -WALL_APART_MS))
        e->rows.wall_ms = ms - own_ms;
}

static void enter_touches(struct fc_engine *e, uint32_t ticks)
{
    for (uint32_t i = 0; i < e->other.n; i++)
        fc_rows_other(&e->rows, &e->regions, e->other.at[i], ticks);
    for (uint32_t i = 0; i < e->touched.n; i++)
        fc_rows_touch(&e->rows, &e->regions, e->touched.at[i], ticks);
}

static void move_guest(struct fc_engine *e, uint32_t ticks,
                       const struct fc_rates *rates)
{
    fc_guestwide_add(&e->guest, e->touched.n, e->born, ticks);
    /* a band is measured in ticks of memory: a disk's are longer, so that it
     * would be left all the time */
    uint32_t tick_ms =
        e->config.kind == FC_ENGINE_DISK ? DISK_PHASE_MS : e->config.tick_ms;
    fc_mixture_phase(e->mixture, (float)e->touched.n / (float)ticks,
                     ticks * tick_ms);
    fc_guestwide_row(&e->guest, rates, e->rows.horizon[1], e->rows.guest);
    float idle = (float)(e->regions.numbers - e->regions.n) + 1.0f;
    float p = e->guest.born < idle ? e->guest.born / idle : 1.0f;
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        e->idle_p[z] = fc_approx_within(p, (float)e->rows.horizon[z]);
}

int fc_engine_tick(struct fc_engine *e, uint32_t elapsed_ms,
                   const struct fc_rates *rates)
{
    fc_engine_begin_round(e);
    uint32_t ticks = pass_time(e, elapsed_ms);
    int rc = reserve(e);
    if (rc)
        return rc;
    if (rates)
        set_wall(e, rates->wall_s);
    enter_touches(e, ticks);
    fc_engine_learn(e);
    move_guest(e, ticks, rates);
    uint32_t fresh = e->regions.n;
    if (e->config.kind == FC_ENGINE_DISK) {
        follow_streams(e);
        if ((rc = reserve(e)))
            return rc;
    }
    fc_engine_gru_step(e, ticks);
    if (!e->config.features_only) {
        rc = find_due(e, fresh);
        score_due(e);
    }
    fc_engine_take_samples(e);
    e->ticks++;
    e->round = false;
    return rc;
}

uint32_t fc_engine_active(const struct fc_engine *e)
{
    return e->regions.n;
}

uint32_t fc_engine_find(const struct fc_engine *e, uint64_t page)
{
    return page < e->config.pages
               ? fc_regions_find(&e->regions,
                                 (uint32_t)(page >> e->regions.shift))
               : FC_REGION_NONE;
}

/*
 * A page's part: as often as it was among those touched when the region was,
 * and in a longer horizon the region is touched more than once.
 */
float fc_engine_p(const struct fc_engine *e, uint64_t page, unsigned horizon)
{
    uint32_t slot = fc_engine_find(e, page);
    if (slot == FC_REGION_NONE || slot >= e->capacity)
        return e->idle_p[horizon];
    float p = e->score[horizon][slot];
    if (!e->regions.shift)
        return p;
    const struct fc_region *r = &e->regions.all[slot];
    float share = (float)r->share[page % FC_REGION_PAGES] / 255.0f;
    float life = (float)(e->now - r->born + 1);
    float times = (float)e->rows.horizon[horizon] * (float)r->touches / life;
    return p * fc_approx_within(share, times > 1.0f ? times : 1.0f);
}

void fc_engine_weights(const struct fc_engine *e, unsigned horizon,
                       float weight_r[FC_SCORERS])
{
    const float *w = fc_mixture_weights(e->mixture, horizon);
    memset(weight_r, 0, FC_SCORERS * sizeof(*weight_r));
    for (unsigned k = 0; k < e->nlive; k++)
        weight_r[e->live[k]] = w[k];
}

bool fc_engine_changed(struct fc_engine *e, unsigned horizon)
{
    return fc_mixture_changed(e->mixture, horizon);
}

const char *fc_engine_explain(const struct fc_engine *e, unsigned horizon,
                              char *buf, size_t size)
{
    return fc_mixture_explain(e->mixture, horizon, buf, size);
}

void fc_engine_stats(const struct fc_engine *e, struct fc_engine_stats *stats_r)
{
    uint64_t lists = e->touched.capacity + e->other.capacity + e->due.capacity;
    *stats_r = (struct fc_engine_stats){
        .active = e->regions.n,
        .touched = e->touched.n,
        .ticks = e->ticks,
        .labels = e->labels,
        .cut = e->regions.cut,
        .cycle_ms = e->guest.cycle.length * FC_CYCLE_TICKS * e->config.tick_ms,
        .cycle_share = e->guest.cycle.clear,
        .bytes = sizeof(*e) + sizeof(*e->work) + lists * sizeof(uint32_t) +
                 (uint64_t)e->capacity * FC_HORIZONS * sizeof(float) +
                 fc_regions_bytes(&e->regions) + fc_samples_bytes(&e->samples) +
                 fc_engine_gru_bytes(e) + fc_engine_view_bytes(e),
    };
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        stats_r->calibration_error[z] = fc_engine_error(e, z);
}
