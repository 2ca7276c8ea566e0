/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "err.h"
#include "log.h"
#include "recording.h"

#define MAX_SECONDS (31 * 86400)
#define MIN_INTERVAL_MS FC_GUEST_TICK_MS
#define MAX_INTERVAL_MS 60000

static void forget(struct fc_recording *r)
{
    for (struct fc_recording **at = &r->daemon->recordings; *at;
         at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    fc_recording_stop(r);
    if (r->own) /* a migration has the log, and will switch it off */
        fc_sampler_dispose(&r->sampler);
    fc_recorder_free(r->recorder);
    free(r);
}

static struct json_object *figures(const struct fc_recording *r,
                                   const struct fc_recorder_state *s)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "ended",
                           json_object_new_boolean(r->ending && s->done));
    json_object_object_add(o, "failed", json_object_new_boolean(r->failed));
    json_object_object_add(o, "reason", json_object_new_string(r->reason));
    json_object_object_add(o, "ticks", json_object_new_uint64(r->ticks));
    json_object_object_add(o, "pages", json_object_new_uint64(r->pages));
    json_object_object_add(o, "bytes", json_object_new_uint64(s->bytes));
    json_object_object_add(o, "time_ms",
                           json_object_new_uint64(r->time_us / 1000));
    json_object_object_add(o, "interruptions",
                           json_object_new_uint64(r->interruptions));
    json_object_object_add(o, "blind", json_object_new_boolean(r->blind));
    return o;
}

/* One that ends: answers and forgets it when it has ended. */
static void wait_for_end(struct fc_recording *r)
{
    struct fc_recorder_state s;
    fc_recorder_state(r->recorder, &s);
    fc_recording_release(r);
    if (!s.done)
        return;
    if (s.rc && !r->failed) {
        r->failed = true;
        fc_recording_failure(s.rc, s.error, r->reason);
    }
    struct fc_client *client = r->stop_wanted ? r->client : NULL;
    struct json_object *o = client ? figures(r, &s) : NULL;
    if (client)
        r->client = NULL;
    if (!r->client && !r->own)
        forget(r);
    if (client)
        fc_client_reply(client, o, -1);
}

void fc_daemon_record_tick(struct fc_daemon *d, uint64_t now_ms)
{
    for (struct fc_recording *r = d->recordings, *next; r; r = next) {
        next = r->next;
        if (!r->ending)
            fc_recording_go_on(r, now_ms);
        else
            wait_for_end(r);
    }
}

static struct fc_recording *by_client(struct fc_daemon *d,
                                      const struct fc_client *client)
{
    for (struct fc_recording *r = d->recordings; r; r = r->next)
        if (r->client == client)
            return r;
    return NULL;
}

void fc_daemon_record_yield(struct fc_daemon *d, const uint8_t *uuid)
{
    for (struct fc_recording *r = d->recordings; r; r = r->next)
        if (!memcmp(r->uuid, uuid, FC_UUID_BYTES))
            fc_recording_yield(r);
}

void fc_daemon_record_end_all(struct fc_daemon *d, const char *reason)
{
    for (struct fc_recording *r = d->recordings; r; r = r->next)
        fc_recording_end(r, false, reason);
}

void fc_daemon_record_free(struct fc_daemon *d)
{
    fc_daemon_record_end_all(d, "forecopyd stops");
    while (d->recordings)
        forget(d->recordings);
}

/* Whether a recording may begin; answers when not. */
static bool may_begin(struct fc_daemon *d, struct fc_client *client,
                      const struct fc_domain *domain)
{
    char why[FC_GUEST_WHY];
    unsigned count = 0;
    for (const struct fc_recording *r = d->recordings; r; r = r->next, count++)
        if (r->client == client ||
            !memcmp(r->uuid, domain->uuid, FC_UUID_BYTES)) {
            fc_client_fail(client, FC_EBUSY, "%s is being recorded already",
                           r->name);
            return false;
        }
    int rc = fc_guest_can_log(domain, why);
    if (rc)
        fc_client_fail(client, rc, "%s cannot be recorded: %s", domain->name,
                       why);
    else if (fc_daemon_hold(d, domain->uuid))
        fc_client_fail(client, rc = FC_EBUSY, "%s is being migrated",
                       domain->name);
    else if (count >= FC_RECORDINGS)
        fc_client_fail(client, rc = FC_ELIMIT,
                       "%u recordings are under way, which is the limit",
                       FC_RECORDINGS);
    return !rc;
}

