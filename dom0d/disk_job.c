/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_job.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "disk_job_int.h"
#include "disk_kept.h"
#include "disk_remote.h"
#include "err.h"
#include "log.h"

/*
 * What may be undone when: until the leases are *passed* nobody at the
 * destination can have written, because the receiver's ready message has not
 * been let through; so all is taken back whatever the destination says. Passing
 * is noted on disk before flipped() tells that it happened. From then on the
 * disks belong to the destination, and only it can give them back.
 *
 * The fenced engine holds the guest's requests; it fails none, so that the
 * guest can go on here after a failure. They fail only when nbd is detached,
 * which is done when the guest is gone.
 */
static const enum step setup_steps[] = { STEP_ENGINE, STEP_ATTACH,
                                         STEP_TABLE_NBD, STEP_CHANNEL,
                                         STEP_END };
static const enum step fence_steps[] = { STEP_FENCE, STEP_END };
static const enum step lease_steps[] = { STEP_LEASE, STEP_END };
static const enum step release_steps[] = { STEP_DETACH, STEP_TABLE_ERROR,
                                           STEP_END };
static const enum step finish_steps[] = { STEP_FINISH, STEP_STOP,  STEP_DROP,
                                          STEP_UNLOOP, STEP_CLEAN, STEP_END };
static const enum step undo_steps[] = { STEP_UNFENCE, STEP_TABLE_LINEAR,
                                        STEP_DETACH,  STEP_STOP,
                                        STEP_CLEAN,   STEP_END };
static const enum step undo_anew_steps[] = { STEP_ENGINE,       STEP_UNFENCE,
                                             STEP_TABLE_LINEAR, STEP_DETACH,
                                             STEP_STOP,         STEP_CLEAN,
                                             STEP_END };

#define LEAST_LEFT_BYTES (1u << 20) /* never worth another round */

void fc_job_blame(struct fc_disk_job *job, const char *fmt, ...)
{
    va_list ap;
    if (job->failed)
        return;
    job->failed = true;
    va_start(ap, fmt);
    vsnprintf(job->why, sizeof(job->why), fmt, ap);
    va_end(ap);
    fc_error("%s: the disks' migration fails: %s", job->args.name, job->why);
}

static void all_go(struct fc_disk_job *job, enum phase phase,
                   const enum step *steps)
{
    job->phase = phase;
    /* A disk may come to its end at once; the others must count as moving. */
    for (unsigned i = 0; i < job->count; i++)
        job->disk[i].moving = true;
    for (unsigned i = 0; i < job->count; i++)
        fc_disk_go(&job->disk[i], steps);
}

/* Goes on from the event loop: the job may be freed by what comes then. */
static void soon(struct fc_disk_job *job)
{
    const struct timeval now = { 0, 0 };
    evtimer_add(job->soon, &now);
}

static void over(struct fc_disk_job *job)
{
    job->phase = PHASE_OVER;
    job->events->over(job->user, job);
}

static void on_told(void *user, int rc, struct json_object *reply,
                    const char *why)
{
    struct fc_disk_job *job = user;
    (void)reply;
    job->remote = NULL;
    if (rc)
        fc_warn("%s: %s was not told to forget the disks: %s", job->args.name,
                job->args.host, why);
    over(job);
}

/* The destination need not keep what nobody wants. */
static void tell(struct fc_disk_job *job)
{
    job->phase = PHASE_TELL;
    if (!job->told) {
        over(job);
        return;
    }
    struct json_object *o = fc_disk_remote_request(job);
    json_object_object_add(o, "discard", json_object_new_boolean(1));
    if (fc_disk_remote_ask(job, o, on_told))
        over(job);
}

static void undo(struct fc_disk_job *job)
{
    all_go(job, PHASE_UNDO, job->resumed ? undo_anew_steps : undo_steps);
}

/* begun() or flipped() with the failure, then all back. */
static void give_up(struct fc_disk_job *job)
{
    bool flipping = job->flipping, begun = job->begun;
    job->begun = true;
    job->flipping = false;
    undo(job);
    if (!begun)
        job->events->begun(job->user, job, FC_EPEER, job->why);
    else if (flipping)
        job->events->flipped(job->user, job, FC_EPEER, job->why);
}

static void offer(struct fc_disk_job *job)
{
    struct fc_disk_id ids[FC_DISKS_MAX];
    uint64_t epochs[FC_DISKS_MAX];
    struct fc_lease refused;
    for (unsigned i = 0; i < job->count; i++)
        ids[i] = job->disk[i].id;
    int rc = fc_lease_offer(job->args.leases, ids, job->count, job->args.host,
                            job->migration, epochs, &refused);
    for (unsigned i = 0; i < job->count && !rc; i++)
        if (epochs[i] != job->disk[i].epoch)
            rc = FC_EPERM;
    if (rc == FC_EPERM)
        fc_job_blame(job, "%s: the lease is another's (%s)", refused.id.vdev,
                     refused.host);
    else if (rc)
        fc_job_blame(job, "the leases cannot be noted: %s", fc_strerror(rc));
    if (rc)
        give_up(job);
    else
        all_go(job, PHASE_LEASE, lease_steps);
}

