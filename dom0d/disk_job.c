/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_job.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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

static uint64_t size_of(const char *volume)
{
    struct stat st;
    uint64_t size = 0;
    int fd = open(volume, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode))
        size = (uint64_t)st.st_size;
    else if (!fstat(fd, &st) && S_ISBLK(st.st_mode) &&
             ioctl(fd, BLKGETSIZE64, &size) < 0)
        size = 0;
    fc_close(&fd);
    return size;
}

/* What the hotplug script wrote, and who may write the disk. */
static int look_at(struct fc_disk_job *job, struct disk *d, char *why)
{
    const struct fc_disk_env *env = job->args.env;
    char incoming[FC_DISK_PATH];
    struct fc_lease lease;
    if (fc_disk_run_read(env, &d->id, "target", d->target) ||
        fc_disk_run_read(env, &d->id, "backing", d->volume) ||
        !fc_disk_path_ok(d->target) || !fc_disk_path_ok(d->volume)) {
        snprintf(why, FC_JOB_WHY, "%s: block-forecopy did not say what it is",
                 d->id.vdev);
        return FC_EINVAL;
    }
    if (!fc_disk_run_read(env, &d->id, "incoming", incoming)) {
        snprintf(why, FC_JOB_WHY,
                 "%s is still being filled from where the guest came",
                 d->id.vdev);
        return FC_EBUSY;
    }
    d->size = size_of(d->volume);
    if (!d->size) {
        snprintf(why, FC_JOB_WHY, "%s: %.300s has no size", d->id.vdev,
                 d->volume);
        return FC_EINVAL;
    }
    int rc = fc_lease_get(job->args.leases, &d->id, &lease);
    if (rc || lease.state != FC_LEASE_HERE) {
        snprintf(why, FC_JOB_WHY, "%s: %s%s", d->id.vdev,
                 rc ? "its lease cannot be read" : "the lease is with ",
                 rc ? "" : lease.host);
        return rc ? rc : FC_EPERM;
    }
    d->epoch = lease.epoch + 1;
    return 0;
}

static int add_disk(struct fc_disk_job *job, const struct fc_disk_id *id,
                    char *why)
{
    if (job->count == FC_DISKS_MAX) {
        snprintf(why, FC_JOB_WHY, "more than %u disks", FC_DISKS_MAX);
        return FC_ELIMIT;
    }
    struct disk *d = &job->disk[job->count++];
    d->job = job;
    d->id = *id;
    d->order = d->channel_err = -1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct disk *x = a, *y = b;
    return strcmp(x->id.vdev, y->id.vdev);
}

/* The disks of the guest that have `leaf` in their directory. */
static int find_disks(struct fc_disk_job *job, const char *leaf, char *why)
{
    char text[FC_DISK_PATH];
    int rc = 0;
    DIR *dir = opendir(job->args.env->run_dir);
    const struct dirent *entry;
    while (dir && !rc && (entry = readdir(dir))) {
        struct fc_disk_id id;
        if (fc_disk_id_parse(entry->d_name, &id) ||
            memcmp(id.uuid, job->args.uuid, FC_UUID_BYTES) ||
            fc_disk_run_read(job->args.env, &id, leaf, text))
            continue;
        rc = add_disk(job, &id, why);
    }
    if (dir)
        closedir(dir);
    qsort(job->disk, job->count, sizeof(job->disk[0]), by_name);
    if (!rc && !job->count) {
        snprintf(why, FC_JOB_WHY, "%s has no disk with script=block-forecopy",
                 job->args.name);
        rc = FC_ENOENT;
    }
    return rc;
}

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
    int rc = find_disks(job, "target", why);
    for (unsigned i = 0; i < job->count && !rc; i++)
        rc = look_at(job, &job->disk[i], why);
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

/* One disk's state.json; false when it is none of a source's. */
static bool recall(struct fc_disk_job *job, struct disk *d)
{
    char text[FC_DISK_PATH];
    struct fc_lease lease;
    if (fc_disk_run_read(job->args.env, &d->id, "state.json", text))
        return false;
    struct json_object *o = fc_ctl_parse(text, strlen(text), NULL);
    bool ours = !strcmp(fc_json_str(o, "role", ""), "source") &&
                !fc_hex_parse(fc_json_str(o, "migration", ""), job->migration,
                              FC_MIGRATION_BYTES);
    snprintf(job->args.name, sizeof(job->args.name), "%s",
             fc_json_str(o, "name", ""));
    snprintf(job->args.host, sizeof(job->args.host), "%s",
             fc_json_str(o, "host", ""));
    snprintf(d->volume, sizeof(d->volume), "%s", fc_json_str(o, "volume", ""));
    snprintf(d->target, sizeof(d->target), "%s", fc_json_str(o, "target", ""));
    snprintf(d->device, sizeof(d->device), "%s", fc_json_str(o, "device", ""));
    d->size = (uint64_t)fc_json_int(o, "size", 0);
    d->epoch = (uint64_t)fc_json_int(o, "epoch", 0);
    d->fenced = fc_json_bool(o, "fenced", 0);
    d->tabled = true;
    job->args.lazy = fc_json_bool(o, "lazy", 0);
    job->args.block_bytes =
        (uint32_t)fc_json_int(o, "block_bytes", job->args.block_bytes);
    json_object_put(o);
    if (!fc_lease_get(job->args.leases, &d->id, &lease) &&
        lease.state == FC_LEASE_PASSED &&
        !memcmp(lease.migration, job->migration, FC_MIGRATION_BYTES))
        job->passed = true;
    return ours && fc_disk_path_ok(d->volume);
}

int fc_disk_job_resume(const struct fc_job_args *args,
                       const struct fc_job_events *events, void *user,
                       struct fc_disk_job **job_r, char why[FC_JOB_WHY])
{
    struct fc_disk_job *job = make(args, events, user);
    if (!job)
        return FC_ENOMEM;
    int rc = find_disks(job, "state.json", why);
    unsigned kept = 0;
    for (unsigned i = 0; i < job->count && !rc; i++)
        if (recall(job, &job->disk[i])) {
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
    if (job->phase == PHASE_COPY) {
        job->converged = has_converged(job);
        check_silence(job, now_ms);
    } else if (job->phase == PHASE_HYDRATE && is_hydrated(job)) {
        all_go(job, PHASE_FINISH, finish_steps);
    }
}
