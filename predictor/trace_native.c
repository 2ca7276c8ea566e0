/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reader of the project's own trace format (docs/formats/trace.md). */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "err.h"
#include "trace_int.h"
#include "wire.h"

#define RESERVED_AT 32
#define HASH_AT 56

struct native {
    ZSTD_DCtx *zstd;
    uint8_t *packed, *raw;
    struct fc_reader records; /* what is left of the frame */
    uint32_t left;            /* records of it */
    uint64_t total;
    uint64_t end; /* of the request before */
    bool first;   /* the next record is the frame's first */
    bool ended;
};

static bool native_is(const uint8_t *start, size_t len)
{
    return len >= 8 && !memcmp(start, FC_TRACE_MAGIC, 8);
}

static int parse_header(struct fc_trace *trace, const uint8_t *raw,
                        struct fc_trace_problem *problem)
{
    struct fc_trace_head *h = &trace->head;
    unsigned version = (unsigned)fc_le_load(raw + 8, 2);
    uint64_t reserved = 0;
    if (version != FC_TRACE_VERSION)
        return fc_trace_fail(trace, problem, FC_EVERSION,
                             "a trace of version %u, this reads %u", version,
                             FC_TRACE_VERSION);
    if (fc_le_load(raw + HASH_AT, 8) != XXH3_64bits(raw, HASH_AT))
        return fc_trace_fail(trace, problem, FC_ECHECK,
                             "the header's checksum is wrong");
    for (unsigned at = RESERVED_AT; at < HASH_AT; at += 8)
        reserved |= fc_le_load(raw + at, 8);
    h->kind = raw[10];
    h->unit_shift = raw[11];
    h->tick_us = (uint32_t)fc_le_load(raw + 12, 4);
    h->units = fc_le_load(raw + 16, 8);
    h->start_s = fc_le_load(raw + 24, 8);
    bool memory = h->kind == FC_TRACE_MEMORY && h->unit_shift == 12 &&
                  h->tick_us >= FC_TRACE_MIN_TICK_US &&
                  h->tick_us <= FC_TRACE_MAX_TICK_US;
    bool block =
        h->kind == FC_TRACE_BLOCK && h->unit_shift == 9 && h->tick_us == 0;
    if ((!memory && !block) || h->units > FC_TRACE_MAX_UNITS || reserved)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "a header with a field out of range");
    return 0;
}

static int native_open(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    uint8_t raw[FC_TRACE_HEADER_BYTES];
    struct native *own = trace->own = calloc(1, sizeof(*own));
    int rc = fc_trace_input_read(trace->in, raw, sizeof(raw));
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "the header");
    if (own) {
        own->zstd = ZSTD_createDCtx();
        own->packed = malloc(FC_TRACE_MAX_PACKED);
        own->raw = malloc(FC_TRACE_MAX_RAW);
    }
    if (!own || !own->zstd || !own->packed || !own->raw)
        return fc_trace_fail(trace, problem, FC_ENOMEM, "%s",
                             fc_strerror(FC_ENOMEM));
    return parse_header(trace, raw, problem);
}

static void native_close(struct fc_trace *trace)
{
    struct native *own = trace->own;
    if (!own)
        return;
    ZSTD_freeDCtx(own->zstd);
    free(own->packed);
    free(own->raw);
    free(own);
}

/* The mark of the end: nothing may follow. */
static int end_of_file(struct fc_trace *trace, uint64_t total,
                       struct fc_trace_problem *problem)
{
    struct native *own = trace->own;
    uint8_t byte;
    if (total != own->total)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "the end says %llu records, there were %llu",
                             (unsigned long long)total,
                             (unsigned long long)own->total);
    if (fc_trace_input_read(trace->in, &byte, 1) != 0)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "something follows the end");
    trace->whole = true;
    own->ended = true;
    return 0;
}

/* 1 with a frame in own->records, 0 at the end, or an error. */
static int next_frame(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    struct native *own = trace->own;
    uint8_t raw[FC_TRACE_FRAME_BYTES];
    int rc = fc_trace_input_read(trace->in, raw, sizeof(raw));
    if (rc == 0 || rc == FC_EEOF) { /* cut off: what was read is good */
        own->ended = true;
        return 0;
    }
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "a frame's header");
    uint32_t packed = (uint32_t)fc_le_load(raw, 4);
    uint32_t plain = (uint32_t)fc_le_load(raw + 4, 4);
    own->left = (uint32_t)fc_le_load(raw + 8, 4);
    uint64_t hash = fc_le_load(raw + 16, 8);
    if (!packed && !plain && !own->left && !fc_le_load(raw + 12, 4))
        return end_of_file(trace, hash, problem);
    if (!packed || packed > FC_TRACE_MAX_PACKED || !plain ||
        plain > FC_TRACE_MAX_RAW || !own->left || fc_le_load(raw + 12, 4))
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "a frame's header out of range");
    rc = fc_trace_input_read(trace->in, own->packed, packed);
    if (rc == 0 || rc == FC_EEOF) {
        own->ended = true;
        return 0;
    }
    if (rc != 1)
        return fc_trace_fail_input(trace, problem, rc, "a frame");
    if (ZSTD_decompressDCtx(own->zstd, own->raw, plain, own->packed, packed) !=
        plain)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "a frame that does not decompress");
    if (XXH3_64bits(own->raw, plain) != hash)
        return fc_trace_fail(trace, problem, FC_ECHECK,
                             "a frame's checksum is wrong");
    own->records = fc_reader_of(own->raw, plain);
    own->first = true;
    own->end = 0;
    return 1;
}

