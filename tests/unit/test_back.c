/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "back.h"
#include "golden.h"
#include "err.h"

#define MAX_FRAME (FC_BACK_HEADER + FC_BACK_MAX_BODY)

static void one_of_each(struct fc_back_frame *f)
{
    memset(f, 0, 7 * sizeof(*f));
    f[0].type = FC_BACK_WELCOME;
    f[0].welcome.version = 1;
    f[0].welcome.flags = FC_BACK_STORE_FOUND;
    f[0].welcome.pages_held = 0x1122334455667788ull;
    f[1].type = FC_BACK_REFUSE;
    strcpy(f[1].text, "no");
    f[2].type = FC_BACK_ACK;
    f[2].value = 65536;
    f[3].type = FC_BACK_SYNCED;
    f[3].value = 7;
    f[4].type = FC_BACK_MISSING;
    f[4].missing.count = 2;
    f[4].missing.pfn[0] = 1;
    f[4].missing.pfn[1] = 0xfffffffffffffull;
    f[5].type = FC_BACK_DONE;
    f[6].type = FC_BACK_FAILED;
    strcpy(f[6].text, "why");
}

/* Bytes on the back channel would change unnoticed. */
static void test_golden(void **state)
{
    (void)state;
    struct fc_back_frame f[7], got;
    uint8_t raw[7 * MAX_FRAME];
    size_t len = 0, at = 0;
    one_of_each(f);
    for (int i = 0; i < 7; i++)
        len += (size_t)fc_back_encode(&f[i], raw + len, sizeof(raw) - len);
    assert_golden("back-frames", raw, len);
    for (int i = 0; i < 7; i++) {
        ssize_t n = fc_back_decode(raw + at, len - at, &got);
        assert_true(n > 0);
        assert_int_equal(got.type, f[i].type);
        switch (got.type) {
        case FC_BACK_WELCOME:
            assert_int_equal(got.welcome.version, 1);
            assert_int_equal(got.welcome.flags, FC_BACK_STORE_FOUND);
            assert_int_equal(got.welcome.pages_held, f[i].welcome.pages_held);
            break;
        case FC_BACK_REFUSE:
        case FC_BACK_FAILED:
            assert_string_equal(got.text, f[i].text);
            break;
        case FC_BACK_MISSING:
            assert_int_equal(got.missing.count, 2);
            assert_memory_equal(got.missing.pfn, f[i].missing.pfn, 16);
            break;
        case FC_BACK_DONE:
            break;
        default:
            assert_int_equal(got.value, f[i].value);
        }
        at += (size_t)n;
    }
    assert_int_equal(at, len);
}

/* A frame that is not one would be acted on. */
static void test_bad_frames(void **state)
{
    (void)state;
    static const struct {
        uint8_t raw[24];
        size_t len;
        ssize_t want;
    } cases[] = {
        { { 0, 'F', 'C', 'B', 3, 0, 8, 0, 1, 2, 3 }, 11, 0 }, /* cut */
        { { 0, 'F', 'C', 'B', 3, 0 }, 6, 0 },
        { { 0 }, 1, 0 },
        { { 0, 'F', 'C', 'X', 3, 0, 8, 0 }, 8, FC_EFORMAT },
        { { 1 }, 1, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 0, 0, 0, 0 }, 8, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 8, 0, 0, 0 }, 8, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 3, 0, 7, 0 }, 8, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 6, 0, 1, 0 }, 8, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 5, 0, 0, 0 }, 8, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 5, 0, 9, 0 }, 8, FC_EFORMAT },
        { { 0, 'F', 'C', 'B', 5, 0, 0, 8 }, 8, FC_EFORMAT }, /* 256 pfns */
        { { 0, 'F', 'C', 'B', 2, 0, 1, 1 }, 8, FC_EFORMAT }, /* 257 bytes */
        { { 0, 'F', 'C', 'B', 1, 0, 16, 0, 1, 0, 0, 0, 9 }, 24, FC_EFORMAT },
    };
    struct fc_back_frame f;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(fc_back_decode(cases[i].raw, cases[i].len, &f),
                         cases[i].want);
    f.type = 99;
    uint8_t raw[MAX_FRAME];
    assert_int_equal(fc_back_encode(&f, raw, sizeof(raw)), FC_EINVAL);
    f.type = FC_BACK_MISSING;
    f.missing.count = FC_BACK_MAX_MISSING + 1;
    assert_int_equal(fc_back_encode(&f, raw, sizeof(raw)), FC_EINVAL);
    f.missing.count = FC_BACK_MAX_MISSING;
    assert_int_equal(fc_back_encode(&f, raw, 100), FC_EINVAL);
    assert_int_equal(fc_back_encode(&f, raw, sizeof(raw)), 8 + 255 * 8);
}

