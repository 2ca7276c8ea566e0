/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ENGINE_H
#define FC_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "feature.h"

/*
 * How likely each part of a guest's memory is to be written, or of its disk to
 * be read: regions, features, all scorers, recalibration and mixture behind
 * one object. One engine per guest memory or per disk; one thread drives it,
 * nothing here blocks or does I/O.
 *
 * A round is: fc_engine_write() and fc_engine_read() for what was seen, then
 * fc_engine_tick(). Arrays handed out are valid until the next call of write,
 * read, tick or destroy.
 */
struct fc_engine;
struct fc_gru_model;

enum fc_engine_kind {
    FC_ENGINE_MEMORY, /* touched: written. Regions of 16 pages */
    FC_ENGINE_DISK,   /* touched: read. Regions of one extent */
};

#define FC_HORIZONS 4u /* short, mid, long, "until the migration ends" */

struct fc_engine_config {
    enum fc_engine_kind kind;
    uint64_t pages;   /* 4 KiB pages of the guest, or extents of the disk */
    uint32_t tick_ms; /* usual time between ticks; 50 for memory */
    /* At least tick_ms each. Memory: 50, 1000, 10000, any. */
    uint32_t horizon_ms[FC_HORIZONS];
    const struct fc_gru_model *gru; /* NULL: no GRU. Referenced, not copied */
    bool features_only;  /* fc_engine_features() alone is asked for: nothing
                          * scores, and of the scorers only the regions' own
                          * gaps learn, which are features too */
    uint32_t max_active; /* regions kept at most; 0: 16 Mi of memory, 1 Mi of
                          * a disk. Past it the longest idle ones go */
};

/* Guest-wide, per second; 0 when unknown. Clipped to sense, never trusted. */
#define FC_HINTS 4u
struct fc_rates {
    float cpu;            /* seconds of CPU a second */
    float net_rx, net_tx; /* bytes */
    float vbd_rd, vbd_wr; /* bytes */
    /* Hints of the guest: 0 none, 0 < x < 1 the nearer to 1 the sooner the
     * event begins, 1 it goes on now. */
    float hint[FC_HINTS];
    uint64_t wall_s; /* since the epoch: for what recurs by day and week */
};

enum fc_scorer_id {
    FC_SCORER_LRU,
    FC_SCORER_EWMA,      /* the half-life that was best of late */
    FC_SCORER_FREQUENCY, /* over the region's whole life */
    FC_SCORER_MARKOV,    /* the region's own gaps */
    FC_SCORER_READAHEAD, /* follows sequential streams; disks only */
    FC_SCORER_LR,
    FC_SCORER_GRU,
    FC_SCORER_TUNED, /* the GRU's state, with a read-out learned online */
    FC_SCORERS,
    FC_SCORER_MIXTURE = FC_SCORERS /* of all those, recalibrated */
};

/* "lru", "ewma", ... "mixture"; NULL past the last. */
const char *fc_scorer_name(enum fc_scorer_id id);

/* 0, FC_EINVAL (config) or FC_ENOMEM. */
int fc_engine_create(const struct fc_engine_config *config,
                     struct fc_engine **engine_r);
void fc_engine_destroy(struct fc_engine *engine);

/*
 * Pages dirtied (extents written, extents read) in this round, in any order,
 * more than once or not. What is out of range is cut off. 0, or FC_ENOMEM
 * when some could not be kept; the engine stays usable. Reading is for disks.
 */
int fc_engine_write(struct fc_engine *engine, uint64_t first, uint64_t count);
int fc_engine_read(struct fc_engine *engine, uint64_t first, uint64_t count);

/*
 * The round is over, `elapsed_ms` after the one before; rates may be NULL.
 * Everything learns from what has come true and is computed anew, regions
 * long quiet less often. 0 or FC_ENOMEM (the scores are then those of before).
 */
int fc_engine_tick(struct fc_engine *engine, uint32_t elapsed_ms,
                   const struct fc_rates *rates);

/* The fourth horizon, or another, from the next tick on. 0 or FC_EINVAL. */
int fc_engine_set_horizon(struct fc_engine *engine, unsigned horizon,
                          uint32_t ms);

/* A model in place of the one before, from the next tick on; NULL: none. When
 * there was none, or is none now, the mixture begins anew.
 * 0, FC_EINVAL (made for other features) or FC_ENOMEM. */
int fc_engine_set_gru(struct fc_engine *engine,
                      const struct fc_gru_model *model);

/*
 * The active regions, n of them: touched once and not idle for long since. A
 * region keeps its place until one is dropped, which happens only when the
 * first call after a tick begins a round.
 */
struct fc_region_ref {
    uint64_t first; /* page or extent */
    uint32_t pages; /* how many, from there */
    uint32_t quiet; /* ticks since it was touched last, 0: just now */
    uint16_t now;   /* bit i: page i of it touched in this tick */
    uint16_t mixed; /* bit i: page i is touched with the region, as far as
                     * lately seen; the others seldom or never */
};

uint32_t fc_engine_active(const struct fc_engine *engine);

/* [n], [n][FC_FEATURE_STRIDE]; made when asked for. NULL: out of memory. */
const struct fc_region_ref *fc_engine_regions(struct fc_engine *engine);
const float *fc_engine_features(struct fc_engine *engine);

/*
 * [n] chances of a touch within the horizon. FC_SCORER_MIXTURE: what the tick
 * computed. Any other: that scorer's own opinion, not recalibrated, made when
 * asked for (valid until the next such call for the same scorer and horizon).
 * NULL: a scorer that this engine has not, no memory, or in a round.
 */
const float *fc_engine_scores(struct fc_engine *engine, enum fc_scorer_id id,
                              unsigned horizon);

/* Mixture's chance for any page, idle ones included. */
float fc_engine_p(const struct fc_engine *engine, uint64_t page,
                  unsigned horizon);

/* Place of a page's region in the arrays, or UINT32_MAX: idle. */
uint32_t fc_engine_find(const struct fc_engine *engine, uint64_t page);

/* Share of each scorer in the mixture, sum 1, and why, for people; whether the
 * leader or the reason has changed since this was asked last: then log it. */
void fc_engine_weights(const struct fc_engine *engine, unsigned horizon,
                       float weight_r[FC_SCORERS]);
bool fc_engine_changed(struct fc_engine *engine, unsigned horizon);
const char *fc_engine_explain(const struct fc_engine *engine, unsigned horizon,
                              char *buf, size_t size);

struct fc_engine_stats {
    uint32_t active, touched; /* regions; of these, in the last tick */
    uint64_t ticks, labels;   /* seen; learned from */
    uint64_t bytes;           /* memory in use */
    uint64_t cut;             /* regions dropped because of max_active */
    uint32_t cycle_ms;        /* length of the guest's cycle, 0: none seen */
    float cycle_share;        /* how clear it is, 0 to 1 */
    float calibration_error[FC_HORIZONS]; /* the mixture's, of late */
};

void fc_engine_stats(const struct fc_engine *engine,
                     struct fc_engine_stats *stats_r);

#endif