static uint64_t number(struct fc_reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte = fc_get_u8(r);
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    r->bad = true;
    return 0;
}

static int parse_runs(struct fc_trace *trace, struct fc_reader *r)
{
    uint64_t count = number(r), at = 0;
    if (count > FC_TRACE_MAX_RUNS)
        return FC_EFORMAT;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t gap = number(r), more = number(r);
        if (r->bad || (i && gap == 0) || gap > FC_TRACE_MAX_UNITS ||
            more >= FC_TRACE_MAX_UNITS)
            return FC_EFORMAT;
        int rc = fc_trace_add_run(trace, at + gap, more + 1);
        if (rc)
            return rc;
        at += gap + more + 1;
    }
    return r->bad ? FC_EFORMAT : 0;
}

static int parse_request(struct fc_trace *trace, struct fc_reader *r)
{
    struct native *own = trace->own;
    int64_t step = fc_trace_unzigzag(number(r));
    uint64_t more = number(r);
    if (r->bad || step > (int64_t)FC_TRACE_MAX_UNITS ||
        step < -(int64_t)own->end || more >= FC_TRACE_MAX_UNITS)
        return FC_EFORMAT;
    uint64_t first = own->end + (uint64_t)step;
    own->end = first + more + 1;
    return fc_trace_add_run(trace, first, more + 1);
}

static int parse_rates(struct fc_reader *r, struct fc_trace_rates *rates)
{
    uint64_t cpu = number(r);
    *rates = (struct fc_trace_rates){
        .cpu_permille = (uint32_t)cpu,
        .net_rx = number(r),
        .net_tx = number(r),
        .vbd_rd = number(r),
        .vbd_wr = number(r),
    };
    return r->bad || cpu > UINT32_MAX ? FC_EFORMAT : 0;
}

static int parse_body(struct fc_trace *trace, struct fc_trace_record *record)
{
    struct native *own = trace->own;
    bool memory = trace->head.kind == FC_TRACE_MEMORY;
    switch (record->type) {
    case FC_TRACE_TICK:
    case FC_TRACE_MORE:
    case FC_TRACE_PRESENT:
        return memory ? parse_runs(trace, &own->records) : FC_EFORMAT;
    case FC_TRACE_RATES:
        return memory ? parse_rates(&own->records, &record->rates) : FC_EFORMAT;
    case FC_TRACE_READ:
    case FC_TRACE_WRITE:
    case FC_TRACE_DISCARD:
        return memory ? FC_EFORMAT : parse_request(trace, &own->records);
    }
    return FC_EFORMAT;
}

static int native_next(struct fc_trace *trace, struct fc_trace_record *record,
                       struct fc_trace_problem *problem)
{
    struct native *own = trace->own;
    int rc = own->left ? 1 : own->ended ? 0 : next_frame(trace, problem);
    if (rc != 1)
        return rc;
    memset(record, 0, sizeof(*record));
    trace->runs = 0;
    uint64_t type = number(&own->records);
    uint64_t later = number(&own->records);
    uint64_t before = own->first ? 0 : trace->time_us;
    if (own->records.bad || type > FC_TRACE_DISCARD ||
        later >= FC_TRACE_MAX_TIME_US - before ||
        before + later < trace->time_us)
        rc = FC_EFORMAT;
    if (rc == 1) {
        record->type = (enum fc_trace_type)type;
        record->time_us = trace->time_us = before + later;
        rc = parse_body(trace, record);
    }
    own->first = false;
    own->left--;
    own->total++;
    if (rc == 0 && !own->left && fc_reader_left(&own->records))
        rc = FC_EFORMAT;
    if (rc)
        return fc_trace_fail(trace, problem, rc,
                             "record %llu, in the frame before: %s",
                             (unsigned long long)own->total, fc_strerror(rc));
    record->run = trace->run;
    record->run_count = trace->runs;
    return 1;
}

const struct fc_trace_ops fc_trace_native = {
    .name = "forecopy",
    .is = native_is,
    .open = native_open,
    .next = native_next,
    .close = native_close,
};
