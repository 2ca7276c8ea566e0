/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "blockbatch.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "err.h"
#include "wire.h"

#define VERSION 1u
#define START_FIXED 16u
#define START_DEVICE 16u
#define COUNT_FIXED 24u
#define COUNT_ENTRY 32u
#define REQUEST_FIXED 16u
#define REQUEST_ENTRY 24u
#define END_BYTES 16u
#define MAGIC 0x54424346u /* "FCBT" */
_Static_assert(COUNT_FIXED + FC_BLOCKBATCH_COUNTS * COUNT_ENTRY <=
                   FC_BLOCKBATCH_BODY,
               "counts fit a frame");
_Static_assert(REQUEST_FIXED + FC_BLOCKBATCH_REQUESTS * REQUEST_ENTRY <=
                   FC_BLOCKBATCH_BODY,
               "requests fit a frame");

const char *fc_blockbatch_means_name(enum fc_blockbatch_means means)
{
    switch (means) {
    case FC_BLOCKBATCH_BPF:
        return "bpf";
    case FC_BLOCKBATCH_TRACEFS:
        return "tracefs";
    case FC_BLOCKBATCH_BLKTRACE:
        return "blktrace";
    }
    return NULL;
}

static struct fc_writer body_of(uint8_t *buf)
{
    return fc_writer_of(buf + FC_BLOCKBATCH_HEADER, FC_BLOCKBATCH_BODY);
}

/* Sets the header before the body that was written. */
static size_t close_frame(uint8_t *buf, const struct fc_writer *body,
                          enum fc_blockbatch_type type)
{
    size_t len = fc_writer_used(body);
    struct fc_writer w = fc_writer_of(buf, FC_BLOCKBATCH_HEADER);
    if (body->bad)
        return 0;
    fc_put_u32(&w, MAGIC);
    fc_put_u16(&w, VERSION);
    fc_put_u16(&w, (uint16_t)type);
    fc_put_u32(&w, (uint32_t)len);
    fc_put_u32(&w, (uint32_t)XXH3_64bits(body->start, len));
    return FC_BLOCKBATCH_HEADER + len;
}

static bool start_fits(const struct fc_blockbatch_start *s)
{
    return s->extent_bytes >= FC_BLOCKBATCH_EXTENT_LEAST &&
           s->extent_bytes <= FC_BLOCKBATCH_EXTENT_MOST &&
           !(s->extent_bytes & (s->extent_bytes - 1)) &&
           s->interval_ms >= FC_BLOCKBATCH_INTERVAL_LEAST &&
           s->interval_ms <= FC_BLOCKBATCH_INTERVAL_MOST &&
           fc_blockbatch_means_name(s->means) && s->devices &&
           s->devices <= FC_BLOCKBATCH_DEVICES;
}

size_t fc_blockbatch_put_start(uint8_t *buf,
                               const struct fc_blockbatch_start *start)
{
    struct fc_writer w = body_of(buf);
    if (!start_fits(start))
        return 0;
    fc_put_u32(&w, start->extent_bytes);
    fc_put_u32(&w, start->interval_ms);
    fc_put_u8(&w, (uint8_t)start->means);
    fc_put_u8(&w, start->requests);
    fc_put_u16(&w, (uint16_t)start->devices);
    fc_put_u32(&w, 0);
    for (uint32_t i = 0; i < start->devices; i++) {
        const struct fc_blockbatch_device *d = &start->device[i];
        if (d->sectors > FC_BLOCKBATCH_SECTORS_MOST)
            return 0;
        fc_put_u32(&w, d->major);
        fc_put_u32(&w, d->minor);
        fc_put_u64(&w, d->sectors);
    }
    return close_frame(buf, &w, FC_BLOCKBATCH_START);
}

size_t fc_blockbatch_put_counts(uint8_t *buf, uint32_t device, uint64_t time_us,
                                uint64_t lost, bool more, uint32_t n,
                                const struct fc_blockbatch_count *count)
{
    struct fc_writer w = body_of(buf);
    if (n > FC_BLOCKBATCH_COUNTS || device >= FC_BLOCKBATCH_DEVICES)
        return 0;
    fc_put_u64(&w, time_us);
    fc_put_u64(&w, lost);
    fc_put_u16(&w, (uint16_t)device);
    fc_put_u8(&w, more);
    fc_put_u8(&w, 0);
    fc_put_u32(&w, n);
    for (uint32_t i = 0; i < n; i++) {
        fc_put_u64(&w, count[i].extent);
        fc_put_u32(&w, count[i].reads);
        fc_put_u32(&w, count[i].writes);
        fc_put_u64(&w, count[i].read_bytes);
        fc_put_u64(&w, count[i].write_bytes);
    }
    return close_frame(buf, &w, FC_BLOCKBATCH_COUNT);
}

