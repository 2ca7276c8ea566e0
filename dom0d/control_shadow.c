/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests about disks that come here, about leases, and the list of all. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "disks_int.h"
#include "err.h"
#include "log.h"

static void add_text(struct json_object *o, const char *key, const char *text)
{
    json_object_object_add(o, key, json_object_new_string(text));
}

void fc_disks_receive(struct fc_disks *s, struct fc_client *client,
                      struct json_object *req, int *fds)
{
    struct fc_disk_id id;
    uint64_t tag;
    const char *vdev = fc_json_str(req, "vdev", "");
    memset(&id, 0, sizeof(id));
    if (fc_uuid_parse(fc_json_str(req, "uuid", ""), id.uuid) ||
        !fc_vdev_ok(vdev)) {
        fc_client_fail(client, FC_EINVAL, "uuid or vdev is not as it must be");
        return;
    }
    strcpy(id.vdev, vdev);
    if (fds[0] < 0 || fds[1] < 0) {
        fc_client_fail(client, FC_EINVAL, "two descriptors are needed");
        return;
    }
    int rc = fc_incoming_channel(s->incoming, &id, fds[0], fds[1], &tag);
    if (rc) {
        fc_client_fail(client, rc, "%s: no shadow takes a channel: %s", vdev,
                       rc == FC_ENOENT ? "none is prepared here"
                                       : fc_strerror(rc));
        return;
    }
    fc_client_set_tag(client, tag);
    fc_client_reply(client, NULL, -1);
}

/* ---- disk-prepare ---- */

/* One request, whose disks are made ready side by side. */
struct fc_disk_prepare {
    struct fc_disks *disks;
    struct fc_client *client; /* NULL: gone, or answered */
    struct part {
        struct fc_disk_prepare *prepare;
        char vdev[FC_VDEV];
        int rc;
        char text[FC_INCOMING_WHY];
    } part[FC_DISKS_MAX];
    unsigned count, open;
    bool dry_run;
    uint8_t uuid[FC_UUID_BYTES], migration[FC_MIGRATION_BYTES];
    struct fc_disk_prepare *next;
};

static void prepare_free(struct fc_disk_prepare *p)
{
    for (struct fc_disk_prepare **at = &p->disks->prepares; *at;
         at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    free(p);
}

static void answer(struct fc_disk_prepare *p)
{
    struct json_object *list;
    const struct part *bad = NULL;
    for (unsigned i = 0; i < p->count && !bad; i++)
        bad = p->part[i].rc ? &p->part[i] : NULL;
    if (bad && !p->dry_run) /* all or none */
        (void)fc_incoming_discard(p->disks->incoming, p->uuid, p->migration);
    if (!p->client) {
        if (!p->dry_run)
            (void)fc_incoming_discard(p->disks->incoming, p->uuid,
                                      p->migration);
        prepare_free(p);
        return;
    }
    if (bad) {
        fc_client_fail(p->client, bad->rc, "%s", bad->text);
        prepare_free(p);
        return;
    }
    list = json_object_new_array();
    for (unsigned i = 0; i < p->count; i++) {
        struct json_object *o = json_object_new_object();
        add_text(o, "vdev", p->part[i].vdev);
        add_text(o, "volume", p->part[i].text);
        json_object_array_add(list, o);
    }
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, "disks", list);
    add_text(reply, "version", FC_VERSION);
    json_object_object_add(reply, "protocol", json_object_new_int(FC_PROTOCOL));
    fc_client_reply(p->client, reply, -1);
    prepare_free(p);
}

static void on_part(void *user, int rc, const char *text)
{
    struct part *part = user;
    part->rc = rc;
    snprintf(part->text, sizeof(part->text), "%s", text);
    if (--part->prepare->open == 0)
        answer(part->prepare);
}

void fc_disks_prepare_gone(struct fc_disks *s, struct fc_client *client)
{
    for (struct fc_disk_prepare *p = s->prepares, *next; p; p = next) {
        next = p->next;
        if (client && p->client != client)
            continue;
        p->client = NULL;
        if (client)
            continue;
        for (unsigned i = 0; i < p->count; i++)
            fc_incoming_forget_user(s->incoming, &p->part[i]);
        prepare_free(p);
    }
}

