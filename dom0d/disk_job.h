/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_JOB_H
#define FC_DISK_JOB_H

#include "diskmeta.h"
#include "domains.h"
#include "disk_engine.h"
#include "lease.h"

/*
 * The source's side of a migration with disks: one job for all disks of a
 * guest, which are fenced and handed over together. Event loop thread only.
 *
 * The files in the run directory and the lease records say how far a job was,
 * so that a daemon that is started anew takes it up: a job whose guest may run
 * at the destination goes on serving, a warm shadow's goes on copying, any
 * other is undone.
 */
struct fc_disk_job;

enum fc_job_state {
    FC_JOB_PREPARING,
    FC_JOB_COPYING,
    FC_JOB_CONVERGED,
    FC_JOB_FENCED,
    FC_JOB_LEASED, /* the guest may run there */
    FC_JOB_DONE,
    FC_JOB_FAILED,
};
const char *fc_job_state_name(enum fc_job_state state);

#define FC_JOB_WHY 400

/* `rc` 0, or an fc_err with a sentence. */
struct fc_job_events {
    /* Disks are attached and channels started; with a failure all is being
     * taken back. For a dry run: what would happen. */
    void (*begun)(void *user, struct fc_disk_job *job, int rc, const char *why);
    /* The disks are handed over, or not. */
    void (*flipped)(void *user, struct fc_disk_job *job, int rc,
                    const char *why);
    /* Nothing is left of it at this host but what belongs there; the job may
     * be freed. */
    void (*over)(void *user, struct fc_disk_job *job);
};

/* Strings are copied. */
struct fc_job_args {
    const struct fc_disk_env *env;
    struct fc_lease_db *leases;
    struct fc_diskmeta *meta; /* may be NULL */
    uint8_t uuid[FC_UUID_BYTES];
    char name[FC_DOMAIN_NAME];
    char host[FC_LEASE_HOST];
    char command[FC_DISK_PATH];   /* of channels, with its %h and %u */
    char template_[FC_DISK_PATH]; /* of the destination's volumes; "" */
    bool lazy, overwrite, dry_run;
    bool warm; /* a shadow that is kept, for no migration yet */
    uint32_t block_bytes;
    unsigned step_ms;     /* most for one step: attaching, a table */
    unsigned converge_ms; /* what is left may take so long to send */
    unsigned peer_ms;     /* silence of the destination that fails it */
};

/*
 * Finds the guest's disks and begins. 0; FC_ENOENT (the guest has no disk of
 * ours), FC_EPERM (another host owns one), FC_EINVAL, FC_ENOMEM or FC_ESYS,
 * with a sentence in `why`.
 */
int fc_disk_job_new(const struct fc_job_args *args,
                    const struct fc_job_events *events, void *user,
                    struct fc_disk_job **job_r, char why[FC_JOB_WHY]);

/* Takes up a job that an earlier daemon left in the run directory. FC_ENOENT
 * when there is none of the guest's. */
int fc_disk_job_resume(const struct fc_job_args *args,
                       const struct fc_job_events *events, void *user,
                       struct fc_disk_job **job_r, char why[FC_JOB_WHY]);

/* Frees it and leaves engines and tables as they are. */
void fc_disk_job_leave(struct fc_disk_job *job);

const uint8_t *fc_disk_job_migration(const struct fc_disk_job *job);
enum fc_job_state fc_disk_job_state(const struct fc_disk_job *job);

/* Hands the disks over, within `timeout_ms`; `flipped` comes in any case (at
 * once when they are handed over already). While one is under way this changes
 * nothing. 0, or FC_EBUSY (not as far, or failed), with a sentence. */
int fc_disk_job_flip(struct fc_disk_job *job, unsigned timeout_ms,
                     char why[FC_JOB_WHY]);

/* A warm shadow's job becomes a migration's. FC_EBUSY unless it copies. */
int fc_disk_job_adopt(struct fc_disk_job *job, bool lazy);
/* Kept for no migration yet. */
bool fc_disk_job_is_warm(const struct fc_disk_job *job);
const char *fc_disk_job_host(const struct fc_disk_job *job);
const char *fc_disk_job_why(const struct fc_disk_job *job);

/* The migration has succeeded. */
void fc_disk_job_succeed(struct fc_disk_job *job);

/*
 * It has not. Until the lease was passed all is taken back; after that only if
 * `may_return` and the destination agrees, else the engines go on serving.
 */
void fc_disk_job_fail(struct fc_disk_job *job, const char *why,
                      bool may_return);

/* The guest is gone from here, so nothing can write any more. */
void fc_disk_job_guest_gone(struct fc_disk_job *job);

/* To be called each second. */
void fc_disk_job_tick(struct fc_disk_job *job, uint64_t now_ms);

/* All disks together; 0: no limit. */
void fc_disk_job_set_rate(struct fc_disk_job *job, uint64_t bytes_ps);

/* The i-th disk's name and size; NULL: there are no more. */
const char *fc_disk_job_disk(const struct fc_disk_job *job, unsigned i,
                             uint32_t *block_bytes_r, uint64_t *size_r);

/*
 * The order in which blocks are copied and hydrated, the rest following by
 * address; holds from now on, also for an engine that is started anew. 0,
 * FC_ENOENT (no such disk), FC_EINVAL (a block past the end) or FC_ESYS.
 */
int fc_disk_job_set_order(struct fc_disk_job *job, const char *vdev,
                          const uint32_t *blocks, uint32_t count);

/* As `disk-status` gives it; the caller's. */
struct json_object *fc_disk_job_json(const struct fc_disk_job *job);
/* The array of disks alone. */
struct json_object *fc_disk_job_disks(const struct fc_disk_job *job);

#endif