/* Another host's text would move our terminal's cursor. */
static void test_text_is_scrubbed(void **state)
{
    (void)state;
    struct fc_back_frame f = { .type = FC_BACK_FAILED }, got;
    uint8_t raw[MAX_FRAME];
    strcpy(f.text, "a\033[2Jb\n");
    ssize_t n = fc_back_encode(&f, raw, sizeof(raw));
    assert_int_equal(fc_back_decode(raw, (size_t)n, &got), n);
    assert_string_equal(got.text, "a?[2Jb?");
    memset(f.text, 'x', FC_BACK_MAX_TEXT);
    f.text[FC_BACK_MAX_TEXT] = '\0';
    n = fc_back_encode(&f, raw, sizeof(raw));
    assert_int_equal(fc_back_decode(raw, (size_t)n, &got), n);
    assert_int_equal(strlen(got.text), FC_BACK_MAX_TEXT);
}

struct sorted {
    uint8_t plain[65536], frames[65536];
    size_t nplain, nframes;
    unsigned count;
};

static void on_plain(void *user, const void *bytes, size_t len)
{
    struct sorted *s = user;
    memcpy(s->plain + s->nplain, bytes, len);
    s->nplain += len;
}

static void on_frame(void *user, const void *raw, size_t len,
                     const struct fc_back_frame *frame)
{
    struct sorted *s = user;
    assert_non_null(frame);
    memcpy(s->frames + s->nframes, raw, len);
    s->nframes += len;
    s->count++;
}

/* xl would read our frames as its own messages, or we would keep its. */
static void test_split(void **state)
{
    (void)state;
    static const char banner[] = "xl migration receiver stream\n";
    struct fc_back_frame f[7];
    uint8_t in[65536], want_plain[65536];
    size_t len = 0, plain = 0, frames = 0;
    one_of_each(f);
#define PLAIN(p, n)                                                            \
    do {                                                                       \
        memcpy(in + len, p, n);                                                \
        memcpy(want_plain + plain, p, n);                                      \
        len += n;                                                              \
        plain += n;                                                            \
    } while (0)
    PLAIN(banner, sizeof(banner) - 1);
    for (int i = 0; i < 6; i++) {
        size_t n = (size_t)fc_back_encode(&f[i], in + len, sizeof(in) - len);
        len += n;
        frames += n;
        if (i < 5)
            PLAIN("\0FCxx\0\n", 7);
    }
    PLAIN("domain received", 15);
    PLAIN("\0FCB\3\0\10\0"
          "12345678",
          16); /* after DONE: xl's */
    for (size_t piece = 1; piece < len; piece += 1 + piece / 3) {
        struct sorted *s = calloc(1, sizeof(*s));
        struct fc_back_splitter split = { .plain = on_plain,
                                          .frame = on_frame,
                                          .user = s };
        for (size_t at = 0; at < len; at += piece)
            fc_back_split(&split, in + at, piece < len - at ? piece : len - at);
        fc_back_split_end(&split);
        assert_int_equal(s->count, 6);
        assert_int_equal(s->nframes, frames);
        assert_int_equal(s->nplain, plain);
        assert_memory_equal(s->plain, want_plain, plain);
        free(s);
    }
}

/* The last bytes before the end would be kept back. */
static void test_split_end(void **state)
{
    (void)state;
    struct sorted *s = calloc(1, sizeof(*s));
    struct fc_back_splitter split = { .plain = on_plain, .user = s };
    fc_back_split(&split, "abc\n\0FC", 7);
    assert_int_equal(s->nplain, 4);
    fc_back_split_end(&split);
    assert_int_equal(s->nplain, 7);
    assert_memory_equal(s->plain, "abc\n\0FC", 7);
    fc_back_split_end(&split);
    assert_int_equal(s->nplain, 7);
    free(s);
}

/* Would break: the zero byte that ends xl's "ready to unpause" is held back as
 * a frame's first, and a receiver without forecopy waits for ever with the
 * guest suspended. */
static void test_split_ready(void **state)
{
    (void)state;
    static const char banner[] = "xl migration receiver stream\n";
    static const char ready[] = "domain received, ready to unpause";
    static const char report[] = "results are as follows\0";
    for (size_t piece = 1; piece < sizeof(ready); piece++) {
        struct sorted *s = calloc(1, sizeof(*s));
        struct fc_back_splitter split = { .plain = on_plain, .user = s };
        fc_back_split(&split, banner, sizeof(banner) - 1);
        for (size_t at = 0; at < sizeof(ready); at += piece)
            fc_back_split(&split, ready + at,
                          piece < sizeof(ready) - at ? piece
                                                     : sizeof(ready) - at);
        assert_int_equal(s->nplain, sizeof(banner) - 1 + sizeof(ready));
        fc_back_split(&split, report, sizeof(report));
        assert_int_equal(s->nplain,
                         sizeof(banner) - 1 + sizeof(ready) + sizeof(report));
        free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_text_is_scrubbed),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_split_end),
        cmocka_unit_test(test_split_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
