/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What goes on beside a disk's steps: status, rate and order of its engine. */
#include <stdio.h>

#include "ctl.h"
#include "disk_job_int.h"
#include "log.h"

#define SHORT_MS 10000u /* an answer that needs no work */
#define STATUS_MS 20000u

static uint64_t count(struct json_object *o, const char *key)
{
    int64_t n = fc_json_int(o, key, 0);
    return n > 0 ? (uint64_t)n : 0;
}

static void on_status(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct disk *d = user;
    struct disk_status *s = &d->status;
    (void)fd;
    (void)why;
    d->asked = false;
    if (rc)
        return;
    *s = (struct disk_status){
        .known = true,
        .channel = fc_json_bool(reply, "channel", 0),
        .blocks = count(reply, "blocks"),
        .remaining = count(reply, "remaining_blocks"),
        .sent_bytes = count(reply, "sent_bytes"),
        .sent_blocks = count(reply, "data_bytes") / d->job->args.block_bytes,
        .zero_bytes = count(reply, "zero_bytes"),
        .dirty_bps = count(reply, "dirty_rate_bps"),
        .held = count(reply, "held"),
        .requests = count(reply, "reads") + count(reply, "writes"),
    };
    snprintf(s->state, sizeof(s->state), "%s", fc_json_str(reply, "state", ""));
    if (s->channel) {
        d->silent_ms = 0;
        d->backoff_ms = 1000;
    } else if (!d->silent_ms) {
        d->silent_ms = fc_now_ms();
    }
}

void fc_disk_ask_status(struct disk *d)
{
    if (d->asked || !d->engine || !fc_disk_engine_is_up(d->engine))
        return;
    d->asked = !fc_disk_engine_call(d->engine, fc_disk_engine_request("status"),
                                    NULL, 0, STATUS_MS, on_status, d);
}

static void on_told(void *user, int rc, struct json_object *reply, int *fd,
                    const char *why)
{
    const struct disk *d = user;
    (void)reply;
    (void)fd;
    if (rc)
        fc_warn("%s: the engine did not take rate or order: %s", d->id.vdev,
                why);
}

void fc_disk_tell_rate(struct disk *d)
{
    if (!d->engine || !fc_disk_engine_is_up(d->engine))
        return;
    struct json_object *o = fc_disk_engine_request("rate");
    json_object_object_add(o, "bytes_ps",
                           json_object_new_int64((int64_t)d->rate));
    d->rate_told =
        !fc_disk_engine_call(d->engine, o, NULL, 0, SHORT_MS, on_told, d);
}

void fc_disk_tell_order(struct disk *d)
{
    if (d->order < 0 || !d->engine || !fc_disk_engine_is_up(d->engine))
        return;
    (void)fc_disk_engine_call(d->engine, fc_disk_engine_request("order"),
                              &d->order, 1, SHORT_MS, on_told, d);
}
