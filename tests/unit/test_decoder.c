/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "batch.h"
#include "pfnset.h"
#include "../rng.h"
#include "stream_kit.h"

static void put_hello(struct bytes *b, const struct fc_hello *h)
{
    uint8_t body[FC_HELLO_BYTES];
    fc_hello_make(body, h);
    kit_record(b, FC_REC_HELLO, body, sizeof(body));
}

static void put_sync(struct bytes *b, uint64_t id)
{
    uint8_t body[8];
    fc_le_store(body, id, 8);
    kit_record(b, FC_REC_SYNC, body, 8);
}

static void put_batch(struct bytes *b, const struct fc_batch_item *items,
                      unsigned n)
{
    static uint8_t out[FC_BATCH_MAX_BYTES];
    ssize_t len = fc_batch_encode(items, n, out, sizeof(out));
    assert_true(len > 0);
    kit_record(b, FC_REC_PAGES, out, (uint32_t)len);
}

static void begin(struct bytes *b)
{
    kit_headers(b, FC_DOMAIN_HVM);
    put_hello(b, &kit_hello);
}

static const struct fc_back_frame *frame_of(const struct kit_decoder *k,
                                            enum fc_back_type type)
{
    for (unsigned i = 0; i < k->nframes; i++)
        if (k->frames[i].type == type)
            return &k->frames[i];
    return NULL;
}

/* libxl's own records after END would be swallowed, and the migration fail. */
static void test_stops_at_end(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    kit_headers(&in, FC_DOMAIN_HVM);
    kit_record(&in, 0x10, NULL, 0);
    kit_record(&in, FC_REC_END, NULL, 0);
    size_t end = in.len;
    bytes_add(&in, "libxl's records", 15);
    struct kit_decoder *d = kit_decoder_new(&in);
    assert_int_equal(kit_decode_all(d), 0);
    assert_int_equal(in.at, end);
    assert_int_equal(d->out.len, end);
    assert_memory_equal(d->out.p, in.p, end);
    assert_int_equal(d->nframes, 0); /* not a word without HELLO */
    assert_int_equal(fc_decoder_counts(d->d)->taken, end);
    kit_decoder_free(d);
    bytes_free(&in);
}

/* The stream would be read while libxl reads and writes there. */
static void test_checkpoint_pauses(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    kit_headers(&in, FC_DOMAIN_HVM);
    kit_record(&in, FC_REC_CHECKPOINT, NULL, 0);
    size_t until = in.len;
    kit_record(&in, FC_REC_CHECKPOINT, NULL, 0);
    kit_record(&in, FC_REC_END, NULL, 0);
    struct kit_decoder *d = kit_decoder_new(&in);
    assert_int_equal(fc_decoder_step(d->d), 1);
    assert_int_equal(fc_decoder_step(d->d), 1);
    assert_int_equal(d->checkpoints, 1);
    assert_int_equal(in.at, until);
    assert_int_equal(d->out.len, until);
    assert_int_equal(kit_decode_all(d), 0);
    assert_int_equal(d->checkpoints, 2);
    kit_decoder_free(d);
    bytes_free(&in);
}

