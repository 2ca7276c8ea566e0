/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replay of a trace, with a look ahead.
 *
 * The trace is read once, as far ahead as the longest horizon; the ticks
 * between now and there wait in a ring. For each horizon a cursor runs that
 * far ahead of the tick being fed and notes, by page and by unit of 16 pages,
 * the last tick with a touch. A page is touched within horizon h of tick t
 * when the note of h is later than t: the cursor has seen all ticks up to
 * t + h and none after. So a label costs one comparison, and nothing is
 * searched. The notes are demand-zero memory: pages never touched cost none.
 *
 * Labels are counted in ticks as recorded. The engine is told the time between
 * ticks in whole multiples of the interval, so that the jitter of a recorder
 * does not blur a horizon of one tick.
 */
#include "replay.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "engine.h"
#include "err.h"

#define SECTOR 512u
#define MAX_PAGES (1ull << 28) /* 1 TiB of memory */
#define MAX_TICKS (1u << 26)
#define MAX_HORIZON_TICKS (1u << 20)
#define MAX_RUNS_AHEAD (1u << 27) /* 2 GiB of them */
#define LEAST_TICKS 700u          /* of a block trace, if it may be chosen */
/* A Sunday, 00:00: where a trace does not say when it began, its hours and
 * days are counted from here. */
#define SOME_SUNDAY_S (3 * 86400u)

_Static_assert(FC_REPLAY_HORIZONS == FC_HORIZONS, "horizons of the engine");

struct runs {
    struct fc_trace_run *run;
    uint32_t n, room;
};

struct tick {
    struct runs write, read, present;
    uint64_t time_us;
    struct fc_trace_rates rates;
};

struct notes {
    uint32_t *page, *unit; /* 1 + the last tick with a touch; 0: none */
    uint32_t *requests;    /* block: reads of each page so far, modulo 2^32 */
    uint64_t total;        /* and of all pages */
    uint32_t seen;         /* ticks noted */
};

struct fc_replay {
    struct fc_replay_info info;
    struct fc_trace_head head;
    struct fc_trace *trace;
    struct tick *ring; /* [ring_ticks] */
    uint32_t ring_ticks;
    uint32_t loaded; /* ticks read from the trace */
    uint32_t fed;    /* ticks given out */
    uint64_t runs_ahead;
    struct fc_trace_record held; /* read, and of the tick after */
    bool holding;
    bool any_access;
    struct fc_trace_rates rates; /* in force where the reader is */
    /* one for each horizon, and one for now */
    struct notes notes[FC_REPLAY_HORIZONS + 1];
    uint64_t before_us; /* time of the tick before the last one fed */
};

static const uint32_t memory_horizons[FC_REPLAY_HORIZONS] = { 1, 20, 200, 600 };
static const uint32_t block_horizons[FC_REPLAY_HORIZONS] = { 1, 6, 48, 144 };

/* Intervals for block traces, in ms. */
static const uint32_t intervals[] = {
    10,   20,    50,    100,   200,    500,     1000,    2000,
    5000, 10000, 20000, 60000, 300000, 1800000, 3600000,
};

static uint32_t choose_interval(uint64_t last_us)
{
    unsigned i = sizeof(intervals) / sizeof(intervals[0]) - 1;
    while (i > 0 && intervals[i] > last_us / 1000 / LEAST_TICKS)
        i--;
    return intervals[i];
}

static int refuse(struct fc_trace_problem *problem, int rc, const char *why)
{
    snprintf(problem->text, sizeof(problem->text), "%s", why);
    return rc;
}

static int set_horizons(struct fc_replay_info *info,
                        const struct fc_replay_options *o,
                        struct fc_trace_problem *problem)
{
    uint32_t memory[FC_REPLAY_HORIZONS];
    const uint32_t *h = block_horizons;
    if (info->kind == FC_TRACE_MEMORY) {
        for (unsigned i = 0; i < FC_REPLAY_HORIZONS; i++) {
            memory[i] = memory_horizons[i] / info->merged;
            memory[i] = memory[i] ? memory[i] : 1;
        }
        h = memory;
    }
    if (o->horizon_ticks[0])
        h = o->horizon_ticks;
    for (unsigned i = 0; i < FC_REPLAY_HORIZONS; i++) {
        if (h[i] > MAX_HORIZON_TICKS || h[i] < (i ? h[i - 1] : 1) ||
            (uint64_t)h[i] * info->tick_ms > UINT32_MAX)
            return refuse(problem, FC_EINVAL, "horizons out of range");
        info->horizon_ticks[i] = h[i];
        info->horizon_ms[i] = h[i] * info->tick_ms;
    }
    return 0;
}

