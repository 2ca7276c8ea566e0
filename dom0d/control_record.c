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
    fc_recording_disk_dispose(r);
    free(r);
}

static void add_u64(struct json_object *o, const char *key, uint64_t v)
{
    json_object_object_add(o, key, json_object_new_uint64(v));
}

static struct json_object *figures(const struct fc_recording *r,
                                   const struct fc_recorder_state *s)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "ended",
                           json_object_new_boolean(r->ending && s->done));
    json_object_object_add(o, "failed", json_object_new_boolean(r->failed));
    json_object_object_add(o, "reason", json_object_new_string(r->reason));
    if (*r->disk.vdev) {
        json_object_object_add(o, "vdev", json_object_new_string(r->disk.vdev));
        json_object_object_add(o, "method",
                               json_object_new_string(r->disk.method));
        add_u64(o, "requests", r->disk.requests);
        add_u64(o, "lost",
                fc_blocktrace_listener_lost(r->disk.listener) +
                    r->disk.dropped);
    } else {
        add_u64(o, "ticks", r->ticks);
        add_u64(o, "pages", r->pages);
    }
    add_u64(o, "bytes", s->bytes);
    add_u64(o, "time_ms", r->time_us / 1000);
    add_u64(o, "interruptions", r->interruptions);
    json_object_object_add(o, "blind", json_object_new_boolean(r->blind));
    return o;
}

/* One that ends: answers and forgets it when it has ended. */
static void wait_for_end(struct fc_recording *r, uint64_t now_ms)
{
    struct fc_recorder_state s;
    fc_recording_release(r);
    if (*r->disk.vdev && !fc_recording_disk_drained(r, now_ms))
        return;
    if (!r->recorder) { /* a disk's that never began */
        forget(r);
        return;
    }
    fc_recorder_state(r->recorder, &s);
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

static struct fc_recording *by_client(struct fc_daemon *d,
                                      const struct fc_client *client)
{
    for (struct fc_recording *r = d->recordings; r; r = r->next)
        if (r->client == client && r->recorder)
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
                      const struct fc_domain *domain, bool disk)
{
    char why[FC_GUEST_WHY];
    unsigned count = 0;
    for (const struct fc_recording *r = d->recordings; r; r = r->next, count++)
        if (r->client == client ||
            (!disk && !*r->disk.vdev &&
             !memcmp(r->uuid, domain->uuid, FC_UUID_BYTES))) {
            fc_client_fail(client, FC_EBUSY, "%s is being recorded already",
                           r->name);
            return false;
        }
    int rc = disk ? 0 : fc_guest_can_log(domain, why);
    if (rc)
        fc_client_fail(client, rc, "%s cannot be recorded: %s", domain->name,
                       why);
    else if (!disk && fc_daemon_hold(d, domain->uuid))
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
    if (*r->disk.vdev) {
        json_object_object_add(o, "vdev", json_object_new_string(r->disk.vdev));
        json_object_object_add(o, "method",
                               json_object_new_string(r->disk.method));
        return o;
    }
    json_object_object_add(o, "armed",
                           json_object_new_boolean(r->guest_id != 0));
    json_object_object_add(o, "interval_ms",
                           json_object_new_int64(r->guest_id
                                                     ? FC_RECORDING_PLANNED_MS
                                                     : r->interval_ms));
    return o;
}

static const char bad_file[] =
    "the file is not an empty regular file that can be written";

/* Takes over *fd. 0, or what is wrong in `why`. */
static int begin_memory(struct fc_recording *r, int *fd, char *why)
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
        snprintf(why, FC_GUEST_WHY, "%s", bad_file);
    else if (rc)
        snprintf(why, FC_GUEST_WHY, "%s", fc_strerror(rc));
    if (rc)
        fc_recording_stop(r);
    return rc;
}

/* A disk's recording has begun, or cannot. */
static void answer_disk(struct fc_recording *r, int rc)
{
    if (!r->client)
        return;
    if (!rc) {
        fc_info("%s: a recording of %s begins", r->name, r->disk.vdev);
        fc_client_reply(r->client, begun(r), -1);
        return;
    }
    fc_client_fail(r->client, rc, "%s of %s cannot be recorded: %s",
                   r->disk.vdev, r->name,
                   rc == FC_EINVAL     ? bad_file
                   : rc == FC_ESYS     ? "it cannot be traced; see the log"
                   : rc == FC_ETIMEOUT ? "tracing does not begin"
                                       : fc_strerror(rc));
    r->client = NULL;
}

void fc_daemon_record_tick(struct fc_daemon *d, uint64_t now_ms)
{
    for (struct fc_recording *r = d->recordings, *next; r; r = next) {
        next = r->next;
        if (!r->ending && *r->disk.vdev)
            fc_recording_disk_go_on(r, now_ms, answer_disk);
        else if (!r->ending)
            fc_recording_go_on(r, now_ms);
        else
            wait_for_end(r, now_ms);
    }
}

/* The same guest's disk twice: known only when its name is. */
static bool is_recorded(const struct fc_recording *fresh)
{
    for (const struct fc_recording *r = fresh->daemon->recordings; r;
         r = r->next)
        if (!r->ending && !memcmp(r->uuid, fresh->uuid, FC_UUID_BYTES) &&
            !strcmp(r->disk.vdev, fresh->disk.vdev))
            return true;
    return false;
}

static int begin_disk(struct fc_recording *r, const char *vdev, int *fd,
                      char *why)
{
    int rc = fc_recording_disk_open(r, vdev, fd, why);
    if (!rc && is_recorded(r)) {
        snprintf(why, FC_GUEST_WHY, "it is being recorded already");
        rc = FC_EBUSY;
    }
    return rc;
}

void fc_control_record(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds)
{
    char why[FC_GUEST_WHY];
    int64_t seconds = fc_json_int(req, "seconds", 0);
    int64_t interval_ms = fc_json_int(req, "interval_ms", 0);
    const char *vdev = fc_json_str(req, "disk", NULL);
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    if (!domain)
        return;
    if (seconds < 0 || (vdev && strlen(vdev) >= FC_BLOCKTRACE_VDEV) ||
        seconds > MAX_SECONDS || fds[0] < 0 ||
        (interval_ms &&
         (interval_ms < MIN_INTERVAL_MS || interval_ms > MAX_INTERVAL_MS))) {
        fc_client_fail(client, FC_EINVAL,
                       "record takes a file's descriptor, seconds 1 to %d, "
                       "interval_ms %d to %d",
                       MAX_SECONDS, MIN_INTERVAL_MS, MAX_INTERVAL_MS);
        return;
    }
    if (!may_begin(d, client, domain, vdev != NULL))
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
    r->disk.seconds = (uint64_t)seconds;
    if (seconds && !vdev)
        r->deadline_ms = fc_now_ms() + (uint64_t)seconds * 1000;
    r->disk.fd = -1;
    int rc = vdev ? begin_disk(r, vdev, &fds[0], why)
                  : begin_memory(r, &fds[0], why);
    if (rc) {
        fc_client_fail(client, rc, "%s cannot be recorded: %s", r->name, why);
        fc_recording_disk_dispose(r);
        free(r);
        return;
    }
    r->next = d->recordings;
    d->recordings = r;
    if (vdev)
        return; /* the answer comes when it is traced */
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
    struct fc_recording *r = d->recordings;
    while (r && r->client != client)
        r = r->next;
    if (!r)
        return;
    r->client = NULL;
    fc_recording_end(r, false, "whoever asked for it has gone");
}
