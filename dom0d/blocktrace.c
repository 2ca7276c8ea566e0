/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backend of each virtual disk is in sysfs (bus/xen-backend/devices/
 * vbd-DOMID-NUMBER) with the device that it hands to the guest. A look each
 * second finds those of the guests that are wanted. When the set has changed, a
 * new child is started for the new set and the old one is told to end by the
 * end of its input; what it still has to say is listened to.
 *
 * A child that ends by itself could not trace, or was killed: another is tried
 * RETRY_MS later. Its reasons are on its standard error, which is ours.
 */
#include "blocktrace_int.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "err.h"
#include "log.h"

#define RETRY_MS 60000u
#define MOST_ACTIVE 131072u /* extents that a predictor looks after */
#define DEVICE_TEXT 24u

int fc_blocktrace_new(const struct fc_blocktrace_args *args,
                      struct fc_blocktrace **b_r)
{
    struct fc_blocktrace *b = calloc(1, sizeof(*b));
    if (!b)
        return FC_ENOMEM;
    b->args = *args;
    *b_r = b;
    return 0;
}

static void free_disk(struct disk *d)
{
    fc_engine_destroy(d->engine);
    free(d);
}

/* The child ends by itself at the end of its input. */
static void free_run(struct run *r)
{
    for (struct run **at = &r->b->runs; *at; at = &(*at)->next)
        if (*at == r) {
            if (r->b->runs == r)
                r->b->current = false;
            *at = r->next;
            break;
        }
    r->b->lost += r->reader.lost;
    fc_blocktrace_tell_ended(r);
    if (r->readable)
        event_free(r->readable);
    fc_close(&r->in);
    fc_close(&r->out);
    if (r->pid)
        fc_children_forget(r->b->args.children, r->pid);
    free(r->buf);
    free(r);
}

void fc_blocktrace_free(struct fc_blocktrace *b)
{
    if (!b)
        return;
    fc_blocktrace_drop_listeners(b);
    while (b->runs)
        free_run(b->runs);
    for (struct disk *d = b->disks, *next; d; d = next) {
        next = d->next;
        free_disk(d);
    }
    free(b);
}

static int wanted_at(const struct fc_blocktrace *b, const uint8_t *uuid)
{
    for (uint32_t i = 0; i < b->wants; i++)
        if (!memcmp(b->want[i], uuid, FC_UUID_BYTES))
            return (int)i;
    return -1;
}

int fc_blocktrace_want(struct fc_blocktrace *b, const uint8_t *uuid, bool want)
{
    int at = b ? wanted_at(b, uuid) : -1;
    if (!b || want == (at >= 0))
        return 0;
    if (want && b->wants == FC_BLOCKTRACE_GUESTS)
        return FC_ELIMIT;
    if (want)
        memcpy(b->want[b->wants++], uuid, FC_UUID_BYTES);
    else
        memcpy(b->want[at], b->want[--b->wants], FC_UUID_BYTES);
    return 0;
}

/* ---- which disks there are ---- */

struct disk *fc_blocktrace_find(struct fc_blocktrace *b, uint32_t domid,
                                uint32_t number)
{
    struct disk *d = b->disks;
    while (d && (d->domid != domid || d->number != number))
        d = d->next;
    return d;
}

/* The device that is handed to the guest; false: not yet, or not one. */
static bool device_of(const struct fc_blocktrace *b, const char *backend,
                      uint32_t *major_r, uint32_t *minor_r)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices/%s/%s",
             b->args.sys_root, backend, "physical_device");
    FILE *f = fopen(path, "re");
    int n = f ? fscanf(f, "%" SCNx32 ":%" SCNx32, major_r, minor_r) : 0;
    if (f)
        fclose(f);
    return n == 2 && *major_r;
}

static void note_disk(struct fc_blocktrace *b, const char *backend,
                      uint32_t domid, uint32_t number)
{
    uint8_t uuid[FC_UUID_BYTES] = { 0 };
    uint32_t major, minor;
    enum fc_blocktrace_answer answer = b->args.ask(b->args.user, domid, uuid);
    if (answer == FC_BLOCKTRACE_GONE ||
        (answer == FC_BLOCKTRACE_NO && wanted_at(b, uuid) < 0 &&
         !fc_blocktrace_is_heard(b, uuid)) ||
        !device_of(b, backend, &major, &minor))
        return;
    struct disk *d = fc_blocktrace_find(b, domid, number);
    if (d && d->major == major && d->minor == minor) {
        d->seen = true;
        return;
    }
    if (!d && !(d = calloc(1, sizeof(*d))))
        return;
    b->changed = true;
    if (!d->seen && !d->vdev[0]) {
        d->next = b->disks;
        b->disks = d;
    }
    fc_engine_destroy(d->engine); /* another device: nothing is known of it */
    d->engine = NULL;
    memcpy(d->uuid, uuid, sizeof(d->uuid));
    d->domid = domid;
    d->number = number;
    d->major = major;
    d->minor = minor;
    d->seen = true;
    fc_blocktrace_vdev(number, d->vdev);
}