/* A guest that comes back finds its volume to be ours. */
static void remember_volumes(struct fc_disk_job *job)
{
    for (unsigned i = 0; i < job->count && job->args.meta; i++) {
        const struct disk *d = &job->disk[i];
        struct fc_disk_volume v = { .id = d->id,
                                    .size = d->size,
                                    .block_bytes = job->args.block_bytes,
                                    .complete = true };
        memcpy(v.path, d->target, sizeof(v.path));
        if (fc_diskmeta_volume_put(job->args.meta, &v))
            fc_warn("%s: its volume cannot be remembered", d->id.vdev);
    }
}

static void pass(struct fc_disk_job *job)
{
    struct fc_disk_id ids[FC_DISKS_MAX];
    int rc = 0;
    for (unsigned i = 0; i < job->count; i++) {
        ids[i] = job->disk[i].id;
        /* the hotplug script must leave volume and table alone */
        if (job->args.lazy && (fc_disk_run_write(job->args.env, &ids[i], "hold",
                                                 job->args.host) ||
                               fc_disk_kept_put(job->args.env, &ids[i])))
            rc = FC_ESYS;
    }
    if (!rc)
        remember_volumes(job);
    if (!rc)
        rc = fc_lease_pass(job->args.leases, ids, job->count, job->migration);
    if (rc) {
        fc_job_blame(job, "the leases cannot be noted: %s", fc_strerror(rc));
        give_up(job);
        return;
    }
    job->passed = true;
    job->flipping = false;
    job->phase = PHASE_SERVE;
    job->fence_ms = fc_now_ms() - job->fence_start_ms;
    fc_info("%s: %s owns the disks; they were held for %llu ms", job->args.name,
            job->args.host, (unsigned long long)job->fence_ms);
    job->events->flipped(job->user, job, 0, "");
}

static bool is_hydrated(const struct fc_disk_job *job)
{
    for (unsigned i = 0; i < job->count; i++)
        if (!job->disk[i].status.known || job->disk[i].status.remaining)
            return false;
    return true;
}

/* Where a job whose guest is gone, or that has succeeded, goes. */
static void serve(struct fc_disk_job *job)
{
    job->phase = PHASE_SERVE;
    if (job->succeeded || job->guest_gone)
        all_go(job, PHASE_RELEASE, release_steps);
}

/* Every disk has come to the end of its steps. */
static void advance(struct fc_disk_job *job)
{
    bool failed = false;
    for (unsigned i = 0; i < job->count; i++)
        failed = failed || job->disk[i].failed;
    switch (job->phase) {
    case PHASE_SETUP:
        if (failed || job->failed) {
            give_up(job);
            return;
        }
        job->phase = PHASE_COPY;
        job->begun = true;
        job->events->begun(job->user, job, 0, "");
        return;
    case PHASE_FENCE:
        failed || job->failed ? give_up(job) : offer(job);
        return;
    case PHASE_LEASE:
        failed || job->failed ? give_up(job) : pass(job);
        return;
    case PHASE_SERVE: /* an engine was brought back */
    case PHASE_REVIVE:
        serve(job);
        return;
    case PHASE_RELEASE:
        for (unsigned i = 0; i < job->count; i++)
            job->disk[i].status.known = false; /* what counts comes now */
        job->phase = PHASE_HYDRATE;
        return;
    case PHASE_FINISH:
        fc_info("%s: the disks are all at %s", job->args.name, job->args.host);
        over(job);
        return;
    case PHASE_UNDO:
        if (failed) /* the destination keeps them */
            serve(job);
        else
            tell(job);
        return;
    case PHASE_PREPARE:
    case PHASE_COPY:
    case PHASE_HYDRATE:
    case PHASE_TELL:
    case PHASE_OVER:
        return;
    }
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    struct fc_disk_job *job = arg;
    (void)fd;
    (void)what;
    for (unsigned i = 0; i < job->count; i++)
        if (job->disk[i].moving)
            return;
    advance(job);
}

void fc_disk_moved(struct disk *d)
{
    soon(d->job);
}

/* ---- making one ---- */

static struct fc_disk_job *make(const struct fc_job_args *args,
                                const struct fc_job_events *events, void *user)
{
    struct fc_disk_job *job = calloc(1, sizeof(*job));
    if (!job)
        return NULL;
    job->args = *args;
    job->events = events;
    job->user = user;
    job->soon = evtimer_new(args->env->base, on_soon, job);
    if (!job->soon) {
        free(job);
        return NULL;
    }
    return job;
}

