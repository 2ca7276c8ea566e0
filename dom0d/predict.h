/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PREDICT_H
#define FC_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "domains.h"
#include "estimate.h"
#include "heatmap.h"
#include "hints.h"
#include "lists.h"
#include "profile.h"
#include "sampler.h"
#include "scorer_engine.h"
#include "xenwatch.h"

/*
 * What is known of an armed guest beyond single pages: its long-term profile,
 * what it announces, what else is going on in it, and the ranked lists of its
 * regions. Event loop thread only.
 */
struct fc_armed_db;

struct fc_predict_args {
    uint8_t uuid[FC_UUID_BYTES];
    uint32_t domid;
    uint64_t pages;
    struct fc_scorer *scorer; /* the guest's; outlives this */
    struct fc_armed_db *db;   /* NULL: the profile is not kept */
    const struct fc_xenwatch_ops *watch;
    void *watch_user;
};

/* What the predictor of the guest began with. */
enum fc_predict_origin {
    FC_PREDICT_SHIPPED, /* nothing but the weights that ship */
    FC_PREDICT_KEPT,    /* what was learned of it here */
    FC_PREDICT_CAME,    /* what came with it */
};

/* Whom the mixture trusts within a horizon. */
struct fc_predict_trust {
    enum fc_scorer_id leader, before; /* before the last change */
    uint64_t changed_ms;              /* 0: it has not changed */
};

struct fc_predict {
    struct fc_predict_args args;
    enum fc_predict_origin origin;
    struct fc_predict_trust trust[FC_HORIZONS];
    uint32_t horizon_ms[FC_HORIZONS];
    struct fc_profile profile;
    struct fc_hints hints;
    struct fc_lists *lists; /* NULL: the scorer is none that has regions */
    struct fc_rates rates;  /* of the last second */
    uint64_t scores;        /* the sampler's, when lists were made last */
    uint64_t lists_made, listed_ms, told_ms;
    uint64_t observed_ms, hints_ms, saved_ms; /* when that was done last */
    bool unsaved, hint_refused;
    bool untold; /* trust has changed since the log said so */
};

/* Takes the profile that is kept for the guest, or begins one. */
void fc_predict_init(struct fc_predict *p, const struct fc_predict_args *args,
                     uint64_t now_ms);

/* Writes down the profile, and what was learned. */
void fc_predict_dispose(struct fc_predict *p);

/* What the domain list says now, once a second. */
void fc_predict_domain(struct fc_predict *p, const struct fc_domain *domain);

/* A migration now would take so long. */
void fc_predict_migration(struct fc_predict *p, uint64_t total_ms);

/* To be called often; `wall_s` since the epoch, `name` for the log. */
void fc_predict_tick(struct fc_predict *p, const struct fc_sampler *sampler,
                     const char *name, uint64_t now_ms, uint64_t wall_s);

/* What the guest does now, by its sampler. False: not known yet. */
bool fc_predict_load(const struct fc_sampler *sampler,
                     struct fc_profile_load *load_r);

/* What was learned of the guest, as fc_scorer_engine_keep(). */
int fc_predict_learned(const struct fc_predict *p, uint8_t **bytes_r,
                       size_t *len_r);

#define FC_PREDICT_HOURS 168u

/*
 * Forecasts a migration now and at each full hour of the coming ones: `in` is
 * the estimate's input of now, whose curve is replaced by what each hour is
 * expected to bring. `hours` at most FC_PREDICT_HOURS; returns the windows
 * made, and the best of them in best_r (-1: none).
 */
unsigned fc_predict_when(const struct fc_predict *p,
                         const struct fc_sampler *sampler,
                         const struct fc_estimate_in *in, uint64_t wall_s,
                         unsigned hours, struct fc_profile_window *windows,
                         int *best_r);

/*
 * The heat of the guest's memory within the horizon: the share of each cell
 * that is expected to be written. A large guest's cells are judged by a sample
 * of their pages.
 */
void fc_predict_heat(const struct fc_predict *p, uint32_t horizon_ms,
                     unsigned cells, struct fc_heatmap *map);

/*
 * The chance of a write within its horizon up to which the staging list takes
 * regions in, where the list goes out with a confidence that is worth having;
 * below 0 when there is none such, or none of late.
 */
float fc_predict_listed(const struct fc_predict *p, uint64_t now_ms);

/* Whom the mixture trusts for staging and why; "" without one. */
#define FC_PREDICT_METHOD 200u
const char *fc_predict_method(const struct fc_predict *p,
                              char text[FC_PREDICT_METHOD]);

/* Whom it trusts and why, how its lists keep their promise, what it has learned
 * ("predictor" in docs/formats/control.md): predict_json.c. The caller's. */
struct json_object;
struct json_object *fc_predict_json(const struct fc_predict *p,
                                    uint64_t now_ms);

/* Of the staging list, what may be written within its horizon. */
#define FC_PREDICT_RISK 0.05f

#endif