size_t fc_blockbatch_put_requests(uint8_t *buf, uint32_t device, uint64_t lost,
                                  uint32_t n,
                                  const struct fc_blockbatch_request *request)
{
    struct fc_writer w = body_of(buf);
    if (!n || n > FC_BLOCKBATCH_REQUESTS || device >= FC_BLOCKBATCH_DEVICES)
        return 0;
    fc_put_u64(&w, lost);
    fc_put_u16(&w, (uint16_t)device);
    fc_put_u16(&w, 0);
    fc_put_u32(&w, n);
    for (uint32_t i = 0; i < n; i++) {
        fc_put_u64(&w, request[i].time_us);
        fc_put_u64(&w, request[i].sector);
        fc_put_u32(&w, request[i].sectors);
        fc_put_u32(&w, (uint32_t)request[i].op);
    }
    return close_frame(buf, &w, FC_BLOCKBATCH_REQUEST);
}

size_t fc_blockbatch_put_end(uint8_t *buf, uint64_t lost, uint64_t requests)
{
    struct fc_writer w = body_of(buf);
    fc_put_u64(&w, lost);
    fc_put_u64(&w, requests);
    return close_frame(buf, &w, FC_BLOCKBATCH_END);
}

static long refuse(struct fc_blockbatch_reader *r, int rc, const char *what)
{
    snprintf(r->problem, sizeof(r->problem), "%s", what);
    return rc;
}

static long take_start(struct fc_blockbatch_reader *r, struct fc_reader *b)
{
    struct fc_blockbatch_start s = { .extent_bytes = fc_get_u32(b) };
    s.interval_ms = fc_get_u32(b);
    s.means = (enum fc_blockbatch_means)fc_get_u8(b);
    uint8_t requests = fc_get_u8(b);
    s.devices = fc_get_u16(b);
    s.requests = requests == 1;
    if (fc_get_u32(b) || requests > 1 || b->bad || !start_fits(&s))
        return refuse(r, FC_EFORMAT, "START: a field is out of range");
    for (uint32_t i = 0; i < s.devices; i++) {
        s.device[i].major = fc_get_u32(b);
        s.device[i].minor = fc_get_u32(b);
        s.device[i].sectors = fc_get_u64(b);
        if (s.device[i].sectors > FC_BLOCKBATCH_SECTORS_MOST)
            return refuse(r, FC_EFORMAT, "START: a device is too large");
    }
    if (b->bad || fc_reader_left(b))
        return refuse(r, FC_EFORMAT, "START: wrong length");
    r->start = s;
    return 0;
}

static long take_lost(struct fc_blockbatch_reader *r, uint64_t lost)
{
    if (lost < r->lost)
        return refuse(r, FC_EFORMAT, "the number of lost requests falls");
    r->lost = lost;
    return 0;
}

void fc_blockbatch_count_at(const struct fc_blockbatch_frame *frame, uint32_t i,
                            struct fc_blockbatch_count *count_r)
{
    const uint8_t *p = frame->entries + (size_t)i * COUNT_ENTRY;
    *count_r = (struct fc_blockbatch_count){
        .extent = fc_le_load(p, 8),
        .reads = (uint32_t)fc_le_load(p + 8, 4),
        .writes = (uint32_t)fc_le_load(p + 12, 4),
        .read_bytes = fc_le_load(p + 16, 8),
        .write_bytes = fc_le_load(p + 24, 8),
    };
}

static long take_counts(struct fc_blockbatch_reader *r, struct fc_reader *b,
                        struct fc_blockbatch_frame *f)
{
    f->time_us = fc_get_u64(b);
    uint64_t lost = fc_get_u64(b);
    f->device = fc_get_u16(b);
    uint8_t more = fc_get_u8(b), zero = fc_get_u8(b);
    f->n = fc_get_u32(b);
    f->more = more == 1;
    if (b->bad || f->device >= r->start.devices || more > 1 || zero ||
        f->n > FC_BLOCKBATCH_COUNTS || f->time_us < r->counted_us[f->device])
        return refuse(r, FC_EFORMAT, "COUNTS: a field is out of range");
    f->entries = fc_get_bytes(b, (size_t)f->n * COUNT_ENTRY);
    if (!f->entries || fc_reader_left(b))
        return refuse(r, FC_EFORMAT, "COUNTS: wrong length");
    uint64_t extents = fc_blockbatch_extents(r->start.device[f->device].sectors,
                                             r->start.extent_bytes);
    uint64_t least = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        struct fc_blockbatch_count c;
        fc_blockbatch_count_at(f, i, &c);
        if (c.extent < least || c.extent >= extents || (!c.reads && !c.writes))
            return refuse(r, FC_EFORMAT, "COUNTS: a bad entry");
        least = c.extent + 1;
    }
    r->counted_us[f->device] = f->time_us;
    return take_lost(r, lost);
}

