/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The steps of one disk. A step that fails while a job is built up or flipped
 * fails the job; one that fails while a job is taken back or ended is tried
 * again, because the guest's disk hangs on it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "disk_job_int.h"
#include "disk_kept.h"
#include "err.h"
#include "log.h"

#define AGAIN_MS 2000u
#define SHORT_MS 10000u /* an answer that needs no work */
#define FENCE_SLACK_MS 1000u
#define UNFENCE_MS 8000u /* for the destination to answer */

static void run_step(struct disk *d);

const enum step fc_disk_revive[] = { STEP_ENGINE, STEP_FREEZE, STEP_CHANNEL,
                                     STEP_END };

static const char *const names[] = {
    [STEP_ENGINE] = "starting the engine",
    [STEP_ATTACH] = "attaching nbd",
    [STEP_TABLE_NBD] = "putting the engine under the disk",
    [STEP_FREEZE] = "freezing",
    [STEP_CHANNEL] = "opening the channel",
    [STEP_FENCE] = "fencing",
    [STEP_LEASE] = "handing over",
    [STEP_UNFENCE] = "taking the fence away",
    [STEP_TABLE_LINEAR] = "putting the volume under the disk again",
    [STEP_DETACH] = "detaching nbd",
    [STEP_TABLE_ERROR] = "closing the disk",
    [STEP_FINISH] = "ending the channel",
    [STEP_STOP] = "ending the engine",
    [STEP_DROP] = "removing the device",
    [STEP_UNLOOP] = "detaching the loop device",
    [STEP_CLEAN] = "clearing up",
    [STEP_END] = "",
};

