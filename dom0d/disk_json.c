/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a job is shown as. */
#include "ctl.h"
#include "disk_job_int.h"
#include "err.h"

static const char *const state_names[] = {
    [FC_JOB_PREPARING] = "preparing", [FC_JOB_COPYING] = "copying",
    [FC_JOB_CONVERGED] = "converged", [FC_JOB_FENCED] = "fenced",
    [FC_JOB_LEASED] = "leased",       [FC_JOB_DONE] = "done",
    [FC_JOB_FAILED] = "failed",
};

const char *fc_job_state_name(enum fc_job_state state)
{
    return state_names[state];
}

const uint8_t *fc_disk_job_migration(const struct fc_disk_job *job)
{
    return job->migration;
}

bool fc_disk_job_is_warm(const struct fc_disk_job *job)
{
    return job->args.warm;
}

const char *fc_disk_job_host(const struct fc_disk_job *job)
{
    return job->args.host;
}

const char *fc_disk_job_why(const struct fc_disk_job *job)
{
    return job->why;
}

enum fc_job_state fc_disk_job_state(const struct fc_disk_job *job)
{
    if (job->failed)
        return FC_JOB_FAILED;
    switch (job->phase) {
    case PHASE_PREPARE:
    case PHASE_SETUP:
        return FC_JOB_PREPARING;
    case PHASE_COPY:
        return job->converged ? FC_JOB_CONVERGED : FC_JOB_COPYING;
    case PHASE_FENCE:
    case PHASE_LEASE:
        return FC_JOB_FENCED;
    case PHASE_OVER:
        return FC_JOB_DONE;
    default:
        return FC_JOB_LEASED;
    }
}

static uint64_t remaining(const struct disk *d)
{
    uint64_t left = d->status.remaining * d->job->args.block_bytes;
    return !d->status.known || left > d->size ? d->size : left;
}

struct json_object *fc_disk_job_disks(const struct fc_disk_job *job)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < job->count; i++) {
        const struct disk *d = &job->disk[i];
        struct json_object *o = json_object_new_object();
        fc_json_put_text(o, "vdev", d->id.vdev);
        fc_json_put_int(o, "size", d->size);
        fc_json_put_int(o, "copy_bytes", d->size);
        fc_json_put_text(o, "target", d->target);
        fc_json_put_text(o, "volume", d->there);
        fc_json_put_int(o, "remaining_bytes", remaining(d));
        fc_json_put_int(o, "sent_bytes", d->status.sent_bytes);
        fc_json_put_int(o, "held", d->status.held);
        fc_json_put_text(o, "state", d->status.state);
        json_object_object_add(o, "channel",
                               json_object_new_boolean(d->status.channel));
        fc_json_put_text(o, "trouble", d->moving ? d->trouble : "");
        json_object_array_add(list, o);
    }
    return list;
}

/* Why it has failed, or why nothing is sent at present. */
static const char *reason_of(const struct fc_disk_job *job)
{
    if (job->failed)
        return job->why;
    for (unsigned i = 0; i < job->count; i++) {
        const struct disk *d = &job->disk[i];
        if (job->begun && d->status.known && !d->status.channel)
            return "there is no channel to the destination at present";
    }
    return "";
}

struct json_object *fc_disk_job_json(const struct fc_disk_job *job)
{
    struct json_object *o = json_object_new_object();
    char hex[FC_MIGRATION_TEXT];
    uint64_t total = 0, left = 0, sent = 0, blocks = 0, zero = 0, dirty = 0;
    for (unsigned i = 0; i < job->count; i++) {
        const struct disk *d = &job->disk[i];
        total += d->size;
        left += remaining(d);
        sent += d->status.sent_bytes;
        blocks += d->status.sent_blocks;
        zero += d->status.zero_bytes;
        dirty += d->status.dirty_bps;
    }
    fc_hex_format(job->migration, FC_MIGRATION_BYTES, hex);
    fc_json_put_text(o, "migration", hex);
    fc_json_put_text(o, "host", job->args.host);
    fc_json_put_text(o, "mode", job->args.lazy ? "lazy" : "complete");
    fc_json_put_text(o, "state", fc_job_state_name(fc_disk_job_state(job)));
    fc_json_put_text(o, "reason", reason_of(job));
    json_object_object_add(o, "passed", json_object_new_boolean(job->passed));
    fc_json_put_int(o, "total_bytes", total);
    fc_json_put_int(o, "remaining_bytes", left);
    fc_json_put_int(o, "sent_bytes", sent);
    fc_json_put_int(o, "sent_blocks", blocks);
    fc_json_put_int(o, "zero_bytes", zero);
    fc_json_put_int(o, "rate_bps", (uint64_t)job->sent_bps);
    fc_json_put_int(o, "dirty_bps", dirty);
    fc_json_put_int(o, "fence_ms", job->fence_ms);
    json_object_object_add(o, "disks", fc_disk_job_disks(job));
    return o;
}
