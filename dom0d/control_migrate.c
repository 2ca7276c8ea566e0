/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "err.h"
#include "hashset.h"
#include "log.h"

/*
 * A migration holds its guest from migrate-begin on: dirty log and staging are
 * left alone. The reply waits until the PUTs in flight are acknowledged, for
 * DRAIN_MS at most; what is not acknowledged by then is not in the hash set,
 * and so is sent like any other page.
 *
 * The hold ends with the connection. After a success the guest is disarmed and
 * the destination told that it may free the store; otherwise all goes on as
 * before.
 */
#define DRAIN_MS 1000u
#define DRAIN_TICK_US 20000

struct fc_hold *fc_daemon_hold(struct fc_daemon *d, const uint8_t *uuid)
{
    for (struct fc_hold *h = d->holds; h; h = h->next)
        if (!memcmp(h->uuid, uuid, FC_UUID_BYTES))
            return h;
    return NULL;
}

static void free_hold(struct fc_hold *h)
{
    for (struct fc_hold **at = &h->daemon->holds; *at; at = &(*at)->next)
        if (*at == h) {
            *at = h->next;
            break;
        }
    if (h->drain)
        event_free(h->drain);
    free(h);
}

static struct fc_guest *guest_of(const struct fc_hold *h)
{
    struct fc_armed_guest *a = fc_daemon_armed(h->daemon, h->uuid);
    return a ? a->guest : NULL;
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
    json_object_object_add(o, key, json_object_new_string(text));
}

/* The staged contents: descriptor of the set, or -1. */
static int add_staged(struct json_object *o, const struct fc_guest *g)
{
    struct fc_hashset set;
    struct fc_uplink_status s;
    char token[2 * FC_TOKEN_BYTES + 1];

    fc_uplink_status(g->uplink, &s);
    if (!g->pages.staged || !s.epoch)
        return -1;
    int rc = fc_guest_hashset(g, &set);
    if (rc) {
        fc_warn("%s: cannot list what is staged: %s; it is not used", g->name,
                fc_strerror(rc));
        return -1;
    }
    fc_hex_format(s.token, sizeof(s.token), token);
    add_text(o, "token", token);
    json_object_object_add(o, "epoch", json_object_new_uint64(s.epoch));
    int fd = fcntl(set.fd, F_DUPFD_CLOEXEC, 0);
    fc_hashset_dispose(&set);
    return fd;
}

static void answer(struct fc_hold *h)
{
    struct json_object *o = json_object_new_object();
    const struct fc_guest *g = guest_of(h);
    const struct fc_domain *domain =
        fc_domains_by_uuid(&h->daemon->domains, h->uuid);
    char uuid[FC_UUID_TEXT];
    int fd = -1;

    h->answered = true;
    fc_uuid_format(h->uuid, uuid);
    add_text(o, "uuid", uuid);
    json_object_object_add(o, "domid", json_object_new_int64(h->domid));
    if (g && h->staged_wanted)
        fd = add_staged(o, g);
    json_object_object_add(
        o, "staged_pages",
        json_object_new_int64(fd >= 0 ? (int64_t)g->pages.staged : 0));
    if (domain) {
        struct fc_estimate estimate;
        fc_daemon_estimate(h->daemon, domain, h->host, h->with_disks, 0,
                           &estimate);
        json_object_object_add(o, "estimate", fc_json_estimate(&estimate));
    }
    fc_client_reply(h->client, o, fd);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
    const struct timeval tick = { 0, DRAIN_TICK_US };
    struct fc_hold *h = arg;
    const struct fc_guest *g = guest_of(h);
    (void)fd;
    (void)what;
    if (g && h->staged_wanted && fc_guest_in_flight(g) &&
        fc_now_ms() < h->deadline_ms && !evtimer_add(h->drain, &tick))
        return;
    answer(h);
}

/* "host" of "user@host" */
static const char *host_of(const char *target)
{
    const char *at = strrchr(target, '@');
    return at ? at + 1 : target;
}

void fc_control_migrate_begin(struct fc_daemon *d, struct fc_client *client,
                              struct json_object *req)
{
    const struct timeval now = { 0, 0 };
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    if (!domain)
        return;
    if (fc_daemon_hold(d, domain->uuid)) {
        fc_client_fail(client, FC_EBUSY, "%s is being migrated already",
                       domain->name);
        return;
    }
    struct fc_hold *h = calloc(1, sizeof(*h));
    if (h)
        h->drain = evtimer_new(d->base, on_drain, h);
    if (!h || !h->drain || evtimer_add(h->drain, &now) < 0) {
        if (h && h->drain)
            event_free(h->drain);
        free(h);
        fc_client_fail(client, FC_ENOMEM, "out of memory");
        return;
    }
    h->client = client;
    h->daemon = d;
    h->domid = domain->domid;
    h->start_ms = fc_now_ms();
    h->deadline_ms = h->start_ms + DRAIN_MS;
    h->staged_wanted = !fc_json_bool(req, "no_stage", 0);
    h->with_disks = fc_json_bool(req, "disks", 0);
    memcpy(h->uuid, domain->uuid, FC_UUID_BYTES);
    h->next = d->holds;
    d->holds = h;