int fc_disk_note(struct disk *d)
{
    const struct fc_disk_job *job = d->job;
    char hex[FC_MIGRATION_TEXT];
    struct json_object *o = json_object_new_object();
    fc_hex_format(job->migration, FC_MIGRATION_BYTES, hex);
    json_object_object_add(o, "role", json_object_new_string("source"));
    json_object_object_add(o, "migration", json_object_new_string(hex));
    json_object_object_add(o, "name", json_object_new_string(job->args.name));
    json_object_object_add(o, "host", json_object_new_string(job->args.host));
    json_object_object_add(o, "warm", json_object_new_boolean(job->args.warm));
    json_object_object_add(o, "lazy", json_object_new_boolean(job->args.lazy));
    json_object_object_add(o, "volume", json_object_new_string(d->volume));
    json_object_object_add(o, "target", json_object_new_string(d->target));
    json_object_object_add(o, "device", json_object_new_string(d->device));
    json_object_object_add(o, "size", json_object_new_int64((int64_t)d->size));
    json_object_object_add(o, "block_bytes",
                           json_object_new_int64(job->args.block_bytes));
    json_object_object_add(o, "fenced", json_object_new_boolean(d->fenced));
    json_object_object_add(o, "epoch",
                           json_object_new_int64((int64_t)d->epoch));
    int rc = fc_disk_run_write(
        job->args.env, &d->id, "state.json",
        json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                              JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
    return rc;
}

static bool must_succeed(const struct disk *d)
{
    return d->job->phase >= PHASE_SERVE;
}

static void next(struct disk *d)
{
    d->steps++;
    run_step(d);
}

/* What to be tried again when it fails while a job ends. */
static void fail(struct disk *d, int rc, const char *why)
{
    const struct timeval again = { AGAIN_MS / 1000, 0 };
    enum step step = *d->steps;
    if (must_succeed(d)) {
        char text[FC_JOB_WHY];
        snprintf(text, sizeof(text), "%s: %s failed: %s", d->id.vdev,
                 names[step], *why ? why : fc_strerror(rc));
        if (strcmp(text, d->trouble))
            fc_warn("%s; it is tried again", text);
        memcpy(d->trouble, text, sizeof(d->trouble));
        evtimer_add(d->again, &again);
        return;
    }
    fc_job_blame(d->job, "%s: %s failed: %s", d->id.vdev, names[step],
                 *why ? why : fc_strerror(rc));
    d->failed = true;
    d->moving = false;
    fc_disk_moved(d);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    run_step(arg);
}

/* ---- forecopy-block ---- */

static void on_tool(void *user, int rc, int status, const char *out,
                    const char *err)
{
    struct disk *d = user;
    enum step step = *d->steps;
    char line[200];
    (void)status;
    d->task = NULL;
    if (rc && (step == STEP_TABLE_ERROR || step == STEP_DROP ||
               step == STEP_UNLOOP)) {
        /* gone with the domain, most likely */
        fc_debug("%s: %s: it is gone", d->id.vdev, names[step]);
        rc = 0;
    }
    if (rc) {
        fc_task_last_line(err, line, sizeof(line));
        fail(d, rc, line);
        return;
    }
    if (step == STEP_ATTACH) {
        fc_task_last_line(out, d->device, sizeof(d->device));
        if (strncmp(d->device, "/dev/", 5)) {
            d->device[0] = '\0';
            fail(d, FC_EFORMAT, "forecopy-block named no device");
            return;
        }
        fc_disk_engine_set_device(d->engine, d->device);
    } else if (step == STEP_DETACH) {
        d->device[0] = '\0';
        if (d->engine)
            fc_disk_engine_set_device(d->engine, "");
    } else if (step == STEP_TABLE_LINEAR || step == STEP_TABLE_ERROR) {
        d->tabled = false;
    }
    if (fc_disk_note(d))
        fc_warn("%s: its state cannot be noted: %s", d->id.vdev,
                strerror(errno));
    next(d);
}

static void tool(struct disk *d, const char *a, const char *b, const char *c,
                 const char *e)
{
    const struct fc_disk_env *env = d->job->args.env;
    const char *argv[] = { env->tool, a, b, c, e, NULL };
    int rc = fc_task_run(env->base, env->children, argv, NULL,
                         d->job->args.step_ms, on_tool, d, &d->task);
    if (rc)
        fail(d, rc, rc == FC_ESYS ? strerror(errno) : "");
}

/* ---- the engine ---- */

static void on_up(void *user, bool again)
{
    struct disk *d = user;
    d->rate_told = false;
    if (!again && *d->steps == STEP_ENGINE && d->moving) {
        next(d);
        return;
    }
    /* It knows nothing of before. */
    fc_disk_tell_rate(d);
    fc_disk_tell_order(d);
    if (d->job->passed && !d->moving)
        fc_disk_go(d, fc_disk_revive + 1);
    else if (d->channel_wanted && !d->job->passed)
        fc_disk_channel_open(d);
}

static void on_down(void *user, const char *why, bool last)
{
    struct disk *d = user;
    char text[200];
    snprintf(text, sizeof(text), "%s", why);
    d->status.known = false;
    fc_disk_survey_down(&d->survey);
    if (last) {
        fc_disk_engine_leave(d->engine);
        d->engine = NULL;
        if (*d->steps == STEP_ENGINE && d->moving)
            fail(d, FC_EPEER, text);
    }
}

static const struct fc_disk_engine_events engine_events = { on_up, on_down };

static void start_engine(struct disk *d)
{
    struct fc_disk_engine_spec spec = { .id = d->id,
                                        .role = "source",
                                        .size = d->size,
                                        .block_bytes = d->job->args.block_bytes,
                                        .owner = !d->job->passed };
    if (d->engine) { /* a retry: its own events go on */
        if (fc_disk_engine_is_up(d->engine))
            next(d);
        return;
    }
    memcpy(spec.volume, d->volume, sizeof(spec.volume));
    int rc = fc_disk_engine_new(d->job->args.env, &spec, &engine_events, d,
                                &d->engine);
    if (rc) {
        fail(d, rc, rc == FC_ESYS ? strerror(errno) : "");
        return;
    }
    if (*d->device)
        fc_disk_engine_set_device(d->engine, d->device);
}

/* The guest may write here again. */
static int taken_back(struct disk *d)
{
    int rc = fc_lease_return(d->job->args.leases, &d->id, d->job->migration,
                             d->job->passed);
    if (!rc)
        d->fenced = d->reopened = false;
    return rc;
}

/*
 * A destination that got the LEASE and died does not answer. Nobody has let the
 * guest run there, so it cannot have written: an engine that knows nothing of
 * the fence takes the place of the one that waits.
 */
static void reopen(struct disk *d)
{
    d->reopened = true;
    fc_disk_engine_set_owner(d->engine, true);
    fc_disk_engine_restart(d->engine);
}

static void on_answer(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct disk *d = user;
    enum step step = *d->steps;
    (void)fd;
    (void)reply;
    if (!d->moving)
        return;
    if (rc && step == STEP_FINISH) { /* BYE is a courtesy */
        next(d);
        return;
    }
    if (rc && step == STEP_UNFENCE && d->job->passed && rc != FC_EDAEMON &&
        rc != FC_ETIMEOUT) { /* it has written: the lease stands */
        fc_job_blame(d->job, "%s does not hand %s back: %s", d->job->args.host,
                     d->id.vdev, why);
        d->failed = true;
        d->moving = false;
        fc_disk_moved(d);
        return;
    }
    if (rc && step == STEP_UNFENCE && !d->job->passed && d->engine &&
        fc_disk_engine_is_up(d->engine))
        reopen(d);
    if (rc) {
        fail(d, rc, why);
        return;
    }
    if (step == STEP_UNFENCE && taken_back(d)) {
        fail(d, FC_EIO, "the lease cannot be noted");
        return;
    }
    next(d);
}

static void ask(struct disk *d, struct json_object *request,
                unsigned timeout_ms)
{
    int rc = d->engine ? fc_disk_engine_call(d->engine, request, NULL, 0,
                                             timeout_ms, on_answer, d)
                       : FC_EDAEMON;
    if (!d->engine)
        json_object_put(request);
    if (rc)
        fail(d, rc, "the engine does not answer");
}

static unsigned flip_left_ms(const struct fc_disk_job *job)
{
    uint64_t now = fc_now_ms();
    if (!job->flip_end_ms)
        return job->args.step_ms;
    return now + 1 < job->flip_end_ms ? (unsigned)(job->flip_end_ms - now) : 1;
}

static void add_migration(struct disk *d, struct json_object *o)
{
    char hex[FC_MIGRATION_TEXT];
    fc_hex_format(d->job->migration, FC_MIGRATION_BYTES, hex);
    json_object_object_add(o, "migration", json_object_new_string(hex));
    json_object_object_add(o, "epoch",
                           json_object_new_int64((int64_t)d->epoch));
}

static void fence(struct disk *d)
{
    struct json_object *o = fc_disk_engine_request("fence");
    unsigned left = flip_left_ms(d->job);
    add_migration(d, o);
    json_object_object_add(o, "timeout_ms", json_object_new_int64(left));
    json_object_object_add(o, "complete",
                           json_object_new_boolean(!d->job->args.lazy));
    d->fenced = true;
    /* An engine that dies now must not come back open. */
    fc_disk_engine_set_owner(d->engine, false);
    if (fc_disk_note(d)) {
        json_object_put(o);
        fail(d, FC_ESYS, strerror(errno));
        return;
    }
    ask(d, o, left + FENCE_SLACK_MS);
}

static void lease(struct disk *d)
{
    struct json_object *o = fc_disk_engine_request("lease");
    unsigned left = flip_left_ms(d->job);
    add_migration(d, o);
    json_object_object_add(o, "timeout_ms", json_object_new_int64(left));
    ask(d, o, left + FENCE_SLACK_MS);
}

static void freeze(struct disk *d)
{
    struct json_object *o;
    if (!fc_disk_engine_was_started(d->engine)) { /* it knows */
        next(d);
        return;
    }
    o = fc_disk_engine_request("freeze");
    add_migration(d, o);
    ask(d, o, SHORT_MS);
}

/* Back to this host. What is passed comes back only with a channel, over which
 * the destination agrees. */
static void unfence(struct disk *d)
{
    struct json_object *o;
    if (d->fenced && !d->job->passed &&
        !(d->engine && fc_disk_engine_is_up(d->engine))) {
        /* it comes back as an owner: it was told so */
        fc_disk_engine_set_owner(d->engine, true);
        d->reopened = true;
    }
    if (d->reopened && !fc_disk_engine_is_up(d->engine)) {
        fail(d, FC_EDAEMON, "the engine is being started anew");
        return;
    }
    if (d->reopened)
        (void)taken_back(d);
    if (!d->fenced) {
        next(d);
        return;
    }
    if (d->job->passed && !d->status.channel) {
        fc_disk_ask_status(d);
        fail(d, FC_EPEER,
             "the destination must agree, and there is no channel to it");
        return;
    }
    o = fc_disk_engine_request("unfence");
    add_migration(d, o);
    json_object_object_add(o, "timeout_ms", json_object_new_int64(UNFENCE_MS));
    ask(d, o, UNFENCE_MS + FENCE_SLACK_MS);
}

static void on_stopped(void *user)
{
    struct disk *d = user;
    d->engine = NULL;
    next(d);
}

static void stop(struct disk *d)
{
    struct fc_disk_engine *e = d->engine;
    fc_disk_channel_close(d);
    fc_disk_engine_end(e, on_stopped, d);
}

/* Whether the hotplug script left the device to us: docs/formats/
 * disk-directory.md. It goes when nobody uses it any more. */
static bool is_left(struct disk *d)
{
    const struct fc_disk_env *env = d->job->args.env;
    char path[FC_DISK_PATH];
    if (fc_disk_run_read(env, &d->id, "hold", path))
        return false;
    fc_disk_run_path(env, &d->id, "users", path);
    return rmdir(path) == 0 || errno == ENOENT;
}

static void drop(struct disk *d, const char *dm)
{
    static const char *const files[] = { "target", "backing", "mode", "dm" };
    if (!is_left(d)) {
        next(d);
        return;
    }
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)fc_disk_run_write(d->job->args.env, &d->id, files[i], NULL);
    d->left = true;
    tool(d, "dm-remove", dm, NULL, NULL);
}

