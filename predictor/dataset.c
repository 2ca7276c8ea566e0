/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "dataset.h"
#include "engine.h"
#include "err.h"

#define RECENT_MS                                                              \
    60000u /* as long as the engine lets the GRU step a region                 \
            */

/* The finalizer of splitmix64: spreads neighbours over all values. */
static uint64_t spread(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int grow(struct fc_dataset *d)
{
    uint32_t room = d->room ? 2 * d->room : 4096;
    float *x = realloc(d->x, (size_t)room * d->inputs * sizeof(*x));
    if (!x)
        return FC_ENOMEM;
    d->x = x;
    float *now = realloc(d->now, (size_t)room * d->inputs * sizeof(*now));
    if (!now)
        return FC_ENOMEM;
    d->now = now;
    uint8_t *label = realloc(d->label, room);
    if (!label)
        return FC_ENOMEM;
    d->label = label;
    uint64_t *region = realloc(d->region, room * sizeof(*region));
    if (!region)
        return FC_ENOMEM;
    d->region = region;
    d->room = room;
    return 0;
}

/* Keeps half of the regions, and the rows of these. */
static void thin(struct fc_dataset *d)
{
    uint32_t kept = 0;
    d->keep /= 2;
    for (uint32_t i = 0; i < d->rows; i++) {
        if (spread(d->region[i]) > d->keep)
            continue;
        memmove(d->x + (size_t)kept * d->inputs, d->x + (size_t)i * d->inputs,
                d->inputs * sizeof(*d->x));
        memmove(d->now + (size_t)kept * d->inputs,
                d->now + (size_t)i * d->inputs, d->inputs * sizeof(*d->now));
        d->label[kept] = d->label[i];
        d->region[kept++] = d->region[i];
    }
    d->rows = kept;
}

static int add_row(struct fc_dataset *d, const struct fc_region_ref *ref,
                   const float *x)
{
    if (spread(ref->first) > d->keep)
        return 0;
    if (d->rows == d->room && grow(d))
        return FC_ENOMEM;
    memcpy(d->x + (size_t)d->rows * d->inputs, x, d->inputs * sizeof(*x));
    memcpy(d->now + (size_t)d->rows * d->inputs, x, d->inputs * sizeof(*x));
    d->label[d->rows] = 0;
    d->region[d->rows++] = ref->first;
    return 0;
}

static int add_step(struct fc_dataset *d, struct fc_engine *engine,
                    uint32_t recent)
{
    uint32_t n = fc_engine_active(engine);
    const struct fc_region_ref *ref = fc_engine_regions(engine);
    const float *x = fc_engine_features(engine);

    if (n && (!ref || !x))
        return FC_ENOMEM;
    while (d->rows > d->cap)
        thin(d);
    d->step = d->rows;
    for (uint32_t i = 0; i < n; i++, x += d->inputs) {
        bool twice = x[FC_FEATURE_GAP_LAST] > 0; /* touched, at least */
        if (ref[i].quiet <= recent && twice && add_row(d, &ref[i], x))
            return FC_ENOMEM;
    }
    return 0;
}

/* The rows of the last step get what is asked of them. A region that has left
 * its place since (few do) stays without a label. */
static int ask(struct fc_dataset *d, const struct fc_replay *replay,
               struct fc_engine *engine)
{
    uint32_t n = fc_engine_active(engine), row = d->step;
    const struct fc_region_ref *ref = fc_engine_regions(engine);
    const float *x = fc_engine_features(engine);

    if (n && (!ref || !x))
        return FC_ENOMEM;
    for (uint32_t i = 0; i < n && row < d->rows; i++) {
        if (ref[i].first != d->region[row])
            continue;
        /* near the trace's end only touches are known, half a truth */
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
            if (fc_replay_labelled(replay, z)) {
                bool touched =
                    fc_replay_touched(replay, z, ref[i].first, ref[i].pages);
                d->label[row] |= (uint8_t)((touched ? 17u : 16u) << z);
            }
        memcpy(d->now + (size_t)row++ * d->inputs, x + (size_t)i * d->inputs,
               d->inputs * sizeof(*x));
    }
    return 0;
}

struct sorted {
    uint64_t region;
    uint32_t row;
};

static int by_region_and_time(const void *a, const void *b)
{
    const struct sorted *p = a, *q = b;
    if (p->region != q->region)
        return p->region < q->region ? -1 : 1;
    return p->row < q->row ? -1 : p->row > q->row;
}

static int order_rows(struct fc_dataset *d)
{
    struct sorted *all = malloc(((size_t)d->rows + 1) * sizeof(*all));
    d->order = malloc(((size_t)d->rows + 1) * sizeof(*d->order));
    d->start = malloc(((size_t)d->rows + 1) * sizeof(*d->start));
    if (!all || !d->order || !d->start) {
        free(all);
        return FC_ENOMEM;
    }
    for (uint32_t i = 0; i < d->rows; i++)
        all[i] = (struct sorted){ d->region[i], i };
    qsort(all, d->rows, sizeof(*all), by_region_and_time);
    for (uint32_t i = 0; i < d->rows; i++) {
        d->order[i] = all[i].row;
        if (i == 0 || all[i].region != all[i - 1].region)
            d->start[d->regions++] = i;
    }
    d->start[d->regions] = d->rows;
    free(all);
    return 0;
}

static int play(struct fc_dataset *d, struct fc_replay *replay,
                uint32_t step_ms, struct fc_trace_problem *problem)
{
    const struct fc_replay_info *info = fc_replay_info(replay);
    struct fc_engine_config config = {
        .kind =
            info->kind == FC_TRACE_MEMORY ? FC_ENGINE_MEMORY : FC_ENGINE_DISK,
        .pages = info->pages,
        .tick_ms = info->tick_ms,
        .features_only = true,
    };
    struct fc_engine *engine = NULL;
    uint32_t every = step_ms / info->tick_ms, asked = 0;

    every = every ? every : 1;
    memcpy(config.horizon_ms, info->horizon_ms, sizeof(config.horizon_ms));
    int rc = fc_engine_create(&config, &engine);
    while (rc == 0) {
        rc = fc_replay_step(replay, engine, problem);
        if (rc <= 0)
            break;
        uint32_t tick = fc_replay_tick(replay);
        if (tick % every == 0) {
            rc = add_step(d, engine, RECENT_MS / info->tick_ms);
            asked = tick + (uint32_t)(spread(tick) % every);
        }
        if (rc >= 0 && tick == asked)
            rc = ask(d, replay, engine);
        rc = rc < 0 ? rc : 0;
    }
    fc_engine_destroy(engine);
    return rc;
}

int fc_dataset_load(struct fc_dataset *d, const char *path, uint32_t step_ms,
                    const struct fc_replay_options *options, uint32_t cap,
                    struct fc_replay_info *info_r,
                    struct fc_trace_problem *problem)
{
    struct fc_replay *replay = NULL;

    *d = (struct fc_dataset){ .inputs = FC_FEATURE_STRIDE,
                              .cap = cap,
                              .keep = UINT64_MAX };
    int rc = fc_replay_open(path, options, &replay, problem);
    if (rc)
        return rc;
    *info_r = *fc_replay_info(replay);
    rc = play(d, replay, step_ms, problem);
    while (rc == 0 && d->rows > d->cap)
        thin(d);
    fc_replay_close(replay);
    return rc ? rc : order_rows(d);
}

void fc_dataset_dispose(struct fc_dataset *d)
{
    free(d->x);
    free(d->now);
    free(d->label);
    free(d->region);
    free(d->order);
    free(d->start);
    *d = (struct fc_dataset){ 0 };
}

void fc_dataset_window(const struct fc_dataset *d, const uint64_t pick[2],
                       uint32_t steps, uint32_t warm, uint32_t column,
                       uint32_t columns, float *x, float *now, float *label,
                       float *weight)
{
    /* a row, so that a region counts by its length; its region by bisection */
    uint32_t row = (uint32_t)(pick[0] % d->rows), low = 0, high = d->regions;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        *(d->start[middle] <= row ? &low : &high) = middle;
    }
    uint32_t first = d->start[low], length = d->start[low + 1] - first;
    uint32_t skip =
        length > steps ? (uint32_t)(pick[1] % (length - steps + 1)) : 0;
    for (uint32_t step = 0; step < steps; step++) {
        size_t cell = (size_t)step * columns + column;
        bool there = step < length;
        uint32_t from = there ? d->order[first + skip + step] : 0;
        size_t bytes = d->inputs * sizeof(*x);
        if (there) {
            memcpy(x + cell * d->inputs, d->x + (size_t)from * d->inputs,
                   bytes);
            memcpy(now + cell * d->inputs, d->now + (size_t)from * d->inputs,
                   bytes);
        } else {
            memset(x + cell * d->inputs, 0, bytes);
            memset(now + cell * d->inputs, 0, bytes);
        }
        bool counts = there && (skip == 0 || step >= warm);
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++) {
            unsigned bits = there ? d->label[from] : 0;
            label[cell * FC_GRU_OUTPUTS + z] = (float)(bits >> z & 1);
            weight[cell * FC_GRU_OUTPUTS + z] =
                counts ? (float)(bits >> (4 + z) & 1) : 0.0f;
        }
    }
}
