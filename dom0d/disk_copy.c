/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How fast and in which order a job's disks are copied. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk_job.h"
#include "disk_job_int.h"
#include "err.h"

void fc_disk_job_set_rate(struct fc_disk_job *job, uint64_t bytes_ps)
{
    uint64_t each = bytes_ps ? bytes_ps / job->count + 1 : 0;
    for (unsigned i = 0; i < job->count; i++) {
        struct disk *d = &job->disk[i];
        if (d->rate == each)
            continue;
        d->rate = each;
        fc_disk_tell_rate(d);
    }
    job->rate = bytes_ps;
}

void fc_disk_survey_job(struct fc_disk_job *job, uint64_t now_ms)
{
    for (unsigned i = 0; i < job->count; i++) {
        struct disk *d = &job->disk[i];
        struct fc_disk_survey *v = &d->survey;
        v->env = job->args.env;
        v->meta = job->args.meta;
        v->id = d->id;
        snprintf(v->host, sizeof(v->host), "%s", job->args.host);
        v->size = d->size;
        v->block_bytes = job->args.block_bytes;
        v->epoch = d->epoch;
        if (d->status.known && d->engine && fc_disk_engine_is_up(d->engine))
            fc_disk_survey_tick(v, d->engine,
                                1 + d->status.remaining + d->status.sent_bytes +
                                    d->status.requests,
                                now_ms);
    }
}

const char *fc_disk_job_disk(const struct fc_disk_job *job, unsigned i,
                             uint32_t *block_bytes_r, uint64_t *size_r)
{
    if (i >= job->count)
        return NULL;
    *block_bytes_r = job->args.block_bytes;
    *size_r = job->disk[i].size;
    return job->disk[i].id.vdev;
}

int fc_disk_job_set_order(struct fc_disk_job *job, const char *vdev,
                          const uint32_t *blocks, uint32_t count)
{
    for (unsigned i = 0; i < job->count; i++) {
        struct disk *d = &job->disk[i];
        uint64_t total =
            (d->size + job->args.block_bytes - 1) / job->args.block_bytes;
        size_t bytes = (size_t)count * 4;
        if (strcmp(d->id.vdev, vdev))
            continue;
        for (uint32_t k = 0; k < count; k++)
            if (blocks[k] >= total)
                return FC_EINVAL;
        int fd = fc_memfd_new("forecopy-order", bytes);
        if (fd < 0)
            return FC_ESYS;
        /* little endian as all of ours; so is every host of Xen's with x86 */
        if (bytes && pwrite(fd, blocks, bytes, 0) != (ssize_t)bytes) {
            fc_close(&fd);
            return FC_ESYS;
        }
        fc_close(&d->order);
        d->order = fd;
        d->order_count = count;
        fc_disk_tell_order(d);
        return 0;
    }
    return FC_ENOENT;
}
