/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "batch.h"
#include "golden.h"
#include "stream_kit.h"

/* What libxc writes before the first page and after the last one. */
static void early_records(struct bytes *b)
{
    uint8_t body[100];
    memset(body, 0x5a, sizeof(body));
    kit_record(b, 0x11, body, 96);
    kit_record(b, 0x12, body, 53);
    kit_record(b, 0x10, NULL, 0);
}

static void late_records(struct bytes *b)
{
    uint8_t body[100];
    memset(body, 0xa5, sizeof(body));
    kit_record(b, 0x08, body, 24);
    kit_record(b, 0x09, body, 99);
    kit_record(b, 0x0a, body, 16);
    kit_record(b, FC_REC_END, NULL, 0);
}

/* Pages 0..n-1 with types and contents of some variety. */
static void some_pages(struct bytes *b, uint32_t n, bool tables)
{
    uint64_t entries[FC_PAGE_DATA_ENTRIES + 8], numbers[sizeof(entries) / 8];
    for (uint32_t i = 0; i < n; i++) {
        unsigned type = i % 7 == 3 ? 0xf : i % 29 == 5 ? 0xe : 0;
        if (tables && i % 5 == 1)
            type = 1 + i % 4 + (i % 2 ? 8 : 0);
        entries[i] = i | TYPE(type);
        numbers[i] = i % 3 ? i : 0;
    }
    kit_page_data(b, entries, numbers, n);
}

static void hvm_stream(struct bytes *b)
{
    kit_headers(b, FC_DOMAIN_HVM);
    early_records(b);
    some_pages(b, 1024, false);
    some_pages(b, 77, false);
    late_records(b);
}

static void assert_same_stream(const struct bytes *a, const struct bytes *b)
{
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->p, b->p, a->len);
}

/* Encodes and decodes `in`; the decoder's output in out. */
static void round_trip(struct bytes *in, enum fc_stream_mode mode,
                       struct bytes *out)
{
    struct kit_encoder e;
    kit_encoder_init(&e, in, mode, NULL);
    assert_int_equal(kit_encode_all(&e), 0);
    assert_int_equal(in->at, in->len);
    struct kit_decoder *d = kit_decoder_new(&e.out);
    int rc = kit_decode_all(d);
    if (rc < 0)
        fail_msg("%s", fc_decoder_why(d->d));
    assert_int_equal(e.out.at, e.out.len);
    *out = d->out;
    d->out = (struct bytes){ 0 };
    kit_decoder_free(d);
    kit_encoder_dispose(&e);
}

/* Every kind of stream would be damaged on the way when nothing is agreed. */
static void test_plain_streams_pass(void **state)
{
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        struct bytes in = { 0 }, out = { 0 };
        struct kit_encoder e;
        kit_headers(&in, kind == 1 ? FC_DOMAIN_PV : FC_DOMAIN_HVM);
        early_records(&in);
        some_pages(&in, 1024, kind == 1);
        if (kind == 2) { /* checkpointed */
            kit_record(&in, FC_REC_CHECKPOINT, NULL, 0);
            some_pages(&in, 3, false);
            kit_record(&in, FC_REC_CHECKPOINT, NULL, 0);
        }
        if (kind == 3) /* verify */
            kit_record(&in, FC_REC_VERIFY, NULL, 0);
        if (kind == 4) { /* unknown to us: mandatory, optional, large */
            uint8_t *body = calloc(1, 3000001);
            kit_record(&in, 0x7abcdef0, body, 3000001);
            kit_record(&in, 0xfabcdef0, body, 17);
            free(body);
        }
        some_pages(&in, 1, false);
        late_records(&in);
        kit_encoder_init(&e, &in, kind == 5 ? FC_STREAM_IS_PLAIN : 0, NULL);
        assert_int_equal(kit_encode_all(&e), 0);
        if (kind == 5) { /* HELLO was sent and refused: the rest is plain */
            size_t hello = FC_RECORD_HEADER + FC_HELLO_BYTES;
            memmove(e.out.p + FC_STREAM_HEADERS,
                    e.out.p + FC_STREAM_HEADERS + hello,
                    e.out.len - FC_STREAM_HEADERS - hello);
            e.out.len -= hello;
        }
        assert_same_stream(&in, &e.out);
        kit_encoder_dispose(&e);
        in.at = 0;
        round_trip(&in, 0, &out);
        assert_same_stream(&in, &out);
        bytes_free(&in);
        bytes_free(&out);
    }
}

