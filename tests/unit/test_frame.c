/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "frame.h"
#include "golden.h"
#include "wire.h"

static uint8_t frame[FC_FRAME_HEADER + FC_FRAME_MAX_BODY + 1];
static uint8_t *const body = frame + FC_FRAME_HEADER;
static const size_t body_cap = FC_FRAME_MAX_BODY;
static uint8_t plain[FC_FRAME_MAX_PLAIN], back[FC_FRAME_MAX_PLAIN];

static const struct fc_frame_hello hello = {
    .highest = 3,
    .lowest = 1,
    .block_bytes = 65536,
    .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
    .size = 0x123456789a00u,
    .epoch = 7,
    .migration = { 0xaa, 0xbb, [15] = 0xcc },
    .name = "xvda",
};

static const struct fc_frame_welcome welcome = {
    .version = 1,
    .owner = true,
    .epoch = 0x8877665544332211u,
    .migration = { 1, [15] = 2 },
    .held = 77,
};

static const struct fc_frame_flip flip = {
    .migration = { 9, [15] = 8 },
    .epoch = 12,
    .status = FC_FRAME_REFUSED,
    .invalid = 5,
};

static size_t finish(enum fc_frame_type type, ssize_t len)
{
    assert_true(len >= 0);
    fc_frame_head_make(frame, type, body, (uint32_t)len);
    return FC_FRAME_HEADER + (size_t)len;
}

/* Every prefix and the body with a byte more must be refused. */
#define assert_exact(len, parse)                                               \
    do {                                                                       \
        size_t exact_len = (size_t)(len);                                      \
        body[exact_len] = 0;                                                   \
        for (size_t n = 0; n <= exact_len + 1; n++)                            \
            assert_int_equal(parse, n == exact_len ? 0 : FC_EFORMAT);          \
    } while (0)

/* A DATA frame's body in `body`; its length. */
static size_t data_body(struct fc_frame_data *d)
{
    fc_frame_data_encode(d, plain, body + FC_FRAME_DATA_HEAD);
    assert_int_equal(fc_frame_data_make(d, body, body_cap), FC_FRAME_DATA_HEAD);
    return FC_FRAME_DATA_HEAD + d->coded;
}

/* Would break: engines of two releases do not understand each other. */
static void frames_are_golden(void **state)
{
    (void)state;
    const struct fc_frame_want want = { 3, 65536, 4096 };
    struct fc_frame_data d = { .seq = 5, .offset = 65536, .length = 512 };
    uint32_t lcg = 1;
    size_t n;
    n = finish(FC_FRAME_HELLO, fc_frame_hello_make(&hello, body, body_cap));
    assert_golden("block-hello", frame, n);
    n = finish(FC_FRAME_WELCOME,
               fc_frame_welcome_make(&welcome, body, body_cap));
    assert_golden("block-welcome", frame, n);
    n = finish(FC_FRAME_WANT, fc_frame_want_make(&want, body, body_cap));
    assert_golden("block-want", frame, n);
    n = finish(FC_FRAME_FENCE,
               fc_frame_flip_make(FC_FRAME_FENCE, &flip, body, body_cap));
    assert_golden("block-fence", frame, n);
    n = finish(FC_FRAME_FENCED,
               fc_frame_flip_make(FC_FRAME_FENCED, &flip, body, body_cap));
    assert_golden("block-fenced", frame, n);
    /* nothing that LZ4 would code: its releases may differ */
    for (size_t i = 0; i < 512; i++) {
        lcg = lcg * 1664525u + 1013904223u;
        plain[i] = (uint8_t)(lcg >> 24);
    }
    d.keep = true;
    n = finish(FC_FRAME_DATA, (ssize_t)data_body(&d));
    assert_golden("block-data", frame, n);
}

/* Would break: a damaged or foreign header is followed by 4 GiB of body. */
static void header_is_checked(void **state)
{
    (void)state;
    static const struct {
        unsigned at;
        uint8_t value;
        int rc;
    } bad[] = {
        { 0, 'X', FC_EFORMAT }, { 4, 2, FC_EVERSION }, { 5, 0, FC_EFORMAT },
        { 5, 20, FC_EFORMAT },  { 6, 1, FC_EFORMAT },  { 11, 1, FC_ETOOBIG },
    };
    struct fc_frame_head head;
    finish(FC_FRAME_HELLO, fc_frame_hello_make(&hello, body, body_cap));
    assert_int_equal(fc_frame_head_parse(frame, &head), 0);
    assert_int_equal(head.type, FC_FRAME_HELLO);
    assert_int_equal(fc_frame_check(&head, body), 0);
    body[3] ^= 1;
    assert_int_equal(fc_frame_check(&head, body), FC_ECHECK);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t saved = frame[bad[i].at];
        frame[bad[i].at] = bad[i].value;
        assert_int_equal(fc_frame_head_parse(frame, &head), bad[i].rc);
        frame[bad[i].at] = saved;
    }
    fc_le_store(frame + 8, FC_FRAME_MAX_BODY, 4);
    assert_int_equal(fc_frame_head_parse(frame, &head), 0);
    fc_le_store(frame + 8, FC_FRAME_MAX_BODY + 1, 4);
    assert_int_equal(fc_frame_head_parse(frame, &head), FC_ETOOBIG);
}