/* The two ends would disagree about what was agreed. */
static void test_welcome(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    unsigned none = 0;
    begin(&in);
    kit_record(&in, FC_REC_PING, NULL, 0);
    kit_record(&in, FC_REC_END, NULL, 0);
    struct kit_decoder *d = kit_decoder_new(&in);
    d->source = (struct fc_page_source){
        (int (*)(void *, struct fc_hash, void *))(uintptr_t)1, &none
    };
    d->held = 4711;
    assert_false(fc_decoder_agreed(d->d));
    assert_int_equal(kit_decode_all(d), 0);
    assert_true(fc_decoder_agreed(d->d));
    assert_int_equal(d->hello.highest, kit_hello.highest);
    assert_int_equal(d->hello.lowest, kit_hello.lowest);
    assert_memory_equal(d->hello.uuid, kit_hello.uuid, sizeof(kit_hello.uuid));
    assert_memory_equal(d->hello.token, kit_hello.token,
                        sizeof(kit_hello.token));
    assert_int_equal(d->hello.epoch, kit_hello.epoch);
    const struct fc_back_frame *w = &d->frames[0];
    assert_int_equal(w->type, FC_BACK_WELCOME);
    assert_int_equal(w->welcome.version, 1);
    assert_int_equal(w->welcome.flags, FC_BACK_STORE_FOUND);
    assert_int_equal(w->welcome.pages_held, 4711);
    assert_int_equal(d->frames[d->nframes - 2].type, FC_BACK_ACK);
    assert_int_equal(d->frames[d->nframes - 2].value, in.len);
    assert_int_equal(d->frames[d->nframes - 1].type, FC_BACK_DONE);
    /* none of ours reaches libxc */
    assert_int_equal(d->out.len, FC_STREAM_HEADERS + FC_RECORD_HEADER);
    kit_decoder_free(d);
    bytes_free(&in);
}

/* A later version's proposal would be taken for ours, or end the migration. */
static void test_refusals(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct bytes in = { 0 };
        struct fc_hello h = kit_hello;
        uint8_t body[FC_HELLO_BYTES + 16] = { 0 };
        kit_headers(&in, FC_DOMAIN_HVM);
        if (kind == 0)
            h.lowest = h.highest = 2;
        fc_hello_make(body, &h);
        if (kind == 1)
            body[0] ^= 1;
        if (kind == 2)
            body[12] = 1;
        /* a longer one is a later version's that also speaks ours */
        kit_record(&in, FC_REC_HELLO, body,
                   kind == 3 ? sizeof(body) : FC_HELLO_BYTES);
        kit_record(&in, FC_REC_SYNC, "12345678", 8); /* optional: ignored */
        kit_record(&in, FC_REC_END, NULL, 0);
        struct kit_decoder *d = kit_decoder_new(&in);
        assert_int_equal(kit_decode_all(d), 0);
        assert_int_equal(d->frames[0].type,
                         kind == 3 ? FC_BACK_WELCOME : FC_BACK_REFUSE);
        if (kind < 3)
            assert_int_equal(d->nframes, 1);
        kit_decoder_free(d);
        bytes_free(&in);
    }
}

static int get_none(void *user, struct fc_hash hash, void *page)
{
    (void)hash;
    (void)page;
    ++*(unsigned *)user;
    return FC_ENOENT;
}

static void item_of(struct fc_batch_item *item, uint64_t pfn, uint64_t number,
                    enum fc_batch_kind kind)
{
    static uint8_t pages[64][FC_PAGE_SIZE];
    kit_page(pages[number], number);
    *item = (struct fc_batch_item){ .entry = pfn,
                                    .page = pages[number],
                                    .hash = fc_page_hash(pages[number]),
                                    .kind = kind };
}

