/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "channel.h"
#include "err.h"
#include "golden.h"
#include "page.h"
#include "wire.h"

static uint8_t frame[FC_CHANNEL_HEADER + FC_CHANNEL_MAX_PFNS * 8 + 64];
static uint8_t *const body = frame + FC_CHANNEL_HEADER;
static const size_t body_cap = sizeof(frame) - FC_CHANNEL_HEADER;
static uint64_t pfns[FC_CHANNEL_MAX_PFNS], got[FC_CHANNEL_MAX_PFNS];

static const struct fc_channel_hello hello = {
    .highest = 3,
    .lowest = 1,
    .channel = 2,
    .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
    .guest_pages = 0x123456789au,
    .name = "guest-a",
};

static const struct fc_channel_welcome welcome = {
    .version = 1,
    .epoch = 0x8877665544332211u,
    .token = { 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1 },
    .pages_held = 77,
    .budget_bytes = 1ull << 33,
};

static size_t finish(enum fc_channel_type type, ssize_t len)
{
    assert_true(len >= 0);
    fc_channel_head_make(frame, type, body, (uint32_t)len);
    return FC_CHANNEL_HEADER + (size_t)len;
}

/* Every prefix and the body with a byte more must be refused. */
#define assert_exact(len, parse)                                               \
    do {                                                                       \
        size_t exact_len = (size_t)(len);                                      \
        body[exact_len] = 0;                                                   \
        for (size_t n = 0; n <= exact_len + 1; n++)                            \
            assert_int_equal(parse, n == exact_len ? 0 : FC_EFORMAT);          \
    } while (0)

/* Would break: daemons of two releases do not understand each other. */
static void frames_are_golden(void **state)
{
    (void)state;
    static const uint64_t some[] = { 1, 0x1000, FC_PFN_MASK };
    size_t n;
    n = finish(FC_CHANNEL_HELLO, fc_channel_hello_make(&hello, body, body_cap));
    assert_golden("channel-hello", frame, n);
    n = finish(FC_CHANNEL_WELCOME,
               fc_channel_welcome_make(&welcome, body, body_cap));
    assert_golden("channel-welcome", frame, n);
    n = finish(FC_CHANNEL_STORED,
               fc_channel_stored_make(9, 1024, some, 3, body, body_cap));
    assert_golden("channel-stored", frame, n);
    n = finish(FC_CHANNEL_EVICTED,
               fc_channel_pfns_make(some, 3, body, body_cap));
    assert_golden("channel-evicted", frame, n);
    n = finish(FC_CHANNEL_BYE,
               fc_channel_text_make(FC_CHANNEL_BYE, 2, "done", body, body_cap));
    assert_golden("channel-bye", frame, n);
    n = finish(FC_CHANNEL_ERROR,
               fc_channel_text_make(FC_CHANNEL_ERROR, 0, "no", body, body_cap));
    assert_golden("channel-error", frame, n);
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
        { 5, 12, FC_EFORMAT },  { 6, 1, FC_EFORMAT },  { 11, 1, FC_ETOOBIG },
    };
    struct fc_channel_head head;
    finish(FC_CHANNEL_HELLO, fc_channel_hello_make(&hello, body, body_cap));
    assert_int_equal(fc_channel_head_parse(frame, &head), 0);
    assert_int_equal(head.type, FC_CHANNEL_HELLO);
    assert_int_equal(fc_channel_check(&head, body), 0);
    body[3] ^= 1;
    assert_int_equal(fc_channel_check(&head, body), FC_ECHECK);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t saved = frame[bad[i].at];
        frame[bad[i].at] = bad[i].value;
        assert_int_equal(fc_channel_head_parse(frame, &head), bad[i].rc);
        frame[bad[i].at] = saved;
    }
    fc_le_store(frame + 8, FC_CHANNEL_MAX_BODY, 4);
    assert_int_equal(fc_channel_head_parse(frame, &head), 0);
    fc_le_store(frame + 8, FC_CHANNEL_MAX_BODY + 1, 4);
    assert_int_equal(fc_channel_head_parse(frame, &head), FC_ETOOBIG);
}

/* Would break: the keeper serves another guest than the source means. */
static void hello_round_trip(void **state)
{
    (void)state;
    struct fc_channel_hello h;
    ssize_t len = fc_channel_hello_make(&hello, body, body_cap);
    assert_exact(len, fc_channel_hello_parse(body, n, &h));
    assert_int_equal(fc_channel_hello_parse(body, (size_t)len, &h), 0);
    assert_int_equal(h.highest, hello.highest);
    assert_int_equal(h.lowest, hello.lowest);
    assert_int_equal(h.channel, hello.channel);
    assert_memory_equal(h.uuid, hello.uuid, sizeof(h.uuid));
    assert_int_equal(h.guest_pages, hello.guest_pages);
    assert_string_equal(h.name, hello.name);
    body[6] = 1;
    assert_int_equal(fc_channel_hello_parse(body, (size_t)len, &h), FC_EFORMAT);
    body[6] = 0;
    fc_le_store(body + 2, 4, 2);
    assert_int_equal(fc_channel_hello_parse(body, (size_t)len, &h), FC_EFORMAT);
    assert_int_equal(fc_channel_hello_make(&hello, body, (size_t)len - 1),
                     FC_ETOOBIG);
}