/* Would break: a shadow is filled from another guest's disk, or from one of
 * another size. */
static void hello_and_welcome_round_trip(void **state)
{
    (void)state;
    static const struct {
        unsigned at, bytes;
        uint64_t value;
    } bad[] = {
        { 2, 2, 4 },  { 4, 4, 4095 }, { 4, 4, 2048 },        { 4, 4, 1 << 21 },
        { 24, 8, 0 }, { 24, 8, 513 }, { 24, 8, 1ull << 63 },
    };
    struct fc_frame_hello h;
    struct fc_frame_welcome w;
    ssize_t len = fc_frame_hello_make(&hello, body, body_cap);
    assert_exact(len, fc_frame_hello_parse(body, n, &h));
    assert_int_equal(fc_frame_hello_parse(body, (size_t)len, &h), 0);
    assert_memory_equal(&h, &hello, sizeof(h));
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fc_frame_hello_make(&hello, body, body_cap);
        fc_le_store(body + bad[i].at, bad[i].value, bad[i].bytes);
        assert_int_equal(fc_frame_hello_parse(body, (size_t)len, &h),
                         FC_EFORMAT);
    }
    assert_int_equal(fc_frame_hello_make(&hello, body, (size_t)len - 1),
                     FC_ETOOBIG);

    len = fc_frame_welcome_make(&welcome, body, body_cap);
    assert_exact(len, fc_frame_welcome_parse(body, n, &w));
    assert_int_equal(fc_frame_welcome_parse(body, (size_t)len, &w), 0);
    assert_true(w.owner);
    assert_false(w.fenced);
    assert_int_equal(w.epoch, welcome.epoch);
    assert_int_equal(w.held, 77);
    assert_memory_equal(w.migration, welcome.migration, FC_MIGRATION_BYTES);
    body[2] = 3; /* owned and fenced at once */
    assert_int_equal(fc_frame_welcome_parse(body, (size_t)len, &w), FC_EFORMAT);
}

/* Would break: what is written at the destination is not what was read at the
 * source, and nobody notices. */
static void data_is_what_was_read(void **state)
{
    (void)state;
    struct fc_frame_data d, got;
    const uint8_t *p;
    uint32_t lcg = 1;
    for (unsigned kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < sizeof(plain); i++) {
            lcg = lcg * 1664525u + 1013904223u;
            plain[i] = kind == 0   ? 0
                       : kind == 1 ? (uint8_t)(i / 100)
                                   : (uint8_t)(lcg >> 24);
        }
        d = (struct fc_frame_data){ .seq = 9,
                                    .answer = 4,
                                    .offset = 1u << 20,
                                    .length = sizeof(plain),
                                    .keep = true };
        size_t len = data_body(&d);
        assert_int_equal(d.encoding, kind == 0   ? FC_FRAME_ZEROS
                                     : kind == 1 ? FC_FRAME_LZ4
                                                 : FC_FRAME_RAW);
        assert_int_equal(fc_frame_data_parse(body, len, &got), 0);
        assert_int_equal(got.seq, 9);
        assert_int_equal(got.answer, 4);
        assert_int_equal(got.offset, 1u << 20);
        assert_int_equal(got.length, sizeof(plain));
        assert_true(got.keep);
        assert_int_equal(fc_frame_data_plain(&got, back, &p), 0);
        assert_true(kind == 0 ? !p : !memcmp(p, plain, sizeof(plain)));
        for (size_t n = 0; kind < 2 && n < FC_FRAME_DATA_HEAD; n++)
            assert_int_equal(fc_frame_data_parse(body, n, &got), FC_EFORMAT);
        if (kind == 0)
            continue;
        body[FC_FRAME_DATA_HEAD + len / 2] ^= 0x10;
        assert_int_equal(fc_frame_data_parse(body, len, &got), 0);
        assert_int_not_equal(fc_frame_data_plain(&got, back, &p), 0);
    }
}

