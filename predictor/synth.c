/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest is 4 to 10 actors, each with pages of its own. Integer arithmetic
 * only: libm must not decide what a seed means.
 */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "synth.h"
#include "trace.h"

#define MAX_ACTORS 10u
#define SPAN 65536u /* fraction's unit */
#define SEGMENT 64u /* pages */

enum habit {
    HOT,
    SWEEP,
    BATCH,
    LOG,
    HEAP,
    SEGMENTS,  /* written once from end to end, then another one elsewhere */
    PROCESSES, /* one after another: fresh memory, and a few hot pages */
    HABITS
};

struct actor {
    enum habit habit;
    uint64_t first;
    uint32_t pages, rate; /* writes a tick, in 1/256 */
    uint32_t period, on;  /* ticks; writes while phase < on */
    uint32_t offset, skew;
    uint32_t at, owed;
    uint32_t left, grown; /* of a process: ticks; pages */
    uint32_t asleep;      /* ticks: it does something else, or nothing */
    uint32_t shuffle;     /* odd: spreads ranks over pages */
};

struct guest {
    uint64_t random, pages;
    struct actor actor[MAX_ACTORS];
    unsigned actors;
    uint64_t *dirty;
};

/* splitmix64 */
static uint64_t draw(struct guest *g)
{
    uint64_t z = g->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint32_t between(struct guest *g, uint32_t low, uint32_t high)
{
    return low + (uint32_t)(draw(g) % (high - low + 1));
}

/* About evenly by order of magnitude. */
static uint32_t between_log(struct guest *g, unsigned low_bits,
                            unsigned high_bits)
{
    uint32_t bits = between(g, low_bits, high_bits - 1);
    return (1u << bits) + (uint32_t)(draw(g) & ((1u << bits) - 1));
}

static void make_actor(struct guest *g, struct actor *a)
{
    a->habit = between(g, 0, HABITS - 1);
    a->pages = between_log(g, 6, 13);
    a->first = g->pages + between(g, 0, 256);
    a->rate = between_log(g, 5, a->habit == LOG ? 11 : 15);
    a->period = between_log(g, 5, 11);
    a->on = between(g, 0, 2) ? a->period : between(g, 1, a->period);
    a->offset = between(g, 0, a->period);
    a->skew = between(g, 1, 4);
    a->shuffle = between(g, 0, 1) ? 1 : 2 * between(g, 1, 4096) + 1;
    if (a->habit == BATCH) {
        a->on = 1 + a->period / between(g, 4, 32);
        a->rate *= 4;
    }
    g->pages = a->first + a->pages;
}

static void mark(struct guest *g, const struct actor *a, uint32_t page)
{
    uint64_t at = a->first + page % a->pages;
    g->dirty[at / 64] |= 1ull << (at % 64);
}

/* Where an actor writes next. */
static uint32_t next_page(struct guest *g, struct actor *a)
{
    uint64_t u = draw(g) % SPAN;
    switch (a->habit) {
    case HOT: /* u^skew: the low ranks are the hot ones */
    case BATCH:
        for (uint32_t i = 0, v = (uint32_t)u; i < a->skew; i++)
            u = u * v / SPAN;
        return a->at + (uint32_t)(u * a->pages / SPAN) * a->shuffle;
    case HEAP: /* near the top of a heap that grows and shrinks */
        if (u < SPAN / 8)
            a->at += (uint32_t)(draw(g) % 3) - 1 + a->pages;
        return a->at + (uint32_t)(draw(g) % 32);
    case SEGMENTS:
        if (++a->at % SEGMENT == 0)
            a->at = between(g, 0, a->pages / SEGMENT) * SEGMENT;
        return a->at;
    case PROCESSES:
        if (u < SPAN / 2)
            return a->at + (uint32_t)(u % 16);
        return a->at + a->grown++;
    default:
        return a->at++;
    }
}

/* The next process; half of them in the memory that others left. */
static void begin_process(struct guest *g, struct actor *a)
{
    a->left = between_log(g, 1, 8);
    a->at = between(g, 0, 1) ? between(g, 0, 3) * SEGMENT
                             : between(g, 0, a->pages - 1);
    a->grown = 0;
}

static void act(struct guest *g, struct actor *a, uint32_t tick)
{
    uint32_t phase = (tick + a->offset) % a->period;
    if (a->habit == PROCESSES && a->left-- == 0)
        begin_process(g, a);
    if (phase == 0 && draw(g) % 8 == 0)
        a->asleep = between_log(g, 4, 10);
    if (a->asleep) {
        a->asleep--;
        return;
    }
    if (phase == 0 && draw(g) % 4 == 0) { /* a new cycle, perhaps elsewhere */
        if (a->habit == HOT)
            a->at = between(g, 0, a->pages - 1);
        a->rate = a->rate / 2 + between_log(g, 4, 13) / 2 + 1;
    }
    if (phase >= a->on)
        return;
    a->owed += a->rate / 2 + (uint32_t)(draw(g) % (a->rate + 1));
    for (; a->owed >= 256; a->owed -= 256)
        mark(g, a, next_page(g, a));
}

static uint32_t runs_of(const struct guest *g, struct fc_trace_run *run)
{
    uint32_t n = 0;
    for (uint64_t page = 0; page < g->pages; page++) {
        if (!g->dirty[page / 64]) {
            page |= 63;
            continue;
        }
        if (!(g->dirty[page / 64] >> (page % 64) & 1))
            continue;
        if (n && run[n - 1].first + run[n - 1].count == page)
            run[n - 1].count++;
        else
            run[n++] = (struct fc_trace_run){ page, 1 };
    }
    return n;
}

static int write_ticks(struct guest *g, struct fc_trace_writer *w,
                       struct fc_trace_run *run, uint32_t ticks)
{
    for (uint32_t tick = 0; tick < ticks; tick++) {
        memset(g->dirty, 0, (g->pages + 63) / 64 * 8);
        for (unsigned i = 0; i < g->actors; i++)
            act(g, &g->actor[i], tick);
        struct fc_trace_record record = {
            .type = FC_TRACE_TICK,
            .time_us = (uint64_t)(tick + 1) * FC_SYNTH_TICK_MS * 1000,
            .run_count = runs_of(g, run),
            .run = run,
        };
        int rc = fc_trace_put(w, &record);
        if (rc)
            return rc;
    }
    return fc_trace_finish(w);
}

int fc_synth_write(int fd, uint64_t seed, uint32_t seconds)
{
    struct guest g = { .random = seed };
    struct fc_trace_writer *writer = NULL;
    int rc;

    g.actors = between(&g, 4, MAX_ACTORS);
    for (unsigned i = 0; i < g.actors; i++)
        make_actor(&g, &g.actor[i]);
    struct fc_trace_head head = {
        .kind = FC_TRACE_MEMORY,
        .unit_shift = 12,
        .tick_us = FC_SYNTH_TICK_MS * 1000,
        .units = g.pages,
    };
    struct fc_trace_run *run = malloc((g.pages + 1) * sizeof(*run));
    g.dirty = calloc((g.pages + 63) / 64, 8);
    rc = run && g.dirty ? fc_trace_writer_new(fd, &head, &writer) : FC_ENOMEM;
    if (rc == 0)
        rc = write_ticks(&g, writer, run, seconds * (1000 / FC_SYNTH_TICK_MS));
    fc_trace_writer_free(writer);
    free(g.dirty);
    free(run);
    return rc;
}