/* SYNC would be answered, or END passed, with holes in the guest. */
static void test_missing_holds_sync(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct fc_batch_item items[3];
    unsigned lookups = 0;
    begin(&in);
    item_of(&items[0], 100, 1, FC_BATCH_REF);
    item_of(&items[1], 101, 2, FC_BATCH_DATA);
    item_of(&items[2], 102, 3, FC_BATCH_REF);
    put_batch(&in, items, 3);
    put_sync(&in, 5);
    size_t asked = in.len;
    item_of(&items[0], 100, 7, FC_BATCH_DATA);
    put_batch(&in, items, 1);
    size_t first = in.len;
    items[0] = (struct fc_batch_item){ .entry = 102 | TYPE(0xf),
                                       .kind = FC_BATCH_NONE };
    put_batch(&in, items, 1);
    size_t second = in.len;
    kit_record(&in, FC_REC_END, NULL, 0);

    struct kit_decoder *d = kit_decoder_new(&in);
    d->source = (struct fc_page_source){ get_none, &lookups };
    while (in.at < asked)
        assert_int_equal(fc_decoder_step(d->d), 1);
    assert_int_equal(lookups, 2);
    const struct fc_back_frame *m = frame_of(d, FC_BACK_MISSING);
    assert_non_null(m);
    assert_int_equal(m->missing.count, 2);
    assert_int_equal(m->missing.pfn[0], 100);
    assert_int_equal(m->missing.pfn[1], 102);
    assert_null(frame_of(d, FC_BACK_SYNCED));
    while (in.at < first)
        assert_int_equal(fc_decoder_step(d->d), 1);
    assert_null(frame_of(d, FC_BACK_SYNCED));
    assert_int_equal(d->drains, 0);
    while (in.at < second)
        assert_int_equal(fc_decoder_step(d->d), 1);
    const struct fc_back_frame *s = frame_of(d, FC_BACK_SYNCED);
    assert_non_null(s);
    assert_int_equal(s->value, 5);
    assert_int_equal(d->drains, 1);
    assert_int_equal(kit_decode_all(d), 0);
    kit_decoder_free(d);

    /* the same without the answers: END must not pass */
    struct bytes cut = { .p = in.p, .len = asked };
    struct bytes holes = { 0 };
    bytes_add(&holes, cut.p, cut.len);
    kit_record(&holes, FC_REC_END, NULL, 0);
    d = kit_decoder_new(&holes);
    d->source = (struct fc_page_source){ get_none, &lookups };
    assert_int_equal(kit_decode_all(d), FC_EFORMAT);
    assert_non_null(strstr(fc_decoder_why(d->d), "2 pages missing"));
    assert_null(frame_of(d, FC_BACK_DONE));
    kit_decoder_free(d);
    bytes_free(&holes);
    bytes_free(&in);
}

/* A damaged page would be restored as it came. */
static void test_damaged_data_is_missing(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct fc_batch_item items[2];
    begin(&in);
    size_t at = in.len;
    item_of(&items[0], 7, 1, FC_BATCH_DATA);
    item_of(&items[1], 8, 2, FC_BATCH_DATA);
    put_batch(&in, items, 2);
    in.p[at + FC_RECORD_HEADER + 24 + 16] ^= 1; /* the first page's hash */
    size_t half = in.len;
    put_batch(&in, items, 1); /* comes again, still bad */
    in.p[half + FC_RECORD_HEADER + 24 + 16] ^= 1;
    size_t twice = in.len;
    put_batch(&in, items, 1);
    kit_record(&in, FC_REC_END, NULL, 0);
    struct kit_decoder *d = kit_decoder_new(&in);
    while (in.at < half)
        assert_int_equal(fc_decoder_step(d->d), 1);
    assert_int_equal(fc_decoder_counts(d->d)->missing, 1);
    while (in.at < twice)
        assert_int_equal(fc_decoder_step(d->d), 1);
    assert_int_equal(fc_decoder_counts(d->d)->missing, 2); /* asked again */
    assert_int_equal(kit_decode_all(d), 0);
    struct kit_memory m;
    kit_memory_init(&m, 16);
    kit_memory_load(&m, &d->out);
    assert_memory_equal(m.bytes + 7 * FC_PAGE_SIZE, items[0].page,
                        FC_PAGE_SIZE);
    assert_memory_equal(m.bytes + 8 * FC_PAGE_SIZE, items[1].page,
                        FC_PAGE_SIZE);
    kit_memory_free(&m);
    kit_decoder_free(d);
    bytes_free(&in);
}

