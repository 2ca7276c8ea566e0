/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_JOB_INT_H
#define FC_DISK_JOB_INT_H

#include <event2/event.h>

#include "disk_job.h"
#include "disk_survey.h"
#include "task.h"

/*
 * Shared by disk_job.c (the job), disk_step.c (one disk's steps) and
 * disk_channel.c (its connection).
 *
 * A job is in one phase; in each, every disk goes through the phase's list of
 * steps on its own, and when the last of them has come to its end the phase is
 * over. Steps are idempotent and end within a bounded time.
 */
enum step {
    STEP_END, /* of the list */
    STEP_ENGINE,
    STEP_ATTACH,
    STEP_TABLE_NBD,
    STEP_FREEZE, /* an engine that was started anew after the lease */
    STEP_CHANNEL,
    STEP_FENCE,
    STEP_LEASE,
    STEP_UNFENCE,
    STEP_TABLE_LINEAR,
    STEP_DETACH,
    STEP_TABLE_ERROR,
    STEP_FINISH,
    STEP_STOP,
    STEP_DROP,   /* the device that was held after the guest had gone */
    STEP_UNLOOP, /* and its loop device */
    STEP_CLEAN,
};

enum phase {
    PHASE_PREPARE, /* the destination makes its volumes ready */
    PHASE_SETUP,
    PHASE_COPY,
    PHASE_FENCE,
    PHASE_LEASE,
    PHASE_SERVE, /* handed over; waiting for the end */
    /* from here on steps are tried until they succeed */
    PHASE_REVIVE,  /* a new daemon takes a passed job up: then PHASE_SERVE */
    PHASE_RELEASE, /* the guest is gone from here */
    PHASE_HYDRATE, /* lazy: until all is there */
    PHASE_FINISH,
    PHASE_UNDO,
    PHASE_TELL, /* the destination is told to forget it */
    PHASE_OVER,
};

struct disk_status {
    bool known, channel;
    uint64_t blocks, remaining, sent_bytes, zero_bytes, sent_blocks;
    uint64_t dirty_bps, held, requests; /* requests: the guest's */
    char state[24];
};

struct disk {
    struct fc_disk_job *job;
    struct fc_disk_id id;
    char target[FC_DISK_PATH], volume[FC_DISK_PATH]; /* volume: the backing */
    char device[64];                                 /* nbd; "": none */
    char there[200]; /* what the destination says of its volume */
    uint64_t size, epoch;
    struct fc_disk_engine *engine;
    struct fc_task *task;

    const enum step *steps;
    bool moving, failed, ended; /* ended: the engine, while stopping */
    struct event *again;        /* tries the step once more */
    bool fenced;                /* FENCE was sent, so must be undone */
    bool left;                  /* device and loop are ours to remove */
    bool reopened;              /* an engine without a fence is on its way */
    bool tabled;                /* the table may point to nbd */

    pid_t channel;
    bool channel_wanted;
    int channel_err;
    struct event *reconnect;
    unsigned backoff_ms;
    uint64_t silent_ms; /* since when without a channel; 0: has one */

    int order; /* memfd; -1 */
    uint32_t order_count;
    uint64_t rate; /* told to the engine */
    bool rate_told, asked;
    char trouble[FC_JOB_WHY]; /* why a step is tried again */
    struct disk_status status;
    struct fc_disk_survey survey;
};

struct fc_disk_job {
    struct fc_job_args args;
    const struct fc_job_events *events;
    void *user;
    uint8_t migration[FC_MIGRATION_BYTES];
    enum phase phase;
    bool begun, flipping, passed, failed, succeeded, guest_gone, resumed;
    bool may_return, told;
    char why[FC_JOB_WHY];
    struct disk disk[FC_DISKS_MAX];
    unsigned count;
    struct fc_task *remote;
    void *remote_user;  /* freed with it */
    struct event *soon; /* goes on outside of the caller's call */
    unsigned flip_ms;
    uint64_t flip_end_ms, fence_start_ms, fence_ms;
    uint64_t rate;
    uint64_t last_ms, last_sent;
    double sent_bps;
    bool converged;
};

/* What brings a passed disk's engine back to work. */
extern const enum step fc_disk_revive[];

/* disk_beside.c: fc_disk_ask_status(), fc_disk_tell_rate(),
 * fc_disk_tell_order(). disk_step.c: goes through the list; fc_disk_moved() of
 * the job follows. */
void fc_disk_go(struct disk *d, const enum step *steps);
void fc_disk_ask_status(struct disk *d);
void fc_disk_tell_rate(struct disk *d);
void fc_disk_tell_order(struct disk *d);
/* Writes state.json. 0 or FC_ESYS. */
int fc_disk_note(struct disk *d);
void fc_disk_dispose(struct disk *d);

/* disk_find.c, with a sentence in `why` (FC_JOB_WHY). all: the guest's disks
 * that have `leaf` in their directory; FC_ENOENT: none. look: what the hotplug
 * script wrote, and who may write the disk. */
int fc_disk_find_all(struct fc_disk_job *job, const char *leaf, char *why);
int fc_disk_find_look(struct fc_disk_job *job, struct disk *d, char *why);
/* What state.json says; false when it is none of a source's. */
bool fc_disk_find_recall(struct fc_disk_job *job, struct disk *d);

/* disk_copy.c: what is known of the disks' parts is kept. */
void fc_disk_survey_job(struct fc_disk_job *job, uint64_t now_ms);

/* disk_channel.c */
void fc_disk_channel_open(struct disk *d);
void fc_disk_channel_close(struct disk *d);

/* disk_job.c: the disk has come to the end of its list, or failed. */
void fc_disk_moved(struct disk *d);
/* What fails the job, once. */
void fc_job_blame(struct fc_disk_job *job, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
