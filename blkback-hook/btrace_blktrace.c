/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tracing by blktrace's ioctl: exact, but a device has one such user at a
 * time, and a locked-down kernel refuses it. A setup that a killed process left
 * behind stays with the device until `blktrace -k`; it looks like another user,
 * so it is not touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/blktrace_api.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "btrace.h"
#include "err.h"
#include "io.h"

#define ROOT "/sys/kernel/debug"
#define BUFFER_BYTES (512u << 10)
#define BUFFERS 4u
#define CHUNK (128u << 10)

struct reader {
    int fd;
    size_t used; /* of buf: the beginning of an event */
    uint8_t buf[CHUNK];
};

struct device {
    int fd;
    bool set_up;
    uint64_t first;
    int dropped;
    struct reader **reader; /* [cpus] */
};

struct blktrace {
    struct fc_btrace *t;
    uint32_t devices;
    long cpus;
    uint64_t lost;
    struct device device[FC_BLOCKBATCH_DEVICES];
};

static int fail(char why[FC_BTRACE_WHY], const char *doing, const char *to)
{
    snprintf(why, FC_BTRACE_WHY, "%s of %.100s: %s", doing, to,
             errno == EBUSY ? "somebody else traces it" : strerror(errno));
    return errno == ENOMEM ? FC_ENOMEM : FC_ESYS;
}

static int mount_once(char why[FC_BTRACE_WHY])
{
    if (access(ROOT "/block", F_OK) == 0)
        return 0;
    if (mount("debugfs", ROOT, "debugfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL))
        return fail(why, "the mount", "debugfs");
    return 0;
}

static int open_readers(struct blktrace *b, struct device *d, const char *name,
                        char why[FC_BTRACE_WHY])
{
    char path[160];
    d->reader = calloc((size_t)b->cpus, sizeof(struct reader *));
    if (!d->reader)
        return FC_ENOMEM;
    for (long i = 0; i < b->cpus; i++) {
        snprintf(path, sizeof(path), ROOT "/block/%s/trace%ld", name, i);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            continue; /* a processor that is not there */
        if (fd < 0)
            return fail(why, "a buffer", name);
        d->reader[i] = calloc(1, sizeof(struct reader));
        if (!d->reader[i]) {
            fc_close(&fd);
            return FC_ENOMEM;
        }
        d->reader[i]->fd = fd;
    }
    snprintf(path, sizeof(path), ROOT "/block/%s/dropped", name);
    d->dropped = open(path, O_RDONLY | O_CLOEXEC);
    return d->dropped < 0 ? fail(why, "the count of losses", name) : 0;
}

static int start(struct blktrace *b, struct device *d,
                 const struct fc_btrace_target *target, char *why)
{
    struct blk_user_trace_setup setup = { .act_mask = BLK_TC_QUEUE,
                                          .buf_size = BUFFER_BYTES,
                                          .buf_nr = BUFFERS };
    d->first = target->first;
    d->fd = open(target->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (d->fd < 0)
        return fail(why, "opening", target->path);
    if (ioctl(d->fd, BLKTRACESETUP, &setup))
        return fail(why, "tracing", target->path);
    d->set_up = true;
    setup.name[sizeof(setup.name) - 1] = 0;
    int rc = open_readers(b, d, setup.name, why);
    if (rc)
        return rc;
    return ioctl(d->fd, BLKTRACESTART) ? fail(why, "tracing", target->path) : 0;
}

static void end(struct blktrace *b, struct device *d)
{
    if (d->set_up) {
        ioctl(d->fd, BLKTRACESTOP);
        ioctl(d->fd, BLKTRACETEARDOWN);
    }
    for (long i = 0; d->reader && i < b->cpus; i++) {
        if (d->reader[i])
            fc_close(&d->reader[i]->fd);
        free(d->reader[i]);
    }
    free(d->reader);
    fc_close(&d->dropped);
    fc_close(&d->fd);
}

static void blktrace_close(void *state)
{
    struct blktrace *b = state;
    for (uint32_t i = 0; i < b->devices; i++)
        end(b, &b->device[i]);
    free(b);
}

static int blktrace_open(struct fc_btrace *t, const struct fc_btrace_config *c,
                         void **state_r, char why[FC_BTRACE_WHY])
{
    struct blktrace *b = calloc(1, sizeof(*b));
    if (!b)
        return FC_ENOMEM;
    b->t = t;
    b->cpus = sysconf(_SC_NPROCESSORS_CONF);
    b->devices = c->targets;
    for (uint32_t i = 0; i < b->devices; i++)
        b->device[i].fd = b->device[i].dropped = -1;
    int rc = b->cpus > 0 ? mount_once(why) : FC_EINVAL;
    for (uint32_t i = 0; i < c->targets && !rc; i++)
        rc = start(b, &b->device[i], &c->target[i], why);
    if (rc) {
        blktrace_close(b);
        return rc;
    }
    *state_r = b;
    return 0;
}

static int drain(struct blktrace *b, uint32_t index, struct reader *r)
{
    for (;;) {
        ssize_t n = read(r->fd, r->buf + r->used, sizeof(r->buf) - r->used);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return FC_ESYS;
        if (n <= 0)
            return 0;
        r->used += (size_t)n;
        long whole = fc_btrace_events_parse(b->t, index, b->device[index].first,
                                            r->buf, r->used);
        if (whole < 0) {
            errno = EBADMSG;
            return FC_ESYS;
        }
        r->used -= (size_t)whole;
        memmove(r->buf, r->buf + whole, r->used);
    }
}

static uint64_t dropped(const struct device *d)
{
    char text[32] = "";
    ssize_t n = pread(d->dropped, text, sizeof(text) - 1, 0);
    return n > 0 ? strtoull(text, NULL, 10) : 0;
}

static int blktrace_collect(void *state, bool counts)
{
    struct blktrace *b = state;
    uint64_t lost = 0;
    for (uint32_t i = 0; i < b->devices; i++) {
        struct device *d = &b->device[i];
        for (long cpu = 0; cpu < b->cpus; cpu++) {
            int rc = d->reader[cpu] ? drain(b, i, d->reader[cpu]) : 0;
            if (rc)
                return rc;
        }
        lost += dropped(d);
    }
    (void)counts;
    b->lost = lost > b->lost ? lost : b->lost;
    return 0;
}

static uint64_t blktrace_lost(void *state)
{
    return ((struct blktrace *)state)->lost;
}

const struct fc_btrace_means_ops fc_btrace_blktrace = {
    .means = FC_BLOCKBATCH_BLKTRACE,
    .open = blktrace_open,
    .collect = blktrace_collect,
    .lost = blktrace_lost,
    .close = blktrace_close,
};
