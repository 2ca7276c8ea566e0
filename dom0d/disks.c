/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disks.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ctl.h"
#include "blocktrace.h"
#include "disk_kept.h"
#include "disks_int.h"
#include "err.h"
#include "log.h"

/*
 * A hold is a migration's (or a warm shadow's) disks as clients know them. It
 * outlives its job by KEEP_MS, so that a question about what became of it has
 * an answer.
 *
 * The end of the connection that began it is an abort while the leases are not
 * passed. Afterwards it means nothing: the disks are the destination's, and the
 * guest may run there. Only a guest that runs on here under its own name shows
 * that nobody let it go, and then the destination is asked to hand them back.
 */
#define ORDER_MS 10000u /* between two looks at what is read */
#define KEEP_MS 3600000u
#define RESUMED_MS 5000u   /* after passing; xl needs some time to go on */
#define ASK_BACK_MS 10000u /* between two times */
#define AWAY "--migratedaway"

struct fc_disk_hold *fc_disks_hold_new(struct fc_disks *s, const uint8_t *uuid)
{
    struct fc_disk_hold *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->disks = s;
    memcpy(h->uuid, uuid, FC_UUID_BYTES);
    h->next = s->holds;
    s->holds = h;
    s->hold_count++;
    return h;
}

void fc_disks_hold_free(struct fc_disk_hold *h)
{
    struct fc_disks *s = h->disks;
    for (struct fc_disk_hold **at = &s->holds; *at; at = &(*at)->next)
        if (*at == h) {
            *at = h->next;
            s->hold_count--;
            break;
        }
    fc_disk_job_leave(h->job);
    fc_blocktrace_want(s->daemon->blocktrace, h->uuid, false);
    json_object_put(h->last);
    free(h);
}

struct fc_disk_hold *fc_disks_hold_of(struct fc_disks *s, const uint8_t *uuid)
{
    for (struct fc_disk_hold *h = s ? s->holds : NULL; h; h = h->next)
        if (h->job && !memcmp(h->uuid, uuid, FC_UUID_BYTES))
            return h;
    return NULL;
}

static void on_begun(void *user, struct fc_disk_job *job, int rc,
                     const char *why)
{
    struct fc_disk_hold *h = user;
    memcpy(h->migration, fc_disk_job_migration(job), FC_MIGRATION_BYTES);
    fc_disks_answer_begin(h, rc, why);
}

static void on_flipped(void *user, struct fc_disk_job *job, int rc,
                       const char *why)
{
    struct fc_disk_hold *h = user;
    (void)job;
    h->passed = rc == 0;
    h->passed_ms = fc_now_ms();
    fc_disks_answer_flip(h, rc, why);
}

/* The job is freed by the next tick: it is its own caller here. */
static void on_over(void *user, struct fc_disk_job *job)
{
    struct fc_disk_hold *h = user;
    h->over_ms = fc_now_ms();
    json_object_put(h->last);
    h->last = fc_disk_job_json(job);
}

const struct fc_job_events fc_disks_job_events = { on_begun, on_flipped,
                                                   on_over };

static uint32_t power_of_two(uint64_t v)
{
    uint32_t p = 4096;
    while ((uint64_t)p * 2 <= v && p < 1u << 20)
        p *= 2;
    return p;
}

void fc_disks_job_args(struct fc_disks *s, const uint8_t *uuid,
                       struct fc_job_args *args)
{
    struct fc_daemon *d = s->daemon;
    const struct fc_settings *set = fc_daemon_guest_settings(d, uuid, false);
    const struct fc_armed_guest *a = fc_daemon_armed(d, uuid);
    if (!set)
        set = &d->settings;
    memset(args, 0, sizeof(*args));
    args->env = &s->env;
    args->leases = s->leases;
    args->meta = s->meta;
    memcpy(args->uuid, uuid, FC_UUID_BYTES);
    snprintf(args->command, sizeof(args->command), "%s",
             a && *a->armed.command
                 ? a->armed.command
                 : fc_settings_text(set, FC_SET_CHANNEL_COMMAND));
    args->block_bytes = power_of_two(fc_settings_u64(set, FC_SET_DISK_BLOCK));
    args->step_ms =
        (unsigned)fc_settings_u64(&d->settings, FC_SET_DISK_STEP) * 1000;
    args->converge_ms = (unsigned)fc_settings_u64(set, FC_SET_DISK_FENCE);
    args->peer_ms = (unsigned)fc_settings_u64(set, FC_SET_PEER_TIMEOUT) * 1000;
}