static struct json_object *begun(const struct fc_recording *r)
{
    char uuid[FC_UUID_TEXT];
    struct json_object *o = json_object_new_object();
    fc_uuid_format(r->uuid, uuid);
    json_object_object_add(o, "uuid", json_object_new_string(uuid));
    json_object_object_add(o, "name", json_object_new_string(r->name));
    json_object_object_add(o, "armed",
                           json_object_new_boolean(r->guest_id != 0));
    json_object_object_add(o, "interval_ms",
                           json_object_new_int64(r->guest_id
                                                     ? FC_RECORDING_PLANNED_MS
                                                     : r->interval_ms));
    return o;
}

/* Takes over *fd. 0, or what is wrong in `why`. */
static int begin(struct fc_recording *r, int *fd, char *why)
{
    struct fc_trace_head head;
    int rc = fc_recording_open(r, &head), file = *fd;
    if (rc) {
        fc_guest_log_trouble(rc, why);
        return rc;
    }
    *fd = -1;
    rc = fc_recorder_new(file, &head, &r->recorder);
    if (rc == FC_EINVAL)
        snprintf(why, FC_GUEST_WHY,
                 "the file is not an empty regular file that can be written");
    else if (rc)
        snprintf(why, FC_GUEST_WHY, "%s", fc_strerror(rc));
    if (rc)
        fc_recording_stop(r);
    return rc;
}

void fc_control_record(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds)
{
    char why[FC_GUEST_WHY];
    int64_t seconds = fc_json_int(req, "seconds", 0);
    int64_t interval_ms = fc_json_int(req, "interval_ms", 0);
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    if (!domain)
        return;
    if (seconds < 0 || seconds > MAX_SECONDS || fds[0] < 0 ||
        (interval_ms &&
         (interval_ms < MIN_INTERVAL_MS || interval_ms > MAX_INTERVAL_MS))) {
        fc_client_fail(client, FC_EINVAL,
                       "record takes a file's descriptor, seconds 1 to %d, "
                       "interval_ms %d to %d",
                       MAX_SECONDS, MIN_INTERVAL_MS, MAX_INTERVAL_MS);
        return;
    }
    if (!may_begin(d, client, domain))
        return;
    struct fc_recording *r = calloc(1, sizeof(*r));
    if (!r) {
        fc_client_fail(client, FC_ENOMEM, "out of memory");
        return;
    }
    const struct fc_settings *s =
        fc_daemon_guest_settings(d, domain->uuid, false);
    r->daemon = d;
    r->client = client;
    r->domid = domain->domid;
    memcpy(r->uuid, domain->uuid, FC_UUID_BYTES);
    snprintf(r->name, sizeof(r->name), "%s", domain->name);
    r->interval_ms = interval_ms
                         ? (uint32_t)interval_ms
                         : (uint32_t)fc_settings_u64(s ? s : &d->settings,
                                                     FC_SET_SAMPLE_INTERVAL);
    if (seconds)
        r->deadline_ms = fc_now_ms() + (uint64_t)seconds * 1000;
    int rc = begin(r, &fds[0], why);
    if (rc) {
        fc_client_fail(client, rc, "%s cannot be recorded: %s", r->name, why);
        free(r);
        return;
    }
    r->next = d->recordings;
    d->recordings = r;
    fc_info("%s (domain %u): a recording begins", r->name, r->domid);
    fc_client_reply(client, begun(r), -1);
}

void fc_control_record_status(struct fc_daemon *d, struct fc_client *client)
{
    struct fc_recorder_state s;
    const struct fc_recording *r = by_client(d, client);
    if (!r) {
        fc_client_fail(client, FC_EINVAL, "this connection records nothing");
        return;
    }
    fc_recorder_state(r->recorder, &s);
    fc_client_reply(client, figures(r, &s), -1);
}

void fc_control_record_stop(struct fc_daemon *d, struct fc_client *client)
{
    struct fc_recording *r = by_client(d, client);
    if (!r) {
        fc_client_fail(client, FC_EINVAL, "this connection records nothing");
        return;
    }
    r->stop_wanted = true;
    fc_recording_end(r, false, "stopped");
}

void fc_control_record_gone(struct fc_daemon *d, struct fc_client *client)
{
    struct fc_recording *r = by_client(d, client);
    if (!r)
        return;
    r->client = NULL;
    fc_recording_end(r, false, "whoever asked for it has gone");
}
