/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The encoder: a libxc stream in, a forecopy stream out
 * (docs/formats/stream.md).
 *
 * Headers pass; HELLO follows them when there is something to propose. Records
 * pass until the first page data: then ops->welcome() decides, once, between
 * plain (everything passes byte for byte, for good) and predictive (each
 * PAGE_DATA becomes one PAGES record, or none).
 *
 * A page of PAGE_DATA is, in this order of preference: dropped (it is dirty
 * again and so comes again), NONE, ZERO, REF (the receiver holds its
 * contents), DATA. Dropping and referring end with fc_encoder_final(), which
 * the caller gives before the guest is suspended: what is sent afterwards is
 * the last word on a page, and must not depend on a question and an answer.
 * Only pages of type 0 are referred to, because the receiver asks for lost
 * references by pfn and gets the page as the guest has it, not as libxc
 * normalises page tables.
 *
 * PAGE_DATA that is not as libxc writes it (more than 1024 entries, lengths
 * that do not add up) passes: judging it is the receiver's libxc's business.
 */
#include "encoder.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "back.h"
#include "batch.h"
#include "err.h"
#include "page.h"
#include "wire.h"

#define WHY_BYTES 256
#define PIECE_BYTES 262144u /* of a record that passes */
#define BATCH_ROOM (FC_RECORD_HEADER + FC_BATCH_MAX_BYTES + 8)
#define NO_PAGE ((uint64_t)0xf << FC_PFN_TYPE_SHIFT)
/* The mean cost of a page looks back over about so many. */
#define COST_PAGES 16384u

_Static_assert(BATCH_ROOM <= FC_ENCODER_ROOM, "a PAGES record fits the room");

struct fc_encoder {
    const struct fc_encoder_ops *ops;
    void *user;
    struct fc_encoder_config config;
    struct fc_hello hello; /* what config.hello points to */
    struct fc_encoder_counts counts;
    enum fc_stream_mode mode;
    bool started, proposed, refs, final;
    uint64_t cost_bytes, cost_pages;
    struct fc_record record; /* the one at hand */
    char why[WHY_BYTES];
    struct fc_batch_item items[FC_BATCH_PAGES];
    uint8_t *body; /* FC_PAGE_DATA_MAX and padding; when predictive */
};

struct fc_encoder *fc_encoder_new(const struct fc_encoder_ops *ops, void *user,
                                  const struct fc_encoder_config *config)
{
    struct fc_encoder *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->ops = ops;
    e->user = user;
    e->config = *config;
    if (config->hello) {
        e->hello = *config->hello;
        e->config.hello = &e->hello;
    }
    e->counts.data_cost_bytes = FC_PAGE_SIZE;
    return e;
}

void fc_encoder_free(struct fc_encoder *e)
{
    if (!e)
        return;
    free(e->body);
    free(e);
}

enum fc_stream_mode fc_encoder_mode(const struct fc_encoder *e)
{
    return e->mode;
}

const char *fc_encoder_why(const struct fc_encoder *e)
{
    return e->why;
}

const struct fc_encoder_counts *fc_encoder_counts(const struct fc_encoder *e)
{
    return &e->counts;
}

void fc_encoder_final(struct fc_encoder *e)
{
    e->final = true;
}

static int __attribute__((format(printf, 3, 4)))
wrong(struct fc_encoder *e, int rc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->why, sizeof(e->why), fmt, ap);
    va_end(ap);
    return rc;
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer: no need for a locked instruction. */
    atomic_store_explicit(
        counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
        memory_order_relaxed);
}

static int take(struct fc_encoder *e, void *buf, size_t len)
{
    int rc = e->ops->read(e->user, buf, len);
    if (rc < 0)
        return wrong(e, rc, "libxc's stream broke off: %s", fc_strerror(rc));
    count(&e->counts.raw_bytes, len);
    return 0;
}

static uint8_t *room(struct fc_encoder *e, size_t len)
{
    uint8_t *p = e->ops->room(e->user, len);
    if (!p)
        wrong(e, FC_EIO, "the stream to the destination is broken");
    return p;
}

static int put(struct fc_encoder *e, size_t len)
{
    int rc = e->ops->put(e->user, len);
    if (rc < 0)
        return wrong(e, rc, "the stream to the destination is broken");
    count(&e->counts.encoded_bytes, len);
    return 0;
}

/* A record with a short body. */
static int put_record(struct fc_encoder *e, uint32_t type, const void *body,
                      uint32_t length)
{
    size_t padded = (size_t)fc_record_padded(length);
    uint8_t *out = room(e, FC_RECORD_HEADER + padded);
    if (!out)
        return FC_EIO;
    fc_record_head_make(out, type, length);
    memset(out + FC_RECORD_HEADER, 0, padded);
    if (length)
        memcpy(out + FC_RECORD_HEADER, body, length);
    return put(e, FC_RECORD_HEADER + padded);
}