void fc_blockbatch_request_at(const struct fc_blockbatch_frame *frame,
                              uint32_t i,
                              struct fc_blockbatch_request *request_r)
{
    const uint8_t *p = frame->entries + (size_t)i * REQUEST_ENTRY;
    *request_r = (struct fc_blockbatch_request){
        .time_us = fc_le_load(p, 8),
        .sector = fc_le_load(p + 8, 8),
        .sectors = (uint32_t)fc_le_load(p + 16, 4),
        .op = (enum fc_blockbatch_op)fc_le_load(p + 20, 4),
    };
}

static long take_requests(struct fc_blockbatch_reader *r, struct fc_reader *b,
                          struct fc_blockbatch_frame *f)
{
    uint64_t lost = fc_get_u64(b);
    f->device = fc_get_u16(b);
    uint16_t zero = fc_get_u16(b);
    f->n = fc_get_u32(b);
    if (b->bad || f->device >= r->start.devices || zero || !f->n ||
        f->n > FC_BLOCKBATCH_REQUESTS || !r->start.requests)
        return refuse(r, FC_EFORMAT, "REQUESTS: a field is out of range");
    f->entries = fc_get_bytes(b, (size_t)f->n * REQUEST_ENTRY);
    if (!f->entries || fc_reader_left(b))
        return refuse(r, FC_EFORMAT, "REQUESTS: wrong length");
    uint64_t sectors = r->start.device[f->device].sectors;
    uint64_t *time_us = &r->requested_us[f->device];
    for (uint32_t i = 0; i < f->n; i++) {
        struct fc_blockbatch_request q;
        fc_blockbatch_request_at(f, i, &q);
        if (q.time_us < *time_us || !q.sectors || q.sector >= sectors ||
            q.sectors > sectors - q.sector || q.op < FC_BLOCKBATCH_READ ||
            q.op > FC_BLOCKBATCH_DISCARD)
            return refuse(r, FC_EFORMAT, "REQUESTS: a bad entry");
        *time_us = q.time_us;
    }
    return take_lost(r, lost);
}

static long take_end(struct fc_blockbatch_reader *r, struct fc_reader *b)
{
    uint64_t lost = fc_get_u64(b), requests = fc_get_u64(b);
    if (b->bad || fc_reader_left(b))
        return refuse(r, FC_EFORMAT, "END: wrong length");
    r->requests = requests;
    r->ended = true;
    return take_lost(r, lost);
}

static long take_body(struct fc_blockbatch_reader *r, unsigned type,
                      struct fc_reader *b, struct fc_blockbatch_frame *f)
{
    if (r->ended)
        return refuse(r, FC_EFORMAT, "something follows the END");
    if ((type == FC_BLOCKBATCH_START) != !r->start.devices)
        return refuse(r, FC_EFORMAT, "START is not the first, and once");
    *f = (struct fc_blockbatch_frame){ .type = (enum fc_blockbatch_type)type };
    switch (type) {
    case FC_BLOCKBATCH_START:
        return take_start(r, b);
    case FC_BLOCKBATCH_COUNT:
        return take_counts(r, b, f);
    case FC_BLOCKBATCH_REQUEST:
        return take_requests(r, b, f);
    case FC_BLOCKBATCH_END:
        return take_end(r, b);
    default:
        return refuse(r, FC_EFORMAT, "a frame of an unknown type");
    }
}

long fc_blockbatch_next(struct fc_blockbatch_reader *r, const uint8_t *buf,
                        size_t len, struct fc_blockbatch_frame *frame_r)
{
    struct fc_reader h = fc_reader_of(buf, len);
    if (len < FC_BLOCKBATCH_HEADER)
        return 0;
    if (fc_get_u32(&h) != MAGIC)
        return refuse(r, FC_EFORMAT, "not a frame of block requests");
    if (fc_get_u16(&h) != VERSION)
        return refuse(r, FC_EVERSION, "a version that is not known");
    unsigned type = fc_get_u16(&h);
    uint32_t bytes = fc_get_u32(&h), check = fc_get_u32(&h);
    if (bytes > FC_BLOCKBATCH_BODY)
        return refuse(r, FC_ETOOBIG, "a frame is too long");
    if (bytes > fc_reader_left(&h))
        return 0;
    const uint8_t *body = fc_get_bytes(&h, bytes);
    if ((uint32_t)XXH3_64bits(body, bytes) != check)
        return refuse(r, FC_ECHECK, "a frame's checksum does not match");
    struct fc_reader b = fc_reader_of(body, bytes);
    long rc = take_body(r, type, &b, frame_r);
    return rc ? rc : (long)(FC_BLOCKBATCH_HEADER + bytes);
}