static int set_info(struct fc_replay *r, const struct fc_trace_summary *s,
                    const struct fc_replay_options *o,
                    struct fc_trace_problem *problem)
{
    struct fc_replay_info *info = &r->info;
    uint64_t ticks = s->ticks;
    info->kind = s->head.kind;
    info->hash = s->hash;
    info->pages = s->head.units;
    if (info->kind == FC_TRACE_MEMORY) {
        uint32_t own_ms = s->head.tick_us / 1000;
        info->tick_ms = o->tick_ms ? o->tick_ms : own_ms;
        if (!own_ms || info->tick_ms % own_ms || !info->tick_ms)
            return refuse(problem, FC_EINVAL,
                          "a tick is not a multiple of the trace's");
        info->merged = info->tick_ms / own_ms;
        ticks = (ticks + info->merged - 1) / info->merged;
    } else {
        uint32_t extent = o->extent_bytes ? o->extent_bytes : FC_REPLAY_EXTENT;
        if (extent < SECTOR || (extent & (extent - 1)))
            return refuse(problem, FC_EINVAL,
                          "an extent's size is not a power of two");
        info->extent_bytes = extent;
        info->pages = (s->head.units + extent / SECTOR - 1) / (extent / SECTOR);
        info->tick_ms = o->tick_ms ? o->tick_ms : choose_interval(s->last_us);
        ticks = s->last_us / 1000 / info->tick_ms + 1;
    }
    if (info->pages == 0 || ticks == 0)
        return refuse(problem, FC_EFORMAT, "nothing happens in the trace");
    if (info->pages > MAX_PAGES || ticks > MAX_TICKS)
        return refuse(problem, FC_ELIMIT,
                      "the trace is too large or too long to replay");
    info->ticks = (uint32_t)ticks;
    return set_horizons(info, o, problem);
}

#define NOW FC_REPLAY_HORIZONS

