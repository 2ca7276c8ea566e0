/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_incoming.h"

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
enum step {
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

static const enum step ready_steps[] = { STEP_MAKE, STEP_ENGINE, STEP_ATTACH,
                                         STEP_NOTE, STEP_END };
static const enum step again_steps[] = { STEP_ENGINE, STEP_ATTACH, STEP_NOTE,
                                         STEP_END };
static const enum step complete_steps[] = { STEP_SYNC,   STEP_TABLE,
                                            STEP_DETACH, STEP_FINISH,
                                            STEP_STOP,   STEP_CLEAN,
                                            STEP_END };
static const enum step discard_steps[] = { STEP_DETACH, STEP_STOP, STEP_CLEAN,
                                           STEP_REMOVE, STEP_END };
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
#define AGAIN_S 2
#define FIRST_TAG (1ull << 62) /* keepers' channels count from 1 */
#define SHORT_MS 10000u
#define LONG_MS 120000u
#define STATUS_MS 20000u

struct fc_incoming {
    struct fc_incoming_set *set;
    struct fc_disk_volume v;
    char name[FC_DISK_ID_TEXT], device[64], text[FC_INCOMING_WHY];
    char trouble[FC_INCOMING_WHY];
    struct fc_disk_engine *engine;
    struct fc_task *task;
    struct event *again;
    const enum step *list, *at; /* NULL: idle */
    bool make, doomed, asked, removed;
    uint64_t epoch, tag, silent_ms, valid, blocks, received, reads, hits,
        misses, read_ms, held, prefetched, prefetch_used;
    bool known, channel;
    int order;
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

static void run_step(struct fc_incoming *n);

static struct fc_incoming *find(const struct fc_incoming_set *set,
                                const struct fc_disk_id *id)
{
    for (struct fc_incoming *n = set->first; n; n = n->next)
        if (fc_disk_id_equal(&n->v.id, id) && !n->removed)
            return n;
    return NULL;
}

static void incoming_free(struct fc_incoming *n)
{
    for (struct fc_incoming **at = &n->set->first; *at; at = &(*at)->next)
        if (*at == n) {
            *at = n->next;
            n->set->count--;
            break;
        }
    fc_task_leave(n->task);
    fc_disk_engine_leave(n->engine);
    if (n->again)
        event_free(n->again);
    fc_close(&n->order);
    free(n);
}

static void keep(struct fc_incoming *n)
{
    int rc = fc_diskmeta_volume_put(n->set->args.meta, &n->v);
    if (rc)
        fc_error("%s: what is known of it cannot be kept: %s", n->name,
                 fc_strerror(rc));
}

static void go(struct fc_incoming *n, const enum step *list)
{
    n->list = n->at = list;
    run_step(n);
}

static void channel_over(struct fc_incoming *n)
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
    if (n->list != ready_steps) {
        memcpy(n->trouble, text, sizeof(n->trouble));
        evtimer_add(n->again, &again);
        return;
    }
    tell(n, rc, text);
    go(n, discard_steps);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
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
    keep(n);
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
    if (n->order >= 0)
        (void)fc_incoming_set_order(n->set, &n->v.id, NULL, 0);
    if (again)
        channel_over(n); /* it went with the engine; the source comes again */
    else if (n->list && *n->at == STEP_ENGINE)
        next(n);
}

static void on_down(void *user, const char *why, bool last)
{
    struct fc_incoming *n = user;
    n->known = n->channel = n->asked = false;
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
    keep(n);
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
    channel_over(n);
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)fc_disk_run_write(env, &n->v.id, files[i], NULL);
    snprintf(path, sizeof(path), "%.900s/%s.map", env->state_dir, n->name);
    (void)unlink(path);
    if (n->list == complete_steps) {
        n->v.complete = true;
        keep(n);
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
    if (look.kind == FC_VOLUME_BLOCK) {
        run_program(n, argv);
        return;
    }
    if (unlink(n->v.path) < 0)
        fc_warn("%s: %s", n->v.path, strerror(errno));
    next(n);
}

/* The list is at its end. */
static void ended(struct fc_incoming *n)
{
    const enum step *list = n->list;
    n->list = n->at = NULL;
    if (list == ready_steps || list == again_steps) {
        n->silent_ms = fc_now_ms();
        tell(n, 0, n->text);
        return;
    }
    if (list == discard_steps && !n->v.owned) {
        int rc = fc_diskmeta_forget(n->set->args.meta, &n->v.id);
        if (rc)
            fc_warn("%s: %s", n->name, fc_strerror(rc));
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

/* ---- requests ---- */

static struct fc_incoming *make(struct fc_incoming_set *set,
                                const struct fc_disk_volume *v)
{
    struct fc_incoming *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    n->set = set;
    n->v = *v;
    n->order = -1;
    n->silent_ms = fc_now_ms();
    fc_disk_id_format(&v->id, n->name);
    n->again = evtimer_new(set->args.env->base, on_again, n);
    if (!n->again) {
        free(n);
        return NULL;
    }
    n->next = set->first;
    set->first = n;
    set->count++;
    return n;
}

/* What would be done for a disk that has no shadow here. */
static int plan(struct fc_incoming_set *set,
                const struct fc_incoming_want *want, struct fc_disk_volume *v,
                bool *make_r, char text[FC_INCOMING_WHY])
{
    struct fc_disk_volume known;
    struct fc_volume_look look;
    memset(v, 0, sizeof(*v));
    v->id = want->id;
    v->size = want->size;
    v->block_bytes = want->block_bytes;
    v->warm = want->warm;
    memcpy(v->migration, want->migration, sizeof(v->migration));
    int rc = fc_disk_template(want->pattern, &want->id, want->name,
                              want->target, v->path);
    if (rc) {
        snprintf(text, FC_INCOMING_WHY,
                 "\"%.150s\" gives no path of a volume for %.150s",
                 want->pattern, want->target);
        return FC_EINVAL;
    }
    bool ours = !fc_diskmeta_volume(set->args.meta, &want->id, &known) &&
                !strcmp(known.path, v->path);
    v->made = ours && known.made;
    if (fc_volume_look(v->path, &look)) {
        snprintf(text, FC_INCOMING_WHY, "%.300s: %s", v->path, strerror(errno));
        return FC_ESYS;
    }
    return fc_volume_check(v->path, &look, v->size, ours, want->overwrite,
                           make_r, text, FC_INCOMING_WHY);
}

/* Somebody else's use of the path, by another disk. */
static bool is_taken(const struct fc_incoming_set *set,
                     const struct fc_disk_volume *v)
{
    for (const struct fc_incoming *n = set->first; n; n = n->next)
        if (!n->removed && !strcmp(n->v.path, v->path) &&
            !fc_disk_id_equal(&n->v.id, &v->id))
            return true;
    return false;
}

/* 0 when there may be a shadow. */
static int admit(struct fc_incoming_set *set,
                 const struct fc_incoming_want *want, char *text)
{
    struct fc_lease lease;
    if (set->args.guest_here(set->args.user, want->id.uuid)) {
        snprintf(text, FC_INCOMING_WHY,
                 "a domain with that uuid is here already");
        return FC_EBUSY;
    }
    int rc = fc_lease_get(set->args.leases, &want->id, &lease);
    if (!rc && lease.epoch >= want->epoch) {
        snprintf(text, FC_INCOMING_WHY,
                 "%s: a newer lease is known here (epoch %llu, %s%s%s); "
                 "see forecopy lease",
                 want->id.vdev, (unsigned long long)lease.epoch,
                 fc_lease_state_name(lease.state), *lease.host ? " at " : "",
                 lease.host);
        rc = FC_EPERM;
    } else if (rc) {
        snprintf(text, FC_INCOMING_WHY, "%s: the lease cannot be read: %s",
                 want->id.vdev, fc_strerror(rc));
    }
    return rc;
}

/* Of a shadow that is there. */
static void reuse(struct fc_incoming *n, const struct fc_incoming_want *want,
                  fc_incoming_done *done, void *user)
{
    char text[FC_INCOMING_WHY];
    /* the source has taken it back since, without this host's hearing of it */
    if (n->v.owned && want->epoch > n->epoch && !n->list && !want->dry_run)
        n->doomed = true;
    if (n->v.owned || n->doomed || n->list || n->v.size != want->size ||
        n->v.block_bytes != want->block_bytes) {
        snprintf(text, sizeof(text),
                 "%s: a shadow %s; try again, or forecopy unshadow",
                 n->v.id.vdev,
                 n->v.owned  ? "of it is still being filled"
                 : n->doomed ? "of it is being discarded"
                 : n->list   ? "of it is at work"
                             : "of another size is there");
        done(user, FC_EBUSY, text);
        return;
    }
    snprintf(text, sizeof(text), "%.300s is there, ours", n->v.path);
    if (!want->dry_run) {
        memcpy(n->v.migration, want->migration, FC_MIGRATION_BYTES);
        n->v.warm = n->v.warm || want->warm;
        keep(n);
    }
    done(user, 0, text);
}

void fc_incoming_prepare(struct fc_incoming_set *set,
                         const struct fc_incoming_want *want,
                         fc_incoming_done *done, void *user)
{
    struct fc_disk_volume v;
    char text[FC_INCOMING_WHY];
    bool make_it = false;
    int rc = admit(set, want, text);
    struct fc_incoming *n = find(set, &want->id);
    if (!rc && n) {
        reuse(n, want, done, user);
        return;
    }
    if (!rc)
        rc = plan(set, want, &v, &make_it, text);
    if (!rc && is_taken(set, &v)) {
        snprintf(text, sizeof(text), "%.300s is another disk's shadow", v.path);
        rc = FC_EPERM;
    }
    if (!rc && set->count >= FC_INCOMING_MAX) {
        snprintf(text, sizeof(text), "too many shadows are here");
        rc = FC_ELIMIT;
    }
    if (rc || want->dry_run) {
        done(user, rc, text);
        return;
    }
    n = make(set, &v);
    if (!n) {
        done(user, FC_ENOMEM, fc_strerror(FC_ENOMEM));
        return;
    }
    n->make = make_it;
    n->done = done;
    n->done_user = user;
    memcpy(n->text, text, sizeof(n->text));
    go(n, ready_steps);
}

void fc_incoming_forget_user(struct fc_incoming_set *set, void *user)
{
    for (struct fc_incoming *n = set->first; n; n = n->next)
        if (n->done_user == user)
            n->done = NULL;
}

static void on_taken(void *user, int rc, struct json_object *reply, int *fd,
                     const char *why)
{
    struct fc_incoming *n = user;
    (void)reply;
    (void)fd;
    if (!rc)
        return;
    fc_warn("%s: the engine takes no channel: %s", n->name, why);
    channel_over(n);
}

int fc_incoming_channel(struct fc_incoming_set *set,
                        const struct fc_disk_id *id, int in, int out,
                        uint64_t *tag_r)
{
    struct fc_incoming *n = find(set, id);
    const int fds[2] = { in, out };
    if (!n || n->doomed || !n->engine || !fc_disk_engine_is_up(n->engine))
        return FC_ENOENT;
    int rc = fc_disk_engine_call(n->engine, fc_disk_engine_request("channel"),
                                 fds, 2, SHORT_MS, on_taken, n);
    if (rc)
        return rc;
    channel_over(n);
    n->tag = *tag_r = ++set->next_tag;
    n->silent_ms = 0;
    n->known = false;
    return 0;
}

int fc_incoming_discard(struct fc_incoming_set *set, const uint8_t *uuid,
                        const uint8_t *migration)
{
    for (struct fc_incoming *n = set->first; n; n = n->next) {
        if (memcmp(n->v.id.uuid, uuid, FC_UUID_BYTES) || n->removed ||
            (migration &&
             memcmp(n->v.migration, migration, FC_MIGRATION_BYTES)))
            continue;
        if (n->v.owned &&
            (!migration || set->args.guest_runs(set->args.user, uuid)))
            return FC_EBUSY;
    }
    for (struct fc_incoming *n = set->first; n; n = n->next)
        if (!memcmp(n->v.id.uuid, uuid, FC_UUID_BYTES) &&
            (!migration ||
             !memcmp(n->v.migration, migration, FC_MIGRATION_BYTES)) &&
            (!n->v.warm || !migration))
            n->doomed = true; /* done by the tick, when no domain has it */
    return 0;
}

int fc_incoming_set_warm(struct fc_incoming_set *set, const uint8_t *uuid,
                         bool warm)
{
    int rc = FC_ENOENT;
    for (struct fc_incoming *n = set->first; n; n = n->next) {
        if (memcmp(n->v.id.uuid, uuid, FC_UUID_BYTES) || n->removed)
            continue;
        n->v.warm = warm;
        keep(n);
        rc = 0;
    }
    return rc;
}

int fc_incoming_set_order(struct fc_incoming_set *set,
                          const struct fc_disk_id *id, const uint32_t *blocks,
                          uint32_t count)
{
    struct fc_incoming *n = find(set, id);
    size_t bytes = (size_t)count * 4;
    if (!n)
        return FC_ENOENT;
    if (blocks) {
        uint64_t total = (n->v.size + n->v.block_bytes - 1) / n->v.block_bytes;
        for (uint32_t i = 0; i < count; i++)
            if (blocks[i] >= total)
                return FC_EINVAL;
        int fd = fc_memfd_new("forecopy-order", bytes);
        if (fd < 0 || pwrite(fd, blocks, bytes, 0) != (ssize_t)bytes) {
            fc_close(&fd);
            return FC_ESYS;
        }
        fc_close(&n->order);
        n->order = fd;
    }
    return n->engine && n->order >= 0
               ? fc_disk_engine_call(n->engine, fc_disk_engine_request("order"),
                                     &n->order, 1, SHORT_MS, on_taken, n)
               : 0;
}

/* ---- as time goes by ---- */

static uint64_t count_of(struct json_object *o, const char *key)
{
    int64_t v = fc_json_int(o, key, 0);
    return v > 0 ? (uint64_t)v : 0;
}

/* The shadow owns the disk since the last look. */
static void take_lease(struct fc_incoming *n)
{
    int rc =
        fc_lease_take(n->set->args.leases, &n->v.id, n->v.migration, n->epoch);
    if (rc) {
        fc_error("%s: epoch %llu, which its engine says that it owns, cannot "
                 "be noted: %s",
                 n->name, (unsigned long long)n->epoch, fc_strerror(rc));
        return;
    }
    n->v.owned = true;
    fc_disk_engine_set_owner(n->engine, true);
    keep(n);
    fc_info("%s: the disk is this host's (epoch %llu)", n->name,
            (unsigned long long)n->epoch);
}

/* It was handed back: nothing was written here. */
static void lose_lease(struct fc_incoming *n)
{
    n->v.owned = false;
    fc_disk_engine_set_owner(n->engine, false);
    keep(n);
    fc_info("%s: the disk was handed back", n->name);
}

static void on_status(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct fc_incoming *n = user;
    (void)fd;
    (void)why;
    n->asked = false;
    if (rc)
        return;
    bool owner = fc_json_bool(reply, "owner", 0);
    n->known = true;
    n->channel = fc_json_bool(reply, "channel", 0);
    n->epoch = count_of(reply, "epoch");
    n->blocks = count_of(reply, "blocks");
    n->valid = count_of(reply, "valid_blocks");
    n->received = count_of(reply, "received_bytes");
    n->reads = count_of(reply, "reads");
    n->hits = count_of(reply, "read_hits");
    n->misses = count_of(reply, "read_misses");
    n->read_ms = count_of(reply, "read_ms_sum");
    n->held = count_of(reply, "held");
    n->prefetched = count_of(reply, "prefetched");
    n->prefetch_used = count_of(reply, "prefetch_used");
    if (n->channel)
        n->silent_ms = 0;
    else if (!n->silent_ms)
        n->silent_ms = fc_now_ms();
    if (!n->channel)
        channel_over(n);
    if (n->list)
        return;
    if (owner && !n->v.owned)
        take_lease(n);
    else if (!owner && n->v.owned)
        lose_lease(n);
}

/* One range for each part of the disk; the engine counts for the whole. */
static void keep_range(struct fc_incoming *n)
{
    struct fc_disk_range whole = { .blocks = (uint32_t)n->blocks,
                                   .valid = (uint32_t)n->valid,
                                   .epoch = n->epoch };
    if (n->blocks && n->blocks <= UINT32_MAX && n->valid <= n->blocks)
        (void)fc_diskmeta_ranges_put(n->set->args.meta, &n->v.id, "-", &whole,
                                     1);
}

static bool may_complete(const struct fc_incoming *n)
{
    char backing[FC_DISK_PATH];
    return n->v.owned && n->known && n->blocks && n->valid == n->blocks &&
           !fc_disk_run_read(n->set->args.env, &n->v.id, "backing", backing);
}

static void tick_one(struct fc_incoming *n, uint64_t now_ms)
{
    const struct fc_incoming_args *a = &n->set->args;
    if (n->engine && fc_disk_engine_is_up(n->engine) && !n->asked)
        n->asked =
            !fc_disk_engine_call(n->engine, fc_disk_engine_request("status"),
                                 NULL, 0, STATUS_MS, on_status, n);
    if (n->list)
        return;
    if (!n->v.owned && !n->v.warm && n->silent_ms &&
        now_ms - n->silent_ms > a->linger_ms) {
        fc_info("%s: nobody fills it any more", n->name);
        n->doomed = true;
    }
    if (n->doomed) {
        if (!a->guest_here(a->user, n->v.id.uuid)) {
            n->v.owned = false; /* the source has taken it back */
            go(n, discard_steps);
        }
    } else if (may_complete(n)) {
        keep_range(n);
        go(n, complete_steps);
    }
}

void fc_incoming_tick(struct fc_incoming_set *set, uint64_t now_ms)
{
    for (struct fc_incoming *n = set->first, *after; n; n = after) {
        after = n->next;
        if (n->removed)
            incoming_free(n);
        else
            tick_one(n, now_ms);
    }
}

static void take_up(void *user, const struct fc_disk_volume *v)
{
    struct fc_incoming_set *set = user;
    char device[FC_DISK_PATH] = "";
    bool was = !fc_disk_run_read(set->args.env, &v->id, "incoming", device);
    if (v->complete || (v->owned && !v->size))
        return;
    /* after a reboot nobody waits for what was neither owned nor warm */
    if (!was && !v->owned && !v->warm)
        return;
    struct fc_incoming *n = make(set, v);
    if (n)
        snprintf(n->device, sizeof(n->device), "%.63s", device);
}

int fc_incoming_new(const struct fc_incoming_args *args,
                    struct fc_incoming_set **set_r)
{
    struct fc_incoming_set *set = calloc(1, sizeof(*set));
    if (!set)
        return FC_ENOMEM;
    set->args = *args;
    int rc = fc_diskmeta_each(args->meta, take_up, set);
    if (rc)
        fc_error("disks that are being filled cannot be looked up: %s",
                 fc_strerror(rc));
    for (struct fc_incoming *n = set->first; n; n = n->next)
        go(n, again_steps);
    set->next_tag = FIRST_TAG;
    *set_r = set;
    return 0;
}

void fc_incoming_free(struct fc_incoming_set *set)
{
    if (!set)
        return;
    while (set->first)
        incoming_free(set->first);
    free(set);
}

void fc_incoming_limits(struct fc_incoming_set *set, unsigned step_ms,
                        unsigned linger_ms)
{
    set->args.step_ms = step_ms;
    set->args.linger_ms = linger_ms;
}

static void put_int(struct json_object *o, const char *key, uint64_t v)
{
    json_object_object_add(o, key, json_object_new_int64((int64_t)v));
}

static void put_text(struct json_object *o, const char *key, const char *v)
{
    json_object_object_add(o, key, json_object_new_string(v));
}

static const char *state_of(const struct fc_incoming *n)
{
    if (n->list == complete_steps)
        return "completing";
    if (n->list == discard_steps || n->doomed)
        return "discarding";
    if (n->list)
        return "preparing";
    if (n->v.owned)
        return "hydrating";
    return n->channel ? "filling" : "waiting";
}

static struct json_object *json_of(const struct fc_incoming *n)
{
    struct json_object *o = json_object_new_object();
    char uuid[FC_UUID_TEXT];
    fc_uuid_format(n->v.id.uuid, uuid);
    put_text(o, "uuid", uuid);
    put_text(o, "vdev", n->v.id.vdev);
    put_text(o, "role", "shadow");
    put_text(o, "state", state_of(n));
    put_text(o, "volume", n->v.path);
    put_text(o, "device", n->device);
    put_text(o, "reason", n->trouble);
    put_int(o, "size", n->v.size);
    put_int(o, "epoch", n->epoch);
    put_int(o, "valid_bytes", n->valid * n->v.block_bytes);
    json_object_object_add(
        o, "coverage_percent",
        json_object_new_double(
            n->blocks ? 100.0 * (double)n->valid / (double)n->blocks : 0));
    json_object_object_add(
        o, "hit_percent",
        json_object_new_double(n->hits + n->misses
                                   ? 100.0 * (double)n->hits /
                                         (double)(n->hits + n->misses)
                                   : 0));
    put_int(o, "received_bytes", n->received);
    put_int(o, "reads", n->reads);
    put_int(o, "read_ms_sum", n->read_ms);
    put_int(o, "held", n->held);
    put_int(o, "prefetched", n->prefetched);
    put_int(o, "prefetch_used", n->prefetch_used);
    json_object_object_add(o, "owned", json_object_new_boolean(n->v.owned));
    json_object_object_add(o, "warm", json_object_new_boolean(n->v.warm));
    json_object_object_add(o, "channel", json_object_new_boolean(n->channel));
    return o;
}

void fc_incoming_json(const struct fc_incoming_set *set, const uint8_t *uuid,
                      struct json_object *list)
{
    for (const struct fc_incoming *n = set->first; n; n = n->next)
        if (!n->removed &&
            (!uuid || !memcmp(n->v.id.uuid, uuid, FC_UUID_BYTES)))
            json_object_array_add(list, json_of(n));
}
