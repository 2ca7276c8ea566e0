/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A recording of a disk's requests. They come from the child that traces the
 * disks (blocktrace.h), in batches, from when it has begun; so the answer to
 * whoever asked waits for that. When the recording ends, the child is told to
 * say what it still has, and the trace ends with the last request in time.
 *
 * A child takes another's place when the set of traced disks changes. Requests
 * between the two go unseen (an interruption); where they overlap, what is not
 * newer than the newest so far is dropped and counts as lost, for it may have
 * been another request.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "blockbatch.h"
#include "err.h"
#include "recording.h"

#define BEGIN_MS 30000u /* until a child must trace */
#define DRAIN_MS 10000u /* until it must have said all */
#define CHUNK 512u

static void on_begun(void *user, const char *means, uint64_t sectors)
{
    struct fc_recording *r = user;
    r->disk.method = means;
    r->disk.tracing = true;
    r->blind = false;
    if (r->recorder || r->ending || r->disk.rc)
        return;
    const struct fc_trace_head head = {
        .kind = FC_TRACE_BLOCK,
        .unit_shift = 9,
        .units = sectors,
        .start_s = (uint64_t)time(NULL),
    };
    int fd = r->disk.fd;
    r->disk.fd = -1;
    r->disk.units = sectors;
    r->disk.base_us = fc_now_ns() / 1000;
    r->disk.rc = fc_recorder_new(fd, &head, &r->recorder);
    if (r->disk.seconds)
        r->deadline_ms = fc_now_ms() + r->disk.seconds * 1000;
}

/* False: it is not to be in the trace. */
static bool take(struct fc_recording *r, const struct fc_blockbatch_request *q,
                 struct fc_recorder_request *to)
{
    /* the child began a moment before it said so */
    uint64_t time_us =
        q->time_us > r->disk.base_us ? q->time_us - r->disk.base_us : 0;
    if (r->disk.seconds && time_us > r->disk.seconds * 1000000)
        return false;
    if (time_us < r->time_us || q->sector >= r->disk.units ||
        q->sectors > r->disk.units - q->sector) {
        r->disk.dropped++;
        return false;
    }
    *to = (struct fc_recorder_request){ .time_us = time_us,
                                        .first = q->sector,
                                        .count = q->sectors,
                                        .type = (enum fc_trace_type)q->op };
    r->time_us = time_us;
    return true;
}

static void on_requests(void *user, const struct fc_blockbatch_frame *f)
{
    struct fc_recording *r = user;
    struct fc_recorder_request some[CHUNK];
    uint32_t n = 0;
    if (!r->recorder || r->error || r->disk.heard_all)
        return;
    for (uint32_t i = 0; i < f->n && !r->error; i++) {
        struct fc_blockbatch_request q;
        fc_blockbatch_request_at(f, i, &q);
        n += take(r, &q, &some[n]);
        if (n < CHUNK && i + 1 < f->n)
            continue;
        r->error = fc_recorder_requests(r->recorder, n, some);
        r->disk.requests += r->error ? 0 : n;
        n = 0;
    }
}

static void on_ended(void *user, bool last)
{
    struct fc_recording *r = user;
    if (r->ending)
        r->disk.heard_all = r->disk.heard_all || last;
    else if (r->disk.tracing)
        r->interruptions++;
    else if (!r->recorder)
        r->disk.rc = FC_ESYS;
    r->disk.tracing = !last;
    r->blind = last;
}

static const struct fc_block_ears ears = { on_begun, on_requests, on_ended };

int fc_recording_disk_open(struct fc_recording *r, const char *vdev, int *fd,
                           char why[FC_GUEST_WHY])
{
    const char *means =
        fc_settings_text(&r->daemon->settings, FC_SET_BLOCK_TRACE);
    if (!r->daemon->blocktrace || !strcmp(means, "off")) {
        snprintf(why, FC_GUEST_WHY, "the setting block_trace is off");
        return FC_ENOENT;
    }
    int rc = fc_blocktrace_listen(r->daemon->blocktrace, r->uuid, vdev, &ears,
                                  r, &r->disk.listener);
    if (rc == FC_EINVAL)
        snprintf(why, FC_GUEST_WHY, "it has several disks; say which");
    else if (rc == FC_ENOENT)
        snprintf(why, FC_GUEST_WHY, "it has no disk%s%.15s with a device here",
                 *vdev ? " " : "", vdev);
    else if (rc)
        snprintf(why, FC_GUEST_WHY, "%s", fc_strerror(rc));
    if (rc)
        return rc;
    snprintf(r->disk.vdev, sizeof(r->disk.vdev), "%s",
             fc_blocktrace_listener_vdev(r->disk.listener));
    r->disk.fd = *fd;
    *fd = -1;
    r->disk.method = "";
    r->disk.patience_ms = fc_now_ms() + BEGIN_MS;
    r->blind = true;
    return 0;
}

void fc_recording_disk_go_on(struct fc_recording *r, uint64_t now_ms,
                             void (*ready)(struct fc_recording *r, int rc))
{
    struct fc_recorder_state s;
    char why[FC_GUEST_WHY];
    if (!r->recorder && !r->disk.rc && now_ms > r->disk.patience_ms)
        r->disk.rc = FC_ETIMEOUT;
    if (!r->disk.answered && (r->recorder || r->disk.rc)) {
        r->disk.answered = true;
        ready(r, r->disk.rc);
        if (r->disk.rc)
            fc_recording_end(r, true, "it could not begin");
    }
    if (r->ending)
        return;
    if (r->recorder)
        fc_recorder_state(r->recorder, &s);
    if (r->recorder && (r->error || s.rc)) {
        fc_recording_failure(s.rc ? s.rc : r->error, s.error, why);
        fc_recording_end(r, true, why);
    } else if (!fc_recording_domain(r)) {
        fc_recording_end(r, false, "the domain is gone");
    } else if (r->deadline_ms && now_ms >= r->deadline_ms) {
        fc_recording_end(r, false, "the time is over");
    }
}

void fc_recording_disk_end(struct fc_recording *r)
{
    bool more = fc_blocktrace_listener_end(r->disk.listener);
    r->disk.heard_all = r->disk.heard_all || !more || !r->recorder;
    r->disk.patience_ms = fc_now_ms() + DRAIN_MS;
}

bool fc_recording_disk_drained(struct fc_recording *r, uint64_t now_ms)
{
    r->disk.heard_all = r->disk.heard_all || now_ms > r->disk.patience_ms;
    if (r->disk.heard_all && r->recorder)
        fc_recorder_end(r->recorder);
    return r->disk.heard_all;
}

void fc_recording_disk_dispose(struct fc_recording *r)
{
    fc_blocktrace_listener_free(r->disk.listener);
    if (*r->disk.vdev)
        fc_close(&r->disk.fd);
}