/* One of the request's disks; false when it is not as it must be. */
static bool take_disk(struct fc_disks *s, struct json_object *o,
                      struct fc_incoming_want *want)
{
    const char *vdev = fc_json_str(o, "vdev", "");
    int64_t size = fc_json_int(o, "size", 0);
    int64_t block = fc_json_int(o, "block_bytes", 0);
    int64_t epoch = fc_json_int(o, "epoch", 0);
    if (!fc_vdev_ok(vdev) || size < 512 || size % 512 || block < 4096 ||
        block > 1 << 20 || (block & (block - 1)) || epoch < 1)
        return false;
    strcpy(want->id.vdev, vdev);
    want->target = fc_json_str(o, "target", "");
    want->pattern =
        fc_json_str(o, "template",
                    fc_settings_text(&s->daemon->settings, FC_SET_DISK_VOLUME));
    want->size = (uint64_t)size;
    want->epoch = (uint64_t)epoch;
    want->block_bytes = (uint32_t)block;
    want->overwrite = fc_json_bool(o, "overwrite", 0);
    return true;
}

static void discard(struct fc_disks *s, struct fc_client *client,
                    const struct fc_incoming_want *want)
{
    int rc = fc_incoming_discard(s->incoming, want->id.uuid,
                                 want->warm ? NULL : want->migration);
    if (rc)
        fc_client_fail(client, rc, "the disks are this host's");
    else
        fc_client_reply(client, NULL, -1);
}

void fc_disks_prepare(struct fc_disks *s, struct fc_client *client,
                      struct json_object *req)
{
    struct json_object *list = NULL;
    struct fc_incoming_want want[FC_DISKS_MAX];
    memset(want, 0, sizeof(want));
    struct fc_incoming_want *first = &want[0];
    first->name = fc_json_str(req, "name", "");
    first->warm = fc_json_bool(req, "warm", 0);
    first->dry_run = fc_json_bool(req, "dry_run", 0);
    if (fc_uuid_parse(fc_json_str(req, "uuid", ""), first->id.uuid) ||
        fc_hex_parse(fc_json_str(req, "migration", ""), first->migration,
                     FC_MIGRATION_BYTES)) {
        fc_client_fail(client, FC_EINVAL,
                       "uuid or migration is not as it must be");
        return;
    }
    if (fc_json_bool(req, "discard", 0)) {
        discard(s, client, first);
        return;
    }
    json_object_object_get_ex(req, "disks", &list);
    size_t count = json_object_is_type(list, json_type_array)
                       ? json_object_array_length(list)
                       : 0;
    bool good = count > 0 && count <= FC_DISKS_MAX;
    for (size_t i = 0; i < count && good; i++) {
        want[i] = *first;
        good = take_disk(s, json_object_array_get_idx(list, i), &want[i]);
        for (size_t k = 0; k < i && good; k++)
            good = strcmp(want[k].id.vdev, want[i].id.vdev) != 0;
    }
    struct fc_disk_prepare *p = good ? calloc(1, sizeof(*p)) : NULL;
    if (!p) {
        fc_client_fail(client, good ? FC_ENOMEM : FC_EINVAL, "%s",
                       good ? "out of memory"
                            : "the disks are not as they must be");
        return;
    }
    p->disks = s;
    p->client = client;
    p->dry_run = first->dry_run;
    memcpy(p->uuid, first->id.uuid, FC_UUID_BYTES);
    memcpy(p->migration, first->migration, FC_MIGRATION_BYTES);
    p->count = (unsigned)count;
    p->open = p->count + 1; /* one of ours, until all have begun */
    p->next = s->prepares;
    s->prepares = p;
    for (unsigned i = 0; i < p->count; i++) {
        p->part[i].prepare = p;
        strcpy(p->part[i].vdev, want[i].id.vdev);
        fc_incoming_prepare(s->incoming, &want[i], on_part, &p->part[i]);
    }
    if (--p->open == 0)
        answer(p);
}

/* ---- what is shown ---- */

/* A reply has a limit: so much of it is for ranges. */
#define RANGES_TEXT (FC_CTL_MAX_REPLY / 2)
#define RANGE_TEXT 128u /* of one, without the host's name */

struct ranges {
    struct json_object *list;
    size_t left;
};

