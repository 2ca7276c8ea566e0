/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "btrace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "tally.h"

/*
 * Counts gather in a tally until an interval ends, requests in an array for
 * each device until it is full or an interval ends. Both are bounded: what
 * finds no room is counted as lost.
 */
#define REQUESTS FC_BLOCKBATCH_REQUESTS /* a device's, that may wait */

struct queue {
    struct fc_blockbatch_request *request;
    uint32_t n;
    uint64_t sent_us; /* time of the last one that was written */
};

struct fc_btrace {
    struct fc_btrace_config config;
    struct fc_btrace_target target[FC_BLOCKBATCH_DEVICES];
    const struct fc_btrace_means_ops *ops;
    void *state;
    struct fc_tally tally;
    struct queue queue[FC_BLOCKBATCH_DEVICES];
    uint64_t seen, dropped; /* dropped: here, for want of room */
    uint64_t counted_us;
    unsigned extent_shift; /* sectors to extents */
    uint8_t frame[FC_BLOCKBATCH_FRAME];
};

static const struct fc_btrace_means_ops *const means[FC_BTRACE_METHODS] = {
    &fc_btrace_bpf,
    &fc_btrace_tracefs,
    &fc_btrace_blktrace,
};

static uint64_t read_number(const char *path)
{
    uint64_t value = 0;
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%" SCNu64, &value) != 1)
        value = 0;
    if (f)
        fclose(f);
    return value;
}

static int read_device(const char *path, uint32_t *major_r, uint32_t *minor_r)
{
    FILE *f = fopen(path, "re");
    int n = f ? fscanf(f, "%" SCNu32 ":%" SCNu32, major_r, minor_r) : 0;
    if (f)
        fclose(f);
    return n == 2 ? 0 : FC_EFORMAT;
}

/* Where the node of a device is, by the kernel's name for it; blktrace needs
 * it, the others do not. */
static void find_node(struct fc_btrace_target *t)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/uevent", t->major,
             t->minor);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, "DEVNAME=", 8))
            snprintf(t->path, sizeof(t->path), "/dev/%.*s",
                     (int)strcspn(line + 8, "\n"), line + 8);
    if (f)
        fclose(f);
}

/* "MAJOR:MINOR", or the path of a device. */
static int find_number(const char *name, struct fc_btrace_target *t,
                       char why[FC_BTRACE_WHY])
{
    struct stat st;
    int end = 0;
    if (sscanf(name, "%" SCNu32 ":%" SCNu32 "%n", &t->major, &t->minor, &end) ==
            2 &&
        !name[end]) {
        find_node(t);
        return 0;
    }
    if (strlen(name) >= sizeof(t->path)) {
        snprintf(why, FC_BTRACE_WHY, "the name of the device is too long");
        return FC_EINVAL;
    }
    snprintf(t->path, sizeof(t->path), "%s", name);
    if (stat(name, &st)) {
        snprintf(why, FC_BTRACE_WHY, "%.120s: %s", name, strerror(errno));
        return FC_ESYS;
    }
    if (!S_ISBLK(st.st_mode)) {
        snprintf(why, FC_BTRACE_WHY, "%.120s is not a block device", name);
        return FC_EINVAL;
    }
    t->major = major(st.st_rdev);
    t->minor = minor(st.st_rdev);
    return 0;
}

int fc_btrace_target_find(const char *name, struct fc_btrace_target *target_r,
                          char why[FC_BTRACE_WHY])
{
    struct fc_btrace_target t = { .major = 0 };
    char sys[128];
    int rc = find_number(name, &t, why);
    if (rc)
        return rc;
    snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u/size", t.major, t.minor);
    t.sectors = read_number(sys);
    snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u/start", t.major, t.minor);
    t.first = read_number(sys);
    t.disk_major = t.major;
    t.disk_minor = t.minor;
    snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u/../dev", t.major, t.minor);
    if (t.first && read_device(sys, &t.disk_major, &t.disk_minor)) {
        snprintf(why, FC_BTRACE_WHY, "%.120s: its disk is not known", name);
        return FC_EINVAL;
    }
    if (!t.sectors || t.sectors > FC_BLOCKBATCH_SECTORS_MOST) {
        snprintf(why, FC_BTRACE_WHY, "%.120s: a size of %" PRIu64 " sectors",
                 name, t.sectors);
        return FC_EINVAL;
    }
    *target_r = t;
    return 0;
}