static int pass_record(struct fc_encoder *e)
{
    uint64_t left = fc_record_padded(e->record.length);
    size_t head = FC_RECORD_HEADER;
    do {
        size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        uint8_t *out = room(e, head + n);
        if (!out)
            return FC_EIO;
        if (head)
            fc_record_head_make(out, e->record.type, e->record.length);
        int rc = n ? take(e, out + head, n) : 0;
        if (rc == 0)
            rc = put(e, head + n);
        if (rc < 0)
            return rc;
        left -= n;
        head = 0;
    } while (left);
    return 0;
}

/* ---- PAGE_DATA to PAGES ---- */

/* What a page that went as DATA cost of late, for the downtime's estimate. */
static void note_cost(struct fc_encoder *e, size_t bytes, uint32_t pages)
{
    e->cost_bytes += bytes;
    e->cost_pages += pages;
    if (!e->cost_pages)
        return;
    e->counts.data_cost_bytes = (uint32_t)(e->cost_bytes / e->cost_pages);
    if (e->cost_pages > COST_PAGES) {
        e->cost_bytes /= 2;
        e->cost_pages /= 2;
    }
}

static int put_batch(struct fc_encoder *e, unsigned items)
{
    uint64_t n[4] = { 0 };
    uint8_t *out = room(e, BATCH_ROOM);
    if (!out)
        return FC_EIO;
    ssize_t len = fc_batch_encode(e->items, items, out + FC_RECORD_HEADER,
                                  FC_BATCH_MAX_BYTES);
    if (len < 0)
        return wrong(e, (int)len, "a batch of %u pages cannot be encoded: %s",
                     items, fc_strerror((int)len));
    size_t padded = (size_t)fc_record_padded((uint32_t)len);
    fc_record_head_make(out, FC_REC_PAGES, (uint32_t)len);
    memset(out + FC_RECORD_HEADER + len, 0, padded - (size_t)len);
    for (unsigned i = 0; i < items; i++)
        n[e->items[i].kind]++;
    count(&e->counts.none, n[FC_BATCH_NONE]);
    count(&e->counts.zero, n[FC_BATCH_ZERO]);
    count(&e->counts.ref, n[FC_BATCH_REF]);
    count(&e->counts.data, n[FC_BATCH_DATA]);
    if (n[FC_BATCH_DATA])
        note_cost(e, (size_t)len - 16 * (size_t)n[FC_BATCH_REF],
                  (uint32_t)n[FC_BATCH_DATA]);
    return put(e, FC_RECORD_HEADER + padded);
}

static void prefetch(const struct fc_hashset *set, struct fc_hash hash)
{
    __builtin_prefetch(&set->slots[2 * (hash.lo & set->mask)]);
}

/*
 * One item for an entry. References are looked up in a second pass, so that
 * the memory which a lookup touches has been asked for by then.
 */
static void fill_item(struct fc_encoder *e, struct fc_batch_item *item,
                      uint64_t entry, const uint8_t *page)
{
    item->entry = entry;
    item->page = page;
    if (!fc_pfn_has_data(entry)) {
        item->kind = FC_BATCH_NONE;
    } else if (fc_page_is_zero(page)) {
        item->kind = FC_BATCH_ZERO;
    } else {
        item->kind = FC_BATCH_DATA;
        item->hash = fc_page_hash(page);
        if (e->refs)
            prefetch(e->config.staged, item->hash);
    }
}

static void find_references(struct fc_encoder *e, unsigned items)
{
    if (!e->refs || e->final)
        return;
    for (unsigned i = 0; i < items; i++)
        if (e->items[i].kind == FC_BATCH_DATA &&
            fc_pfn_type(e->items[i].entry) == 0 &&
            fc_hashset_has(e->config.staged, e->items[i].hash))
            e->items[i].kind = FC_BATCH_REF;
}

static bool comes_again(const uint64_t *dirty, uint64_t bits, uint64_t entry)
{
    uint64_t pfn = entry & FC_PFN_MASK;
    return pfn < bits && dirty[pfn / 64] >> (pfn % 64) & 1;
}

static int encode_pages(struct fc_encoder *e, const struct fc_page_data *data)
{
    const uint64_t *dirty = NULL;
    uint64_t bits = 0;
    unsigned items = 0;
    const uint8_t *page = data->pages;
    if (!e->final && e->ops->dirty_again)
        bits = e->ops->dirty_again(e->user, &dirty);
    for (uint32_t i = 0; i < data->count; i++) {
        uint64_t entry = fc_le_load(data->entries + (size_t)i * 8, 8);
        if (!comes_again(dirty, bits, entry))
            fill_item(e, &e->items[items++], entry, page);
        if (fc_pfn_has_data(entry))
            page += FC_PAGE_SIZE;
    }
    count(&e->counts.pages_seen, data->count);
    count(&e->counts.skipped, data->count - items);
    if (!items)
        return 0;
    find_references(e, items);
    return put_batch(e, items);
}