static void unloop(struct disk *d)
{
    const struct fc_disk_env *env = d->job->args.env;
    char loop[FC_DISK_PATH];
    if (!d->left || fc_disk_run_read(env, &d->id, "loop", loop)) {
        next(d);
        return;
    }
    (void)fc_disk_run_write(env, &d->id, "loop", NULL);
    const char *argv[] = { "losetup", "-d", loop, NULL };
    int rc = fc_task_run(env->base, env->children, argv, NULL,
                         d->job->args.step_ms, on_tool, d, &d->task);
    if (rc)
        fail(d, rc, "losetup");
}

static void clean(struct disk *d)
{
    const struct fc_disk_env *env = d->job->args.env;
    static const char *const files[] = { "state.json", "hold", "engine.sock",
                                         "nbd.sock" };
    char path[FC_DISK_PATH];
    fc_disk_kept_drop(env, &d->id);
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)fc_disk_run_write(env, &d->id, files[i], NULL);
    fc_disk_run_path(env, &d->id, "target", path);
    if (access(path, F_OK)) { /* the guest's device is gone as well */
        (void)fc_disk_run_write(env, &d->id, "engine.log", NULL);
        fc_disk_run_path(env, &d->id, "", path);
        (void)rmdir(path);
    }
    next(d);
}