void fc_blocktrace_look(struct fc_blocktrace *b)
{
    char path[512];
    struct dirent *e;
    for (struct disk *d = b->disks; d; d = d->next)
        d->seen = false;
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices",
             b->args.sys_root);
    DIR *dir = opendir(path);
    while (dir && (e = readdir(dir))) {
        uint32_t domid, number;
        int end = 0;
        if (sscanf(e->d_name, "vbd-%" SCNu32 "-%" SCNu32 "%n", &domid, &number,
                   &end) == 2 &&
            !e->d_name[end])
            note_disk(b, e->d_name, domid, number);
    }
    if (dir)
        closedir(dir);
    for (struct disk **at = &b->disks; *at;) {
        struct disk *d = *at;
        if (d->seen) {
            at = &d->next;
            continue;
        }
        *at = d->next;
        free_disk(d);
        b->changed = true;
    }
}

/* ---- what the child says ---- */

static int make_engine(struct disk *d, uint64_t sectors)
{
    struct fc_engine_config config = {
        .kind = FC_ENGINE_DISK,
        .pages = fc_blockbatch_extents(sectors, FC_BLOCKTRACE_EXTENT),
        .tick_ms = FC_BLOCKTRACE_TICK_MS,
        .horizon_ms = { FC_BLOCKTRACE_TICK_MS, 6 * FC_BLOCKTRACE_TICK_MS,
                        48 * FC_BLOCKTRACE_TICK_MS,
                        144 * FC_BLOCKTRACE_TICK_MS },
        .max_active = MOST_ACTIVE,
    };
    return d->engine ? 0 : fc_engine_create(&config, &d->engine);
}

/* Two children's rounds may meet: a round is at least half as long as it
 * should be. */
static void end_round(struct disk *d, uint64_t time_us)
{
    uint64_t ms = (time_us - d->ticked_us) / 1000;
    if (!d->ticked_us || time_us < d->ticked_us)
        ms = FC_BLOCKTRACE_TICK_MS;
    else if (ms < FC_BLOCKTRACE_TICK_MS / 2)
        return;
    ms = ms < UINT32_MAX ? ms : UINT32_MAX;
    struct fc_rates rates = {
        .vbd_rd = (float)d->round_reads * 1000.0f / (float)ms,
        .vbd_wr = (float)d->round_writes * 1000.0f / (float)ms,
        .wall_s = (uint64_t)time(NULL),
    };
    if (fc_engine_tick(d->engine, (uint32_t)ms, &rates))
        fc_warn("no memory for the predictor of a disk");
    d->ticked_us = time_us;
    d->round_reads = d->round_writes = 0;
}

static void take_counts(struct run *r, const struct fc_blockbatch_frame *f)
{
    struct disk *d =
        fc_blocktrace_find(r->b, r->domid[f->device], r->number[f->device]);
    if (!d || make_engine(d, r->reader.start.device[f->device].sectors))
        return;
    for (uint32_t i = 0; i < f->n; i++) {
        struct fc_blockbatch_count c;
        fc_blockbatch_count_at(f, i, &c);
        /* what finds no memory is not counted: the predictor goes on */
        if (c.reads)
            (void)fc_engine_read(d->engine, c.extent, 1);
        if (c.writes)
            (void)fc_engine_write(d->engine, c.extent, 1);
        d->reads += c.reads;
        d->writes += c.writes;
        d->round_reads += c.read_bytes;
        d->round_writes += c.write_bytes;
    }
    if (!f->more)
        end_round(d, f->time_us);
}

static bool starts_as_asked(const struct run *r)
{
    return r->reader.start.devices == r->disks &&
           r->reader.start.extent_bytes == FC_BLOCKTRACE_EXTENT;
}

/* False: it is of no use any more. */
static bool take_frames(struct run *r)
{
    struct fc_blockbatch_frame f;
    size_t at = 0;
    long n;
    while ((n = fc_blockbatch_next(&r->reader, r->buf + at, r->used - at, &f)) >
           0) {
        at += (size_t)n;
        if (f.type == FC_BLOCKBATCH_START && !starts_as_asked(r)) {
            fc_error("%s traces something else than was asked for",
                     r->b->args.program);
            return false;
        }
        if (f.type == FC_BLOCKBATCH_START)
            fc_blocktrace_tell_begun(r);
        if (f.type == FC_BLOCKBATCH_REQUEST)
            fc_blocktrace_tell_requests(r, &f);
        if (f.type == FC_BLOCKBATCH_START)
            fc_info("disks are traced by %s",
                    fc_blockbatch_means_name(r->reader.start.means));
        if (f.type == FC_BLOCKBATCH_COUNT)
            take_counts(r, &f);
    }
    if (n < 0)
        fc_error("%s: %s", r->b->args.program, r->reader.problem);
    r->used -= at;
    memmove(r->buf, r->buf + at, r->used);
    return n == 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct run *r = arg;
    (void)what;
    ssize_t n = read(fd, r->buf + r->used, FC_BLOCKBATCH_FRAME - r->used);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        r->used += (size_t)n;
        if (take_frames(r))
            return;
        if (r->pid)
            fc_children_end(r->b->args.children, r->pid);
    }
    bool asked = !r->b->current || r != r->b->runs;
    if (!asked)
        fc_warn("tracing of disks ended; it is tried again in %u s",
                RETRY_MS / 1000);
    free_run(r);
}

