/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_REPLAY_H
#define FC_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "trace.h"

/*
 * Plays a trace into an engine tick by tick, and knows what came afterwards:
 * the labels that training and evaluation need.
 *
 *     fc_replay_open(path, NULL, &replay, &problem);
 *     info = fc_replay_info(replay);
 *     fc_engine_create(&(struct fc_engine_config){ .kind = .., .pages =
 *         info->pages, .tick_ms = info->tick_ms, .horizon_ms = .. }, &engine);
 *     while ((rc = fc_replay_step(replay, engine, &problem)) == 1) {
 *         n = fc_engine_active(engine); ref = fc_engine_regions(engine);
 *         if (fc_replay_labelled(replay, h))
 *             fc_replay_labels(replay, h, n, ref, touched);
 *         ...
 *     }
 *
 * One thread. Memory: up to 8 bytes for each horizon and each page that occurs,
 * and the trace between now and the longest horizon.
 */
#define FC_REPLAY_HORIZONS 4
#define FC_REPLAY_UNIT_PAGES 16u /* memory is evaluated by 64 KiB */

struct fc_engine;
struct fc_region_ref;
struct fc_replay;

struct fc_replay_options {
    /* 0: what the trace has (memory); from the trace's length (block), so
     * that it has some 700 to 2000 ticks. Memory: else a multiple of what the
     * trace has, so many of whose ticks are then one. */
    uint32_t tick_ms;
    uint32_t extent_bytes; /* block: 0 is FC_REPLAY_EXTENT; a power of two */
    /* Block: every write counts as a read too, so that the engine foretells
     * any access. */
    bool any_access;
    /* all 0: memory 50 ms, 1, 10 and 30 s, or what
     * of these is no shorter than a tick; block 1, 6, 48, 144; ascending */
    uint32_t horizon_ticks[FC_REPLAY_HORIZONS];
};
#define FC_REPLAY_EXTENT (1u << 20)

struct fc_replay_info {
    enum fc_trace_kind kind;
    uint64_t pages; /* 4 KiB pages; block: extents */
    uint32_t tick_ms;
    uint32_t ticks;  /* in the whole trace */
    uint32_t merged; /* memory: of the trace's own ticks, to one */
    uint32_t extent_bytes;
    uint32_t horizon_ticks[FC_REPLAY_HORIZONS];
    uint32_t horizon_ms[FC_REPLAY_HORIZONS];
    uint64_t hash; /* fc_trace_summary.hash */
};

/* `options` may be NULL. Errors as fc_trace_open(), and FC_ELIMIT: a trace
 * that would take too much memory. */
int fc_replay_open(const char *path, const struct fc_replay_options *options,
                   struct fc_replay **replay_r,
                   struct fc_trace_problem *problem);
void fc_replay_close(struct fc_replay *replay); /* NULL is fine */

const struct fc_replay_info *fc_replay_info(const struct fc_replay *replay);

/*
 * Feeds the next tick: what was written (block: and read) in it, then
 * fc_engine_tick(). 1, 0 at the end, or an error as fc_trace_next()'s or the
 * engine's. With `engine` NULL the replay only moves on.
 */
int fc_replay_step(struct fc_replay *replay, struct fc_engine *engine,
                   struct fc_trace_problem *problem);

/* Ticks fed so far; the last one fed is number fc_replay_tick() - 1. */
uint32_t fc_replay_tick(const struct fc_replay *replay);

/* Whether the trace goes on for the whole horizon after the last tick fed. */
bool fc_replay_labelled(const struct fc_replay *replay, unsigned horizon);

/*
 * touched[i] = 1 when a page of ref[i] is written (block: read) in one of the
 * horizon's ticks after the last one fed, else 0. When the trace ends sooner,
 * 1 still holds; a 0 does not (see fc_replay_labelled).
 */
void fc_replay_labels(const struct fc_replay *replay, unsigned horizon,
                      uint32_t n, const struct fc_region_ref *ref,
                      uint8_t *touched);
bool fc_replay_touched(const struct fc_replay *replay, unsigned horizon,
                       uint64_t first, uint64_t pages);

/* Block: how many requests in the horizon read of the extent; of any extent,
 * a request counting once for each that it reads of. */
uint32_t fc_replay_requests(const struct fc_replay *replay, unsigned horizon,
                            uint64_t extent);
uint64_t fc_replay_requests_of_all(const struct fc_replay *replay,
                                   unsigned horizon);

/* What the last step fed: runs of pages or extents, valid until the next
 * step; of memory no reads, but what the trace says to be in use since. */
struct fc_replay_fed {
    const struct fc_trace_run *write, *read, *present;
    uint32_t writes, reads, presents;
};
struct fc_replay_fed fc_replay_fed(const struct fc_replay *replay);

#endif
