/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The decoder: a forecopy stream in, the libxc stream that it stands for out
 * (docs/formats/stream.md).
 *
 * It reads a record's header, then exactly its body, so it never takes a byte
 * past END. Records that are not ours pass in pieces, byte for byte. A sender
 * that never says HELLO gets exactly that and nothing else: no frame is sent.
 *
 * States: headers -> records -> over. `welcomed` is set by the first HELLO
 * that we can speak; only then are PAGES allowed and frames sent.
 *
 * Pages whose contents cannot be produced (unknown reference, damaged chunk)
 * are left out of what libxc gets, kept in `missing` and asked for. They leave
 * the set when any good entry for the pfn has been passed on; a second bad one
 * is asked for again. SYNC is answered, and END passed, only when the set is
 * empty: an END with pages missing would hand over a guest with holes.
 *
 * Not done here: retrying or timing out. A stream that stops is the reader's
 * business (ops->read).
 */
#include "decoder.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "err.h"
#include "pfnset.h"
#include "wire.h"

#define WHY_BYTES 256
#define PIECE_BYTES 262144u /* of a record that passes */
#define MAX_HELLO 4096u
#define ZERO_PAGES 64u /* in one iovec */
#define HEAD_BYTES (FC_RECORD_HEADER + FC_PAGE_DATA_HEADER)

static uint8_t zeros[ZERO_PAGES * FC_PAGE_SIZE];

struct fc_decoder {
    const struct fc_decoder_ops *ops;
    void *user;
    struct fc_page_source source;
    struct fc_pfnset missing;
    struct fc_decoder_counts counts;
    uint64_t acked, record_at;
    uint64_t sync_id;
    bool started, hello_seen, welcomed, agreed, sync_pending;
    struct fc_record record; /* the one at hand */
    struct fc_back_frame wanted;
    char why[WHY_BYTES];

    /* PAGE_DATA under construction */
    uint32_t entries;
    int iovs;
    struct iovec iov[FC_DECODER_IOV];
    uint8_t head[HEAD_BYTES + 8 * FC_PAGE_DATA_ENTRIES];

    uint8_t good[FC_BATCH_PAGES];
    uint8_t piece[PIECE_BYTES]; /* also a body of at most that length */
    /* A stream that stays plain never needs these. */
    uint8_t *pages; /* FC_BATCH_PAGES pages: unpacked, then looked up */
    uint8_t *body;  /* FC_BATCH_MAX_BYTES and padding */
};

#define BODY_BYTES (FC_BATCH_MAX_BYTES + 8)

struct fc_decoder *fc_decoder_new(const struct fc_decoder_ops *ops, void *user)
{
    struct fc_decoder *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->ops = ops;
    d->user = user;
    d->wanted.type = FC_BACK_MISSING;
    return d;
}

void fc_decoder_free(struct fc_decoder *d)
{
    if (!d)
        return;
    fc_pfnset_dispose(&d->missing);
    free(d->pages);
    free(d->body);
    free(d);
}

bool fc_decoder_agreed(const struct fc_decoder *d)
{
    return d->agreed;
}

const char *fc_decoder_why(const struct fc_decoder *d)
{
    return d->why;
}

const struct fc_decoder_counts *fc_decoder_counts(const struct fc_decoder *d)
{
    return &d->counts;
}

/* Says what is wrong with the record at hand. Returns rc. */
static int __attribute__((format(printf, 3, 4)))
wrong(struct fc_decoder *d, int rc, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(d->why, sizeof(d->why),
                     "record type 0x%08x, length %u, at stream offset %llu: ",
                     d->record.type, d->record.length,
                     (unsigned long long)d->record_at);
    va_start(ap, fmt);
    vsnprintf(d->why + n, sizeof(d->why) - (size_t)n, fmt, ap);
    va_end(ap);
    return rc;
}

static int send_frame(struct fc_decoder *d, const struct fc_back_frame *frame)
{
    int rc = d->ops->frame(d->user, frame);
    return rc < 0 ? wrong(d, rc, "the back channel failed") : 0;
}

static int acknowledge(struct fc_decoder *d)
{
    struct fc_back_frame ack = { .type = FC_BACK_ACK };
    ack.value = d->acked = d->counts.taken;
    return send_frame(d, &ack);
}