int fc_btrace_find(const struct fc_btrace_config *c, uint32_t disk_major,
                   uint32_t disk_minor, uint64_t sector)
{
    int found = -1;
    for (uint32_t i = 0; i < c->targets; i++) {
        const struct fc_btrace_target *d = &c->target[i];
        if (d->disk_major == disk_major && d->disk_minor == disk_minor &&
            sector >= d->first && sector - d->first < d->sectors &&
            (found < 0 || d->first))
            found = (int)i;
    }
    return found;
}

static int open_means(struct fc_btrace *t, char *why)
{
    size_t used = 0;
    int rc = FC_EINVAL;
    why[0] = 0;
    if (t->config.own) {
        t->ops = t->config.own;
        rc = t->ops->open(t, &t->config, &t->state, why);
        if (rc)
            t->ops = NULL;
        return rc;
    }
    for (unsigned i = 0; i < FC_BTRACE_METHODS; i++) {
        char one[FC_BTRACE_WHY] = "";
        if (t->config.only && t->config.only != means[i]->means)
            continue;
        rc = means[i]->open(t, &t->config, &t->state, one);
        if (rc == 0) {
            t->ops = means[i];
            return 0;
        }
        used += (size_t)snprintf(
            why + used, FC_BTRACE_METHODS * FC_BTRACE_WHY - used,
            "%s%s: %.170s", used ? "; " : "",
            fc_blockbatch_means_name(means[i]->means), one);
    }
    return rc;
}

static int make_queues(struct fc_btrace *t)
{
    for (uint32_t i = 0; i < t->config.targets && t->config.requests; i++) {
        struct queue *q = &t->queue[i];
        q->request = calloc(REQUESTS, sizeof(*q->request));
        if (!q->request)
            return FC_ENOMEM;
    }
    return 0;
}

int fc_btrace_open(const struct fc_btrace_config *config,
                   struct fc_btrace **tracer_r,
                   char why[FC_BTRACE_METHODS * FC_BTRACE_WHY])
{
    if (!config->targets || config->targets > FC_BLOCKBATCH_DEVICES ||
        config->extent_bytes < FC_BLOCKBATCH_EXTENT_LEAST ||
        config->extent_bytes & (config->extent_bytes - 1))
        return FC_EINVAL;
    struct fc_btrace *t = calloc(1, sizeof(*t));
    if (!t)
        return FC_ENOMEM;
    t->config = *config;
    memcpy(t->target, config->target, config->targets * sizeof(*t->target));
    t->config.target = t->target;
    while (512u << t->extent_shift < config->extent_bytes)
        t->extent_shift++;
    int rc = fc_tally_init(&t->tally);
    rc = rc ? rc : make_queues(t);
    if (rc)
        snprintf(why, FC_BTRACE_WHY, "%s", fc_strerror(rc));
    else
        rc = open_means(t, why);
    if (rc) {
        fc_btrace_close(t);
        return rc;
    }
    *tracer_r = t;
    return 0;
}

void fc_btrace_close(struct fc_btrace *t)
{
    if (!t)
        return;
    if (t->ops)
        t->ops->close(t->state);
    for (uint32_t i = 0; i < FC_BLOCKBATCH_DEVICES; i++)
        free(t->queue[i].request);
    fc_tally_dispose(&t->tally);
    free(t);
}

enum fc_blockbatch_means fc_btrace_means(const struct fc_btrace *t)
{
    return t->ops->means;
}

uint64_t fc_btrace_lost(struct fc_btrace *t)
{
    return t->dropped + t->ops->lost(t->state);
}

uint64_t fc_btrace_seen(struct fc_btrace *t)
{
    return t->ops->seen ? t->ops->seen(t->state) : t->seen;
}

int fc_btrace_collect(struct fc_btrace *t)
{
    return t->ops->collect(t->state, false);
}

static bool on_device(const struct fc_btrace *t, uint32_t index,
                      uint64_t sector, uint32_t sectors)
{
    uint64_t size = t->target[index].sectors;
    return sectors && sector < size && sectors <= size - sector;
}

void fc_btrace_request(struct fc_btrace *t, uint32_t index, uint64_t time_ns,
                       enum fc_blockbatch_op op, uint64_t sector,
                       uint32_t sectors)
{
    struct queue *q = &t->queue[index];
    uint64_t us = time_ns / 1000;
    us = us > q->sent_us ? us : q->sent_us;
    if (!q->request || !on_device(t, index, sector, sectors))
        return;
    if (q->n == REQUESTS) {
        t->dropped++;
        return;
    }
    q->request[q->n++] = (struct fc_blockbatch_request){
        .time_us = us, .sector = sector, .sectors = sectors, .op = op
    };
}

