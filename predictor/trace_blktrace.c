/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Imports blktrace's binary events (struct blk_io_trace of the kernel's
 * blktrace_api.h): the requests as they were queued, of one device.
 */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "trace_int.h"
#include "wire.h"

#define EVENT_BYTES 48u
#define MAGIC 0x656174u /* in the upper 24 bits; below it the version */
#define VERSION 7u
#define QUEUED 1u
#define ACTION_MASK 0xffffu
#define CATEGORY_SHIFT 16
#define IS_READ 0x0001u
#define IS_WRITE 0x0002u
#define IS_NOTIFY 0x0400u
#define IS_DISCARD 0x2000u

struct blktrace {
    bool known; /* device and start are set */
    uint32_t device;
    uint64_t start_ns;
};

struct event {
    uint64_t time_ns, sector;
    uint32_t bytes, action, device;
    uint16_t more; /* bytes that follow */
};

static bool blktrace_is(const uint8_t *start, size_t len)
{
    return len >= 4 && ((fc_le_load(start, 4) >> 8) == MAGIC ||
                        (start[0] == 'e' && start[1] == 'a' &&
                         start[2] == 't' && start[3] == VERSION));
}

static int blktrace_open(struct fc_trace *trace,
                         struct fc_trace_problem *problem)
{
    trace->head.kind = FC_TRACE_BLOCK;
    trace->head.unit_shift = 9;
    trace->own = calloc(1, sizeof(struct blktrace));
    if (!trace->own)
        return fc_trace_fail(trace, problem, FC_ENOMEM, "%s",
                             fc_strerror(FC_ENOMEM));
    return 0;
}

static void blktrace_close(struct fc_trace *trace)
{
    free(trace->own);
}

/* 1, 0 at the end, or an error. */
static int read_event(struct fc_trace *trace, struct event *e,
                      struct fc_trace_problem *problem)
{
    uint8_t raw[EVENT_BYTES], skipped[256];
    int rc = fc_trace_input_read(trace->in, raw, sizeof(raw));
    if (rc == 0)
        return 0;
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "an event");
    uint32_t magic = (uint32_t)fc_le_load(raw, 4);
    if (magic >> 8 != MAGIC)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "an event with the mark %#x; only little endian "
                             "is read",
                             magic);
    if ((magic & 0xff) != VERSION)
        return fc_trace_fail(trace, problem, FC_EVERSION,
                             "blktrace of version %u, this reads %u",
                             magic & 0xff, VERSION);
    *e = (struct event){
        .time_ns = fc_le_load(raw + 8, 8),
        .sector = fc_le_load(raw + 16, 8),
        .bytes = (uint32_t)fc_le_load(raw + 24, 4),
        .action = (uint32_t)fc_le_load(raw + 28, 4),
        .device = (uint32_t)fc_le_load(raw + 36, 4),
        .more = (uint16_t)fc_le_load(raw + 46, 2),
    };
    for (unsigned left = e->more; left;) {
        unsigned n = left < sizeof(skipped) ? left : sizeof(skipped);
        rc = fc_trace_input_read(trace->in, skipped, n);
        if (rc != 1)
            return fc_trace_fail_input(trace, problem, rc, "an event");
        left -= n;
    }
    return 1;
}

static int blktrace_next(struct fc_trace *trace, struct fc_trace_record *record,
                         struct fc_trace_problem *problem)
{
    struct blktrace *own = trace->own;
    struct event e = { 0 };
    int rc;
    while ((rc = read_event(trace, &e, problem)) == 1) {
        uint32_t category = e.action >> CATEGORY_SHIFT;
        if ((category & IS_NOTIFY) || (e.action & ACTION_MASK) != QUEUED ||
            !(category & (IS_READ | IS_WRITE)) || e.bytes == 0)
            continue;
        if (!own->known)
            *own = (struct blktrace){ true, e.device, e.time_ns };
        if (e.device != own->device)
            continue;
        uint64_t ns = e.time_ns > own->start_ns ? e.time_ns - own->start_ns : 0;
        rc = fc_trace_set_time(trace, ns / 1000, problem);
        if (rc)
            return rc;
        if (e.sector >= FC_TRACE_MAX_UNITS)
            return fc_trace_fail(trace, problem, FC_EFORMAT,
                                 "a request at sector %llu",
                                 (unsigned long long)e.sector);
        return fc_trace_request(trace, record,
                                category & IS_DISCARD ? FC_TRACE_DISCARD
                                : category & IS_WRITE ? FC_TRACE_WRITE
                                                      : FC_TRACE_READ,
                                e.sector * 512, e.bytes, problem);
    }
    trace->whole = rc == 0;
    return rc;
}

const struct fc_trace_ops fc_trace_blktrace = {
    .name = "blktrace",
    .is = blktrace_is,
    .open = blktrace_open,
    .next = blktrace_next,
    .close = blktrace_close,
};
