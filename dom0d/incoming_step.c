/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_incoming_int.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "disk_volume.h"
#include "err.h"
#include "log.h"
#include "task.h"

/*
 * An incoming disk goes through one of four lists of steps: making ready, being
 * taken up by a new daemon, being completed (the guest's disk is put on the
 * volume itself), being discarded. Between them it is idle and its engine is
 * asked each second how far it is. What fails while making ready is told to
 * the source and discarded; what fails later is tried again.
 *
 * A volume is removed only if it was made here and never owned.
 */
#define AGAIN_S 2
#define LONG_MS 120000u
const enum incoming_step fc_incoming_ready[] = { STEP_MAKE, STEP_ENGINE,
                                                 STEP_ATTACH, STEP_NOTE,
                                                 STEP_END };
const enum incoming_step fc_incoming_again[] = { STEP_ENGINE, STEP_ATTACH,
                                                 STEP_NOTE, STEP_END };
const enum incoming_step fc_incoming_complete[] = { STEP_SYNC,   STEP_TABLE,
                                                    STEP_DETACH, STEP_FINISH,
                                                    STEP_STOP,   STEP_CLEAN,
                                                    STEP_END };
const enum incoming_step fc_incoming_discard_it[] = { STEP_DETACH, STEP_STOP,
                                                      STEP_CLEAN, STEP_REMOVE,
                                                      STEP_END };
static const char *const names[] = {
    [STEP_END] = "",
    [STEP_MAKE] = "making the volume",
    [STEP_ENGINE] = "starting the engine",
    [STEP_ATTACH] = "attaching nbd",
    [STEP_NOTE] = "noting the device",
    [STEP_SYNC] = "making the volume durable",
    [STEP_TABLE] = "putting the disk on its volume",
    [STEP_DETACH] = "detaching nbd",
    [STEP_FINISH] = "ending the channel",
    [STEP_STOP] = "ending the engine",
    [STEP_CLEAN] = "clearing up",
    [STEP_REMOVE] = "removing the volume",
};

static void run_step(struct fc_incoming *n);

void fc_incoming_keep(struct fc_incoming *n)
{
    int rc = fc_diskmeta_volume_put(n->set->args.meta, &n->v);
    if (rc)
        fc_error("%s: what is known of it cannot be kept: %s", n->name,
                 fc_strerror(rc));
}

void fc_incoming_go(struct fc_incoming *n, const enum incoming_step *list)
{
    n->list = n->at = list;
    run_step(n);
}

void fc_incoming_channel_over(struct fc_incoming *n)
{
    uint64_t tag = n->tag;
    n->tag = 0;
    if (tag)
        n->set->args.channel_ended(n->set->args.user, tag);
}

static void tell(struct fc_incoming *n, int rc, const char *text)
{
    fc_incoming_done *done = n->done;
    n->done = NULL;
    if (done)
        done(n->done_user, rc, text);
}

static void next(struct fc_incoming *n)
{
    n->at++;
    n->trouble[0] = '\0';
    run_step(n);
}

static void fail(struct fc_incoming *n, int rc, const char *why)
{
    const struct timeval again = { AGAIN_S, 0 };
    char text[FC_INCOMING_WHY];
    snprintf(text, sizeof(text), "%s: %s failed: %s", n->v.id.vdev,
             names[*n->at], *why ? why : fc_strerror(rc));
    if (strcmp(text, n->trouble))
        fc_error("%s: %s failed: %s", n->name, names[*n->at],
                 *why ? why : fc_strerror(rc));
    if (n->list != fc_incoming_ready) {
        memcpy(n->trouble, text, sizeof(n->trouble));
        evtimer_add(n->again, &again);
        return;
    }
    tell(n, rc, text);
    fc_incoming_go(n, fc_incoming_discard_it);
}

void fc_incoming_on_again(evutil_socket_t fd, short what, void *arg)
{
    struct fc_incoming *n = arg;
    (void)fd;
    (void)what;
    if (n->list)
        run_step(n);
}

/* ---- steps ---- */

static void on_tool(void *user, int rc, int status, const char *out,
                    const char *err)
{
    struct fc_incoming *n = user;
    char line[200];
    (void)status;
    n->task = NULL;
    if (rc) {
        fc_task_last_line(err, line, sizeof(line));
        fail(n, rc, line);
        return;
    }
    if (*n->at == STEP_ATTACH) {
        fc_task_last_line(out, n->device, sizeof(n->device));
        if (strncmp(n->device, "/dev/", 5)) {
            n->device[0] = '\0';
            fail(n, FC_EFORMAT, "forecopy-block named no device");
            return;
        }
        fc_disk_engine_set_device(n->engine, n->device);
    } else if (*n->at == STEP_DETACH) {
        n->device[0] = '\0';
        if (n->engine)
            fc_disk_engine_set_device(n->engine, "");
    }
    next(n);
}