static void run_step(struct disk *d)
{
    char dm[FC_DISK_DM];
    fc_disk_dm_name(&d->id, dm);
    switch (*d->steps) {
    case STEP_END:
        d->moving = false;
        fc_disk_moved(d);
        return;
    case STEP_ENGINE:
        start_engine(d);
        return;
    case STEP_ATTACH:
        if (*d->device) /* of an earlier daemon's; the engine was connected */
            next(d);
        else
            tool(d, "nbd-attach", fc_disk_engine_socket(d->engine), NULL, NULL);
        return;
    case STEP_TABLE_NBD:
        d->tabled = true;
        tool(d, "dm-swap", dm, "linear", d->device);
        return;
    case STEP_FREEZE:
        freeze(d);
        return;
    case STEP_CHANNEL:
        fc_disk_channel_open(d);
        next(d);
        return;
    case STEP_FENCE:
        fence(d);
        return;
    case STEP_LEASE:
        lease(d);
        return;
    case STEP_UNFENCE:
        unfence(d);
        return;
    case STEP_TABLE_LINEAR:
        if (d->tabled)
            tool(d, "dm-swap", dm, "linear", d->volume);
        else
            next(d);
        return;
    case STEP_DETACH:
        if (*d->device)
            tool(d, "nbd-detach", d->device, NULL, NULL);
        else
            next(d);
        return;
    case STEP_TABLE_ERROR:
        if (d->tabled)
            tool(d, "dm-swap", dm, "error", NULL);
        else
            next(d);
        return;
    case STEP_FINISH:
        ask(d, fc_disk_engine_request("finish"), SHORT_MS);
        return;
    case STEP_STOP:
        stop(d);
        return;
    case STEP_DROP:
        drop(d, dm);
        return;
    case STEP_UNLOOP:
        unloop(d);
        return;
    case STEP_CLEAN:
        clean(d);
        return;
    }
}

void fc_disk_go(struct disk *d, const enum step *steps)
{
    if (!d->again)
        d->again = evtimer_new(d->job->args.env->base, on_again, d);
    d->steps = steps;
    d->moving = true;
    d->failed = false;
    run_step(d);
}

void fc_disk_dispose(struct disk *d)
{
    struct fc_children *children = d->job->args.env->children;
    fc_task_leave(d->task);
    fc_disk_engine_leave(d->engine);
    if (d->channel) {
        fc_children_forget(children, d->channel);
        fc_children_end(children, d->channel);
    }
    if (d->again)
        event_free(d->again);
    if (d->reconnect)
        event_free(d->reconnect);
    fc_close(&d->channel_err);
    fc_close(&d->order);
}
