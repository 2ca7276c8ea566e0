/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flip_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../predictor/engine.h"
#include "err.h"
#include "trace.h"

#define EXTENT FLIP_EXTENT
#define EXTENT_SECTORS (EXTENT / 512)
#define TICK_MS 10000u

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_shadow: %s: %s\n", what, why);
    exit(1);
}

static void *must(void *p)
{
    if (!p)
        die("memory", "not enough");
    return p;
}

static void append(struct flip_load *l, const struct flip_request *r)
{
    if (!(l->count & (l->count - 1)))
        l->request = must(realloc(l->request, (l->count ? 2 * l->count : 1) *
                                                  sizeof(*l->request)));
    l->request[l->count++] = *r;
}

/* ---- made up --------------------------------------------------------------
 */

#define REPEAT_SIZE (1024ull << 20)
#define REPEAT_HOT 48u     /* extents that are asked for, all over the disk */
#define REPEAT_ROUND 3000u /* requests of a minute */
#define REPEAT_MINUTES 12u /* before the hand-over */
#define REPEAT_MINUTE 60000000ull
#define REPEAT_WRITES 16u /* one of so many */

void flip_load_repeating(struct flip_load *l, uint64_t window_us)
{
    struct flip_request round[REPEAT_ROUND];
    unsigned seed = 11;
    uint64_t extent[REPEAT_HOT], extents = REPEAT_SIZE / EXTENT;
    *l = (struct flip_load){ .name = "repeating", .size = REPEAT_SIZE };
    for (unsigned i = 0; i < REPEAT_HOT; i++)
        extent[i] = (uint64_t)rand_r(&seed) % extents;
    for (unsigned i = 0; i < REPEAT_ROUND; i++) {
        /* the lesser of two: low numbers more often */
        unsigned a = (unsigned)rand_r(&seed) % REPEAT_HOT;
        unsigned b = (unsigned)rand_r(&seed) % REPEAT_HOT;
        uint64_t page = (uint64_t)rand_r(&seed) % (EXTENT / 4096);
        round[i] = (struct flip_request){
            .time_us = i * (REPEAT_MINUTE / REPEAT_ROUND),
            .offset = extent[a < b ? a : b] * EXTENT + page * 4096,
            .length = 4096,
            .write = rand_r(&seed) % REPEAT_WRITES == 0,
        };
    }
    l->flip_us = REPEAT_MINUTES * REPEAT_MINUTE;
    for (uint64_t m = 0; m * REPEAT_MINUTE < l->flip_us + window_us; m++)
        for (unsigned i = 0; i < REPEAT_ROUND; i++) {
            struct flip_request r = round[i];
            r.time_us += m * REPEAT_MINUTE;
            if (r.time_us < l->flip_us)
                l->flip = l->count + 1;
            append(l, &r);
        }
}

/* ---- recorded -------------------------------------------------------------
 */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Moves the requests to a disk of the touched extents alone. */
static void leave_gaps_out(struct flip_load *l)
{
    uint64_t *extent = must(malloc(2 * l->count * sizeof(*extent)));
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        const struct flip_request *r = &l->request[i];
        extent[n++] = r->offset / EXTENT;
        extent[n++] = (r->offset + r->length - 1) / EXTENT;
    }
    qsort(extent, n, sizeof(*extent), by_number);
    for (size_t i = 0; i < n; i++)
        if (!kept || extent[kept - 1] != extent[i])
            extent[kept++] = extent[i];
    for (size_t i = 0; i < l->count; i++) {
        struct flip_request *r = &l->request[i];
        uint64_t key = r->offset / EXTENT;
        const uint64_t *at =
            bsearch(&key, extent, kept, sizeof(*extent), by_number);
        r->offset = (uint64_t)(at - extent) * EXTENT + r->offset % EXTENT;
    }
    l->size = kept * EXTENT;
    free(extent);
}

static void read_trace(struct flip_load *l, const char *path)
{
    struct fc_trace_problem problem;
    struct fc_trace_record record;
    struct fc_trace *trace;
    int rc = fc_trace_open(path, &trace, &problem);
    if (rc)
        die(path, problem.text);
    if (fc_trace_head(trace)->kind != FC_TRACE_BLOCK) {
        fc_trace_close(trace);
        return;
    }
    while ((rc = fc_trace_next(trace, &record, &problem)) == 1) {
        if (record.type != FC_TRACE_READ && record.type != FC_TRACE_WRITE)
            continue;
        uint64_t bytes = record.run[0].count * 512;
        struct flip_request r = {
            .time_us = record.time_us,
            .offset = record.run[0].first * 512,
            .length =
                bytes < FLIP_REQUEST_MAX ? (uint32_t)bytes : FLIP_REQUEST_MAX,
            .write = record.type == FC_TRACE_WRITE,
        };
        append(l, &r);
    }
    fc_trace_close(trace);
    if (rc)
        die(path, problem.text);
}