static void add_range(void *user, const char *host,
                      const struct fc_disk_range *r)
{
    struct ranges *to = user;
    size_t bytes = RANGE_TEXT + strlen(host);
    if (to->left < bytes)
        return;
    to->left -= bytes;
    struct json_object *o = json_object_new_array();
    json_object_array_add(o, json_object_new_int64((int64_t)r->first));
    json_object_array_add(o, json_object_new_int64(r->blocks));
    json_object_array_add(o, json_object_new_int64(r->valid));
    json_object_array_add(o, json_object_new_string(host));
    json_object_array_add(o, json_object_new_int64((int64_t)r->epoch));
    json_object_array_add(
        o, json_object_new_int64(r->foretold ? (int64_t)r->chance_ppm : -1));
    json_object_array_add(o, json_object_new_int64((int64_t)r->used_s));
    json_object_array_add(to->list, o);
}

/* A disk of a guest here that nothing is done with. */
struct listing {
    struct fc_disks *disks;
    const uint8_t *uuid; /* NULL: all */
    struct json_object *list;
};

static void add_known(void *user, const struct fc_disk_volume *v)
{
    const struct listing *l = user;
    char uuid[FC_UUID_TEXT];
    struct fc_lease lease = { .epoch = 0 };
    struct fc_readstats reads;
    if (!v->complete ||
        (l->uuid && memcmp(l->uuid, v->id.uuid, FC_UUID_BYTES)) ||
        fc_disks_hold_of(l->disks, v->id.uuid))
        return;
    struct json_object *o = json_object_new_object();
    fc_uuid_format(v->id.uuid, uuid);
    (void)fc_lease_get(l->disks->leases, &v->id, &lease);
    add_text(o, "uuid", uuid);
    add_text(o, "vdev", v->id.vdev);
    add_text(o, "role", "volume");
    add_text(o, "state", lease.state == FC_LEASE_HERE ? "here" : "left");
    add_text(o, "volume", v->path);
    json_object_object_add(o, "size", json_object_new_int64((int64_t)v->size));
    json_object_object_add(o, "epoch",
                           json_object_new_int64((int64_t)lease.epoch));
    add_text(o, "owner", lease.host);
    if (!fc_diskmeta_reads(l->disks->meta, &v->id, &reads))
        fc_readstats_show(&reads, o);
    json_object_array_add(l->list, o);
}

static void add_ranges(struct fc_disks *s, struct json_object *o,
                       struct ranges *to)
{
    struct fc_disk_id id;
    memset(&id, 0, sizeof(id));
    to->list = json_object_new_array();
    const char *vdev = fc_json_str(o, "vdev", "");
    if (!fc_uuid_parse(fc_json_str(o, "uuid", ""), id.uuid) &&
        fc_vdev_ok(vdev)) {
        strcpy(id.vdev, vdev);
        (void)fc_diskmeta_ranges(s->meta, &id, add_range, to);
    }
    json_object_object_add(o, "ranges", to->list);
}

static void add_jobs(struct fc_disks *s, const uint8_t *uuid,
                     struct json_object *list)
{
    for (struct fc_disk_hold *h = s->holds; h; h = h->next) {
        char text[FC_UUID_TEXT];
        if (!h->job || h->over_ms || h->dry_run ||
            (uuid && memcmp(uuid, h->uuid, FC_UUID_BYTES)))
            continue;
        struct json_object *disks = fc_disk_job_disks(h->job);
        fc_uuid_format(h->uuid, text);
        for (size_t i = 0; i < json_object_array_length(disks); i++) {
            struct json_object *o = json_object_array_get_idx(disks, i);
            double size = fc_json_double(o, "size", 0);
            double left = fc_json_double(o, "remaining_bytes", 0);
            add_text(o, "uuid", text);
            add_text(o, "role", "source");
            add_text(o, "engine", fc_json_str(o, "state", ""));
            add_text(o, "state", fc_job_state_name(fc_disk_job_state(h->job)));
            add_text(o, "host", fc_disk_job_host(h->job));
            add_text(o, "owner", h->passed ? fc_disk_job_host(h->job) : "");
            add_text(o, "reason", fc_disk_job_why(h->job));
            json_object_object_add(o, "warm", json_object_new_boolean(h->warm));
            json_object_object_add(
                o, "coverage_percent",
                json_object_new_double(size > 0 ? 100 * (size - left) / size
                                                : 0));
            json_object_array_add(list, json_object_get(o));
        }
        json_object_put(disks);
    }
}

