/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's binary buffers: pages of trace_pipe_raw (their layout is told by
 * events/header_page and the event's format file, that of their entries by
 * events/header_event), and blktrace's events (linux/blktrace_api.h).
 */
#include <linux/blktrace_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "btrace.h"
#include "err.h"
#include "wire.h"

/* An entry's first word: 5 bits of type or length, 27 of time. */
#define TYPE_PADDING 29u
#define TYPE_EXTEND 30u
#define TYPE_STAMP 31u
#define COMMIT_BYTES 0xfffffffu /* above: flags about lost events */
#define RWBS 10u

/* "field: TYPE NAME; offset:N; size:N;" by name; -1: not there. */
static long field(const char *text, const char *name, const char *what)
{
    size_t len = strlen(name);
    for (const char *at = text; (at = strstr(at, name)); at += len) {
        char before = at > text ? at[-1] : 0, after = at[len];
        if ((before != ' ' && before != '\t') || (after != ';' && after != '['))
            continue;
        const char *line = strchr(at, '\n');
        const char *value = strstr(at, what);
        if (!value || (line && value > line))
            return -1;
        return strtol(value + strlen(what), NULL, 10);
    }
    return -1;
}

static bool set(uint16_t *to, long value, long most)
{
    *to = (uint16_t)value;
    return value >= 0 && value <= most;
}

int fc_btrace_layout_parse(const char *event_format, const char *page_format,
                           struct fc_btrace_layout *l)
{
    const char *id = strstr(event_format, "ID: ");
    *l = (struct fc_btrace_layout){ .id = 0 };
    if (!id || !set(&l->id, strtol(id + 4, NULL, 10), UINT16_MAX) || !l->id ||
        !set(&l->dev, field(event_format, "dev", "offset:"), 1024) ||
        !set(&l->sector, field(event_format, "sector", "offset:"), 1024) ||
        !set(&l->nr_sector, field(event_format, "nr_sector", "offset:"),
             1024) ||
        !set(&l->rwbs, field(event_format, "rwbs", "offset:"), 1024) ||
        !set(&l->commit, field(page_format, "commit", "offset:"), 64) ||
        !set(&l->commit_size, field(page_format, "commit", "size:"), 8) ||
        !set(&l->data, field(page_format, "data", "offset:"), 64) ||
        (l->commit_size != 4 && l->commit_size != 8))
        return FC_EFORMAT;
    return 0;
}

/* The letters of a request: D discard, R read, W write; flushes have none. */
static int kind_of(const uint8_t *rwbs)
{
    for (unsigned i = 0; i < RWBS && rwbs[i]; i++) {
        if (rwbs[i] == 'D')
            return FC_BLOCKBATCH_DISCARD;
        if (rwbs[i] == 'R')
            return FC_BLOCKBATCH_READ;
        if (rwbs[i] == 'W')
            return FC_BLOCKBATCH_WRITE;
    }
    return 0;
}

static void take_event(struct fc_btrace *t, const struct fc_btrace_config *c,
                       const struct fc_btrace_layout *l, const uint8_t *event,
                       size_t len, uint64_t time_ns)
{
    if (len < 2 || fc_le_load(event, 2) != l->id || len < l->dev + 4u ||
        len < l->sector + 8u || len < l->nr_sector + 4u || len < l->rwbs + RWBS)
        return;
    uint32_t dev = (uint32_t)fc_le_load(event + l->dev, 4);
    uint64_t sector = fc_le_load(event + l->sector, 8);
    int index = fc_btrace_find(c, dev >> 20, dev & 0xfffff, sector);
    int kind = kind_of(event + l->rwbs);
    if (index >= 0 && kind)
        fc_btrace_seen_one(t, (uint32_t)index, time_ns,
                           (enum fc_blockbatch_op)kind,
                           sector - c->target[index].first,
                           (uint32_t)fc_le_load(event + l->nr_sector, 4));
}

void fc_btrace_page_parse(struct fc_btrace *t, const struct fc_btrace_config *c,
                          const struct fc_btrace_layout *l, const uint8_t *page,
                          size_t len)
{
    if (len < l->data || len < (size_t)l->commit + l->commit_size || len < 8)
        return;
    uint64_t now = fc_le_load(page, 8);
    size_t bytes =
        (size_t)(fc_le_load(page + l->commit, l->commit_size) & COMMIT_BYTES);
    struct fc_reader r = fc_reader_of(
        page + l->data, bytes < len - l->data ? bytes : len - l->data);
    while (fc_reader_left(&r) >= 4) {
        uint32_t head = fc_get_u32(&r), type = head & 31, delta = head >> 5;
        if (type == TYPE_PADDING) {
            if (!delta)
                return; /* nothing more on this page */
            fc_get_bytes(&r, fc_get_u32(&r));
            now += delta;
            continue;
        }
        if (type == TYPE_EXTEND) {
            now += ((uint64_t)fc_get_u32(&r) << 27) + delta;
            continue;
        }
        if (type == TYPE_STAMP) { /* 59 bits; those above stay */
            uint64_t stamp = ((uint64_t)fc_get_u32(&r) << 27) + delta;
            now = (now & ~((1ull << 59) - 1)) | stamp;
            continue;
        }
        now += delta;
        uint32_t size = type ? type * 4 : fc_get_u32(&r);
        if (!type)
            size = size >= 4 ? size - 4 : 0;
        const uint8_t *event = fc_get_bytes(&r, size);
        if (event)
            take_event(t, c, l, event, size, now);
    }
}

long fc_btrace_events_parse(struct fc_btrace *t, uint32_t index, uint64_t first,
                            const uint8_t *buf, size_t len)
{
    struct blk_io_trace e;
    size_t at = 0;
    while (len - at >= sizeof(e)) {
        memcpy(&e, buf + at, sizeof(e));
        if ((e.magic & 0xffffff00) != BLK_IO_TRACE_MAGIC ||
            (e.magic & 0xff) != BLK_IO_TRACE_VERSION)
            return FC_EFORMAT;
        if (len - at < sizeof(e) + e.pdu_len)
            break;
        at += sizeof(e) + e.pdu_len;
        uint32_t category = e.action >> BLK_TC_SHIFT;
        if ((e.action & 0xff) != __BLK_TA_QUEUE || category & BLK_TC_NOTIFY)
            continue;
        enum fc_blockbatch_op op =
            category & BLK_TC_DISCARD ? FC_BLOCKBATCH_DISCARD
            : category & BLK_TC_WRITE ? FC_BLOCKBATCH_WRITE
                                      : FC_BLOCKBATCH_READ;
        fc_btrace_seen_one(t, index, e.time, op, e.sector - first,
                           e.bytes / 512);
    }
    return (long)at;
}