/* ---- what an earlier daemon left ---- */

static void resume_guest(struct fc_disks *s, const uint8_t *uuid)
{
    struct fc_job_args args;
    char why[FC_JOB_WHY] = "";
    struct fc_disk_hold *h = fc_disks_hold_new(s, uuid);
    if (!h)
        return;
    fc_disks_job_args(s, uuid, &args);
    int rc = fc_disk_job_resume(&args, &fc_disks_job_events, h, &h->job, why);
    if (rc) {
        fc_disks_hold_free(h);
        return;
    }
    memcpy(h->migration, fc_disk_job_migration(h->job), FC_MIGRATION_BYTES);
    h->passed = fc_disk_job_state(h->job) == FC_JOB_LEASED;
    h->passed_ms = fc_now_ms();
    h->warm = !h->passed && fc_disk_job_state(h->job) != FC_JOB_FAILED &&
              fc_disk_job_is_warm(h->job);
    if (!h->warm)
        fc_info("disks of an earlier migration: %s",
                h->passed ? "they are served on" : "they are taken back");
}

static void resume_all(struct fc_disks *s)
{
    DIR *dir = opendir(s->env.run_dir);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        struct fc_disk_id id;
        char text[FC_DISK_PATH];
        if (fc_disk_id_parse(entry->d_name, &id) ||
            fc_disk_run_read(&s->env, &id, "state.json", text) ||
            fc_disks_hold_of(s, id.uuid))
            continue;
        resume_guest(s, id.uuid);
    }
    if (dir)
        closedir(dir);
}

struct offered {
    struct fc_disks *disks;
    struct fc_lease lease[FC_DISK_HOLDS];
    unsigned count;
};

static void note_offered(void *user, const struct fc_lease *lease)
{
    struct offered *o = user;
    if (lease->state == FC_LEASE_OFFERED && o->count < FC_DISK_HOLDS &&
        !fc_disks_hold_of(o->disks, lease->id.uuid))
        o->lease[o->count++] = *lease;
}

/* Offers of a migration that ended with this host's power: they were never
 * passed, so nobody can have written elsewhere. */
static void return_offers(struct fc_disks *s)
{
    struct offered *o = calloc(1, sizeof(*o));
    char name[FC_DISK_ID_TEXT];
    if (!o)
        return;
    o->disks = s;
    int rc = fc_lease_each(s->leases, note_offered, o);
    for (unsigned i = 0; i < o->count && !rc; i++) {
        const struct fc_lease *l = &o->lease[i];
        fc_disk_id_format(&l->id, name);
        rc = fc_lease_return(s->leases, &l->id, l->migration, false);
        if (!rc)
            fc_info("%s: the offer to %s is taken back", name, l->host);
    }
    if (rc)
        fc_error("offers of disks cannot be taken back: %s", fc_strerror(rc));
    free(o);
}

static bool guest_here(void *user, const uint8_t *uuid)
{
    const struct fc_disks *s = user;
    return fc_domains_by_uuid(&s->daemon->domains, uuid) != NULL;
}

static bool guest_runs(void *user, const uint8_t *uuid)
{
    const struct fc_disks *s = user;
    const struct fc_domain *domain =
        fc_domains_by_uuid(&s->daemon->domains, uuid);
    return domain && !domain->paused && !domain->suspended && !domain->dying;
}

static void channel_ended(void *user, uint64_t tag)
{
    struct fc_disks *s = user;
    struct fc_client *client =
        s->daemon->control ? fc_control_by_tag(s->daemon->control, tag) : NULL;
    if (client)
        fc_client_close(client);
}

static int open_databases(struct fc_disks *s)
{
    const struct fc_daemon_config *c = s->daemon->config;
    snprintf(s->lease_dir, sizeof(s->lease_dir), "%s/lease", c->disks_dir);
    snprintf(s->meta_dir, sizeof(s->meta_dir), "%s/meta", c->disks_dir);
    snprintf(s->map_dir, sizeof(s->map_dir), "%s/maps", c->disks_dir);
    if ((mkdir(c->disks_dir, 0700) < 0 && errno != EEXIST) ||
        (mkdir(s->map_dir, 0700) < 0 && errno != EEXIST))
        return FC_ESYS;
    int rc = fc_lease_db_open(s->lease_dir, &s->leases);
    return rc ? rc : fc_diskmeta_open(s->meta_dir, &s->meta);
}

