/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writer of the project's own trace format (docs/formats/trace.md). */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "err.h"
#include "io.h"
#include "trace_int.h"
#include "wire.h"

#define FRAME_BYTES (1u << 18) /* a frame goes out when it has so many */
#define LEVEL 9                /* ticks come slowly: size counts */
#define NUMBER_BYTES 10u

struct fc_trace_writer {
    int fd;
    struct fc_trace_head head;
    ZSTD_CCtx *zstd;
    uint8_t *raw, *packed;
    size_t used;      /* of raw */
    uint32_t records; /* in raw */
    uint64_t total;
    uint64_t time_us; /* of the record before */
    uint64_t end;     /* of the request before in this frame */
};

static bool head_ok(const struct fc_trace_head *h)
{
    if (h->units > FC_TRACE_MAX_UNITS)
        return false;
    if (h->kind == FC_TRACE_MEMORY)
        return h->unit_shift == 12 && h->tick_us >= FC_TRACE_MIN_TICK_US &&
               h->tick_us <= FC_TRACE_MAX_TICK_US;
    return h->kind == FC_TRACE_BLOCK && h->unit_shift == 9 && h->tick_us == 0;
}

static int write_header(const struct fc_trace_writer *w)
{
    uint8_t raw[FC_TRACE_HEADER_BYTES] = { 0 };
    struct fc_writer out = fc_writer_of(raw, sizeof(raw));
    fc_put_bytes(&out, FC_TRACE_MAGIC, 8);
    fc_put_u16(&out, FC_TRACE_VERSION);
    fc_put_u8(&out, (uint8_t)w->head.kind);
    fc_put_u8(&out, (uint8_t)w->head.unit_shift);
    fc_put_u32(&out, w->head.tick_us);
    fc_put_u64(&out, w->head.units);
    fc_put_u64(&out, w->head.start_s);
    fc_le_store(raw + 56, XXH3_64bits(raw, 56), 8);
    return fc_write_all(w->fd, raw, sizeof(raw));
}

int fc_trace_writer_new(int fd, const struct fc_trace_head *head,
                        struct fc_trace_writer **writer_r)
{
    if (!head_ok(head))
        return FC_EINVAL;
    struct fc_trace_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return FC_ENOMEM;
    w->fd = fd;
    w->head = *head;
    w->zstd = ZSTD_createCCtx();
    w->raw = malloc(FC_TRACE_MAX_RAW);
    w->packed = malloc(FC_TRACE_MAX_PACKED);
    int rc = w->zstd && w->raw && w->packed ? write_header(w) : FC_ENOMEM;
    if (rc) {
        fc_trace_writer_free(w);
        return rc;
    }
    *writer_r = w;
    return 0;
}

void fc_trace_writer_free(struct fc_trace_writer *w)
{
    if (!w)
        return;
    ZSTD_freeCCtx(w->zstd);
    free(w->raw);
    free(w->packed);
    free(w);
}

int fc_trace_flush(struct fc_trace_writer *w)
{
    uint8_t head[FC_TRACE_FRAME_BYTES] = { 0 };
    if (!w->records)
        return 0;
    size_t packed = ZSTD_compressCCtx(w->zstd, w->packed, FC_TRACE_MAX_PACKED,
                                      w->raw, w->used, LEVEL);
    if (ZSTD_isError(packed))
        return FC_ENOMEM;
    fc_le_store(head, packed, 4);
    fc_le_store(head + 4, w->used, 4);
    fc_le_store(head + 8, w->records, 4);
    fc_le_store(head + 16, XXH3_64bits(w->raw, w->used), 8);
    w->total += w->records;
    w->records = 0;
    w->used = 0;
    w->end = 0;
    int rc = fc_write_all(w->fd, head, sizeof(head));
    return rc ? rc : fc_write_all(w->fd, w->packed, packed);
}

int fc_trace_finish(struct fc_trace_writer *w)
{
    uint8_t mark[FC_TRACE_FRAME_BYTES] = { 0 };
    int rc = fc_trace_flush(w);
    if (rc)
        return rc;
    fc_le_store(mark + 16, w->total, 8);
    return fc_write_all(w->fd, mark, sizeof(mark));
}