    struct fc_armed_guest *a = fc_daemon_armed(d, domain->uuid);
    const char *host = fc_json_str(req, "host", "");
    snprintf(h->host, sizeof(h->host), "%s", host);
    if (a && *host && strcmp(host_of(host), host_of(a->armed.host))) {
        fc_info("%s is armed for %s, not for %s: what is staged is not used",
                domain->name, a->armed.host, host);
        h->staged_wanted = false;
    }
    if (a && a->guest)
        fc_guest_hold(a->guest);
    fc_info("%s (domain %u): a migration begins", domain->name, domain->domid);
}

static void succeeded(struct fc_daemon *d, struct fc_hold *h)
{
    uint8_t uuid[FC_UUID_BYTES];
    memcpy(uuid, h->uuid, sizeof(uuid));
    d->counters.migrations++;
    fc_info("domain %u: migrated in %llu ms", h->domid,
            (unsigned long long)(fc_now_ms() - h->start_ms));
    const struct fc_armed_guest *a = fc_daemon_armed(d, uuid);
    if (a && a->guest)
        fc_guest_send_model(a->guest);
    /* While it is held: its dirty log is not touched any more. */
    (void)fc_daemon_disarm(d, uuid, FC_BYE_MIGRATED, "migrated");
    free_hold(h);
}

static void failed(struct fc_daemon *d, struct fc_hold *h)
{
    struct fc_guest *g = guest_of(h);
    uint32_t domid = h->domid;
    d->counters.migrations_failed++;
    fc_info("domain %u: the migration ended without success", domid);
    free_hold(h);
    if (!g)
        return;
    fc_guest_release(g, fc_now_ms());
    const struct fc_domain *domain =
        fc_domains_by_uuid(&d->domains, g->armed.uuid);
    if (!domain || domain->domid != domid) {
        struct fc_domain gone = { .domid = domid };
        memcpy(gone.uuid, g->armed.uuid, FC_UUID_BYTES);
        memcpy(gone.name, g->name, sizeof(gone.name));
        fc_daemon_domain_gone(d, &gone);
    }
}

/* A count, which cannot be more than this. */
static uint64_t number(struct json_object *o, const char *key)
{
    int64_t n = fc_json_int(o, key, 0);
    return n > 0 && n < INT64_C(1) << 50 ? (uint64_t)n : 0;
}

/* What this migration teaches for the next one's estimate. */
static void learn(struct fc_daemon *d, const struct fc_hold *h,
                  struct json_object *summary)
{
    const struct fc_guest *g = guest_of(h);
    struct fc_uplink_status s = { 0 };
    if (g)
        fc_uplink_status(g->uplink, &s);
    double link_bps = (double)number(summary, "link_bps");
    struct fc_migration m = {
        .with_disks = h->with_disks,
        .elapsed_ms = (double)number(summary, "elapsed_ms"),
        .precopy_ms = (double)number(summary, "precopy_ms"),
        .outage_ms = (double)number(summary, "outage_ms"),
        .first_ms = (double)number(summary, "first_round_ms"),
        .first_pages = number(summary, "first_round_pages"),
        .first_bytes = number(summary, "first_round_bytes"),
        .later_ms = (double)number(summary, "later_rounds_ms"),
        .later_pages = number(summary, "later_rounds_pages"),
        .later_bytes = number(summary, "later_rounds_bytes"),
        .final_bytes = number(summary, "final_bytes"),
        .link_bps = link_bps > 0 ? link_bps : s.link_bps,
    };
    fc_calibration_learn(&d->calibration, &m);
    fc_linkrate_learn(&d->links, h->host, link_bps);
    if (d->db && (fc_armed_db_calibrate(d->db, &d->calibration) ||
                  fc_armed_db_links_put(d->db, &d->links)))
        fc_warn("cannot keep what a migration has taught on disk");
}

void fc_control_migrate_end(struct fc_daemon *d, struct fc_client *client,
                            struct json_object *req)
{
    uint8_t uuid[FC_UUID_BYTES];
    struct json_object *summary = NULL;
    struct fc_hold *h = NULL;
    if (!fc_uuid_parse(fc_json_str(req, "uuid", ""), uuid))
        h = fc_daemon_hold(d, uuid);
    if (!h || h->client != client) {
        fc_client_fail(client, FC_EINVAL,
                       "this connection began no migration "
                       "of that guest");
        return;
    }
    if (json_object_object_get_ex(req, "summary", &summary) && summary) {
        fc_info(
            "domain %u: summary: %.800s", h->domid,
            json_object_to_json_string_ext(summary, JSON_C_TO_STRING_PLAIN));
        d->counters.migration_bytes += number(summary, "bytes_sent");
    }
    bool success = fc_json_bool(req, "success", 0);
    if (success && summary)
        learn(d, h, summary);
    if (success)
        succeeded(d, h);
    else
        failed(d, h);
    fc_client_reply(client, NULL, -1);
}

void fc_control_migrate_gone(struct fc_daemon *d, struct fc_client *client)
{
    for (struct fc_hold *h = d->holds, *next; h; h = next) {
        next = h->next;
        if (h->client != client)
            continue;
        if (d->stopping)
            fc_info("domain %u: its migration goes on without us", h->domid);
        else
            fc_warn("domain %u: whoever migrated it has gone without a word",
                    h->domid);
        failed(d, h);
    }
}
