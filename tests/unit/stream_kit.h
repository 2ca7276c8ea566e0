/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_STREAM_KIT_H
#define FC_TEST_STREAM_KIT_H

/*
 * For tests of the stream: libxc streams made by hand, and an encoder and a
 * decoder in memory. Include after cmocka.h.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "back.h"
#include "decoder.h"
#include "encoder.h"
#include "err.h"
#include "page.h"
#include "record.h"
#include "wire.h"

#define TYPE(t) ((uint64_t)(t) << FC_PFN_TYPE_SHIFT)

struct bytes {
    uint8_t *p;
    size_t len, cap, at; /* `at`: read so far */
};

static inline uint8_t *bytes_room(struct bytes *b, size_t n)
{
    if (b->len + n > b->cap) {
        b->cap = 2 * (b->len + n);
        b->p = realloc(b->p, b->cap);
        assert_non_null(b->p);
    }
    return b->p + b->len;
}

static inline void bytes_add(struct bytes *b, const void *p, size_t n)
{
    if (n)
        memcpy(bytes_room(b, n), p, n);
    b->len += n;
}

static inline void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){ 0 };
}

static inline int bytes_read(struct bytes *b, void *buf, size_t len)
{
    if (b->len - b->at < len)
        return FC_EEOF;
    memcpy(buf, b->p + b->at, len);
    b->at += len;
    return 0;
}

/* Contents that are fixed by a number; 0 is the zero page. */
static inline void kit_page(uint8_t *page, uint64_t number)
{
    memset(page, 0, FC_PAGE_SIZE);
    uint64_t x = number * 0x9e3779b97f4a7c15ull;
    for (unsigned i = 0; number && i < FC_PAGE_SIZE; i += 8) {
        /* half noise, half pattern, so that LZ4 has something to do */
        uint64_t v = i % 64 < 32 ? x ^ i : number;
        memcpy(page + i, &v, 8);
        x = x * 6364136223846793005ull + 1442695040888963407ull;
    }
}

static inline void kit_headers(struct bytes *b, uint32_t guest_type)
{
    uint8_t raw[FC_STREAM_HEADERS];
    fc_stream_headers_make(raw, guest_type);
    bytes_add(b, raw, sizeof(raw));
}

static inline void kit_record(struct bytes *b, uint32_t type, const void *body,
                              uint32_t length)
{
    static const uint8_t padding[8];
    uint8_t raw[FC_RECORD_HEADER];
    fc_record_head_make(raw, type, length);
    bytes_add(b, raw, sizeof(raw));
    bytes_add(b, body, length);
    bytes_add(b, padding, (size_t)fc_record_padded(length) - length);
}

/* entries[i] with the contents numbers[i]. */
static inline void kit_page_data(struct bytes *b, const uint64_t *entries,
                                 const uint64_t *numbers, uint32_t count)
{
    struct bytes body = { 0 };
    uint8_t page[FC_PAGE_SIZE];
    for (unsigned i = 0; i < 8; i++)
        bytes_add(&body, &(uint8_t){ i < 4 ? (uint8_t)(count >> 8 * i) : 0 },
                  1);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t raw[8];
        fc_le_store(raw, entries[i], 8);
        bytes_add(&body, raw, 8);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!fc_pfn_has_data(entries[i]))
            continue;
        kit_page(page, numbers[i]);
        bytes_add(&body, page, sizeof(page));
    }
    kit_record(b, FC_REC_PAGE_DATA, body.p, (uint32_t)body.len);
    bytes_free(&body);
}

/* ---- an encoder in memory ---- */

struct kit_encoder {
    struct bytes *in;
    struct bytes out;
    enum fc_stream_mode mode; /* the answer to HELLO */
    int welcome_rc;
    bool refs;
    const uint64_t *dirty;
    uint64_t dirty_bits;
    struct fc_encoder *e;
};

static inline int kit_enc_read(void *user, void *buf, size_t len)
{
    struct kit_encoder *k = user;
    return bytes_read(k->in, buf, len);
}

static inline uint8_t *kit_enc_room(void *user, size_t len)
{
    struct kit_encoder *k = user;
    assert_true(len <= FC_ENCODER_ROOM);
    return bytes_room(&k->out, len);
}

static inline int kit_enc_put(void *user, size_t len)
{
    struct kit_encoder *k = user;
    k->out.len += len;
    return 0;
}

static inline int kit_enc_welcome(void *user, enum fc_stream_mode *mode_r,
                                  bool *refs_r)
{
    struct kit_encoder *k = user;
    *mode_r = k->mode;
    *refs_r = k->refs;
    return k->welcome_rc;
}

static inline uint64_t kit_enc_dirty(void *user, const uint64_t **bitmap_r)
{
    struct kit_encoder *k = user;
    *bitmap_r = k->dirty;
    return k->dirty_bits;
}

static const struct fc_encoder_ops kit_encoder_ops = {
    .read = kit_enc_read,
    .room = kit_enc_room,
    .put = kit_enc_put,
    .welcome = kit_enc_welcome,
    .dirty_again = kit_enc_dirty,
};

static const struct fc_hello kit_hello = { .highest = 1,
                                           .lowest = 1,
                                           .uuid = { 1, 2, 3 },
                                           .token = { 9, 8, 7 },
                                           .epoch = 77 };

static inline void kit_encoder_init(struct kit_encoder *k, struct bytes *in,
                                    enum fc_stream_mode mode,
                                    const struct fc_hashset *staged)
{
    struct fc_encoder_config c = { .hello = mode ? &kit_hello : NULL,
                                   .staged = staged };
    *k = (struct kit_encoder){ .in = in, .mode = mode, .refs = staged };
    k->e = fc_encoder_new(&kit_encoder_ops, k, &c);
    assert_non_null(k->e);
}