static void on_ended(void *user, pid_t pid, int status)
{
    struct run *r = user;
    (void)pid;
    (void)status;
    r->pid = 0; /* what it has said may still be unread */
}

/* ---- starting it ---- */

static int run_child(struct run *r, const char *means)
{
    const char *argv[9 + FC_BLOCKBATCH_DEVICES + 1];
    char device[FC_BLOCKBATCH_DEVICES][DEVICE_TEXT], extent[16], interval[16];
    unsigned n = 0;
    int in[2] = { -1, -1 }, out[2] = { -1, -1 };
    snprintf(extent, sizeof(extent), "%u", FC_BLOCKTRACE_EXTENT);
    snprintf(interval, sizeof(interval), "%u", FC_BLOCKTRACE_TICK_MS);
    argv[n++] = r->b->args.program;
    argv[n++] = "trace";
    argv[n++] = "--extent";
    argv[n++] = extent;
    argv[n++] = "--interval";
    argv[n++] = interval;
    r->requests = fc_blocktrace_wants_requests(r->b);
    if (r->requests)
        argv[n++] = "--requests";
    if (strcmp(means, "auto")) {
        argv[n++] = "--method";
        argv[n++] = means;
    }
    struct disk *d = r->b->disks;
    for (; d && r->disks < FC_BLOCKBATCH_DEVICES; d = d->next) {
        uint32_t i = r->disks++;
        r->domid[i] = d->domid;
        r->number[i] = d->number;
        memcpy(r->uuid[i], d->uuid, FC_UUID_BYTES);
        memcpy(r->vdev[i], d->vdev, FC_BLOCKTRACE_VDEV);
        snprintf(device[i], DEVICE_TEXT, "%" PRIu32 ":%" PRIu32, d->major,
                 d->minor);
        argv[n++] = device[i];
    }
    argv[n] = NULL;
    if (d)
        fc_warn("only %u disks are traced at a time", FC_BLOCKBATCH_DEVICES);
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) ||
        fc_set_nonblock(out[0], 1))
        r->pid = FC_ESYS;
    else
        r->pid = fc_children_run(r->b->args.children, argv, in[0], out[1],
                                 STDERR_FILENO, on_ended, r);
    fc_close(&in[0]);
    fc_close(&out[1]);
    r->in = in[1];
    r->out = out[0];
    if (r->pid > 0)
        return 0;
    r->pid = 0;
    return FC_ESYS;
}

static int start(struct fc_blocktrace *b, const char *means)
{
    struct run *r = calloc(1, sizeof(*r));
    if (!r)
        return FC_ENOMEM;
    *r = (struct run){ .b = b, .in = -1, .out = -1, .next = b->runs };
    b->runs = r;
    b->current = true;
    r->buf = malloc(FC_BLOCKBATCH_FRAME);
    int rc = r->buf ? run_child(r, means) : FC_ENOMEM;
    if (!rc)
        r->readable = event_new(b->args.base, r->out, EV_READ | EV_PERSIST,
                                on_readable, r);
    if (!rc && (!r->readable || event_add(r->readable, NULL) < 0))
        rc = FC_ENOMEM;
    if (rc) {
        fc_error("cannot run %s: %s", b->args.program,
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
        free_run(r);
    }
    return rc;
}

void fc_blocktrace_tick(struct fc_blocktrace *b, const char *means,
                        uint64_t now_ms)
{
    bool off = !strcmp(means, "off");
    if (strcmp(means, b->means)) {
        snprintf(b->means, sizeof(b->means), "%s", means);
        b->changed = true;
    }
    if (!off)
        fc_blocktrace_look(b);
    if (b->changed) {
        if (b->current)
            fc_close(&b->runs->in); /* its input's end is its own */
        b->current = false;
        b->retry_ms = 0;
        b->changed = false;
    }
    if (off || b->current || !b->disks || now_ms < b->retry_ms)
        return;
    b->retry_ms = now_ms + RETRY_MS;
    (void)start(b, means);
}