/* A guest would arrive with other contents than it left with. */
static void test_predictive_round_trip(void **state)
{
    (void)state;
    for (int tables = 0; tables < 2; tables++) {
        struct bytes in = { 0 }, out = { 0 };
        struct kit_memory want, got;
        kit_headers(&in, FC_DOMAIN_HVM);
        early_records(&in);
        some_pages(&in, 1024, tables);
        some_pages(&in, 77, tables);
        some_pages(&in, 1, tables);
        late_records(&in);
        round_trip(&in, FC_STREAM_PREDICTIVE, &out);
        kit_memory_init(&want, 1024);
        kit_memory_init(&got, 1024);
        kit_memory_load(&want, &in);
        kit_memory_load(&got, &out);
        assert_memory_equal(want.types, got.types, 1024);
        assert_memory_equal(want.bytes, got.bytes, 1024 * FC_PAGE_SIZE);
        /* nothing is dropped here: the same stream, byte for byte */
        assert_same_stream(&in, &out);
        kit_memory_free(&want);
        kit_memory_free(&got);
        bytes_free(&in);
        bytes_free(&out);
    }
}

/* A PV guest's normalised page tables would be pulled as raw memory. */
static void test_pv_is_not_proposed(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct kit_encoder e;
    kit_headers(&in, FC_DOMAIN_PV);
    some_pages(&in, 100, true);
    late_records(&in);
    kit_encoder_init(&e, &in, FC_STREAM_PREDICTIVE, NULL);
    assert_int_equal(kit_encode_all(&e), 0);
    assert_int_equal(fc_encoder_mode(e.e), FC_STREAM_IS_PLAIN);
    assert_same_stream(&in, &e.out);
    kit_encoder_dispose(&e);
    bytes_free(&in);
}

/* Pages that the dirty log brings again would be sent twice, or, worse, pages
 * would be dropped after the guest has stopped. */
static void test_skip(void **state)
{
    (void)state;
    struct bytes in = { 0 }, out = { 0 };
    struct kit_encoder e;
    struct kit_memory got;
    uint64_t dirty[2] = { 0xff00, 1 };
    kit_headers(&in, FC_DOMAIN_HVM);
    some_pages(&in, 100, false);
    size_t first = in.len;
    some_pages(&in, 100, false);
    kit_record(&in, FC_REC_END, NULL, 0);
    kit_encoder_init(&e, &in, FC_STREAM_PREDICTIVE, NULL);
    e.dirty = dirty;
    e.dirty_bits = 65;
    while (in.at < first)
        assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_counts(e.e)->skipped, 9);
    assert_int_equal(fc_encoder_counts(e.e)->pages_seen, 100);

    struct bytes half = { .p = e.out.p, .len = e.out.len };
    struct kit_decoder *d = kit_decoder_new(&half);
    while (half.at < half.len)
        assert_int_equal(fc_decoder_step(d->d), 1);
    kit_record(&d->out, FC_REC_END, NULL, 0);
    kit_memory_init(&got, 1024);
    kit_memory_load(&got, &d->out);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(got.types[i] == 0xff, (i >= 8 && i < 16) || i == 64);
    kit_memory_free(&got);
    kit_decoder_free(d);

    /* all of a record dropped: no record at all */
    memset(dirty, 0xff, sizeof(dirty));
    e.dirty_bits = 128;
    size_t before = e.out.len;
    in.at = FC_STREAM_HEADERS;
    assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(e.out.len, before);

    fc_encoder_final(e.e);
    assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_counts(e.e)->skipped, 109);
    assert_true(e.out.len > before);
    kit_encoder_dispose(&e);
    bytes_free(&in);
    bytes_free(&out);
}

static int get_numbered(void *user, struct fc_hash hash, void *page)
{
    unsigned *lost = user;
    for (uint64_t i = 1; i < 64; i++) {
        kit_page(page, i);
        if (fc_hash_equal(fc_page_hash(page), hash))
            return *lost && i % *lost == 0 ? FC_ENOENT : 0;
    }
    return FC_ENOENT;
}

