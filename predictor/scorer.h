/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SCORER_H
#define FC_SCORER_H

#include <stddef.h>
#include <stdint.h>

/*
 * How likely a page is to be written. A scorer is fed what the dirty log
 * showed and answers for single pages. Its memory grows only where pages were
 * seen dirty. One thread at a time.
 */
struct fc_scorer_ops {
    const char *name;

    /* State for pages 0 .. `pages`-1. 0 or FC_ENOMEM. */
    int (*create)(uint64_t pages, void **state_r);

    /*
     * One window of `elapsed_ms` (at least 1) is over: bit n of `dirty`
     * (64 bits a word, `pages` bits) is set when page n was written in it.
     * 0, or FC_ENOMEM when part of what was seen could not be kept.
     */
    int (*update)(void *state, const uint64_t *dirty, uint32_t elapsed_ms);

    /* The next update's window holds the one before: its bits are those and
     * what came since, its `elapsed_ms` only the time since. NULL: the scorer
     * takes every bit for written in the time that elapsed. */
    void (*continues)(void *state);

    /* Chance, 0 to 1, that `page` is written within `horizon_ms` from the end
     * of the last window. */
    float (*p_dirty)(const void *state, uint64_t page, uint32_t horizon_ms);

    /* Bytes of memory in use. */
    size_t (*bytes)(const void *state);

    void (*destroy)(void *state);
};

struct fc_scorer {
    const struct fc_scorer_ops *ops;
    void *state;
};

/* Exponentially weighted write rate: follows the last half minute. */
extern const struct fc_scorer_ops fc_scorer_ewma;
/* Share of windows in which a page was written: follows the last quarter of an
 * hour or so, blind to the order. */
extern const struct fc_scorer_ops fc_scorer_frequency;

/* By name ("mixture" (scorer_engine.h), "ewma", "frequency"), or NULL. */
const struct fc_scorer_ops *fc_scorer_find(const char *name);

/* 0, FC_EINVAL (no such scorer) or FC_ENOMEM. */
int fc_scorer_init(struct fc_scorer *scorer, const char *name, uint64_t pages);
void fc_scorer_dispose(struct fc_scorer *scorer);

#endif