static void put_number(struct fc_trace_writer *w, uint64_t v)
{
    while (v >= 128) {
        w->raw[w->used++] = (uint8_t)(v | 128);
        v >>= 7;
    }
    w->raw[w->used++] = (uint8_t)v;
}

/* Type and time; sends the frame first when `runs` might not fit in it. */
static int put_start(struct fc_trace_writer *w, enum fc_trace_type type,
                     uint64_t time_us, uint32_t runs)
{
    size_t most = (8 + 2 * (size_t)runs) * NUMBER_BYTES;
    if (w->used >= FRAME_BYTES || w->used + most > FC_TRACE_MAX_RAW) {
        int rc = fc_trace_flush(w);
        if (rc)
            return rc;
    }
    put_number(w, type);
    put_number(w, w->records ? time_us - w->time_us : time_us);
    w->time_us = time_us;
    w->records++;
    return 0;
}

static bool runs_ok(const struct fc_trace_writer *w,
                    const struct fc_trace_record *r)
{
    uint64_t units = w->head.units ? w->head.units : FC_TRACE_MAX_UNITS;
    uint64_t least = 0;
    for (uint32_t i = 0; i < r->run_count; i++) {
        const struct fc_trace_run *run = &r->run[i];
        if (run->first < least || run->first >= units || !run->count ||
            run->count > units - run->first)
            return false;
        least = run->first + run->count + 1;
    }
    return true;
}

static int put_runs(struct fc_trace_writer *w, const struct fc_trace_record *r)
{
    uint32_t done = 0;
    do {
        uint32_t n = r->run_count - done;
        n = n < FC_TRACE_MAX_RUNS ? n : FC_TRACE_MAX_RUNS;
        enum fc_trace_type type = r->type;
        if (done && type == FC_TRACE_TICK)
            type = FC_TRACE_MORE;
        int rc = put_start(w, type, r->time_us, n);
        if (rc)
            return rc;
        uint64_t at = 0;
        put_number(w, n);
        for (uint32_t i = done; i < done + n; i++) {
            put_number(w, r->run[i].first - at);
            put_number(w, r->run[i].count - 1);
            at = r->run[i].first + r->run[i].count;
        }
        done += n;
    } while (done < r->run_count);
    return 0;
}

static int put_request(struct fc_trace_writer *w,
                       const struct fc_trace_record *r)
{
    int rc = put_start(w, r->type, r->time_us, 1);
    if (rc)
        return rc;
    put_number(w, fc_trace_zigzag((int64_t)(r->run->first - w->end)));
    put_number(w, r->run->count - 1);
    w->end = r->run->first + r->run->count;
    return 0;
}

static int put_rates(struct fc_trace_writer *w, const struct fc_trace_record *r)
{
    int rc = put_start(w, r->type, r->time_us, 1);
    if (rc)
        return rc;
    put_number(w, r->rates.cpu_permille);
    put_number(w, r->rates.net_rx);
    put_number(w, r->rates.net_tx);
    put_number(w, r->rates.vbd_rd);
    put_number(w, r->rates.vbd_wr);
    return 0;
}

int fc_trace_put(struct fc_trace_writer *w, const struct fc_trace_record *r)
{
    bool memory = w->head.kind == FC_TRACE_MEMORY;
    if (r->time_us < w->time_us || r->time_us >= FC_TRACE_MAX_TIME_US ||
        !runs_ok(w, r))
        return FC_EINVAL;
    switch (r->type) {
    case FC_TRACE_TICK:
    case FC_TRACE_MORE:
    case FC_TRACE_PRESENT:
        return memory ? put_runs(w, r) : FC_EINVAL;
    case FC_TRACE_RATES:
        return memory ? put_rates(w, r) : FC_EINVAL;
    case FC_TRACE_READ:
    case FC_TRACE_WRITE:
    case FC_TRACE_DISCARD:
        return memory || r->run_count != 1 ? FC_EINVAL : put_request(w, r);
    }
    return FC_EINVAL;
}
