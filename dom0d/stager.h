/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STAGER_H
#define FC_STAGER_H

#include <stdbool.h>
#include <stdint.h>

#include "bucket.h"
#include "pagetab.h"
#include "ranking.h"
#include "scorer.h"
#include "uplink.h"
#include "worker.h"

/*
 * Copies the pages of one armed guest that will stay as they are to its
 * destination. Event loop thread only.
 */
struct fc_stager_limits {
    uint64_t rate_bps; /* 0: none */
    uint64_t quiet_ms; /* a page is staged after so long without a write */
    double risk;       /* 0-1, most a page may be likely to be written soon */
    double list_p; /* 0-1, most that the ranked list takes in and what is staged
                    * first; below 0: there is no list to be trusted */
};

struct fc_stager_args {
    struct fc_pagetab *pages;
    struct fc_scorer *scorer;
    struct fc_worker *worker;
    uint64_t owner; /* mark of its jobs */
    uint32_t domid;
};

struct fc_stager {
    struct fc_stager_args args;
    struct fc_uplink *uplink; /* NULL: none at present; the caller's */
    struct fc_bucket bucket;
    struct fc_stager_limits limits;
    struct fc_ranking ranking;
    uint64_t slice; /* first page of those ranked now */
    uint64_t ranked_ms, retry_ms, dropped_ms;
    uint64_t idle_pages; /* ranked in vain since something was found */
    uint64_t round_ms;   /* when the round began */
    bool by_list;        /* of this round's pages the list holds the risk */
    bool settled; /* the rounds before found nothing, nor has this one yet */
    struct fc_job *waiting; /* encoded, for the uplink to take; a list */
    unsigned jobs;          /* with the worker */
    bool held;              /* a migration is under way */
    bool full;              /* the destination has no room */
    uint64_t room;          /* when full: new pages it can take all the same */
    double page_bytes;      /* mean encoded size; 0: not known */
    double page_us;         /* mean time to read and encode one; likewise */
    uint64_t pages_sent, pages_refused, pages_evicted, pages_same;
};

void fc_stager_init(struct fc_stager *s, const struct fc_stager_args *args,
                    uint64_t now_ms);

/* Jobs with the worker must have come back or be freed by the caller. */
void fc_stager_dispose(struct fc_stager *s);

/* Hands out what may be staged now; to be called often, and when the uplink
 * has room. With `sampling` false (the dirty log is not ours) it waits. */
void fc_stager_run(struct fc_stager *s, const struct fc_stager_limits *limits,
                   bool sampling, uint64_t now_ms);

/* A job of ours is back from the worker; takes it over. Returns its rc. */
int fc_stager_job_done(struct fc_stager *s, struct fc_job *job,
                       uint64_t now_ms);

/* What the uplink reports; `job` is the tag of a PUT. */
void fc_stager_up(struct fc_stager *s, bool new_epoch);
void fc_stager_stored(struct fc_stager *s, struct fc_job *job,
                      const uint64_t *refused, uint32_t count);
void fc_stager_lost(struct fc_stager *s, struct fc_job *job);
void fc_stager_evicted(struct fc_stager *s, const uint64_t *pfns,
                       uint32_t count);

/* Nothing more is started; what waits is dropped. What is in flight may still
 * be acknowledged. And the reverse. */
void fc_stager_hold(struct fc_stager *s);
void fc_stager_release(struct fc_stager *s);

/* Whether all that could be staged now is. */
bool fc_stager_is_steady(const struct fc_stager *s);

#endif
