/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LISTS_H
#define FC_LISTS_H

#include "engine.h"
#include "ranklist.h"
#include "staleness.h"

/*
 * The ranked lists of one engine, made after each of its ticks and published
 * (ranklist.h), with the threshold of the staging list held by what was seen
 * of earlier lists (staleness.h). The engine's thread.
 */
struct fc_lists;

struct fc_lists_config {
    enum fc_engine_kind kind;
    uint32_t tick_ms;                 /* the engine's */
    uint32_t horizon_ms[FC_HORIZONS]; /* likewise; the fourth may change */
    uint32_t room;                    /* entries of each list */
    float risk;    /* share of the staging list that may be touched */
    unsigned calm; /* horizon of staging; another than the fourth */
    unsigned busy; /* horizon of delta, and of shadow */
};

/* 0, FC_EINVAL, FC_ENOMEM or FC_ESYS. */
int fc_lists_create(const struct fc_lists_config *config,
                    struct fc_lists **lists_r);
void fc_lists_destroy(struct fc_lists *lists);

/* After a tick of `elapsed_ms`: judges what has come due, takes samples,
 * publishes. */
void fc_lists_tick(struct fc_lists *lists, struct fc_engine *engine,
                   uint32_t elapsed_ms, uint64_t now_ms);


/* The engine's horizon has changed; not that of staging. */
void fc_lists_set_horizon(struct fc_lists *lists, unsigned horizon,
                          uint32_t ms);

/* A descriptor for readers, as fc_ranklist_fd(). */
int fc_lists_fd(const struct fc_lists *lists);

/* How the staging list keeps its risk. */
void fc_lists_look(const struct fc_lists *lists,
                   struct fc_staleness_view *view_r);

/* A reader of these lists, for the process that makes them. */
const struct fc_rank_reader *fc_lists_reader(const struct fc_lists *lists);

#endif