void fc_btrace_count(struct fc_btrace *t, uint32_t index,
                     const struct fc_blockbatch_count *count)
{
    if (fc_tally_add(&t->tally, index, count))
        t->dropped += count->reads + count->writes;
}

void fc_btrace_seen_one(struct fc_btrace *t, uint32_t index, uint64_t time_ns,
                        enum fc_blockbatch_op op, uint64_t sector,
                        uint32_t sectors)
{
    if (!on_device(t, index, sector, sectors))
        return;
    t->seen++;
    fc_btrace_request(t, index, time_ns, op, sector, sectors);
    uint64_t end = sector + sectors;
    while (op != FC_BLOCKBATCH_DISCARD && sector < end) {
        uint64_t extent = sector >> t->extent_shift;
        uint64_t stop = (extent + 1) << t->extent_shift;
        stop = stop < end ? stop : end;
        struct fc_blockbatch_count c = { .extent = extent };
        bool read = op == FC_BLOCKBATCH_READ;
        *(read ? &c.reads : &c.writes) = 1;
        *(read ? &c.read_bytes : &c.write_bytes) = (stop - sector) * 512;
        fc_btrace_count(t, index, &c);
        sector = stop;
    }
}

static int send(struct fc_btrace *t, int fd, size_t len)
{
    return len ? fc_write_all(fd, t->frame, len) : FC_EINVAL;
}

int fc_btrace_write_start(struct fc_btrace *t, int fd)
{
    struct fc_blockbatch_start s = {
        .extent_bytes = t->config.extent_bytes,
        .interval_ms = t->config.interval_ms,
        .means = t->ops->means,
        .requests = t->config.requests,
        .devices = t->config.targets,
    };
    for (uint32_t i = 0; i < s.devices; i++)
        s.device[i] = (struct fc_blockbatch_device){ t->target[i].major,
                                                     t->target[i].minor,
                                                     t->target[i].sectors };
    return send(t, fd, fc_blockbatch_put_start(t->frame, &s));
}

static int by_time(const void *a, const void *b)
{
    const struct fc_blockbatch_request *x = a, *y = b;
    return x->time_us < y->time_us ? -1 : x->time_us > y->time_us;
}

/* Processors' buffers are read one after the other: put in order of time. */
static int write_requests(struct fc_btrace *t, int fd, uint32_t index,
                          uint64_t lost)
{
    struct queue *q = &t->queue[index];
    if (!q->n)
        return 0;
    qsort(q->request, q->n, sizeof(*q->request), by_time);
    q->sent_us = q->request[q->n - 1].time_us;
    size_t len =
        fc_blockbatch_put_requests(t->frame, index, lost, q->n, q->request);
    q->n = 0;
    return send(t, fd, len);
}

int fc_btrace_write_full(struct fc_btrace *t, int fd)
{
    int rc = 0;
    for (uint32_t i = 0; i < t->config.targets && !rc; i++)
        if (t->queue[i].n > REQUESTS / 4)
            rc = write_requests(t, fd, i, fc_btrace_lost(t));
    return rc;
}

static int write_counts(struct fc_btrace *t, int fd, uint32_t index,
                        uint64_t lost, uint64_t now_us)
{
    uint32_t n;
    const struct fc_blockbatch_count *count = fc_tally_of(&t->tally, index, &n);
    do {
        uint32_t some = n < FC_BLOCKBATCH_COUNTS ? n : FC_BLOCKBATCH_COUNTS;
        int rc = send(t, fd,
                      fc_blockbatch_put_counts(t->frame, index, now_us, lost,
                                               some < n, some, count));
        if (rc)
            return rc;
        n -= some;
        count += some;
    } while (n);
    return 0;
}

int fc_btrace_write(struct fc_btrace *t, int fd, uint64_t now_us)
{
    int rc = t->ops->collect(t->state, true);
    uint64_t lost = fc_btrace_lost(t);
    t->counted_us = now_us > t->counted_us ? now_us : t->counted_us;
    rc = rc ? rc : fc_tally_sort(&t->tally);
    for (uint32_t i = 0; i < t->config.targets && !rc; i++) {
        rc = write_requests(t, fd, i, lost);
        rc = rc ? rc : write_counts(t, fd, i, lost, t->counted_us);
    }
    fc_tally_clear(&t->tally);
    return rc;
}

int fc_btrace_write_end(struct fc_btrace *t, int fd)
{
    return send(
        t, fd,
        fc_blockbatch_put_end(t->frame, fc_btrace_lost(t), fc_btrace_seen(t)));
}
