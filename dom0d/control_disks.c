/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests about the disks of a guest that is here. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "disks_int.h"
#include "err.h"
#include "log.h"

#define FLIP_MS 60000
#define MAX_FLIP_MS 600000

static struct json_object *text_of(const char *text)
{
    return json_object_new_string(text);
}

static struct fc_disk_hold *by_migration(struct fc_disks *s,
                                         struct fc_client *client,
                                         struct json_object *req)
{
    uint8_t migration[FC_MIGRATION_BYTES], uuid[FC_UUID_BYTES];
    const char *hex = fc_json_str(req, "migration", NULL);
    struct fc_disk_hold *h = NULL;
    if (hex && !fc_hex_parse(hex, migration, sizeof(migration))) {
        for (h = s->holds; h; h = h->next)
            if (!memcmp(h->migration, migration, sizeof(migration)))
                break;
    } else if (!hex && !fc_uuid_parse(fc_json_str(req, "uuid", ""), uuid)) {
        h = fc_disks_hold_of(s, uuid);
    }
    if (!h)
        fc_client_fail(client, FC_ENOENT,
                       "no migration of disks is known by that name");
    return h;
}

void fc_disks_answer_begin(struct fc_disk_hold *h, int rc, const char *why)
{
    char hex[FC_MIGRATION_TEXT];
    if (!h->beginning || !h->client)
        return;
    h->beginning = false;
    if (rc) {
        fc_client_fail(h->client, rc, "%s", why);
        return;
    }
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "disks", fc_disk_job_disks(h->job));
    if (!h->dry_run) {
        fc_hex_format(h->migration, FC_MIGRATION_BYTES, hex);
        json_object_object_add(o, "migration", text_of(hex));
    }
    fc_client_reply(h->client, o, -1);
}

/* One that is there already: a warm shadow at that host is taken over. */
static void adopt(struct fc_disk_hold *h, struct fc_client *client,
                  const struct fc_domain *domain, const char *host, bool lazy)
{
    if (!h->warm || strcmp(fc_disk_job_host(h->job), host) ||
        fc_disk_job_adopt(h->job, lazy)) {
        fc_client_fail(client, FC_EBUSY, "%s: its disks are %s %s already",
                       domain->name,
                       h->warm ? "being copied to" : "on their way to",
                       fc_disk_job_host(h->job));
        return;
    }
    h->warm = false;
    h->client = client;
    h->beginning = true;
    fc_disks_answer_begin(h, 0, "");
}

static void start(struct fc_disks *s, struct fc_client *client,
                  const struct fc_domain *domain, struct json_object *req,
                  const struct fc_job_args *args)
{
    char why[FC_JOB_WHY] = "";
    if (s->hold_count >= FC_DISK_HOLDS) {
        fc_client_fail(client, FC_ELIMIT, "too many migrations are kept");
        return;
    }
    struct fc_disk_hold *h = fc_disks_hold_new(s, domain->uuid);
    if (!h) {
        fc_client_fail(client, FC_ENOMEM, "out of memory");
        return;
    }
    int64_t rate = fc_json_int(req, "max_rate", 0);
    h->max_rate = rate > 0 ? (uint64_t)rate : 0;
    h->dry_run = args->dry_run;
    h->warm = args->warm;
    int rc = fc_disk_job_new(args, &fc_disks_job_events, h, &h->job, why);
    if (rc) {
        fc_disks_hold_free(h);
        fc_client_fail(client, rc, "%s", why);
        return;
    }
    memcpy(h->migration, fc_disk_job_migration(h->job), FC_MIGRATION_BYTES);
    h->client = client;
    h->beginning = true;
    fc_info("%s: its disks go to %s%s", domain->name, args->host,
            args->dry_run ? ", to see whether they could"
            : args->warm  ? ", to be kept there"
                          : "");
}

/* What begin and shadow have in common; false after answering. */
static bool take_args(struct fc_disks *s, struct fc_client *client,
                      struct json_object *req, const struct fc_domain *domain,
                      struct fc_job_args *args)
{
    const char *host = fc_json_str(req, "host", "");
    const char *template = fc_json_str(req, "template", "");
    fc_disks_job_args(s, domain->uuid, args);
    if (!fc_settings_host_ok(host) || strlen(host) >= sizeof(args->host)) {
        fc_client_fail(client, FC_EINVAL, "\"%.100s\" is no name of a host",
                       host);
        return false;
    }
    if (strlen(template) >= sizeof(args->template_)) {
        fc_client_fail(client, FC_EINVAL, "the template is too long");
        return false;
    }
    strcpy(args->host, host);
    strcpy(args->template_, template);
    memcpy(args->name, domain->name, sizeof(args->name));
    args->overwrite = fc_json_bool(req, "overwrite", 0);
    return true;
}

