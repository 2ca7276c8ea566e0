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

#define FIRST_TAG (1ull << 62) /* keepers' channels count from 1 */
#define SHORT_MS 10000u
#define STATUS_MS 20000u
#define KEEP_MS 10000u /* between two writes of what is only shown */

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
    free(n);
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
    n->silent_ms = fc_now_ms();
    fc_disk_id_format(&v->id, n->name);
    n->again = evtimer_new(set->args.env->base, fc_incoming_on_again, n);
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
        fc_incoming_keep(n);
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
    fc_incoming_go(n, fc_incoming_ready);
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
    fc_incoming_channel_over(n);
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
    fc_incoming_channel_over(n);
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
    fc_incoming_keep(n);
    fc_info("%s: the disk is this host's (epoch %llu)", n->name,
            (unsigned long long)n->epoch);
}

/* It was handed back: nothing was written here. */
static void lose_lease(struct fc_incoming *n)
{
    n->v.owned = false;
    fc_disk_engine_set_owner(n->engine, false);
    fc_incoming_keep(n);
    fc_info("%s: the disk was handed back", n->name);
}

static void on_status(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct fc_incoming *n = user;
    struct json_object *metrics;
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
    if (json_object_object_get_ex(reply, "metrics", &metrics))
        fc_readstats_of_json(metrics, &n->stats);
    n->read_ms = count_of(reply, "read_ms_sum");
    n->held = count_of(reply, "held");
    n->prefetched = count_of(reply, "prefetched");
    n->prefetch_used = count_of(reply, "prefetch_used");
    if (n->channel)
        n->silent_ms = 0;
    else if (!n->silent_ms)
        n->silent_ms = fc_now_ms();
    if (!n->channel)
        fc_incoming_channel_over(n);
    if (n->list)
        return;
    if (owner && !n->v.owned)
        take_lease(n);
    else if (!owner && n->v.owned)
        lose_lease(n);
}

static void survey(struct fc_incoming *n, uint64_t now_ms)
{
    struct fc_disk_survey *v = &n->survey;
    v->env = n->set->args.env;
    v->meta = n->set->args.meta;
    v->id = n->v.id;
    strcpy(v->host, "-");
    v->size = n->v.size;
    v->block_bytes = n->v.block_bytes;
    v->epoch = n->epoch;
    if (n->known)
        fc_disk_survey_tick(v, n->engine,
                            1 + n->valid + n->epoch + n->received + n->reads,
                            now_ms);
}

/* What is shown of it after a restart, and after it is complete. */
static void keep_stats(struct fc_incoming *n, uint64_t now_ms)
{
    n->kept_ms = now_ms;
    if (!memcmp(&n->stats, &n->kept_stats, sizeof(n->stats)))
        return;
    int rc = fc_diskmeta_reads_put(n->set->args.meta, &n->v.id, &n->stats);
    if (rc)
        fc_warn("%s: how its reads were served cannot be kept: %s", n->name,
                fc_strerror(rc));
    n->kept_stats = n->stats;
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
    if (now_ms - n->kept_ms >= KEEP_MS)
        keep_stats(n, now_ms);
    survey(n, now_ms);
    if (!n->v.owned && !n->v.warm && n->silent_ms &&
        now_ms - n->silent_ms > a->linger_ms) {
        fc_info("%s: nobody fills it any more", n->name);
        n->doomed = true;
    }
    if (n->doomed) {
        if (!a->guest_here(a->user, n->v.id.uuid)) {
            n->v.owned = false; /* the source has taken it back */
            fc_incoming_go(n, fc_incoming_discard_it);
        }
    } else if (may_complete(n)) {
        fc_disk_survey_complete(&n->survey);
        keep_stats(n, now_ms);
        fc_incoming_go(n, fc_incoming_complete);
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
    if (n && !fc_diskmeta_reads(set->args.meta, &v->id, &n->stats))
        n->kept_stats = n->stats;
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
        fc_incoming_go(n, fc_incoming_again);
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