/* Demand-zero memory for `n` notes, or NULL. */
static uint32_t *notes_map(uint64_t n)
{
    void *map = mmap(NULL, n * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

static void notes_unmap(uint32_t *map, uint64_t n)
{
    if (map)
        munmap(map, n * sizeof(*map));
}

static uint64_t units_of(const struct fc_replay *r)
{
    return r->info.pages / FC_REPLAY_UNIT_PAGES + 1;
}

static int notes_init(struct fc_replay *r, struct notes *n)
{
    n->page = notes_map(r->info.pages);
    if (r->info.kind == FC_TRACE_MEMORY)
        n->unit = notes_map(units_of(r));
    else
        n->requests = notes_map(r->info.pages);
    return n->page && (n->unit || n->requests) ? 0 : FC_ENOMEM;
}

int fc_replay_open(const char *path, const struct fc_replay_options *options,
                   struct fc_replay **replay_r,
                   struct fc_trace_problem *problem)
{
    static const struct fc_replay_options none;
    struct fc_trace_summary summary;
    int rc = fc_trace_scan(path, &summary, problem);
    if (rc)
        return rc;
    struct fc_replay *r = calloc(1, sizeof(*r));
    if (!r)
        return refuse(problem, FC_ENOMEM, fc_strerror(FC_ENOMEM));
    r->head = summary.head;
    r->any_access = options && options->any_access;
    rc = set_info(r, &summary, options ? options : &none, problem);
    if (rc)
        goto out;
    r->ring_ticks = r->info.horizon_ticks[FC_REPLAY_HORIZONS - 1] + 1;
    r->ring = calloc(r->ring_ticks, sizeof(*r->ring));
    rc = r->ring ? 0 : FC_ENOMEM;
    for (unsigned i = 0; i <= NOW && rc == 0; i++)
        rc = notes_init(r, &r->notes[i]);
    if (rc) {
        refuse(problem, rc, fc_strerror(rc));
        goto out;
    }
    rc = fc_trace_open(path, &r->trace, problem);
out:
    if (rc) {
        fc_replay_close(r);
        return rc;
    }
    *replay_r = r;
    return 0;
}

void fc_replay_close(struct fc_replay *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; r->ring && i < r->ring_ticks; i++) {
        free(r->ring[i].write.run);
        free(r->ring[i].read.run);
        free(r->ring[i].present.run);
    }
    for (unsigned i = 0; i <= NOW; i++) {
        notes_unmap(r->notes[i].page, r->info.pages);
        notes_unmap(r->notes[i].unit, units_of(r));
        notes_unmap(r->notes[i].requests, r->info.pages);
    }
    fc_trace_close(r->trace);
    free(r->ring);
    free(r);
}

const struct fc_replay_info *fc_replay_info(const struct fc_replay *r)
{
    return &r->info;
}

uint32_t fc_replay_tick(const struct fc_replay *r)
{
    return r->fed;
}

static int add_runs(struct fc_replay *r, struct runs *to,
                    const struct fc_trace_run *run, uint32_t n)
{
    if (n > MAX_RUNS_AHEAD - r->runs_ahead)
        return FC_ELIMIT;
    if (n > to->room - to->n) {
        uint32_t room = to->n + n + to->room / 2;
        struct fc_trace_run *more = realloc(to->run, room * sizeof(*more));
        if (!more)
            return FC_ENOMEM;
        to->run = more;
        to->room = room;
    }
    if (n)
        memcpy(to->run + to->n, run, n * sizeof(*run));
    to->n += n;
    r->runs_ahead += n;
    return 0;
}

/* A request's extents. */
static int add_request(struct fc_replay *r, struct tick *tick,
                       const struct fc_trace_record *record)
{
    uint32_t sectors = r->info.extent_bytes / SECTOR;
    const struct fc_trace_run *run = record->run;
    struct fc_trace_run extents = { .first = run->first / sectors };
    extents.count = (run->first + run->count - 1) / sectors - extents.first + 1;
    if (record->type == FC_TRACE_DISCARD)
        return 0;
    bool read = record->type == FC_TRACE_READ;
    uint64_t bytes_s = run->count * SECTOR * 1000 / r->info.tick_ms;
    *(read ? &tick->rates.vbd_rd : &tick->rates.vbd_wr) += bytes_s;
    int rc = 0;
    if (!read)
        rc = add_runs(r, &tick->write, &extents, 1);
    if (rc == 0 && (read || r->any_access))
        rc = add_runs(r, &tick->read, &extents, 1);
    return rc;
}

/* Whether the record begins a tick later than number `tick`. */
static bool is_later(const struct fc_replay *r, uint32_t tick, uint32_t begun,
                     const struct fc_trace_record *record)
{
    if (r->info.kind == FC_TRACE_MEMORY)
        return begun == r->info.merged && record->type == FC_TRACE_TICK;
    return record->time_us / 1000 / r->info.tick_ms > tick;
}

/* Reads the next tick of the trace into its place in the ring. */
static int load_tick(struct fc_replay *r, struct fc_trace_problem *problem)
{
    struct tick *tick = &r->ring[r->loaded % r->ring_ticks];
    uint32_t begun = 0;
    int rc = 0;
    r->runs_ahead -= tick->write.n + tick->read.n + tick->present.n;
    tick->write.n = tick->read.n = tick->present.n = 0;
    tick->time_us = (uint64_t)r->loaded * r->info.tick_ms * 1000;
    tick->rates = (struct fc_trace_rates){ 0 };
    while (rc == 0) {
        if (!r->holding) {
            rc = fc_trace_next(r->trace, &r->held, problem);
            if (rc <= 0)
                break;
            r->holding = true;
        }
        if (is_later(r, r->loaded, begun, &r->held))
            break;
        r->holding = false;
        rc = 0;
        if (r->held.type == FC_TRACE_TICK) {
            begun++;
            tick->time_us = r->held.time_us;
            tick->rates = r->rates;
        }
        if (r->held.type == FC_TRACE_RATES)
            r->rates = r->held.rates;
        else if (r->held.type <= FC_TRACE_MORE)
            rc = add_runs(r, &tick->write, r->held.run, r->held.run_count);
        else if (r->held.type == FC_TRACE_PRESENT)
            rc = add_runs(r, &tick->present, r->held.run, r->held.run_count);
        else if (r->held.type >= FC_TRACE_READ)
            rc = add_request(r, tick, &r->held);
        if (rc)
            refuse(problem, rc, fc_strerror(rc));
    }
    r->loaded++;
    return rc < 0 ? rc : 0;
}

static void note_runs(const struct fc_replay *r, struct notes *n,
                      const struct runs *runs)
{
    for (uint32_t i = 0; i < runs->n; i++) {
        uint64_t first = runs->run[i].first;
        uint64_t end = first + runs->run[i].count;
        end = end < r->info.pages ? end : r->info.pages;
        for (uint64_t p = first; p < end; p++)
            n->page[p] = n->seen;
        for (uint64_t p = first; n->requests && p < end; p++) {
            n->requests[p]++;
            n->total++;
        }
        for (uint64_t u = first / FC_REPLAY_UNIT_PAGES;
             n->unit && u * FC_REPLAY_UNIT_PAGES < end; u++)
            n->unit[u] = n->seen;
    }
}

/* Brings the notes of all horizons to where they belong for tick `now`. */
static void look_ahead(struct fc_replay *r, uint32_t now)
{
    for (unsigned i = 0; i <= NOW; i++) {
        struct notes *n = &r->notes[i];
        uint64_t end = (uint64_t)now + 1;
        if (i != NOW)
            end += r->info.horizon_ticks[i];
        if (end > r->info.ticks)
            end = r->info.ticks;
        while (n->seen < end) {
            struct tick *tick = &r->ring[n->seen % r->ring_ticks];
            n->seen++;
            note_runs(r, n,
                      r->info.kind == FC_TRACE_MEMORY ? &tick->write
                                                      : &tick->read);
        }
    }
}

/* Since the tick before, in whole intervals, at least one. */
static uint32_t elapsed_ms(const struct fc_replay *r, uint64_t time_us)
{
    uint64_t interval_us = (uint64_t)r->info.tick_ms * 1000;
    uint64_t steps = (time_us - r->before_us + interval_us / 2) / interval_us;
    if (r->fed == 0 || steps < 1)
        steps = 1;
    if (steps > UINT32_MAX / r->info.tick_ms)
        steps = UINT32_MAX / r->info.tick_ms;
    return (uint32_t)steps * r->info.tick_ms;
}

static int feed(struct fc_replay *r, const struct tick *tick,
                struct fc_engine *engine)
{
    int rc = 0;
    for (uint32_t i = 0; i < tick->write.n && rc == 0; i++)
        rc = fc_engine_write(engine, tick->write.run[i].first,
                             tick->write.run[i].count);
    for (uint32_t i = 0; i < tick->read.n && rc == 0; i++)
        rc = fc_engine_read(engine, tick->read.run[i].first,
                            tick->read.run[i].count);
    if (rc)
        return rc;
    uint64_t start_s = r->head.start_s ? r->head.start_s : SOME_SUNDAY_S;
    struct fc_rates rates = {
        .cpu = (float)tick->rates.cpu_permille / 1000,
        .net_rx = (float)tick->rates.net_rx,
        .net_tx = (float)tick->rates.net_tx,
        .vbd_rd = (float)tick->rates.vbd_rd,
        .vbd_wr = (float)tick->rates.vbd_wr,
        .wall_s = start_s + tick->time_us / 1000000,
    };
    return fc_engine_tick(engine, elapsed_ms(r, tick->time_us), &rates);
}

int fc_replay_step(struct fc_replay *r, struct fc_engine *engine,
                   struct fc_trace_problem *problem)
{
    if (r->fed == r->info.ticks)
        return 0;
    uint64_t last = (uint64_t)r->fed + r->ring_ticks;
    while (r->loaded < last && r->loaded < r->info.ticks) {
        int rc = load_tick(r, problem);
        if (rc)
            return rc;
    }
    look_ahead(r, r->fed);
    const struct tick *tick = &r->ring[r->fed % r->ring_ticks];
    if (engine) {
        int rc = feed(r, tick, engine);
        if (rc)
            return refuse(problem, rc, fc_strerror(rc));
    }
    r->before_us = tick->time_us;
    r->fed++;
    return 1;
}

bool fc_replay_labelled(const struct fc_replay *r, unsigned horizon)
{
    return r->fed > 0 &&
           (uint64_t)r->fed + r->info.horizon_ticks[horizon] <= r->info.ticks;
}

bool fc_replay_touched(const struct fc_replay *r, unsigned horizon,
                       uint64_t first, uint64_t pages)
{
    const struct notes *n = &r->notes[horizon];
    if (n->unit && pages == FC_REPLAY_UNIT_PAGES &&
        first % FC_REPLAY_UNIT_PAGES == 0 && first < r->info.pages)
        return n->unit[first / FC_REPLAY_UNIT_PAGES] > r->fed;
    for (uint64_t p = first; p - first < pages && p < r->info.pages; p++)
        if (n->page[p] > r->fed)
            return true;
    return false;
}

uint32_t fc_replay_requests(const struct fc_replay *r, unsigned horizon,
                            uint64_t extent)
{
    const uint32_t *then = r->notes[horizon].requests;
    if (!then || extent >= r->info.pages)
        return 0;
    return then[extent] - r->notes[NOW].requests[extent];
}

uint64_t fc_replay_requests_of_all(const struct fc_replay *r, unsigned horizon)
{
    return r->notes[horizon].total - r->notes[NOW].total;
}

void fc_replay_labels(const struct fc_replay *r, unsigned horizon, uint32_t n,
                      const struct fc_region_ref *ref, uint8_t *touched)
{
    for (uint32_t i = 0; i < n; i++)
        touched[i] = fc_replay_touched(r, horizon, ref[i].first, ref[i].pages);
}

struct fc_replay_fed fc_replay_fed(const struct fc_replay *r)
{
    const struct tick *tick = &r->ring[(r->fed - 1) % r->ring_ticks];
    return (struct fc_replay_fed){ .write = tick->write.run,
                                   .read = tick->read.run,
                                   .present = tick->present.run,
                                   .presents = tick->present.n,
                                   .writes = tick->write.n,
                                   .reads = tick->read.n };
}
