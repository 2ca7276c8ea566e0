/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which disks a job has: as the hotplug script left them, or an earlier daemon.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "ctl.h"
#include "disk_job_int.h"
#include "err.h"

static uint64_t size_of(const char *volume)
{
    struct stat st;
    uint64_t size = 0;
    int fd = open(volume, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode))
        size = (uint64_t)st.st_size;
    else if (!fstat(fd, &st) && S_ISBLK(st.st_mode) &&
             ioctl(fd, BLKGETSIZE64, &size) < 0)
        size = 0;
    fc_close(&fd);
    return size;
}

/* What the hotplug script wrote, and who may write the disk. */
int fc_disk_find_look(struct fc_disk_job *job, struct disk *d, char *why)
{
    const struct fc_disk_env *env = job->args.env;
    char incoming[FC_DISK_PATH];
    struct fc_lease lease;
    if (fc_disk_run_read(env, &d->id, "target", d->target) ||
        fc_disk_run_read(env, &d->id, "backing", d->volume) ||
        !fc_disk_path_ok(d->target) || !fc_disk_path_ok(d->volume)) {
        snprintf(why, FC_JOB_WHY, "%s: block-forecopy did not say what it is",
                 d->id.vdev);
        return FC_EINVAL;
    }
    if (!fc_disk_run_read(env, &d->id, "incoming", incoming)) {
        snprintf(why, FC_JOB_WHY,
                 "%s is still being filled from where the guest came",
                 d->id.vdev);
        return FC_EBUSY;
    }
    d->size = size_of(d->volume);
    if (!d->size) {
        snprintf(why, FC_JOB_WHY, "%s: %.300s has no size", d->id.vdev,
                 d->volume);
        return FC_EINVAL;
    }
    int rc = fc_lease_get(job->args.leases, &d->id, &lease);
    if (rc || lease.state != FC_LEASE_HERE) {
        snprintf(why, FC_JOB_WHY, "%s: %s%s", d->id.vdev,
                 rc ? "its lease cannot be read" : "the lease is with ",
                 rc ? "" : lease.host);
        return rc ? rc : FC_EPERM;
    }
    d->epoch = lease.epoch + 1;
    return 0;
}

static int add_disk(struct fc_disk_job *job, const struct fc_disk_id *id,
                    char *why)
{
    if (job->count == FC_DISKS_MAX) {
        snprintf(why, FC_JOB_WHY, "more than %u disks", FC_DISKS_MAX);
        return FC_ELIMIT;
    }
    struct disk *d = &job->disk[job->count++];
    d->job = job;
    d->id = *id;
    d->order = d->channel_err = -1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct disk *x = a, *y = b;
    return strcmp(x->id.vdev, y->id.vdev);
}

/* The disks of the guest that have `leaf` in their directory. */
int fc_disk_find_all(struct fc_disk_job *job, const char *leaf, char *why)
{
    char text[FC_DISK_PATH];
    int rc = 0;
    DIR *dir = opendir(job->args.env->run_dir);
    const struct dirent *entry;
    while (dir && !rc && (entry = readdir(dir))) {
        struct fc_disk_id id;
        if (fc_disk_id_parse(entry->d_name, &id) ||
            memcmp(id.uuid, job->args.uuid, FC_UUID_BYTES) ||
            fc_disk_run_read(job->args.env, &id, leaf, text))
            continue;
        rc = add_disk(job, &id, why);
    }
    if (dir)
        closedir(dir);
    qsort(job->disk, job->count, sizeof(job->disk[0]), by_name);
    if (!rc && !job->count) {
        snprintf(why, FC_JOB_WHY, "%s has no disk with script=block-forecopy",
                 job->args.name);
        rc = FC_ENOENT;
    }
    return rc;
}

/* One disk's state.json; false when it is none of a source's. */
bool fc_disk_find_recall(struct fc_disk_job *job, struct disk *d)
{
    char text[FC_DISK_PATH];
    struct fc_lease lease;
    if (fc_disk_run_read(job->args.env, &d->id, "state.json", text))
        return false;
    struct json_object *o = fc_ctl_parse(text, strlen(text), NULL);
    bool ours = !strcmp(fc_json_str(o, "role", ""), "source") &&
                !fc_hex_parse(fc_json_str(o, "migration", ""), job->migration,
                              FC_MIGRATION_BYTES);
    snprintf(job->args.name, sizeof(job->args.name), "%s",
             fc_json_str(o, "name", ""));
    snprintf(job->args.host, sizeof(job->args.host), "%s",
             fc_json_str(o, "host", ""));
    snprintf(d->volume, sizeof(d->volume), "%s", fc_json_str(o, "volume", ""));
    snprintf(d->target, sizeof(d->target), "%s", fc_json_str(o, "target", ""));
    snprintf(d->device, sizeof(d->device), "%s", fc_json_str(o, "device", ""));
    d->size = (uint64_t)fc_json_int(o, "size", 0);
    d->epoch = (uint64_t)fc_json_int(o, "epoch", 0);
    d->fenced = fc_json_bool(o, "fenced", 0);
    d->tabled = true;
    job->args.lazy = fc_json_bool(o, "lazy", 0);
    job->args.warm = fc_json_bool(o, "warm", 0);
    job->args.block_bytes =
        (uint32_t)fc_json_int(o, "block_bytes", job->args.block_bytes);
    json_object_put(o);
    if (!fc_lease_get(job->args.leases, &d->id, &lease) &&
        lease.state == FC_LEASE_PASSED &&
        !memcmp(lease.migration, job->migration, FC_MIGRATION_BYTES))
        job->passed = true;
    return ours && fc_disk_path_ok(d->volume);
}
