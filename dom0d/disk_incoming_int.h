/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_INCOMING_INT_H
#define FC_DISK_INCOMING_INT_H

#include <event2/event.h>

#include "disk_incoming.h"
#include "disk_survey.h"
#include "task.h"

/* Shared by disk_incoming.c (requests, time), incoming_step.c (one disk's
 * steps) and incoming_json.c (what is shown). */
enum incoming_step {
    STEP_END,
    STEP_MAKE,
    STEP_ENGINE,
    STEP_ATTACH,
    STEP_NOTE,
    STEP_SYNC,
    STEP_TABLE,
    STEP_DETACH,
    STEP_FINISH,
    STEP_STOP,
    STEP_CLEAN,
    STEP_REMOVE,
};

struct fc_incoming {
    struct fc_incoming_set *set;
    struct fc_disk_volume v;
    char name[FC_DISK_ID_TEXT], device[64], text[FC_INCOMING_WHY];
    char trouble[FC_INCOMING_WHY];
    struct fc_disk_engine *engine;
    struct fc_task *task;
    struct event *again;
    const enum incoming_step *list, *at; /* NULL: idle */
    bool make, doomed, asked, removed;
    uint64_t epoch, tag, silent_ms, valid, blocks, received, reads, read_ms,
        held, prefetched, prefetch_used;
    bool known, channel;
    struct fc_readstats stats, kept_stats; /* kept: in the metadata */
    uint64_t kept_ms;
    struct fc_disk_survey survey;
    fc_incoming_done *done;
    void *done_user;
    struct fc_incoming *next;
};

struct fc_incoming_set {
    struct fc_incoming_args args;
    struct fc_incoming *first;
    unsigned count;
    uint64_t next_tag;
};

/* The lists of steps. */
extern const enum incoming_step fc_incoming_ready[], fc_incoming_again[],
    fc_incoming_complete[], fc_incoming_discard_it[];

/* incoming_step.c: goes through a list. */
void fc_incoming_go(struct fc_incoming *n, const enum incoming_step *list);
void fc_incoming_on_again(evutil_socket_t fd, short what, void *arg);
/* Into the metadata. */
void fc_incoming_keep(struct fc_incoming *n);
/* Tells that the channel is no more, once. */
void fc_incoming_channel_over(struct fc_incoming *n);

#endif
