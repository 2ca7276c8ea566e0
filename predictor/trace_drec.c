/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Imports DREC1 recordings (docs/formats/trace.md): pages dirtied by a group
 * of processes, by page numbers that were given out in blocks of 2 MiB. The
 * map of blocks precedes the pages that it speaks of, so whether one process's
 * addresses are a virtual machine's memory is known at the first tick.
 */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "trace_int.h"
#include "wire.h"

#define HEADER_BYTES 10u
#define BLOCK_PAGES 512u
#define MAX_BLOCKS (1u << 20) /* 2 TiB */
#define MIN_RAM_BLOCKS 128u
#define NO_PLACE UINT32_MAX

enum { TAG_TICK = 1, TAG_PRESENT = 2, TAG_BLOCK = 3 };

struct mapped {
    uint64_t process, address; /* address: in blocks */
    uint32_t block;
};

struct drec {
    struct mapped *map; /* until the first tick */
    uint32_t maps, map_room;
    bool decided;
    uint32_t *place; /* [places] of a block in the RAM, or NO_PLACE; NULL:
                      * pages keep their numbers */
    uint32_t places;
    uint64_t left, at; /* runs of the tick yet to be read */
    enum fc_trace_type type;
};

static bool drec_is(const uint8_t *start, size_t len)
{
    return len >= 6 && !memcmp(start, "DREC1\n", 6);
}

static int drec_open(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    uint8_t raw[HEADER_BYTES];
    int rc = fc_trace_input_read(trace->in, raw, sizeof(raw));
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "the header");
    uint64_t tick_us = fc_le_load(raw + 6, 4) * 1000;
    if (tick_us < FC_TRACE_MIN_TICK_US || tick_us > FC_TRACE_MAX_TICK_US)
        return fc_trace_fail(trace, problem, FC_EFORMAT, "ticks of %llu us",
                             (unsigned long long)tick_us);
    trace->own = calloc(1, sizeof(struct drec));
    if (!trace->own)
        return fc_trace_fail(trace, problem, FC_ENOMEM, "%s",
                             fc_strerror(FC_ENOMEM));
    trace->head = (struct fc_trace_head){
        .kind = FC_TRACE_MEMORY,
        .unit_shift = 12,
        .tick_us = (uint32_t)tick_us,
    };
    return 0;
}

static void drec_close(struct fc_trace *trace)
{
    struct drec *own = trace->own;
    if (!own)
        return;
    free(own->map);
    free(own->place);
    free(own);
}

static int numbers(struct fc_trace *trace, uint64_t *v, unsigned n)
{
    int rc = 1;
    for (unsigned i = 0; i < n && rc == 1; i++)
        rc = fc_trace_input_number(trace->in, &v[i]);
    return rc;
}

static int add_block(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    struct drec *own = trace->own;
    uint64_t v[4]; /* block, process, address, shared */
    int rc = numbers(trace, v, 4);
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "a block's entry");
    if (own->decided)
        return 0;
    if (v[0] >= MAX_BLOCKS || own->maps >= 2 * MAX_BLOCKS)
        return fc_trace_fail(trace, problem, FC_ETOOBIG,
                             "block %llu, of at most %u",
                             (unsigned long long)v[0], MAX_BLOCKS);
    if (own->maps == own->map_room) {
        uint32_t room = own->map_room ? 2 * own->map_room : 256;
        struct mapped *map = realloc(own->map, room * sizeof(*map));
        if (!map)
            return fc_trace_fail(trace, problem, FC_ENOMEM, "%s",
                                 fc_strerror(FC_ENOMEM));
        own->map = map;
        own->map_room = room;
    }
    own->map[own->maps++] = (struct mapped){ v[1], v[2], (uint32_t)v[0] };
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct mapped *x = a, *y = b;
    if (x->process != y->process)
        return x->process < y->process ? -1 : 1;
    return x->address < y->address ? -1 : x->address > y->address;
}

/* The longest run of neighbouring addresses in the sorted map. */
static uint32_t longest(const struct drec *own, uint32_t *first_r)
{
    const struct mapped *m = own->map;
    uint32_t best = 0, start = 0;
    for (uint32_t i = 0; i < own->maps; i++) {
        if (i && (m[i].process != m[i - 1].process ||
                  m[i].address != m[i - 1].address + 1))
            start = i;
        if (i - start + 1 > best) {
            best = i - start + 1;
            *first_r = start;
        }
    }
    return best;
}