int fc_disks_new(struct fc_daemon *d, struct fc_disks **disks_r)
{
    const struct fc_daemon_config *c = d->config;
    struct fc_disks *s = calloc(1, sizeof(*s));
    if (!s)
        return FC_ENOMEM;
    s->daemon = d;
    s->env = (struct fc_disk_env){ .base = d->base,
                                   .children = d->children,
                                   .run_dir = c->disks_run,
                                   .state_dir = s->map_dir,
                                   .nbdkit = c->nbdkit,
                                   .plugin = c->nbdkit_plugin,
                                   .tool = c->block_tool,
                                   .uid = c->engine_uid,
                                   .gid = c->engine_gid,
                                   .trace = d->blocktrace };
    int rc = open_databases(s);
    struct fc_incoming_args args = {
        .env = &s->env,
        .leases = s->leases,
        .meta = s->meta,
        .guest_here = guest_here,
        .guest_runs = guest_runs,
        .channel_ended = channel_ended,
        .user = s,
        .step_ms =
            (unsigned)fc_settings_u64(&d->settings, FC_SET_DISK_STEP) * 1000,
        .linger_ms =
            (unsigned)fc_settings_u64(&d->settings, FC_SET_DISK_LINGER) * 1000,
    };
    if (!rc)
        rc = fc_incoming_new(&args, &s->incoming);
    if (rc) {
        int saved = errno;
        fc_disks_free(s);
        errno = saved;
        return rc;
    }
    fc_disk_kept_restore(&s->env, s->leases);
    resume_all(s);
    return_offers(s);
    *disks_r = s;
    return 0;
}

void fc_disks_free(struct fc_disks *s)
{
    if (!s)
        return;
    while (s->holds)
        fc_disks_hold_free(s->holds);
    fc_disks_prepare_gone(s, NULL);
    fc_incoming_free(s->incoming);
    fc_diskmeta_close(s->meta);
    fc_lease_db_close(s->leases);
    free(s);
}

/* ---- as time goes by ---- */

/* The guest's limit: disks get their share of it while they are copied, and
 * staging the rest. */
static void share_rate(struct fc_disk_hold *h)
{
    struct fc_daemon *d = h->disks->daemon;
    struct fc_armed_guest *a = fc_daemon_armed(d, h->uuid);
    const struct fc_settings *set = fc_daemon_guest_settings(d, h->uuid, false);
    if (!set)
        set = &d->settings;
    double share = fc_settings_double(set, FC_SET_DISK_RATE) / 100;
    uint64_t limit = h->max_rate;
    if (!limit)
        limit = a && a->armed.rate_bytes
                    ? a->armed.rate_bytes
                    : fc_settings_u64(set, FC_SET_STAGE_RATE);
    bool staging = a && a->guest && !h->passed;
    if (staging)
        a->guest->rate_share = 1 - share;
    fc_disk_job_set_rate(h->job, staging && limit
                                     ? 1 + (uint64_t)((double)limit * share)
                                     : limit);
}

static void unshare_rate(struct fc_disk_hold *h)
{
    struct fc_armed_guest *a = fc_daemon_armed(h->disks->daemon, h->uuid);
    if (a && a->guest)
        a->guest->rate_share = 1;
}

static bool is_away(const struct fc_domain *domain)
{
    size_t len = strlen(domain->name), away = strlen(AWAY);
    return len > away && !strcmp(domain->name + len - away, AWAY);
}

/* Where the guest of a handed-over hold is: gone from here; about to be, being
 * destroyed by xl; or running on here, because xl gave up. */
static void look_for_guest(struct fc_disk_hold *h, uint64_t now_ms)
{
    const struct fc_domain *domain =
        fc_domains_by_uuid(&h->disks->daemon->domains, h->uuid);
    if (!domain || domain->dying ||
        (is_away(domain) && domain->suspended && domain->paused)) {
        fc_disk_job_guest_gone(h->job);
        return;
    }
    if (domain->suspended || domain->paused || is_away(domain) ||
        now_ms - h->passed_ms < RESUMED_MS ||
        now_ms - h->asked_back_ms < ASK_BACK_MS)
        return;
    h->asked_back_ms = now_ms;
    fc_warn("%s runs on here though its disks were handed over; they are "
            "asked back",
            domain->name);
    fc_disk_job_fail(h->job, "xl resumed the guest here", true);
}