/* Decodes headers, HELLO and one record; the error must name the record. */
static void assert_refused(uint32_t type, const void *body, uint32_t length,
                           const char *why)
{
    struct bytes in = { 0 };
    char where[80];
    begin(&in);
    snprintf(where, sizeof(where),
             "record type 0x%08x, length %u, at stream offset %zu: ", type,
             length, in.len);
    uint8_t raw[FC_RECORD_HEADER];
    fc_record_head_make(raw, type, length);
    bytes_add(&in, raw, sizeof(raw));
    if (body)
        bytes_add(&in, body, (size_t)fc_record_padded(length));
    struct kit_decoder *d = kit_decoder_new(&in);
    assert_true(kit_decode_all(d) < 0);
    if (strncmp(fc_decoder_why(d->d), where, strlen(where)) ||
        !strstr(fc_decoder_why(d->d), why))
        fail_msg("'%s' is not '%s...%s'", fc_decoder_why(d->d), where, why);
    assert_null(frame_of(d, FC_BACK_DONE));
    kit_decoder_free(d);
    bytes_free(&in);
}

/* Hostile lengths would be allocated, or their reason be a riddle. */
static void test_bad_records(void **state)
{
    (void)state;
    uint8_t *big = calloc(1, 1 << 20);
    assert_refused(0x1234, NULL, FC_RECORD_MAX + 1, "longer than libxc's");
    assert_refused(0x1234, NULL, UINT32_MAX, "longer than libxc's");
    assert_refused(FC_REC_PAGES, NULL, FC_BATCH_MAX_BYTES + 1, "longer than");
    assert_refused(FC_REC_PAGES, big, 0, "batch header is cut short");
    assert_refused(FC_REC_PAGES, big, 24, "count is out of range");
    assert_refused(FC_REC_SYNC, big, 9, "8 bytes");
    assert_refused(FC_REC_HELLO, big, FC_HELLO_BYTES, "second HELLO");
    assert_refused(0x1234, NULL, 8, "reading failed");
    free(big);

    struct bytes in = { 0 };
    kit_headers(&in, FC_DOMAIN_HVM);
    kit_record(&in, FC_REC_PAGES, "", 0);
    struct kit_decoder *d = kit_decoder_new(&in);
    assert_int_equal(kit_decode_all(d), FC_EFORMAT);
    assert_non_null(strstr(fc_decoder_why(d->d), "without an agreement"));
    kit_decoder_free(d);

    in.len = 0;
    in.at = 0;
    kit_headers(&in, FC_DOMAIN_HVM);
    in.p[8] = 'Y';
    d = kit_decoder_new(&in);
    assert_int_equal(kit_decode_all(d), FC_EFORMAT);
    assert_non_null(strstr(fc_decoder_why(d->d), "image header"));
    assert_int_equal(d->out.len, FC_STREAM_HEADERS); /* libxc says it too */
    kit_decoder_free(d);
    bytes_free(&in);
}

/* Some damaged PAGES record would crash, or pass as a good one. */
static void test_mutated_pages(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct fc_batch_item items[6];
    begin(&in);
    size_t at = in.len;
    for (unsigned i = 0; i < 6; i++)
        item_of(&items[i], 10 + i, i, i ? FC_BATCH_DATA : FC_BATCH_ZERO);
    items[5] = (struct fc_batch_item){ .entry = 30 | TYPE(0xf),
                                       .kind = FC_BATCH_NONE };
    put_batch(&in, items, 6);
    size_t end = in.len;
    kit_record(&in, FC_REC_END, NULL, 0);
    for (size_t i = at + 4; i < end; i++) {
        struct bytes copy = { 0 };
        bytes_add(&copy, in.p, in.len);
        copy.p[i] ^= (uint8_t)(1 << i % 8);
        struct kit_decoder *d = kit_decoder_new(&copy);
        /* it fails with a reason, or nothing that counts differs: padding,
         * a pfn, LZ4's choice among equal encodings */
        if (kit_decode_all(d) < 0)
            assert_true(strlen(fc_decoder_why(d->d)) > 0);
        kit_decoder_free(d);
        bytes_free(&copy);
        if (i > at + 400 && i + 400 < end)
            i += 50; /* payload: a sample is enough */
    }
    bytes_free(&in);
}