/* Looks once for a virtual machine's memory. */
static int decide(struct drec *own)
{
    uint32_t first = 0;
    if (own->decided)
        return 0;
    own->decided = true;
    if (own->maps)
        qsort(own->map, own->maps, sizeof(*own->map), by_address);
    uint32_t blocks = longest(own, &first);
    if (blocks < MIN_RAM_BLOCKS || blocks <= own->maps / 2)
        return 0;
    for (uint32_t i = 0; i < own->maps; i++)
        if (own->map[i].block >= own->places)
            own->places = own->map[i].block + 1;
    own->place = malloc(own->places * sizeof(*own->place));
    if (!own->place)
        return FC_ENOMEM;
    memset(own->place, 0xff, own->places * sizeof(*own->place));
    for (uint32_t i = 0; i < blocks; i++)
        own->place[own->map[first + i].block] = i;
    return 0;
}

/* Adds a run, block by block where these were moved. */
static int add_run(struct fc_trace *trace, uint64_t at, uint64_t count)
{
    struct drec *own = trace->own;
    if (!own->place)
        return fc_trace_add_run(trace, at, count);
    uint64_t end = (uint64_t)own->places * BLOCK_PAGES;
    end = count < end && at < end - count ? at + count : end;
    while (at < end) {
        uint32_t block = (uint32_t)(at / BLOCK_PAGES);
        uint64_t in = at % BLOCK_PAGES, n = BLOCK_PAGES - in;
        n = n < end - at ? n : end - at;
        int rc =
            own->place[block] == NO_PLACE
                ? 0
                : fc_trace_add_run(
                      trace, (uint64_t)own->place[block] * BLOCK_PAGES + in, n);
        if (rc)
            return rc;
        at += n;
    }
    return 0;
}

/* Up to FC_TRACE_MAX_RUNS of the runs that are left. */
static int give_runs(struct fc_trace *trace, struct fc_trace_record *record,
                     struct fc_trace_problem *problem)
{
    struct drec *own = trace->own;
    trace->runs = 0;
    while (own->left && trace->runs < FC_TRACE_MAX_RUNS / 2) {
        uint64_t v[2];
        int rc = numbers(trace, v, 2);
        if (rc != 1)
            return fc_trace_fail_input(trace, problem, rc, "a run");
        uint64_t first = own->at + (uint64_t)fc_trace_unzigzag(v[0]);
        if (first >= FC_TRACE_MAX_UNITS || v[1] == 0 ||
            v[1] > FC_TRACE_MAX_UNITS - first)
            rc = FC_EFORMAT;
        else
            rc = add_run(trace, first, v[1]);
        if (rc)
            return fc_trace_fail(trace, problem, rc,
                                 "a run of %llu pages at %llu: %s",
                                 (unsigned long long)v[1],
                                 (unsigned long long)first, fc_strerror(rc));
        own->at = first + v[1];
        own->left--;
    }
    fc_trace_tidy_runs(trace);
    *record = (struct fc_trace_record){
        .type = own->type,
        .time_us = trace->time_us,
        .run = trace->run,
        .run_count = trace->runs,
    };
    if (own->type == FC_TRACE_TICK)
        own->type = FC_TRACE_MORE;
    return 1;
}

/* The head of a tick (3 numbers) or of a list of pages, with its count. */
static int start_runs(struct fc_trace *trace, bool tick,
                      struct fc_trace_problem *problem)
{
    struct drec *own = trace->own;
    uint64_t v[4] = { 0 };
    int rc = numbers(trace, v, tick ? 4 : 1);
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "a tick");
    rc = tick ? fc_trace_set_time(trace, v[0], problem) : 0;
    if (rc)
        return rc;
    rc = decide(own);
    if (rc)
        return fc_trace_fail(trace, problem, rc, "%s", fc_strerror(rc));
    own->left = v[tick ? 3 : 0];
    own->at = 0;
    own->type = tick ? FC_TRACE_TICK : FC_TRACE_PRESENT;
    return 0;
}

static int drec_next(struct fc_trace *trace, struct fc_trace_record *record,
                     struct fc_trace_problem *problem)
{
    struct drec *own = trace->own;
    if (own->left)
        return give_runs(trace, record, problem);
    for (;;) {
        uint64_t tag;
        int rc = fc_trace_input_number(trace->in, &tag);
        if (rc == 0)
            trace->whole = true;
        if (rc == 0)
            return 0;
        if (rc < 0)
            return fc_trace_fail_input(trace, problem, rc, "a tag");
        if (tag == TAG_BLOCK)
            rc = add_block(trace, problem);
        else if (tag == TAG_TICK || tag == TAG_PRESENT)
            rc = start_runs(trace, tag == TAG_TICK, problem);
        else
            return fc_trace_fail(trace, problem, FC_EFORMAT, "tag %llu",
                                 (unsigned long long)tag);
        if (rc)
            return rc;
        if (tag != TAG_BLOCK)
            return give_runs(trace, record, problem);
    }
}

const struct fc_trace_ops fc_trace_drec = {
    .name = "drec1",
    .is = drec_is,
    .open = drec_open,
    .next = drec_next,
    .close = drec_close,
};