void fc_disks_begin(struct fc_disks *s, struct fc_client *client,
                    struct json_object *req)
{
    struct fc_job_args args;
    const char *mode = fc_json_str(req, "mode", "complete");
    const struct fc_domain *domain = fc_control_domain(s->daemon, client, req);
    if (!domain || !take_args(s, client, req, domain, &args))
        return;
    if (strcmp(mode, "complete") && strcmp(mode, "lazy")) {
        fc_client_fail(client, FC_EINVAL, "mode is complete or lazy");
        return;
    }
    args.lazy = !strcmp(mode, "lazy");
    args.dry_run = fc_json_bool(req, "dry_run", 0);
    struct fc_disk_hold *h = fc_disks_hold_of(s, domain->uuid);
    if (h && !args.dry_run)
        adopt(h, client, domain, args.host, args.lazy);
    else
        start(s, client, domain, req, &args);
}

void fc_disks_status(struct fc_disks *s, struct fc_client *client,
                     struct json_object *req)
{
    struct fc_disk_hold *h = by_migration(s, client, req);
    if (!h)
        return;
    fc_client_reply(client,
                    h->job && !h->over_ms ? fc_disk_job_json(h->job)
                                          : json_object_get(h->last),
                    -1);
}

void fc_disks_answer_flip(struct fc_disk_hold *h, int rc, const char *why)
{
    for (unsigned i = 0; i < FC_DISK_FLIPPERS; i++) {
        struct fc_client *client = h->flipper[i];
        h->flipper[i] = NULL;
        if (client && rc)
            fc_client_fail(client, rc, "%s", why);
        else if (client)
            fc_client_reply(client, NULL, -1);
    }
}

void fc_disks_flip(struct fc_disks *s, struct fc_client *client,
                   struct json_object *req)
{
    char why[FC_JOB_WHY];
    unsigned slot = 0;
    int64_t timeout = fc_json_int(req, "timeout_ms", FLIP_MS);
    struct fc_disk_hold *h = by_migration(s, client, req);
    if (!h)
        return;
    if (timeout < 1 || timeout > MAX_FLIP_MS) {
        fc_client_fail(client, FC_EINVAL, "timeout_ms is 1 to %d", MAX_FLIP_MS);
        return;
    }
    if (h->passed) { /* whatever has become of it: the record decides */
        fc_client_reply(client, NULL, -1);
        return;
    }
    if (!h->job || h->over_ms || h->warm) {
        fc_client_fail(client, FC_EBUSY, "%s",
                       h->warm ? "the shadow belongs to no migration yet"
                               : fc_json_str(h->last, "reason", "it is over"));
        return;
    }
    while (slot < FC_DISK_FLIPPERS && h->flipper[slot])
        slot++;
    if (slot == FC_DISK_FLIPPERS) {
        fc_client_fail(client, FC_ELIMIT, "it is asked for often enough");
        return;
    }
    h->flipper[slot] = client;
    int rc = fc_disk_job_flip(h->job, (unsigned)timeout, why);
    if (rc)
        fc_disks_answer_flip(h, rc, why);
}

void fc_disks_end(struct fc_disks *s, struct fc_client *client,
                  struct json_object *req)
{
    bool success = fc_json_bool(req, "success", 0);
    bool unknown = fc_json_bool(req, "unknown", 0);
    struct fc_disk_hold *h = by_migration(s, client, req);
    if (!h)
        return;
    if (success && !h->passed) {
        fc_client_fail(client, FC_EINVAL,
                       "the disks were not handed over, so this was no "
                       "success");
        return;
    }
    if (h->client == client)
        h->client = NULL;
    if (h->job && !h->over_ms && success)
        fc_disk_job_succeed(h->job);
    else if (h->job && !h->over_ms && unknown && h->passed)
        fc_warn("nobody knows where the guest runs; the lease of its disks "
                "stands, see forecopy lease");
    else if (h->job && !h->over_ms)
        fc_disk_job_fail(h->job, "the migration failed", true);
    fc_client_reply(client, NULL, -1);
}

void fc_disks_shadow(struct fc_disks *s, struct fc_client *client,
                     struct json_object *req)
{
    struct fc_job_args args;
    const struct fc_domain *domain = fc_control_domain(s->daemon, client, req);
    if (!domain || !take_args(s, client, req, domain, &args))
        return;
    const struct fc_disk_hold *h = fc_disks_hold_of(s, domain->uuid);
    if (h) {
        fc_client_fail(client, FC_EBUSY,
                       "%s: its disks are copied to %s "
                       "already",
                       domain->name, fc_disk_job_host(h->job));
        return;
    }
    args.warm = true;
    start(s, client, domain, req, &args);
}

void fc_disks_unshadow(struct fc_disks *s, struct fc_client *client,
                       struct json_object *req)
{
    const char *host = fc_json_str(req, "host", "");
    const struct fc_domain *domain = fc_control_domain(s->daemon, client, req);
    if (!domain)
        return;
    struct fc_disk_hold *h = fc_disks_hold_of(s, domain->uuid);
    if (!h || !h->warm || strcmp(fc_disk_job_host(h->job), host)) {
        fc_client_fail(client, FC_ENOENT, "%s has no shadow at %.100s",
                       domain->name, host);
        return;
    }
    fc_disk_job_fail(h->job, "the shadow is given up", false);
    fc_client_reply(client, NULL, -1);
}
