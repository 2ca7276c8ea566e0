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
#include "blocktrace.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "blockbatch.h"
#include "child.h"
#include "engine.h"
#include "err.h"
#include "log.h"

#define RETRY_MS 60000u
#define GUESTS 64u          /* wanted for other reasons */
#define MOST_ACTIVE 131072u /* extents that a predictor looks after */
#define DEVICE_TEXT 24u

struct disk {
    uint8_t uuid[FC_UUID_BYTES];
    uint32_t domid, number; /* of the virtual device */
    uint32_t major, minor;
    char vdev[FC_BLOCKTRACE_VDEV];
    struct fc_engine *engine;           /* NULL until its size is known */
    uint64_t reads, writes;             /* requests, by extent */
    uint64_t round_reads, round_writes; /* bytes since the last tick */
    uint64_t ticked_us;
    bool seen; /* in the look under way */
    struct disk *next;
};

/* A child. */
struct run {
    struct fc_blocktrace *b;
    pid_t pid; /* 0: has ended */
    int in, out;
    struct event *readable;
    struct fc_blockbatch_reader reader;
    uint8_t *buf;
    size_t used;
    uint32_t disks;
    uint32_t domid[FC_BLOCKBATCH_DEVICES], number[FC_BLOCKBATCH_DEVICES];
    struct run *next;
};

struct fc_blocktrace {
    struct fc_blocktrace_args args;
    struct disk *disks;
    struct run *runs; /* the first is the current one, if `current` */
    bool current, changed;
    char means[16];
    uint64_t retry_ms, lost; /* lost: by children that have ended */
    uint8_t want[GUESTS][FC_UUID_BYTES];
    uint32_t wants;
};

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
    if (want && b->wants == GUESTS)
        return FC_ELIMIT;
    if (want)
        memcpy(b->want[b->wants++], uuid, FC_UUID_BYTES);
    else
        memcpy(b->want[at], b->want[--b->wants], FC_UUID_BYTES);
    return 0;
}

/* ---- which disks there are ---- */

void fc_blocktrace_vdev(uint32_t number, char text[FC_BLOCKTRACE_VDEV])
{
    uint32_t disk, part;
    const char *kind = "xvd";
    if (number >> 28 == 1) { /* the form for many disks */
        disk = number >> 8 & 0xfffff;
        part = number & 0xff;
    } else if (number >> 8 == 202 || number >> 8 == 8) {
        kind = number >> 8 == 8 ? "sd" : "xvd";
        disk = number >> 4 & 0xf;
        part = number & 0xf;
    } else if (number >> 8 == 3 || number >> 8 == 22) {
        kind = "hd";
        disk = (number >> 8 == 22 ? 2 : 0) + (number >> 6 & 1);
        part = number & 0x3f;
    } else {
        disk = UINT32_MAX;
        part = 0;
    }
    if (disk >= 26 + 26 * 26) {
        snprintf(text, FC_BLOCKTRACE_VDEV, "d%" PRIu32, number);
        return;
    }
    char first = disk < 26 ? 0 : (char)('a' + disk / 26 - 1);
    char last = (char)('a' + disk % 26);
    int n =
        first ? snprintf(text, FC_BLOCKTRACE_VDEV, "%s%c%c", kind, first, last)
              : snprintf(text, FC_BLOCKTRACE_VDEV, "%s%c", kind, last);
    if (part)
        snprintf(text + n, FC_BLOCKTRACE_VDEV - (size_t)n, "%" PRIu32, part);
}

static struct disk *find_disk(struct fc_blocktrace *b, uint32_t domid,
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
        (answer == FC_BLOCKTRACE_NO && wanted_at(b, uuid) < 0) ||
        !device_of(b, backend, &major, &minor))
        return;
    struct disk *d = find_disk(b, domid, number);
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