static void run_program(struct fc_incoming *n, const char *const *argv)
{
    const struct fc_disk_env *env = n->set->args.env;
    int rc = fc_task_run(env->base, env->children, argv, NULL,
                         n->set->args.step_ms, on_tool, n, &n->task);
    if (rc)
        fail(n, rc, rc == FC_ESYS ? strerror(errno) : "");
}

static void make_volume(struct fc_incoming *n)
{
    char group[128], name[128], bytes[32];
    if (!n->make) {
        next(n);
        return;
    }
    n->v.made = true;
    fc_incoming_keep(n);
    if (fc_volume_is_lv(n->v.path, group, name, sizeof(group))) {
        snprintf(bytes, sizeof(bytes), "%llub", (unsigned long long)n->v.size);
        /* nothing of what was there may come back as the guest's data: every
         * block is either sent or asked for */
        const char *argv[] = { "lvcreate", "-y", "-q",  "-Wn", "-n",
                               name,       "-L", bytes, group, NULL };
        run_program(n, argv);
        return;
    }
    if (fc_volume_make_file(n->v.path, n->v.size)) {
        n->v.made = errno != EEXIST;
        fail(n, FC_ESYS, strerror(errno));
        return;
    }
    next(n);
}

static void on_up(void *user, bool again)
{
    struct fc_incoming *n = user;
    if (again)
        fc_incoming_channel_over(
            n); /* it went with the engine; the source comes again */
    else if (n->list && *n->at == STEP_ENGINE)
        next(n);
}

static void on_down(void *user, const char *why, bool last)
{
    struct fc_incoming *n = user;
    n->known = n->channel = n->asked = false;
    fc_disk_survey_down(&n->survey);
    if (!last)
        return;
    fc_disk_engine_leave(n->engine);
    n->engine = NULL;
    if (n->list && *n->at == STEP_ENGINE)
        fail(n, FC_EPEER, why);
}

static const struct fc_disk_engine_events engine_events = { on_up, on_down };

static void start_engine(struct fc_incoming *n)
{
    const struct fc_disk_env *env = n->set->args.env;
    struct fc_disk_engine_spec spec = { .id = n->v.id,
                                        .role = "shadow",
                                        .size = n->v.size,
                                        .block_bytes = n->v.block_bytes,
                                        .owner = n->v.owned };
    if (n->engine) {
        if (fc_disk_engine_is_up(n->engine))
            next(n);
        return;
    }
    memcpy(spec.volume, n->v.path, sizeof(spec.volume));
    snprintf(spec.map, sizeof(spec.map), "%.900s/%s.map", env->state_dir,
             n->name);
    int rc = fc_disk_engine_new(env, &spec, &engine_events, n, &n->engine);
    if (rc) {
        fail(n, rc, rc == FC_ESYS ? strerror(errno) : "");
        return;
    }
    if (*n->device)
        fc_disk_engine_set_device(n->engine, n->device);
}

static void note(struct fc_incoming *n)
{
    const struct fc_disk_env *env = n->set->args.env;
    if (fc_disk_run_write(env, &n->v.id, "incoming", n->device)) {
        fail(n, FC_ESYS, strerror(errno));
        return;
    }
    fc_incoming_keep(n);
    next(n);
}

static void on_answer(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct fc_incoming *n = user;
    (void)reply;
    (void)fd;
    if (rc)
        fail(n, rc, why);
    else
        next(n);
}

static void ask(struct fc_incoming *n, const char *what)
{
    int rc = n->engine
                 ? fc_disk_engine_call(n->engine, fc_disk_engine_request(what),
                                       NULL, 0, LONG_MS, on_answer, n)
                 : FC_EDAEMON;
    if (rc)
        fail(n, rc, "the engine does not answer");
}

/* The guest's disk goes to the volume, which the hotplug script knows (a file
 * by its loop device). */
static void put_table(struct fc_incoming *n)
{
    const struct fc_disk_env *env = n->set->args.env;
    char backing[FC_DISK_PATH], dm[FC_DISK_DM];
    fc_disk_dm_name(&n->v.id, dm);
    if (fc_disk_run_read(env, &n->v.id, "backing", backing)) {
        next(n); /* the guest went away meanwhile */
        return;
    }
    const char *argv[] = { env->tool, "dm-swap", dm, "linear", backing, NULL };
    run_program(n, argv);
}