/* Staged pages would be sent in full, or references would be made where no
 * answer can come any more. */
static void test_references(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct kit_encoder e;
    struct fc_hashset staged;
    uint64_t entries[64], numbers[64];
    unsigned lost = 0;
    assert_int_equal(fc_hashset_new(&staged, 64), 0);
    for (unsigned i = 0; i < 64; i++) {
        uint8_t page[FC_PAGE_SIZE];
        entries[i] = i + 100 + (i == 9 ? TYPE(1) : 0);
        numbers[i] = i;
        kit_page(page, i);
        if (i < 32)
            assert_int_equal(fc_hashset_add(&staged, fc_page_hash(page)), 0);
    }
    kit_headers(&in, FC_DOMAIN_HVM);
    kit_page_data(&in, entries, numbers, 64);
    size_t first = in.len;
    kit_page_data(&in, entries, numbers, 64);
    kit_record(&in, FC_REC_END, NULL, 0);
    kit_encoder_init(&e, &in, FC_STREAM_PREDICTIVE, &staged);
    while (in.at < first)
        assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_counts(e.e)->zero, 1);
    assert_int_equal(fc_encoder_counts(e.e)->ref, 30);
    assert_int_equal(fc_encoder_counts(e.e)->data, 33);
    fc_encoder_final(e.e);
    assert_int_equal(kit_encode_all(&e), 0);
    assert_int_equal(fc_encoder_counts(e.e)->ref, 30);
    assert_int_equal(fc_encoder_counts(e.e)->data, 33 + 63);

    struct kit_decoder *d = kit_decoder_new(&e.out);
    d->source = (struct fc_page_source){ get_numbered, &lost };
    assert_int_equal(kit_decode_all(d), 0);
    assert_same_stream(&in, &d->out);
    kit_decoder_free(d);
    kit_encoder_dispose(&e);
    bytes_free(&in);
    fc_hashset_dispose(&staged);
}

/* WELCOME without a store would still be answered with references. */
static void test_no_store_no_references(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct kit_encoder e;
    struct fc_hashset staged;
    uint8_t page[FC_PAGE_SIZE];
    uint64_t entry = 5, number = 5;
    assert_int_equal(fc_hashset_new(&staged, 8), 0);
    kit_page(page, 5);
    assert_int_equal(fc_hashset_add(&staged, fc_page_hash(page)), 0);
    kit_headers(&in, FC_DOMAIN_HVM);
    kit_page_data(&in, &entry, &number, 1);
    kit_record(&in, FC_REC_END, NULL, 0);
    kit_encoder_init(&e, &in, FC_STREAM_PREDICTIVE, &staged);
    e.refs = false;
    assert_int_equal(kit_encode_all(&e), 0);
    assert_int_equal(fc_encoder_counts(e.e)->ref, 0);
    assert_int_equal(fc_encoder_counts(e.e)->data, 1);
    kit_encoder_dispose(&e);
    bytes_free(&in);
    fc_hashset_dispose(&staged);
}

/* Pages that the receiver lost would stay lost, or come as something else. */
static void test_pulled(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct kit_encoder e;
    uint64_t pfns[3] = { 40, 50, 60 };
    uint8_t pages[3 * FC_PAGE_SIZE];
    bool has[3] = { true, false, true };
    kit_headers(&in, FC_DOMAIN_HVM);
    some_pages(&in, 1, false);
    kit_record(&in, FC_REC_END, NULL, 0);
    kit_encoder_init(&e, &in, FC_STREAM_PREDICTIVE, NULL);
    kit_page(pages, 4);
    kit_page(pages + FC_PAGE_SIZE, 5);
    kit_page(pages + 2 * FC_PAGE_SIZE, 0);
    assert_int_equal(fc_encoder_pulled(e.e, pfns, 3, pages, has), FC_EINVAL);
    assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_pulled(e.e, pfns, 3, pages, has), 0);
    assert_int_equal(fc_encoder_sync(e.e, 7), 0);
    assert_int_equal(fc_encoder_ping(e.e), 0);
    assert_int_equal(kit_encode_all(&e), 0);
    assert_int_equal(fc_encoder_counts(e.e)->pulled, 3);

    struct kit_decoder *d = kit_decoder_new(&e.out);
    struct kit_memory got;
    assert_int_equal(kit_decode_all(d), 0);
    kit_memory_init(&got, 64);
    kit_memory_load(&got, &d->out);
    assert_int_equal(got.types[40], 0);
    assert_memory_equal(got.bytes + 40 * FC_PAGE_SIZE, pages, FC_PAGE_SIZE);
    assert_int_equal(got.types[50], 0xf);
    assert_int_equal(got.types[60], 0);
    assert_int_equal(d->drains, 1);
    kit_memory_free(&got);
    kit_decoder_free(d);
    kit_encoder_dispose(&e);
    bytes_free(&in);
}