/* Would break: a hostile source writes past the disk, or past a buffer. */
static void hostile_data_is_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned at, bytes;
        uint64_t value;
    } bad[] = {
        { 16, 8, 511 },
        { 16, 8, UINT64_MAX - 511 },
        { 16, 8, 1ull << 63 },
        { 24, 4, 0 },
        { 24, 4, 4097 },
        { 24, 4, FC_FRAME_MAX_PLAIN + 512 },
        { 28, 1, 4 },
        { 28, 1, FC_FRAME_ZEROS },
        { 28, 1, FC_FRAME_RAW },
        { 28, 1, FC_FRAME_UNREADABLE },
        { 29, 1, 2 },
        { 30, 2, 1 },
    };
    struct fc_frame_data d = { .seq = 1, .length = 8192 }, got;
    struct fc_frame_want want = { 1, 4096, 512 }, w;
    memset(plain, 7, 8192);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t len = data_body(&d);
        assert_int_equal(d.encoding, FC_FRAME_LZ4);
        assert_int_equal(fc_frame_data_parse(body, len, &got), 0);
        fc_le_store(body + bad[i].at, bad[i].value, bad[i].bytes);
        assert_int_equal(fc_frame_data_parse(body, len, &got), FC_EFORMAT);
    }
    /* zeros may be many, and no answer may be kept that has no bytes */
    d = (struct fc_frame_data){ .seq = 1, .length = FC_FRAME_MAX_ZEROS };
    d.encoding = FC_FRAME_ZEROS;
    fc_frame_data_make(&d, body, body_cap);
    assert_int_equal(fc_frame_data_parse(body, FC_FRAME_DATA_HEAD, &got), 0);
    d.length += 512;
    fc_frame_data_make(&d, body, body_cap);
    assert_int_equal(fc_frame_data_parse(body, FC_FRAME_DATA_HEAD, &got),
                     FC_EFORMAT);
    d = (struct fc_frame_data){ .seq = 1, .length = 512, .answer = 1 };
    d.encoding = FC_FRAME_UNREADABLE;
    fc_frame_data_make(&d, body, body_cap);
    assert_int_equal(fc_frame_data_parse(body, FC_FRAME_DATA_HEAD, &got), 0);
    d.keep = true;
    fc_frame_data_make(&d, body, body_cap);
    assert_int_equal(fc_frame_data_parse(body, FC_FRAME_DATA_HEAD, &got),
                     FC_EFORMAT);

    ssize_t len = fc_frame_want_make(&want, body, body_cap);
    assert_exact(len, fc_frame_want_parse(body, n, &w));
    want.length = FC_FRAME_MAX_PLAIN + 512;
    fc_frame_want_make(&want, body, body_cap);
    assert_int_equal(fc_frame_want_parse(body, (size_t)len, &w), FC_EFORMAT);
}

/* Would break: an answer to one migration is taken for another's. */
static void flips_round_trip(void **state)
{
    (void)state;
    static const enum fc_frame_type types[] = {
        FC_FRAME_FENCE, FC_FRAME_FENCED, FC_FRAME_LEASE,
        FC_FRAME_OWNED, FC_FRAME_RETURN, FC_FRAME_RETURNED
    };
    struct fc_frame_flip f;
    for (unsigned i = 0; i < 6; i++) {
        bool answer = i % 2;
        ssize_t len = fc_frame_flip_make(types[i], &flip, body, body_cap);
        assert_exact(len, fc_frame_flip_parse(types[i], body, n, &f));
        assert_int_equal(fc_frame_flip_parse(types[i], body, (size_t)len, &f),
                         0);
        assert_memory_equal(f.migration, flip.migration, FC_MIGRATION_BYTES);
        assert_int_equal(f.epoch, 12);
        assert_int_equal(f.status, answer ? FC_FRAME_REFUSED : 0);
        assert_int_equal(f.invalid, answer ? 5 : 0);
        memset(body, 0, FC_MIGRATION_BYTES);
        assert_int_equal(fc_frame_flip_parse(types[i], body, (size_t)len, &f),
                         FC_EFORMAT);
    }
    ssize_t len = fc_frame_flip_make(FC_FRAME_OWNED, &flip, body, body_cap);
    body[24] = 3; /* no such status */
    assert_int_equal(fc_frame_flip_parse(FC_FRAME_OWNED, body, (size_t)len, &f),
                     FC_EFORMAT);
}

/* Would break: text from another host moves the cursor of a terminal, or
 * overruns its buffer. */
static void texts_are_scrubbed_and_bounded(void **state)
{
    (void)state;
    char text[FC_FRAME_MAX_TEXT + 1], longer[400];
    uint16_t reason;
    uint64_t value;
    ssize_t len = fc_frame_text_make(FC_FRAME_BYE, FC_FRAME_FINISHED,
                                     "x\ty\033", body, body_cap);
    assert_int_equal(
        fc_frame_text_parse(FC_FRAME_BYE, body, (size_t)len, &reason, text), 0);
    assert_int_equal(reason, FC_FRAME_FINISHED);
    assert_string_equal(text, "x?y?");
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    len = fc_frame_text_make(FC_FRAME_ERROR, 0, longer, body, body_cap);
    assert_int_equal(len, FC_FRAME_MAX_TEXT);
    assert_int_equal(
        fc_frame_text_parse(FC_FRAME_ERROR, body, (size_t)len, NULL, text), 0);
    assert_int_equal(
        fc_frame_text_parse(FC_FRAME_ERROR, body, (size_t)len + 1, NULL, text),
        FC_EFORMAT);
    len = fc_frame_value_make(1234567, body, body_cap);
    assert_exact(len, fc_frame_value_parse(body, n, &value));
    assert_int_equal(fc_frame_value_parse(body, (size_t)len, &value), 0);
    assert_int_equal(value, 1234567);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_golden),
        cmocka_unit_test(header_is_checked),
        cmocka_unit_test(hello_and_welcome_round_trip),
        cmocka_unit_test(data_is_what_was_read),
        cmocka_unit_test(hostile_data_is_refused),
        cmocka_unit_test(flips_round_trip),
        cmocka_unit_test(texts_are_scrubbed_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
