/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RECORDING_H
#define FC_RECORDING_H

#include "blocktrace.h"
#include "daemon.h"
#include "recorder.h"

/*
 * A recording of a guest: where its ticks come from, and when it ends. The
 * design is at the head of recording.c, that of a disk's at the head of
 * recording_disk.c; requests are control_record.c's. Event loop thread only.
 */
#define FC_RECORDING_PLANNED_MS 1000u /* an armed guest's shortest window */

struct fc_recording {
    struct fc_daemon *daemon;
    struct fc_client *client; /* NULL: gone */
    uint8_t uuid[FC_UUID_BYTES];
    uint32_t domid;
    char name[FC_DOMAIN_NAME];
    uint64_t pfns;
    uint32_t interval_ms;
    uint64_t deadline_ms; /* 0: none */
    uint64_t guest_id;    /* of the armed guest that is listened to; 0: none */

    bool own; /* the sampler of its own is there */
    struct fc_dirtylog log;
    struct fc_sampler sampler;

    struct {
        char vdev[FC_BLOCKTRACE_VDEV]; /* "": the memory's */
        struct fc_block_listener *listener;
        int fd;         /* until the recorder has it; -1 */
        int rc;         /* why it could not begin */
        bool answered;  /* whoever asked knows that it has begun */
        bool tracing;   /* a child has begun */
        bool heard_all; /* nothing more comes */
        const char *method;
        uint64_t seconds, patience_ms; /* until it must have begun or ended */
        uint64_t base_us, units, requests, dropped;
    } disk;

    struct fc_recorder *recorder; /* NULL: a disk's that has not begun */
    struct fc_trace_rates rates, written_rates;
    uint64_t time_us, ticks, pages, interruptions;
    int error;        /* of taking a tick */
    bool blind;       /* since the last tick writes went unseen */
    bool ending;      /* for `reason` */
    bool failed;      /* not as was asked for */
    bool stop_wanted; /* the connection awaits the end */
    char reason[FC_GUEST_WHY];
    struct fc_recording *next;
};

/*
 * Finds the sampler, or starts one, and fills in the head of the trace; the
 * recorder is to be made next. 0, FC_ENOLOG, FC_ELIMIT, FC_ENODOM, FC_ENOMEM or
 * FC_ESYS. While another save has the log it waits for its end.
 */
int fc_recording_open(struct fc_recording *r, struct fc_trace_head *head);

/* Takes what there is to take, or ends it when it is time. To be called every
 * FC_GUEST_TICK_MS until it ends. */
void fc_recording_go_on(struct fc_recording *r, uint64_t now_ms);

/* Ends it, unless it ends already. */
void fc_recording_end(struct fc_recording *r, bool failed, const char *reason);

/* Takes no more; the log is given back. */
void fc_recording_stop(struct fc_recording *r);

/* Gives the log back if it has it (`own`); not while a migration holds the
 * guest: that may come to nothing and the log be on still, so try again. */
void fc_recording_release(struct fc_recording *r);

/* The log is about to be an armed guest's. */
void fc_recording_yield(struct fc_recording *r);

/*
 * A disk's: recording_disk.c. open: begins to listen to `vdev` ("": the only
 * one) and takes over `fd`; 0, or what is wrong in `why`. The recorder is made
 * when a child traces. go_on: as above; `ready` is called when it has begun
 * (rc 0) or cannot. drained: nothing more comes, and the recorder knows.
 */
int fc_recording_disk_open(struct fc_recording *r, const char *vdev, int *fd,
                           char why[FC_GUEST_WHY]);
void fc_recording_disk_go_on(struct fc_recording *r, uint64_t now_ms,
                             void (*ready)(struct fc_recording *r, int rc));
void fc_recording_disk_end(struct fc_recording *r);
bool fc_recording_disk_drained(struct fc_recording *r, uint64_t now_ms);
void fc_recording_disk_dispose(struct fc_recording *r);

/* The domain that is recorded; NULL: it is gone. */
const struct fc_domain *fc_recording_domain(const struct fc_recording *r);

/* What the recorder's error means to whoever reads it. */
void fc_recording_failure(int rc, int error, char why[FC_GUEST_WHY]);

#endif