/* A refusal to go on plainly would be overlooked and pages sent anyway. */
static void test_welcome_error_ends(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct kit_encoder e;
    hvm_stream(&in);
    kit_encoder_init(&e, &in, FC_STREAM_IS_PLAIN, NULL);
    e.welcome_rc = FC_EPEER;
    assert_int_equal(kit_encode_all(&e), FC_EPEER);
    assert_true(strlen(fc_encoder_why(e.e)) > 0);
    assert_int_equal(fc_encoder_counts(e.e)->pages_seen, 0);
    kit_encoder_dispose(&e);
    bytes_free(&in);
}

/* Records of libxc's that are not as we know them would be lost. */
static void test_odd_page_data_passes(void **state)
{
    (void)state;
    struct bytes in = { 0 }, out = { 0 };
    uint8_t body[64] = { 3 }; /* three entries, but no pages for them */
    kit_headers(&in, FC_DOMAIN_HVM);
    some_pages(&in, 2, false);
    kit_record(&in, FC_REC_PAGE_DATA, body, 60);
    kit_record(&in, FC_REC_PAGE_DATA, body, 4);
    some_pages(&in, FC_PAGE_DATA_ENTRIES + 8, false);
    kit_record(&in, FC_REC_END, NULL, 0);
    round_trip(&in, FC_STREAM_PREDICTIVE, &out);
    assert_same_stream(&in, &out);
    bytes_free(&in);
    bytes_free(&out);
}

/* The bytes on the wire would change unnoticed. */
static void test_golden(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    struct kit_encoder e;
    uint64_t entries[4] = { 1, 2, 3, 4 | TYPE(0xf) };
    uint64_t numbers[4] = { 0, 7, 7, 0 };
    struct fc_hashset staged;
    uint8_t page[FC_PAGE_SIZE];
    assert_int_equal(fc_hashset_new(&staged, 8), 0);
    kit_page(page, 7);
    assert_int_equal(fc_hashset_add(&staged, fc_page_hash(page)), 0);
    kit_headers(&in, FC_DOMAIN_HVM);
    kit_page_data(&in, entries, numbers, 4);
    kit_record(&in, FC_REC_END, NULL, 0);
    kit_encoder_init(&e, &in, FC_STREAM_PREDICTIVE, &staged);
    assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_step(e.e), 1);
    assert_int_equal(fc_encoder_sync(e.e, 0x1122334455667788ull), 0);
    assert_int_equal(fc_encoder_ping(e.e), 0);
    assert_int_equal(kit_encode_all(&e), 0);
    assert_golden("stream", e.out.p, e.out.len);
    kit_encoder_dispose(&e);
    bytes_free(&in);
    fc_hashset_dispose(&staged);
}

/* A stream that breaks off would look like one that ended. */
static void test_cut_input(void **state)
{
    (void)state;
    struct bytes in = { 0 };
    hvm_stream(&in);
    for (size_t cut = 0; cut < in.len; cut += 1 + cut / 7) {
        struct bytes part = { .p = in.p, .len = cut };
        struct kit_encoder e;
        kit_encoder_init(&e, &part, FC_STREAM_PREDICTIVE, NULL);
        assert_true(kit_encode_all(&e) < 0);
        assert_true(strlen(fc_encoder_why(e.e)) > 0);
        kit_encoder_dispose(&e);
    }
    bytes_free(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_streams_pass),
        cmocka_unit_test(test_predictive_round_trip),
        cmocka_unit_test(test_pv_is_not_proposed),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_no_store_no_references),
        cmocka_unit_test(test_pulled),
        cmocka_unit_test(test_welcome_error_ends),
        cmocka_unit_test(test_odd_page_data_passes),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_cut_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