/* Would break: a name from another host moves the cursor of a terminal. */
static void names_and_texts_are_scrubbed(void **state)
{
    (void)state;
    struct fc_channel_hello h = hello, back;
    char text[FC_CHANNEL_MAX_TEXT + 1];
    uint16_t reason;
    strcpy(h.name, "a\033[2Jb\n\x7f");
    ssize_t len = fc_channel_hello_make(&h, body, body_cap);
    assert_int_equal(fc_channel_hello_parse(body, (size_t)len, &back), 0);
    assert_string_equal(back.name, "a?[2Jb??");
    len = fc_channel_text_make(FC_CHANNEL_BYE, FC_BYE_MIGRATED, "x\ty", body,
                               body_cap);
    assert_int_equal(
        fc_channel_text_parse(FC_CHANNEL_BYE, body, (size_t)len, &reason, text),
        0);
    assert_int_equal(reason, FC_BYE_MIGRATED);
    assert_string_equal(text, "x?y");
}

/* Would break: the source takes a page for staged that is not. */
static void welcome_and_stored_round_trip(void **state)
{
    (void)state;
    struct fc_channel_welcome w;
    uint64_t seq;
    uint32_t pages, refused;
    ssize_t len = fc_channel_welcome_make(&welcome, body, body_cap);
    assert_exact(len, fc_channel_welcome_parse(body, n, &w));
    assert_int_equal(fc_channel_welcome_parse(body, (size_t)len, &w), 0);
    assert_int_equal(w.epoch, welcome.epoch);
    assert_int_equal(w.pages_held, 77);
    assert_memory_equal(w.token, welcome.token, FC_TOKEN_BYTES);
    memset(body + 8, 0, 8);
    assert_int_equal(fc_channel_welcome_parse(body, (size_t)len, &w),
                     FC_EFORMAT);

    for (unsigned i = 0; i < FC_CHANNEL_MAX_PFNS; i++)
        pfns[i] = i * 3;
    len = fc_channel_stored_make(5, 9, pfns, 4, body, body_cap);
    assert_exact(len,
                 fc_channel_stored_parse(body, n, &seq, &pages, got, &refused));
    assert_int_equal(
        fc_channel_stored_parse(body, (size_t)len, &seq, &pages, got, &refused),
        0);
    assert_int_equal(seq, 5);
    assert_int_equal(pages, 9);
    assert_int_equal(refused, 4);
    assert_memory_equal(got, pfns, 32);
    fc_le_store(body + 8, 3, 4); /* more refused than sent */
    assert_int_equal(
        fc_channel_stored_parse(body, (size_t)len, &seq, &pages, got, &refused),
        FC_EFORMAT);
    fc_le_store(body + 12, 1u << 31, 4);
    fc_le_store(body + 8, UINT32_MAX, 4);
    assert_int_equal(
        fc_channel_stored_parse(body, (size_t)len, &seq, &pages, got, &refused),
        FC_EFORMAT);
    assert_int_equal(fc_channel_stored_make(1, 1, pfns, FC_CHANNEL_MAX_PFNS + 1,
                                            body, body_cap),
                     FC_ETOOBIG);
}

/* Would break: a list of pfns overruns the receiver's array. */
static void pfn_lists_are_bounded(void **state)
{
    (void)state;
    uint32_t count;
    ssize_t len =
        fc_channel_pfns_make(pfns, FC_CHANNEL_MAX_PFNS, body, body_cap);
    assert_int_equal(len, FC_CHANNEL_MAX_PFNS * 8);
    assert_int_equal(fc_channel_pfns_parse(body, (size_t)len, got, &count), 0);
    assert_int_equal(count, FC_CHANNEL_MAX_PFNS);
    assert_memory_equal(got, pfns, sizeof(got));
    assert_int_equal(fc_channel_pfns_parse(body, (size_t)len + 8, got, &count),
                     FC_EFORMAT);
    assert_int_equal(fc_channel_pfns_parse(body, 7, got, &count), FC_EFORMAT);
    body[7] = 0x80;
    assert_int_equal(fc_channel_pfns_parse(body, 8, got, &count), FC_EFORMAT);
    assert_int_equal(fc_channel_pfns_parse(body, 0, got, &count), 0);
    assert_int_equal(count, 0);
}

/* Would break: a long farewell overruns the text. */
static void texts_are_bounded(void **state)
{
    (void)state;
    char text[FC_CHANNEL_MAX_TEXT + 1], longer[400];
    uint16_t reason;
    uint64_t value;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ssize_t len =
        fc_channel_text_make(FC_CHANNEL_ERROR, 0, longer, body, body_cap);
    assert_int_equal(len, FC_CHANNEL_MAX_TEXT);
    assert_int_equal(
        fc_channel_text_parse(FC_CHANNEL_ERROR, body, (size_t)len, NULL, text),
        0);
    assert_int_equal(strlen(text), FC_CHANNEL_MAX_TEXT);
    assert_int_equal(fc_channel_text_parse(FC_CHANNEL_ERROR, body,
                                           (size_t)len + 1, NULL, text),
                     FC_EFORMAT);
    assert_int_equal(
        fc_channel_text_parse(FC_CHANNEL_BYE, body, 1, &reason, text),
        FC_EFORMAT);
    body[0] = 4, body[1] = 0;
    assert_int_equal(
        fc_channel_text_parse(FC_CHANNEL_BYE, body, 2, &reason, text),
        FC_EFORMAT);
    assert_exact(8, fc_channel_value_parse(body, n, &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_golden),
        cmocka_unit_test(header_is_checked),
        cmocka_unit_test(hello_round_trip),
        cmocka_unit_test(names_and_texts_are_scrubbed),
        cmocka_unit_test(welcome_and_stored_round_trip),
        cmocka_unit_test(pfn_lists_are_bounded),
        cmocka_unit_test(texts_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