/* What is likeliest to be read goes first. */
static void order_blocks(struct fc_disk_hold *h, uint64_t now_ms)
{
    struct fc_blocktrace *trace = h->disks->daemon->blocktrace;
    const char *vdev;
    uint32_t block_bytes, count, *blocks;
    uint64_t size;
    if (h->order_ms && now_ms - h->order_ms < ORDER_MS)
        return;
    h->order_ms = now_ms;
    fc_blocktrace_want(trace, h->uuid, true);
    for (unsigned i = 0;
         (vdev = fc_disk_job_disk(h->job, i, &block_bytes, &size)); i++) {
        if (fc_blocktrace_order(trace, h->uuid, vdev, block_bytes, size,
                                &blocks, &count))
            continue;
        int rc = fc_disk_job_set_order(h->job, vdev, blocks, count);
        if (rc)
            fc_warn("%s: the predicted order of blocks is not used: %s", vdev,
                    fc_strerror(rc));
        free(blocks);
    }
}

static void tick_hold(struct fc_disk_hold *h, uint64_t now_ms)
{
    if (h->over_ms && h->job) {
        unshare_rate(h);
        fc_disk_job_leave(h->job);
        fc_blocktrace_want(h->disks->daemon->blocktrace, h->uuid, false);
        h->job = NULL;
    }
    if (h->job && h->passed)
        look_for_guest(h, now_ms);
    if (h->job && !h->dry_run) {
        share_rate(h);
        order_blocks(h, now_ms);
        fc_disk_job_tick(h->job, now_ms);
    }
    if (!h->job && !h->client && (h->dry_run || now_ms - h->over_ms > KEEP_MS))
        fc_disks_hold_free(h);
}

void fc_disks_tick(struct fc_disks *s, uint64_t now_ms)
{
    if (!s)
        return;
    const struct fc_settings *set = &s->daemon->settings;
    fc_incoming_limits(
        s->incoming, (unsigned)fc_settings_u64(set, FC_SET_DISK_STEP) * 1000,
        (unsigned)fc_settings_u64(set, FC_SET_DISK_LINGER) * 1000);
    for (struct fc_disk_hold *h = s->holds, *next; h; h = next) {
        next = h->next;
        tick_hold(h, now_ms);
    }
    fc_incoming_tick(s->incoming, now_ms);
}

void fc_disks_client_gone(struct fc_disks *s, struct fc_client *client)
{
    if (!s)
        return;
    fc_disks_prepare_gone(s, client);
    for (struct fc_disk_hold *h = s->holds; h; h = h->next) {
        for (unsigned i = 0; i < FC_DISK_FLIPPERS; i++)
            if (h->flipper[i] == client)
                h->flipper[i] = NULL;
        if (h->client != client)
            continue;
        h->client = NULL;
        h->beginning = false;
        /* a daemon that stops leaves things to the one that starts */
        if (h->job && !h->over_ms && !h->passed && !h->warm &&
            !s->daemon->stopping)
            fc_disk_job_fail(h->job, "whoever migrated it has gone", false);
    }
}

bool fc_disks_request(struct fc_daemon *d, const char *name,
                      struct fc_client *client, struct json_object *req,
                      int *fds)
{
    static const struct {
        const char *name;
        void (*run)(struct fc_disks *s, struct fc_client *client,
                    struct json_object *req);
    } requests[] = {
        { "disk-begin", fc_disks_begin },
        { "disk-status", fc_disks_status },
        { "disk-flip", fc_disks_flip },
        { "disk-end", fc_disks_end },
        { "disk-prepare", fc_disks_prepare },
        { "disks", fc_disks_list },
        { "shadow", fc_disks_shadow },
        { "unshadow", fc_disks_unshadow },
        { "lease-show", fc_disks_lease_show },
        { "lease-override", fc_disks_lease_override },
    };
    bool receive = !strcmp(name, "disk-receive");
    unsigned i = 0, count = sizeof(requests) / sizeof(requests[0]);
    while (!receive && i < count && strcmp(requests[i].name, name))
        i++;
    if (!receive && i == count)
        return false;
    if (!d->disks)
        fc_client_fail(client, FC_ESYS,
                       "this host's daemon cannot keep disks; see its log");
    else if (receive)
        fc_disks_receive(d->disks, client, req, fds);
    else
        requests[i].run(d->disks, client, req);
    return true;
}