/* Whether `least` reads come within the window that begins at request i. */
static bool busy_window(const struct flip_load *l, size_t i, uint64_t window_us,
                        unsigned least, unsigned most)
{
    uint64_t end = l->request[i].time_us + window_us;
    unsigned reads = 0;
    for (; i < l->count && l->request[i].time_us < end; i++)
        reads += !l->request[i].write;
    return reads >= least && reads <= most;
}

bool flip_load_trace(struct flip_load *l, const char *path, unsigned percent,
                     uint64_t window_us, unsigned least, unsigned most)
{
    const char *base = strrchr(path, '/');
    *l = (struct flip_load){ .size = 0 };
    base = base ? base + 1 : path;
    snprintf(l->name, sizeof(l->name), "%.*s", (int)strcspn(base, "."), base);
    read_trace(l, path);
    if (!l->count)
        return false;
    leave_gaps_out(l);
    uint64_t from = l->request[l->count - 1].time_us / 100 * percent;
    uint64_t next = from; /* windows do not overlap */
    for (size_t i = 0; i < l->count; i++) {
        if (l->request[i].time_us < next)
            continue;
        if (busy_window(l, i, window_us, least, most)) {
            l->flip = i;
            l->flip_us = l->request[i].time_us;
            return true;
        }
        next = l->request[i].time_us + window_us;
    }
    return false;
}

/* ---- predicted ------------------------------------------------------------
 */

struct ranked {
    float p;
    uint32_t extent;
};

static int likelier(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->extent < y->extent ? -1 : x->extent > y->extent;
}

static void feed(struct fc_engine *e, const struct flip_request *r,
                 uint32_t extent)
{
    uint64_t first = r->offset / extent;
    uint64_t n = (r->offset + r->length - 1) / extent - first + 1;
    if (r->write ? fc_engine_write(e, first, n) : fc_engine_read(e, first, n))
        die("predictor", "not enough memory");
}

static void rank(struct flip_load *l, struct fc_engine *e, uint32_t extent)
{
    uint32_t n = fc_engine_active(e), each = extent / FLIP_BLOCK;
    const struct fc_region_ref *ref = fc_engine_regions(e);
    const float *mid = fc_engine_scores(e, FC_SCORER_MIXTURE, 1);
    const float *later = fc_engine_scores(e, FC_SCORER_MIXTURE, 2);
    if (!n || !ref || !mid || !later)
        die(l->name, "the predictor has nothing to say");
    struct ranked *r = must(malloc(n * sizeof(*r)));
    free(l->order);
    l->ordered = 0;
    l->order = must(malloc((size_t)n * each * sizeof(*l->order)));
    for (uint32_t i = 0; i < n; i++)
        r[i] = (struct ranked){ mid[i] + later[i], (uint32_t)ref[i].first };
    qsort(r, n, sizeof(*r), likelier);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < each; k++)
            l->order[l->ordered++] = r[i].extent * each + k;
    free(r);
}

void flip_load_predict(struct flip_load *l, uint64_t past_us, uint32_t extent)
{
    struct fc_engine *e;
    struct fc_engine_config config = {
        .kind = FC_ENGINE_DISK,
        .pages = l->size / extent,
        .tick_ms = TICK_MS,
        .horizon_ms = { TICK_MS, 6 * TICK_MS, 48 * TICK_MS, 144 * TICK_MS },
    };
    uint64_t start = l->flip_us > past_us ? l->flip_us - past_us : 0;
    uint64_t tick = start + TICK_MS * 1000ull;
    if (fc_engine_create(&config, &e))
        die("predictor", "cannot be made");
    for (size_t i = 0; i < l->flip; i++) {
        const struct flip_request *r = &l->request[i];
        if (r->time_us < start)
            continue;
        for (; r->time_us >= tick; tick += TICK_MS * 1000ull)
            if (fc_engine_tick(e, TICK_MS, NULL))
                die("predictor", "not enough memory");
        feed(e, r, extent);
    }
    if (fc_engine_tick(e, TICK_MS, NULL))
        die("predictor", "not enough memory");
    rank(l, e, extent);
    fc_engine_destroy(e);
}

void flip_load_dispose(struct flip_load *l)
{
    free(l->request);
    free(l->order);
    *l = (struct flip_load){ .size = 0 };
}