static void detach(struct fc_incoming *n)
{
    const char *argv[] = { n->set->args.env->tool, "nbd-detach", n->device,
                           NULL };
    if (*n->device)
        run_program(n, argv);
    else
        next(n);
}

static void attach(struct fc_incoming *n)
{
    const char *argv[] = { n->set->args.env->tool, "nbd-attach",
                           fc_disk_engine_socket(n->engine), NULL };
    if (*n->device) /* of an earlier daemon's; the engine was connected */
        next(n);
    else
        run_program(n, argv);
}

static void on_stopped(void *user)
{
    struct fc_incoming *n = user;
    n->engine = NULL;
    next(n);
}

static void clean(struct fc_incoming *n)
{
    const struct fc_disk_env *env = n->set->args.env;
    static const char *const files[] = { "incoming", "engine.sock",
                                         "nbd.sock" };
    char path[FC_DISK_PATH];
    fc_incoming_channel_over(n);
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)fc_disk_run_write(env, &n->v.id, files[i], NULL);
    snprintf(path, sizeof(path), "%.900s/%s.map", env->state_dir, n->name);
    (void)unlink(path);
    if (n->list == fc_incoming_complete) {
        n->v.complete = true;
        fc_incoming_keep(n);
        fc_info("%s: all of it is here; the guest's disk is %s", n->name,
                n->v.path);
    } else {
        fc_disk_run_path(env, &n->v.id, "target", path);
        if (access(path, F_OK)) {
            (void)fc_disk_run_write(env, &n->v.id, "engine.log", NULL);
            fc_disk_run_path(env, &n->v.id, "", path);
            (void)rmdir(path);
        }
    }
    next(n);
}

static void remove_volume(struct fc_incoming *n)
{
    const char *argv[] = { "lvremove", "-y", "-q", n->v.path, NULL };
    struct fc_volume_look look;
    if (!n->v.made || n->v.owned || fc_volume_look(n->v.path, &look) ||
        look.kind == FC_VOLUME_NONE) {
        next(n);
        return;
    }
    if (fc_disk_run_uses(n->set->args.env, &n->v.id, n->v.path)) {
        fc_warn("%s: %s stays: a guest here uses it", n->name, n->v.path);
        next(n);
        return;
    }
    if (look.kind == FC_VOLUME_BLOCK) {
        run_program(n, argv);
        return;
    }
    if (unlink(n->v.path) < 0)
        fc_warn("%s: %s", n->v.path, strerror(errno));
    next(n);
}

/* A volume that we did not make stays, and stays known as one that may be
 * written over for this disk. */
static void forget(struct fc_incoming *n)
{
    if (!n->v.made && !n->make) {
        n->v.warm = false;
        memset(n->v.migration, 0, sizeof(n->v.migration));
        fc_incoming_keep(n);
        return;
    }
    int rc = fc_diskmeta_forget(n->set->args.meta, &n->v.id);
    if (rc)
        fc_warn("%s: %s", n->name, fc_strerror(rc));
}

/* The list is at its end. */
static void ended(struct fc_incoming *n)
{
    const enum incoming_step *list = n->list;
    n->list = n->at = NULL;
    if (list == fc_incoming_ready || list == fc_incoming_again) {
        n->silent_ms = fc_now_ms();
        tell(n, 0, n->text);
        return;
    }
    if (list == fc_incoming_discard_it && !n->v.owned) {
        forget(n);
        fc_info("%s: the shadow is discarded", n->name);
    }
    n->removed = true; /* freed by the next tick */
}

static void run_step(struct fc_incoming *n)
{
    switch (*n->at) {
    case STEP_END:
        ended(n);
        return;
    case STEP_MAKE:
        make_volume(n);
        return;
    case STEP_ENGINE:
        start_engine(n);
        return;
    case STEP_ATTACH:
        attach(n);
        return;
    case STEP_NOTE:
        note(n);
        return;
    case STEP_SYNC:
        ask(n, "sync");
        return;
    case STEP_TABLE:
        put_table(n);
        return;
    case STEP_DETACH:
        detach(n);
        return;
    case STEP_FINISH:
        ask(n, "finish");
        return;
    case STEP_STOP:
        fc_disk_engine_end(n->engine, on_stopped, n);
        return;
    case STEP_CLEAN:
        clean(n);
        return;
    case STEP_REMOVE:
        remove_volume(n);
        return;
    }
}