static void on_prepared(void *user, int rc, struct json_object *reply,
                        const char *why)
{
    struct fc_disk_job *job = user;
    job->remote = NULL;
    if (rc) {
        job->told = false; /* it has refused, and done nothing */
        fc_job_blame(job, "%s", why);
    } else {
        fc_disk_remote_volumes(job, reply);
    }
    if (job->failed || job->args.dry_run) {
        job->phase = PHASE_UNDO; /* of nothing but a word */
        job->begun = true;
        if (job->args.dry_run)
            job->told = false;
        job->events->begun(job->user, job, job->failed ? FC_EPEER : 0,
                           job->why);
        tell(job);
        return;
    }
    all_go(job, PHASE_SETUP, setup_steps);
}

int fc_disk_job_new(const struct fc_job_args *args,
                    const struct fc_job_events *events, void *user,
                    struct fc_disk_job **job_r, char why[FC_JOB_WHY])
{
    struct fc_disk_job *job = make(args, events, user);
    if (!job) {
        snprintf(why, FC_JOB_WHY, "out of memory");
        return FC_ENOMEM;
    }
    int rc = fc_disk_find_all(job, "target", why);
    for (unsigned i = 0; i < job->count && !rc; i++)
        rc = fc_disk_find_look(job, &job->disk[i], why);
    if (!rc)
        rc = fc_random(job->migration, sizeof(job->migration));
    if (!rc) {
        job->told = true;
        rc = fc_disk_remote_ask(job, fc_disk_remote_request(job), on_prepared);
        if (rc)
            snprintf(why, FC_JOB_WHY, "%s cannot be asked: %s", job->args.host,
                     fc_strerror(rc));
    }
    if (rc) {
        fc_disk_job_leave(job);
        return rc;
    }
    *job_r = job;
    return 0;
}

/*
 * A shadow that is kept for no migration yet outlives the daemon. What the
 * guest wrote meanwhile is known: its requests went through the engine, which
 * has marked them, or was not there, and then they wait; and one that is
 * started anew has every block marked. A disk whose engine was not yet set up
 * would be missing among them, so then all is taken back.
 */
static bool goes_on_warm(const struct fc_disk_job *job)
{
    struct fc_disk_job *all = job->args.warm ? calloc(1, sizeof(*all)) : NULL;
    char why[FC_JOB_WHY];
    if (!all)
        return false;
    all->args = job->args;
    bool whole =
        !fc_disk_find_all(all, "target", why) && all->count == job->count;
    for (unsigned i = 0; i < job->count && whole; i++) {
        struct fc_lease lease;
        whole = !job->disk[i].fenced &&
                !fc_lease_get(job->args.leases, &job->disk[i].id, &lease) &&
                lease.state == FC_LEASE_HERE &&
                lease.epoch + 1 == job->disk[i].epoch;
    }
    free(all);
    return whole;
}

int fc_disk_job_resume(const struct fc_job_args *args,
                       const struct fc_job_events *events, void *user,
                       struct fc_disk_job **job_r, char why[FC_JOB_WHY])
{
    struct fc_disk_job *job = make(args, events, user);
    if (!job)
        return FC_ENOMEM;
    int rc = fc_disk_find_all(job, "state.json", why);
    unsigned kept = 0;
    for (unsigned i = 0; i < job->count && !rc; i++)
        if (fc_disk_find_recall(job, &job->disk[i])) {
            job->disk[kept] = job->disk[i];
            kept++;
        }
    job->count = kept;
    if (!rc && !kept)
        rc = FC_ENOENT;
    if (rc) {
        fc_disk_job_leave(job);
        return rc;
    }
    job->begun = job->resumed = job->told = true;
    *job_r = job;
    if (job->passed) {
        all_go(job, PHASE_REVIVE, fc_disk_revive);
    } else if (goes_on_warm(job)) {
        fc_info("%s: its disks are kept at %s as before", job->args.name,
                job->args.host);
        all_go(job, PHASE_SETUP, setup_steps);
    } else {
        fc_job_blame(job, "forecopyd ended while it was under way");
        undo(job);
    }
    return 0;
}

void fc_disk_job_leave(struct fc_disk_job *job)
{
    if (!job)
        return;
    fc_task_leave(job->remote);
    free(job->remote_user);
    for (unsigned i = 0; i < job->count; i++)
        fc_disk_dispose(&job->disk[i]);
    event_free(job->soon);
    free(job);
}

/* ---- what its owner says ---- */

