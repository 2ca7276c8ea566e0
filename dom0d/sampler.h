/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SAMPLER_H
#define FC_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "dirtylog.h"
#include "pagetab.h"
#include "scorer.h"

/*
 * Watches the dirty log of one guest and keeps page table, scorer and
 * working-set curve fed; of a guest that is only recorded there is neither page
 * table nor scorer. Event loop thread only.
 */
#define FC_CURVE_POINTS 7u
/* Ages since a CLEAN at which written pages are counted. */
extern const uint32_t fc_curve_age_ms[FC_CURVE_POINTS];

struct fc_curve {
    double pages[FC_CURVE_POINTS]; /* distinct pages written within the age */
    uint32_t samples[FC_CURVE_POINTS];
};

struct fc_sampler_limits {
    uint32_t interval_ms;   /* between two looks at the log */
    double log_share;       /* 0-1, of one vcpu's time spent in log faults */
    uint32_t fault_cost_ns; /* that the first write after a CLEAN costs */
};

/* Who else wants to know, called from within fc_sampler_tick() and _resume().
 * It must not call back. */
struct fc_sampler_watcher {
    /* A CLEAN: `bits` (log->pfns of them; the canary's is always set) are the
     * pages written in the window of `window_ms` that ends with it. */
    void (*taken)(void *user, const uint64_t *bits, uint64_t window_ms);

    /* Writes of the window went unseen; the next one begins anew. */
    void (*lost)(void *user);
};

struct fc_sampler {
    struct fc_dirtylog *log;
    struct fc_pagetab *pages;                 /* may be NULL */
    struct fc_scorer *scorer;                 /* may be NULL */
    const struct fc_sampler_watcher *watcher; /* may be NULL; may be set at any
                                               * time, and the next as well */
    void *watcher_user;
    uint32_t fixed_ms; /* 0: windows as planned; else so long each, longer only
                        * for the budget; set it after init */
    double owed_ms;    /* that the next fixed window must have to keep to it */
    uint64_t *bits;
    uint64_t window_start_ms, looked_ms, scored_ms, retry_ms;
    unsigned window; /* which of the planned lengths is running */
    unsigned curve_next;
    uint64_t written; /* pages seen written in this window */
    struct fc_curve curve;
    double written_per_s; /* averaged */
    double log_share;     /* averaged, 0-1 */
    bool scored;          /* in this window already */
    bool paused;          /* the log is not ours at present */
    uint64_t cleans, peeks, pauses, scores;
};

/* 0 or FC_ENOMEM. What it points to stays the caller's and must outlive it;
 * `pages` and `scorer` may be NULL. */
int fc_sampler_init(struct fc_sampler *s, struct fc_dirtylog *log,
                    struct fc_pagetab *pages, struct fc_scorer *scorer);
void fc_sampler_dispose(struct fc_sampler *s);

/*
 * To be called often; looks at the log when it is time. 0; FC_EBUSY while the
 * log belongs to somebody else (`paused`; it tries again by itself);
 * FC_ENOLOG, FC_ENODOM, FC_ENOMEM, FC_ESYS: this guest cannot be sampled now.
 */
int fc_sampler_tick(struct fc_sampler *s,
                    const struct fc_sampler_limits *limits, uint64_t now_ms);

/* After a pause from outside: writes since then went unseen. */
void fc_sampler_resume(struct fc_sampler *s, uint64_t now_ms);

/* Pages written within `ms` by the curve, extended by its last slope; at most
 * `pages`. */
double fc_curve_at(const struct fc_curve *curve, double ms, double pages);

#endif