/* A sender's window would never move, or frames flood the way back. */
static void test_acks(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    uint8_t *body = calloc(1, 1000000);
    begin(&in);
    kit_record(&in, 0x77, body, 1000000);
    kit_record(&in, FC_REC_END, NULL, 0);
    struct kit_decoder *d = kit_decoder_new(&in);
    assert_int_equal(fc_decoder_step(d->d), 1);
    assert_int_equal(fc_decoder_step(d->d), 1);
    uint64_t start = d->frames[d->nframes - 1].value;
    assert_int_equal(start, in.at);
    assert_int_equal(fc_decoder_step(d->d), 1);
    uint64_t last = d->frames[d->nframes - 1].value;
    assert_int_equal(d->frames[d->nframes - 1].type, FC_BACK_ACK);
    assert_int_equal((last - start) % FC_ACK_BYTES, 0);
    assert_true(in.at - last < FC_ACK_BYTES);
    kit_decoder_free(d);
    free(body);
    bytes_free(&in);
}

/* Holes of the physical map would come out as other holes. */
static void test_long_none_runs(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    uint8_t body[24 + 2 * 16] = { 0 };
    begin(&in);
    fc_le_store(body, 2, 4);
    fc_le_store(body + 4, 5001, 4);
    fc_le_store(body + 24, 1000 | TYPE(0xf), 8);
    fc_le_store(body + 32, 5000, 4);
    fc_le_store(body + 40, 7, 8);
    fc_le_store(body + 48, 1, 4);
    fc_le_store(body + 52, FC_BATCH_ZERO, 4);
    kit_record(&in, FC_REC_PAGES, body, sizeof(body));
    kit_record(&in, FC_REC_END, NULL, 0);
    struct kit_decoder *d = kit_decoder_new(&in);
    struct kit_memory m;
    assert_int_equal(kit_decode_all(d), 0);
    kit_memory_init(&m, 6000);
    kit_memory_load(&m, &d->out);
    for (unsigned i = 0; i < 6000; i++)
        assert_int_equal(m.types[i], i == 7 ? 0 : i >= 1000 ? 0xf : 0xff);
    kit_memory_free(&m);
    kit_decoder_free(d);
    bytes_free(&in);
}

/* The set of missing pages would lose some, or grow without end. */
static void test_pfnset(void **state)
{
    (void)state;
    struct fc_pfnset set = { 0 };
    bool model[4096] = { false };
    unsigned held = 0;
    fc_pfnset_remove(&set, 1);
    assert_false(fc_pfnset_has(&set, 1));
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t pfn = test_rng() % 4096;
        if (test_rng() % 2) {
            assert_int_equal(fc_pfnset_add(&set, pfn * 0x10001), 0);
            held += !model[pfn];
            model[pfn] = true;
        } else {
            fc_pfnset_remove(&set, pfn * 0x10001);
            held -= model[pfn];
            model[pfn] = false;
        }
        assert_int_equal(set.held, held);
    }
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(fc_pfnset_has(&set, i * (uint64_t)0x10001), model[i]);
    fc_pfnset_dispose(&set);
    for (uint64_t i = 0; i < FC_PFNSET_MAX; i++)
        assert_int_equal(fc_pfnset_add(&set, i), 0);
    assert_int_equal(fc_pfnset_add(&set, FC_PFNSET_MAX), FC_ELIMIT);
    assert_int_equal(fc_pfnset_add(&set, 5), 0);
    fc_pfnset_dispose(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stops_at_end),
        cmocka_unit_test(test_checkpoint_pauses),
        cmocka_unit_test(test_welcome),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_holds_sync),
        cmocka_unit_test(test_damaged_data_is_missing),
        cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_mutated_pages),
        cmocka_unit_test(test_acks),
        cmocka_unit_test(test_long_none_runs),
        cmocka_unit_test(test_pfnset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