void fc_disks_list(struct fc_disks *s, struct fc_client *client,
                   struct json_object *req)
{
    uint8_t uuid[FC_UUID_BYTES];
    const uint8_t *only = NULL;
    struct json_object *list, *o;
    if (json_object_object_get_ex(req, "domain", NULL)) {
        if (fc_uuid_parse(fc_json_str(req, "domain", ""), uuid)) {
            const struct fc_domain *domain =
                fc_control_domain(s->daemon, client, req);
            if (!domain)
                return;
            memcpy(uuid, domain->uuid, sizeof(uuid));
        }
        only = uuid;
    }
    list = json_object_new_array();
    add_jobs(s, only, list);
    fc_incoming_json(s->incoming, only, list);
    struct listing l = { s, only, list };
    struct ranges ranges = { .left = RANGES_TEXT };
    (void)fc_diskmeta_each(s->meta, add_known, &l);
    for (size_t i = 0; only && i < json_object_array_length(list); i++)
        add_ranges(s, json_object_array_get_idx(list, i), &ranges);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        const struct fc_domain *domain;
        o = json_object_array_get_idx(list, i);
        domain = fc_uuid_parse(fc_json_str(o, "uuid", ""), uuid)
                     ? NULL
                     : fc_domains_by_uuid(&s->daemon->domains, uuid);
        add_text(o, "name", domain ? domain->name : fc_json_str(o, "uuid", ""));
    }
    o = json_object_new_object();
    json_object_object_add(o, "disks", list);
    fc_client_reply(client, o, -1);
}

void fc_disks_counters(struct fc_disks *s, struct json_object *o)
{
    struct fc_readstats sum;
    struct json_object *shown = json_object_new_object();
    if (!s || fc_diskmeta_reads_sum(s->meta, &sum))
        memset(&sum, 0, sizeof(sum));
    fc_readstats_show(&sum, shown);
    json_object_object_add(o, "disk_reads",
                           json_object_new_int64((int64_t)sum.reads));
    json_object_object_foreach(shown, key, value)
    {
        char name[48];
        snprintf(name, sizeof(name), "disk_%s", key);
        json_object_object_add(o, name, json_object_get(value));
    }
    json_object_put(shown);
}

static void add_lease(void *user, const struct fc_lease *lease)
{
    struct json_object *o = json_object_new_object();
    char uuid[FC_UUID_TEXT], hex[FC_MIGRATION_TEXT];
    fc_uuid_format(lease->id.uuid, uuid);
    fc_hex_format(lease->migration, FC_MIGRATION_BYTES, hex);
    add_text(o, "uuid", uuid);
    add_text(o, "vdev", lease->id.vdev);
    add_text(o, "state", fc_lease_state_name(lease->state));
    add_text(o, "owner", lease->host);
    json_object_object_add(o, "epoch",
                           json_object_new_int64((int64_t)lease->epoch));
    add_text(o, "migration", hex);
    json_object_object_add(o, "written_s",
                           json_object_new_int64((int64_t)lease->written_s));
    json_object_array_add(user, o);
}

void fc_disks_lease_show(struct fc_disks *s, struct fc_client *client,
                         struct json_object *req)
{
    struct json_object *list = json_object_new_array();
    (void)req;
    int rc = fc_lease_each(s->leases, add_lease, list);
    if (rc) {
        json_object_put(list);
        fc_client_fail(client, rc, "the leases cannot be read: %s",
                       fc_strerror(rc));
        return;
    }
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "leases", list);
    fc_client_reply(client, o, -1);
}

void fc_disks_lease_override(struct fc_disks *s, struct fc_client *client,
                             struct json_object *req)
{
    struct fc_disk_id id;
    const char *vdev = fc_json_str(req, "vdev", "");
    const char *host = fc_json_str(req, "host", NULL);
    memset(&id, 0, sizeof(id));
    if (fc_uuid_parse(fc_json_str(req, "uuid", ""), id.uuid) ||
        !fc_vdev_ok(vdev) || (host && !fc_settings_host_ok(host))) {
        fc_client_fail(client, FC_EINVAL,
                       "uuid, vdev or host is not as it must be");
        return;
    }
    if (fc_disks_hold_of(s, id.uuid)) {
        fc_client_fail(client, FC_EBUSY,
                       "the guest's disks are being migrated; end that first");
        return;
    }
    strcpy(id.vdev, vdev);
    int rc = fc_lease_override(s->leases, &id, host);
    if (rc) {
        fc_client_fail(client, rc, "the lease cannot be written: %s",
                       fc_strerror(rc));
        return;
    }
    fc_warn("an operator gave the lease of %s of a guest to %s", vdev,
            host ? host : "this host");
    fc_client_reply(client, NULL, -1);
}