int fc_disk_job_flip(struct fc_disk_job *job, unsigned timeout_ms,
                     char why[FC_JOB_WHY])
{
    if (job->passed) {
        job->events->flipped(job->user, job, 0, "");
        return 0;
    }
    if (job->flipping)
        return 0;
    if (job->phase != PHASE_COPY) {
        snprintf(why, FC_JOB_WHY, "%s",
                 job->failed ? job->why : "the disks are not there yet");
        return FC_EBUSY;
    }
    job->flipping = true;
    job->fence_start_ms = fc_now_ms();
    job->flip_end_ms = job->fence_start_ms + timeout_ms;
    all_go(job, PHASE_FENCE, fence_steps);
    return 0;
}

int fc_disk_job_adopt(struct fc_disk_job *job, bool lazy)
{
    if (!job->args.warm || job->phase != PHASE_COPY)
        return FC_EBUSY;
    job->args.warm = false;
    job->args.lazy = lazy;
    for (unsigned i = 0; i < job->count; i++)
        if (fc_disk_note(&job->disk[i]))
            return FC_ESYS;
    return 0;
}

void fc_disk_job_succeed(struct fc_disk_job *job)
{
    job->succeeded = true;
    if (job->phase == PHASE_SERVE)
        serve(job);
    else if (!job->passed)
        fc_disk_job_fail(job, "the migration ended before the flip", false);
}

void fc_disk_job_fail(struct fc_disk_job *job, const char *why, bool may_return)
{
    if (job->succeeded && job->passed)
        return;
    fc_job_blame(job, "%s", why);
    if (job->phase == PHASE_COPY)
        undo(job);
    else if (job->phase == PHASE_SERVE && may_return && !job->guest_gone)
        undo(job);
    /* PREPARE, SETUP, FENCE, LEASE: once their steps have ended */
}

void fc_disk_job_guest_gone(struct fc_disk_job *job)
{
    job->guest_gone = true;
    if (job->phase == PHASE_SERVE)
        serve(job);
}

static void measure(struct fc_disk_job *job, uint64_t now_ms)
{
    uint64_t sent = 0;
    for (unsigned i = 0; i < job->count; i++)
        sent += job->disk[i].status.sent_bytes;
    if (job->last_ms && now_ms > job->last_ms && sent >= job->last_sent) {
        double bps = (double)(sent - job->last_sent) * 1000.0 /
                     (double)(now_ms - job->last_ms);
        job->sent_bps =
            job->sent_bps > 0 ? 0.7 * job->sent_bps + 0.3 * bps : bps;
    }
    job->last_ms = now_ms;
    job->last_sent = sent;
}

static uint64_t left_bytes(const struct fc_disk_job *job)
{
    uint64_t left = 0;
    for (unsigned i = 0; i < job->count; i++)
        left += job->disk[i].status.known
                    ? job->disk[i].status.remaining * job->args.block_bytes
                    : job->disk[i].size;
    return left;
}

/*
 * Complete: what is left can be sent within converge_ms. Lazy: as many blocks
 * as the order names are there; without an order the engines' working is
 * enough, for nobody can say what will be asked for.
 */
static bool has_converged(const struct fc_disk_job *job)
{
    for (unsigned i = 0; i < job->count; i++) {
        const struct disk *d = &job->disk[i];
        if (!d->status.known || !d->status.channel)
            return false;
        if (job->args.lazy &&
            d->status.blocks - d->status.remaining < d->order_count &&
            d->status.remaining)
            return false;
    }
    uint64_t left = left_bytes(job);
    return job->args.lazy || left <= LEAST_LEFT_BYTES ||
           (double)left * 1000.0 <= job->sent_bps * job->args.converge_ms;
}

static void check_silence(struct fc_disk_job *job, uint64_t now_ms)
{
    for (unsigned i = 0; i < job->count; i++) {
        const struct disk *d = &job->disk[i];
        if (!job->args.warm && d->silent_ms &&
            now_ms - d->silent_ms > job->args.peer_ms) {
            fc_job_blame(job, "%s: no channel to %s for %u s", d->id.vdev,
                         job->args.host, job->args.peer_ms / 1000);
            undo(job);
            return;
        }
    }
}

void fc_disk_job_tick(struct fc_disk_job *job, uint64_t now_ms)
{
    for (unsigned i = 0; i < job->count; i++) {
        fc_disk_ask_status(&job->disk[i]);
        if (!job->disk[i].rate_told)
            fc_disk_tell_rate(&job->disk[i]);
    }
    measure(job, now_ms);
    fc_disk_survey_job(job, now_ms);
    if (job->phase == PHASE_COPY) {
        job->converged = has_converged(job);
        check_silence(job, now_ms);
    } else if (job->phase == PHASE_HYDRATE && is_hydrated(job)) {
        all_go(job, PHASE_FINISH, finish_steps);
    }
}