static inline int kit_encode_all(struct kit_encoder *k)
{
    int rc;
    do
        rc = fc_encoder_step(k->e);
    while (rc > 0);
    return rc;
}

static inline void kit_encoder_dispose(struct kit_encoder *k)
{
    fc_encoder_free(k->e);
    bytes_free(&k->out);
}

/* ---- a decoder in memory ---- */

#define KIT_FRAMES 4096

struct kit_decoder {
    struct bytes *in;
    struct bytes out;
    struct fc_page_source source;
    struct fc_back_frame frames[KIT_FRAMES];
    unsigned nframes;
    unsigned hellos, drains, checkpoints;
    struct fc_hello hello;
    uint64_t held;
    struct fc_decoder *d;
};

static inline int kit_dec_read(void *user, void *buf, size_t len)
{
    struct kit_decoder *k = user;
    return bytes_read(k->in, buf, len);
}

static inline int kit_dec_emit(void *user, struct iovec *iov, int count)
{
    struct kit_decoder *k = user;
    assert_in_range(count, 1, FC_DECODER_IOV);
    for (int i = 0; i < count; i++)
        bytes_add(&k->out, iov[i].iov_base, iov[i].iov_len);
    return 0;
}

static inline int kit_dec_frame(void *user, const struct fc_back_frame *frame)
{
    struct kit_decoder *k = user;
    if (frame->type == FC_BACK_ACK && k->nframes &&
        k->frames[k->nframes - 1].type == FC_BACK_ACK)
        k->nframes--; /* the latest of a row is enough */
    assert_true(k->nframes < KIT_FRAMES);
    k->frames[k->nframes++] = *frame;
    return 0;
}

static inline void kit_dec_hello(void *user, const struct fc_hello *hello,
                                 struct fc_page_source *source,
                                 uint64_t *held_r)
{
    struct kit_decoder *k = user;
    k->hellos++;
    k->hello = *hello;
    *source = k->source;
    *held_r = k->held;
}

static inline int kit_dec_drained(void *user)
{
    ((struct kit_decoder *)user)->drains++;
    return 0;
}

static inline int kit_dec_checkpoint(void *user)
{
    ((struct kit_decoder *)user)->checkpoints++;
    return 0;
}

static const struct fc_decoder_ops kit_decoder_ops = {
    .read = kit_dec_read,
    .emit = kit_dec_emit,
    .frame = kit_dec_frame,
    .hello = kit_dec_hello,
    .drained = kit_dec_drained,
    .checkpoint = kit_dec_checkpoint,
};

static inline struct kit_decoder *kit_decoder_new(struct bytes *in)
{
    struct kit_decoder *k = calloc(1, sizeof(*k));
    assert_non_null(k);
    k->in = in;
    k->d = fc_decoder_new(&kit_decoder_ops, k);
    assert_non_null(k->d);
    return k;
}

static inline int kit_decode_all(struct kit_decoder *k)
{
    int rc;
    do
        rc = fc_decoder_step(k->d);
    while (rc > 0);
    return rc;
}

static inline void kit_decoder_free(struct kit_decoder *k)
{
    fc_decoder_free(k->d);
    bytes_free(&k->out);
    free(k);
}

/* ---- what a libxc stream means ---- */

struct kit_memory {
    uint64_t pages;
    uint8_t *bytes; /* pages * FC_PAGE_SIZE */
    uint8_t *types; /* last type seen, 0xff: never */
};

static inline void kit_memory_init(struct kit_memory *m, uint64_t pages)
{
    m->pages = pages;
    m->bytes = calloc(pages, FC_PAGE_SIZE);
    m->types = malloc(pages);
    assert_non_null(m->bytes);
    assert_non_null(m->types);
    memset(m->types, 0xff, pages);
}

static inline void kit_memory_free(struct kit_memory *m)
{
    free(m->bytes);
    free(m->types);
}

/* One PAGE_DATA body into the memory, checked as libxc checks it. */
static inline void kit_memory_apply(struct kit_memory *m, const void *body,
                                    size_t length)
{
    struct fc_page_data data;
    assert_int_equal(fc_page_data_parse(body, length, &data), 0);
    assert_in_range(data.count, 1, FC_PAGE_DATA_ENTRIES);
    const uint8_t *page = data.pages;
    for (uint32_t i = 0; i < data.count; i++) {
        uint64_t entry = fc_le_load(data.entries + (size_t)i * 8, 8);
        uint64_t pfn = entry & FC_PFN_MASK;
        assert_true(pfn < m->pages);
        m->types[pfn] = (uint8_t)fc_pfn_type(entry);
        if (!fc_pfn_has_data(entry))
            continue;
        memcpy(m->bytes + pfn * FC_PAGE_SIZE, page, FC_PAGE_SIZE);
        page += FC_PAGE_SIZE;
    }
}

/* A whole libxc stream into the memory; none of our records may be in it. */
static inline void kit_memory_load(struct kit_memory *m,
                                   const struct bytes *stream)
{
    size_t at = FC_STREAM_HEADERS;
    for (;;) {
        assert_true(stream->len - at >= FC_RECORD_HEADER);
        struct fc_record r = fc_record_head_parse(stream->p + at);
        at += FC_RECORD_HEADER;
        assert_true(stream->len - at >= fc_record_padded(r.length));
        assert_int_not_equal(r.type & 0xffffff00u, FC_REC_HELLO & 0xffffff00u);
        assert_int_not_equal(r.type, FC_REC_PAGES);
        if (r.type == FC_REC_PAGE_DATA)
            kit_memory_apply(m, stream->p + at, r.length);
        at += (size_t)fc_record_padded(r.length);
        if (r.type == FC_REC_END)
            break;
    }
    assert_int_equal(at, stream->len);
}

#endif