static void look(struct fc_blocktrace *b)
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
    struct disk *d = find_disk(r->b, r->domid[f->device], r->number[f->device]);
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
    const char *argv[8 + FC_BLOCKBATCH_DEVICES + 1];
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
    if (strcmp(means, "auto")) {
        argv[n++] = "--method";
        argv[n++] = means;
    }
    struct disk *d = r->b->disks;
    for (; d && r->disks < FC_BLOCKBATCH_DEVICES; d = d->next) {
        uint32_t i = r->disks++;
        r->domid[i] = d->domid;
        r->number[i] = d->number;
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
        look(b);
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

/* ---- what is known ---- */

struct ranked {
    float p;
    uint32_t extent;
};

static int likelier(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->extent < y->extent ? -1 : x->extent > y->extent;
}

/* Its chances within a minute and within eight, together. */
static struct ranked *rank(struct fc_engine *e, uint32_t *n_r)
{
    uint32_t n = fc_engine_active(e);
    const struct fc_region_ref *ref = fc_engine_regions(e);
    const float *mid = fc_engine_scores(e, FC_SCORER_MIXTURE, 1);
    const float *later = fc_engine_scores(e, FC_SCORER_MIXTURE, 2);
    struct ranked *r = n ? calloc(n, sizeof(*r)) : NULL;
    if (!r || !ref || !mid || !later) {
        free(r);
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++)
        r[i] = (struct ranked){ mid[i] + later[i], (uint32_t)ref[i].first };
    qsort(r, n, sizeof(*r), likelier);
    *n_r = n;
    return r;
}

int fc_blocktrace_order(struct fc_blocktrace *b, const uint8_t *uuid,
                        const char *vdev, uint32_t block_bytes, uint64_t size,
                        uint32_t **blocks_r, uint32_t *count_r)
{
    struct disk *d = b ? b->disks : NULL;
    uint32_t n, count = 0,
                each = block_bytes ? FC_BLOCKTRACE_EXTENT / block_bytes : 0;
    if (!each || FC_BLOCKTRACE_EXTENT % block_bytes)
        return FC_EINVAL;
    uint64_t blocks = size / block_bytes + (size % block_bytes != 0);
    while (d && (memcmp(d->uuid, uuid, FC_UUID_BYTES) || strcmp(d->vdev, vdev)))
        d = d->next;
    if (!d || !d->engine || !d->ticked_us || !fc_engine_active(d->engine))
        return FC_ENOENT;
    struct ranked *r = rank(d->engine, &n);
    uint32_t *block = r ? malloc((size_t)n * each * sizeof(*block)) : NULL;
    for (uint32_t i = 0; block && i < n; i++)
        for (uint32_t k = 0; k < each; k++) {
            uint64_t at = (uint64_t)r[i].extent * each + k;
            if (at < blocks && at <= UINT32_MAX)
                block[count++] = (uint32_t)at;
        }
    free(r);
    if (!block)
        return FC_ENOMEM;
    *blocks_r = block;
    *count_r = count;
    return 0;
}

struct json_object *fc_blocktrace_json(const struct fc_blocktrace *b,
                                       const uint8_t *uuid)
{
    struct json_object *all = json_object_new_array();
    const struct run *r = b && b->current ? b->runs : NULL;
    bool begun = r && r->reader.start.devices;
    uint64_t lost = b ? b->lost : 0;
    for (const struct run *any = b ? b->runs : NULL; any; any = any->next)
        lost += any->reader.lost;
    for (const struct disk *d = b ? b->disks : NULL; d; d = d->next) {
        if (memcmp(d->uuid, uuid, FC_UUID_BYTES))
            continue;
        struct json_object *o = json_object_new_object();
        json_object_object_add(o, "vdev", json_object_new_string(d->vdev));
        json_object_object_add(
            o, "method",
            json_object_new_string(
                begun ? fc_blockbatch_means_name(r->reader.start.means) : ""));
        json_object_object_add(o, "reads", json_object_new_uint64(d->reads));
        json_object_object_add(o, "writes", json_object_new_uint64(d->writes));
        json_object_object_add(
            o, "extents",
            json_object_new_uint64(d->engine ? fc_engine_active(d->engine)
                                             : 0));
        json_object_object_add(o, "lost", json_object_new_uint64(lost));
        json_object_array_add(all, o);
    }
    return all;
}