/*
 * Reads exactly len bytes, acknowledging as it goes: pieces end where an ACK
 * is due, so that a sender whose window is no larger than that is never left
 * waiting for bytes that it may not send.
 */
static int take(struct fc_decoder *d, void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len) {
        size_t n = len;
        uint64_t due = d->acked + FC_ACK_BYTES - d->counts.taken;
        if (d->welcomed && n > due)
            n = (size_t)due;
        int rc = d->ops->read(d->user, p, n);
        if (rc < 0)
            return wrong(d, rc, "reading failed: %s", fc_strerror(rc));
        d->counts.taken += n;
        p += n;
        len -= n;
        if (d->welcomed && d->counts.taken - d->acked >= FC_ACK_BYTES) {
            rc = acknowledge(d);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int emit(struct fc_decoder *d, struct iovec *iov, int count)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    int rc = d->ops->emit(d->user, iov, count);
    if (rc < 0)
        return wrong(d, rc, "libxc does not take it: %s", fc_strerror(rc));
    d->counts.emitted += len;
    return 0;
}

static int emit_bytes(struct fc_decoder *d, void *bytes, size_t len)
{
    struct iovec iov = { .iov_base = bytes, .iov_len = len };
    return emit(d, &iov, 1);
}

/* The record's body, in pieces, to libxc or (NULL emitter) nowhere. */
static int pass_body(struct fc_decoder *d, bool keep)
{
    uint64_t left = fc_record_padded(d->record.length);
    while (left) {
        size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        int rc = take(d, d->piece, n);
        if (rc == 0 && keep)
            rc = emit_bytes(d, d->piece, n);
        if (rc < 0)
            return rc;
        left -= n;
    }
    return 0;
}

static int pass_record(struct fc_decoder *d)
{
    uint8_t raw[FC_RECORD_HEADER];
    fc_record_head_make(raw, d->record.type, d->record.length);
    int rc = emit_bytes(d, raw, sizeof(raw));
    return rc < 0 ? rc : pass_body(d, true);
}

/* A whole body of ours into `buf`, which has room for `max` and padding. */
static int take_body(struct fc_decoder *d, uint8_t *buf, uint32_t max)
{
    if (d->record.length > max)
        return wrong(d, FC_EFORMAT, "longer than %u bytes", max);
    return take(d, buf, (size_t)fc_record_padded(d->record.length));
}

/* ---- PAGES to PAGE_DATA ---- */

static int flush_page_data(struct fc_decoder *d)
{
    if (!d->entries)
        return 0;
    size_t pages = 0, head = HEAD_BYTES + (size_t)d->entries * 8;
    for (int i = 1; i < d->iovs; i++)
        pages += d->iov[i].iov_len;
    fc_record_head_make(d->head, FC_REC_PAGE_DATA,
                        (uint32_t)(head - FC_RECORD_HEADER + pages));
    fc_le_store(d->head + FC_RECORD_HEADER, d->entries, 4);
    fc_le_store(d->head + FC_RECORD_HEADER + 4, 0, 4);
    d->iov[0] = (struct iovec){ .iov_base = d->head, .iov_len = head };
    int rc = emit(d, d->iov, d->iovs);
    d->entries = 0;
    d->iovs = 1;
    return rc;
}

/* Adds an entry with its page (NULL: none). The page stays until flushed. */
static int add_entry(struct fc_decoder *d, uint64_t entry, uint8_t *page)
{
    struct iovec *last = &d->iov[d->iovs - 1];
    fc_le_store(d->head + HEAD_BYTES + (size_t)d->entries++ * 8, entry, 8);
    fc_pfnset_remove(&d->missing, entry & FC_PFN_MASK);
    if (page == zeros && d->iovs > 1 && last->iov_base == zeros &&
        last->iov_len < sizeof(zeros))
        last->iov_len += FC_PAGE_SIZE;
    else if (page && page != zeros && d->iovs > 1 &&
             (uint8_t *)last->iov_base + last->iov_len == page)
        last->iov_len += FC_PAGE_SIZE;
    else if (page)
        d->iov[d->iovs++] =
            (struct iovec){ .iov_base = page, .iov_len = FC_PAGE_SIZE };
    if (d->entries == FC_PAGE_DATA_ENTRIES || d->iovs == FC_DECODER_IOV)
        return flush_page_data(d);
    return 0;
}

static int flush_wanted(struct fc_decoder *d)
{
    if (!d->wanted.missing.count)
        return 0;
    int rc = send_frame(d, &d->wanted);
    d->wanted.missing.count = 0;
    return rc;
}

static int want(struct fc_decoder *d, uint64_t entry)
{
    uint64_t pfn = entry & FC_PFN_MASK;
    int rc = fc_pfnset_add(&d->missing, pfn);
    if (rc < 0)
        return wrong(d, rc, "too many pages are missing");
    d->counts.missing++;
    d->wanted.missing.pfn[d->wanted.missing.count++] = pfn;
    return d->wanted.missing.count == FC_BACK_MAX_MISSING ? flush_wanted(d) : 0;
}

static int add_none_run(struct fc_decoder *d, const struct fc_batch_step *step)
{
    int rc = 0;
    for (uint32_t i = 0; i < step->count && rc == 0; i++)
        rc = add_entry(d, step->entry + i, NULL);
    d->counts.none += step->count;
    return rc;
}

static int unpack_batch(struct fc_decoder *d, const struct fc_batch *batch)
{
    struct fc_batch_iter it;
    struct fc_batch_step step;
    uint32_t looked_up = batch->data_pages;
    int rc = 0;

    fc_batch_unpack(batch, d->pages, d->good);
    fc_batch_iter_init(&it, batch);
    d->iovs = 1;
    while (rc == 0 && fc_batch_next(&it, &step)) {
        uint8_t *page = NULL;
        switch (step.kind) {
        case FC_BATCH_NONE:
            rc = add_none_run(d, &step);
            continue;
        case FC_BATCH_ZERO:
            page = zeros;
            d->counts.zero++;
            break;
        case FC_BATCH_REF:
            page = d->pages + (size_t)looked_up * FC_PAGE_SIZE;
            if (!d->source.get ||
                d->source.get(d->source.user, step.hash, page) < 0) {
                page = NULL;
                break;
            }
            looked_up++;
            d->counts.ref++;
            break;
        case FC_BATCH_DATA:
            if (!d->good[step.data_index])
                break;
            page = d->pages + (size_t)step.data_index * FC_PAGE_SIZE;
            d->counts.data++;
            break;
        }
        rc = page ? add_entry(d, step.entry, page) : want(d, step.entry);
    }
    if (rc == 0)
        rc = flush_page_data(d);
    return rc < 0 ? rc : flush_wanted(d);
}

static int on_pages(struct fc_decoder *d)
{
    struct fc_batch batch;
    const char *why;
    if (!d->welcomed)
        return wrong(d, FC_EFORMAT, "PAGES without an agreement on them");
    if (!d->pages)
        d->pages = malloc((size_t)FC_BATCH_PAGES * FC_PAGE_SIZE);
    if (!d->body)
        d->body = malloc(BODY_BYTES);
    if (!d->pages || !d->body)
        return wrong(d, FC_ENOMEM, "out of memory");
    int rc = take_body(d, d->body, FC_BATCH_MAX_BYTES);
    if (rc < 0)
        return rc;
    if (fc_batch_parse(d->body, d->record.length, &batch, &why) < 0)
        return wrong(d, FC_EFORMAT, "%s", why);
    return unpack_batch(d, &batch);
}

/* ---- our other records ---- */

static int refuse(struct fc_decoder *d, const char *text)
{
    struct fc_back_frame f = { .type = FC_BACK_REFUSE };
    snprintf(f.text, sizeof(f.text), "%s", text);
    return send_frame(d, &f);
}

static int on_hello(struct fc_decoder *d)
{
    struct fc_back_frame welcome = { .type = FC_BACK_WELCOME };
    struct fc_hello hello;
    if (!d->ops->frame)
        return pass_body(d, false);
    if (d->hello_seen)
        return wrong(d, FC_EFORMAT, "a second HELLO");
    d->hello_seen = true;
    int rc = take_body(d, d->piece, MAX_HELLO);
    if (rc < 0)
        return rc;
    if (fc_hello_parse(d->piece, d->record.length, &hello) < 0)
        return refuse(d, "HELLO is malformed");
    if (hello.lowest > FC_STREAM_VERSION || hello.highest < FC_STREAM_VERSION)
        return refuse(d, "no version of the stream in common");
    if (d->ops->hello)
        d->ops->hello(d->user, &hello, &d->source, &welcome.welcome.pages_held);
    welcome.welcome.version = FC_STREAM_VERSION;
    welcome.welcome.flags = d->source.get ? FC_BACK_STORE_FOUND : 0;
    rc = send_frame(d, &welcome);
    if (rc < 0)
        return rc;
    d->welcomed = true;
    return acknowledge(d);
}

static int answer_sync(struct fc_decoder *d)
{
    struct fc_back_frame f = { .type = FC_BACK_SYNCED, .value = d->sync_id };
    int rc = d->ops->drained ? d->ops->drained(d->user) : 0;
    if (rc < 0)
        return wrong(d, rc, "libxc does not read on: %s", fc_strerror(rc));
    d->sync_pending = false;
    rc = acknowledge(d);
    return rc < 0 ? rc : send_frame(d, &f);
}

static int on_sync(struct fc_decoder *d)
{
    if (!d->welcomed)
        return pass_body(d, false);
    if (d->record.length != 8)
        return wrong(d, FC_EFORMAT, "SYNC is 8 bytes long");
    int rc = take_body(d, d->piece, 8);
    if (rc < 0)
        return rc;
    d->sync_id = fc_le_load(d->piece, 8);
    d->sync_pending = true;
    return 0;
}

static int on_end(struct fc_decoder *d)
{
    struct fc_back_frame done = { .type = FC_BACK_DONE };
    if (d->missing.held)
        return wrong(d, FC_EFORMAT, "the stream ends with %zu pages missing",
                     d->missing.held);
    int rc = pass_record(d);
    if (rc == 0 && d->welcomed)
        rc = acknowledge(d);
    if (rc == 0 && d->welcomed)
        rc = send_frame(d, &done);
    return rc;
}

static bool is_ours(uint32_t type)
{
    return type == FC_REC_PAGES || type == FC_REC_SYNC || type == FC_REC_PING;
}

static int on_record(struct fc_decoder *d)
{
    int rc;
    switch (d->record.type) {
    case FC_REC_END:
        return on_end(d);
    case FC_REC_PAGES:
        return on_pages(d);
    case FC_REC_HELLO:
        return on_hello(d);
    case FC_REC_SYNC:
        return on_sync(d);
    case FC_REC_PING:
        return pass_body(d, false);
    case FC_REC_CHECKPOINT:
        rc = pass_record(d);
        return rc == 0 && d->ops->checkpoint ? d->ops->checkpoint(d->user) : rc;
    default:
        return pass_record(d);
    }
}

/*
 * Headers that are not as expected still go to libxc, whose own message about
 * them is the better known one.
 */
static int take_headers(struct fc_decoder *d)
{
    uint8_t raw[FC_STREAM_HEADERS];
    const char *why;
    uint32_t guest_type;
    int rc = take(d, raw, sizeof(raw));
    if (rc == 0)
        rc = emit_bytes(d, raw, sizeof(raw));
    if (rc < 0)
        return rc;
    if (fc_stream_headers_parse(raw, &guest_type, &why) < 0) {
        snprintf(d->why, sizeof(d->why), "not a migration stream: %s", why);
        return FC_EFORMAT;
    }
    d->started = true;
    return 1;
}

int fc_decoder_step(struct fc_decoder *d)
{
    uint8_t raw[FC_RECORD_HEADER];
    if (!d->started)
        return take_headers(d);
    d->record_at = d->counts.taken;
    d->record = (struct fc_record){ 0, 0 };
    int rc = take(d, raw, sizeof(raw));
    if (rc < 0)
        return rc;
    d->record = fc_record_head_parse(raw);
    if (d->record.length > FC_RECORD_MAX)
        return wrong(d, FC_ETOOBIG, "longer than libxc's %u bytes",
                     FC_RECORD_MAX);
    d->agreed = d->agreed || (d->welcomed && is_ours(d->record.type));
    rc = on_record(d);
    if (rc < 0)
        return rc;
    if (d->record.type == FC_REC_END)
        return 0;
    if (d->sync_pending && !d->missing.held) {
        rc = answer_sync(d);
        if (rc < 0)
            return rc;
    }
    return 1;
}