static int pass_buffered(struct fc_encoder *e)
{
    size_t padded = (size_t)fc_record_padded(e->record.length);
    uint8_t *out = room(e, FC_RECORD_HEADER + padded);
    if (!out)
        return FC_EIO;
    fc_record_head_make(out, e->record.type, e->record.length);
    memcpy(out + FC_RECORD_HEADER, e->body, padded);
    return put(e, FC_RECORD_HEADER + padded);
}

static int decide(struct fc_encoder *e)
{
    e->mode = FC_STREAM_IS_PLAIN;
    if (!e->proposed)
        return 0;
    int rc = e->ops->welcome(e->user, &e->mode, &e->refs);
    if (rc < 0)
        return wrong(e, rc, "the destination did not agree on a stream");
    e->refs = e->refs && e->config.staged;
    return 0;
}

static int on_page_data(struct fc_encoder *e)
{
    struct fc_page_data data;
    int rc = e->mode == FC_STREAM_UNDECIDED ? decide(e) : 0;
    if (rc < 0)
        return rc;
    if (e->mode == FC_STREAM_IS_PLAIN || e->record.length > FC_PAGE_DATA_MAX)
        return pass_record(e);
    if (!e->body)
        e->body = malloc(FC_PAGE_DATA_MAX + 8);
    if (!e->body)
        return wrong(e, FC_ENOMEM, "out of memory");
    rc = take(e, e->body, (size_t)fc_record_padded(e->record.length));
    if (rc < 0)
        return rc;
    if (fc_page_data_parse(e->body, e->record.length, &data) < 0 ||
        data.count > FC_PAGE_DATA_ENTRIES)
        return pass_buffered(e);
    return encode_pages(e, &data);
}

/* ---- the rest ---- */

static int take_headers(struct fc_encoder *e)
{
    const char *why;
    uint32_t guest_type = 0;
    uint8_t *out = room(e, FC_STREAM_HEADERS);
    if (!out)
        return FC_EIO;
    int rc = take(e, out, FC_STREAM_HEADERS);
    if (rc < 0)
        return rc;
    if (fc_stream_headers_parse(out, &guest_type, &why) < 0)
        return wrong(e, FC_EFORMAT, "libxc's stream is not understood: %s",
                     why);
    rc = put(e, FC_STREAM_HEADERS);
    if (rc < 0)
        return rc;
    e->started = true;
    if (!e->config.hello || guest_type != FC_DOMAIN_HVM)
        return 1;
    uint8_t body[FC_HELLO_BYTES];
    fc_hello_make(body, e->config.hello);
    rc = put_record(e, FC_REC_HELLO, body, sizeof(body));
    e->proposed = true;
    return rc < 0 ? rc : 1;
}

int fc_encoder_step(struct fc_encoder *e)
{
    uint8_t raw[FC_RECORD_HEADER];
    if (!e->started)
        return take_headers(e);
    int rc = take(e, raw, sizeof(raw));
    if (rc < 0)
        return rc;
    e->record = fc_record_head_parse(raw);
    if (e->record.length > FC_RECORD_MAX)
        return wrong(e, FC_ETOOBIG,
                     "libxc wrote a record of type 0x%08x, length %u",
                     e->record.type, e->record.length);
    rc = e->record.type == FC_REC_PAGE_DATA ? on_page_data(e) : pass_record(e);
    if (rc < 0)
        return rc;
    return e->record.type == FC_REC_END ? 0 : 1;
}

int fc_encoder_sync(struct fc_encoder *e, uint64_t id)
{
    uint8_t body[8];
    fc_le_store(body, id, 8);
    return put_record(e, FC_REC_SYNC, body, sizeof(body));
}

int fc_encoder_ping(struct fc_encoder *e)
{
    return put_record(e, FC_REC_PING, NULL, 0);
}

int fc_encoder_pulled(struct fc_encoder *e, const uint64_t *pfns, unsigned n,
                      const uint8_t *pages, const bool *has)
{
    if (e->mode != FC_STREAM_PREDICTIVE || n > FC_BACK_MAX_MISSING)
        return wrong(e, FC_EINVAL, "pages were asked for out of turn");
    for (unsigned i = 0; i < n; i++) {
        uint64_t entry = (pfns[i] & FC_PFN_MASK) | (has[i] ? 0 : NO_PAGE);
        fill_item(e, &e->items[i], entry, pages + (size_t)i * FC_PAGE_SIZE);
    }
    count(&e->counts.pulled, n);
    return n ? put_batch(e, n) : 0;
}
