/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "bucket.h"
#include "err.h"
#include "io.h"
#include "log.h"
#include "page.h"
#include "wire.h"

/* Would break: more is sent than the administrator allowed. */
static void bucket_holds_the_rate(void **state)
{
    (void)state;
    struct fc_bucket b;
    uint64_t sent = 0;
    fc_bucket_init(&b, 1000000, 10000, 0);
    for (uint64_t now = 0; now < 10000; now += 3)
        while (fc_bucket_wait_ms(&b, now) == 0) {
            fc_bucket_take(&b, 4096, now);
            sent += 4096;
        }
    assert_in_range(sent, 9900000, 10000000 + 10000 + 4096);
}

/* Would break: a very slow rate never earns, or a debt is forgotten. */
static void bucket_waits_as_long_as_it_says(void **state)
{
    (void)state;
    struct fc_bucket b;
    fc_bucket_init(&b, 3, 1, 0);
    fc_bucket_take(&b, 10, 0);
    uint64_t wait = fc_bucket_wait_ms(&b, 0);
    assert_in_range(wait, 3000, 3400);
    for (uint64_t now = 1; now < wait; now++)
        assert_true(fc_bucket_wait_ms(&b, now) > 0);
    assert_int_equal(fc_bucket_wait_ms(&b, wait + 1), 0);
    fc_bucket_init(&b, 0, 0, 0);
    fc_bucket_take(&b, 1u << 30, 0);
    assert_int_equal(fc_bucket_wait_ms(&b, 0), 0);
}

/* Would break: a short buffer is read past its end. */
static void reader_stops_at_the_end(void **state)
{
    (void)state;
    uint8_t raw[7] = { 1, 2, 3, 4, 5, 6, 7 };
    struct fc_reader r = fc_reader_of(raw, sizeof(raw));
    assert_int_equal(fc_get_u32(&r), 0x04030201);
    assert_int_equal(fc_get_u32(&r), 0);
    assert_true(r.bad);
    assert_int_equal(fc_get_u8(&r), 0);
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    fc_put_u64(&w, 1);
    assert_true(w.bad);
    assert_int_equal(raw[0], 1);
}

/* Would break: a page with one byte set counts as zero and is lost. */
static void zero_pages_are_zero(void **state)
{
    (void)state;
    static uint8_t page[FC_PAGE_SIZE];
    assert_true(fc_page_is_zero(page));
    for (unsigned i = 0; i < FC_PAGE_SIZE; i++) {
        page[i] = 1;
        assert_false(fc_page_is_zero(page));
        page[i] = 0;
    }
}

/* Would break: hosts with other byte orders of the hash disagree on a page. */
static void hash_is_xxh3_128(void **state)
{
    (void)state;
    static uint8_t page[FC_PAGE_SIZE];
    /* xxhsum -H2 of 4096 zero bytes */
    struct fc_hash h = fc_page_hash(page);
    uint8_t text[16];
    for (unsigned i = 0; i < 8; i++) {
        text[i] = (uint8_t)(h.hi >> (56 - 8 * i));
        text[8 + i] = (uint8_t)(h.lo >> (56 - 8 * i));
    }
    char hex[33];
    fc_hex_format(text, 16, hex);
    assert_string_equal(hex, "3ee8dc4f9e7ee49593d76fe148c689ba");
}

/* Would break: a mistyped uuid names another guest. */
static void uuids(void **state)
{
    (void)state;
    uint8_t u[FC_UUID_BYTES];
    char text[FC_UUID_TEXT];
    const char *good = "12345678-9abc-def0-0123-456789abcdef";
    assert_int_equal(fc_uuid_parse(good, u), 0);
    fc_uuid_format(u, text);
    assert_string_equal(text, good);
    assert_int_equal(fc_uuid_parse("12345678-9abc-def0-0123-456789abcde", u),
                     FC_EFORMAT);
    assert_int_equal(fc_uuid_parse("12345678-9abc-def0-0123-456789abcdef0", u),
                     FC_EFORMAT);
    assert_int_equal(fc_uuid_parse("12345678-9abc-def0-0123+456789abcdef", u),
                     FC_EFORMAT);
    assert_int_equal(fc_uuid_parse("1234567g-9abc-def0-0123-456789abcdef", u),
                     FC_EFORMAT);
    assert_int_equal(fc_uuid_parse("", u), FC_EFORMAT);
}

/* Would break: a stream that ends inside a record passes for a clean end. */
static void read_exact_tells_ends_apart(void **state)
{
    (void)state;
    int p[2];
    char buf[8];
    assert_int_equal(pipe(p), 0);
    assert_int_equal(fc_write_all(p[1], "abc", 3), 0);
    close(p[1]);
    assert_int_equal(fc_read_exact(p[0], buf, 8), FC_EFORMAT);
    assert_int_equal(fc_read_exact(p[0], buf, 8), FC_EEOF);
    close(p[0]);
}

/* Would break: a peer that sends more descriptors than wanted leaks them. */
static void surplus_descriptors_are_closed(void **state)
{
    (void)state;
    int s[2], p[2], got[1], n;
    char c;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    assert_int_equal(pipe(p), 0);
    int sent[3] = { p[1], p[1], p[1] };
    assert_int_equal(fc_send_fds(s[0], "x", 1, sent, 3), 1);
    assert_int_equal(fc_recv_fds(s[1], &c, 1, got, 1, &n), 1);
    assert_int_equal(n, 1);
    close(got[0]);
    close(p[1]);
    /* every copy of the write end is closed: the pipe is at its end */
    assert_int_equal(read(p[0], &c, 1), 0);
    close(p[0]);
    close(s[0]);
    close(s[1]);
}

static char last[1100];
static unsigned lines;

static void keep(void *user, enum fc_level level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(last, sizeof(last), "%s", line);
}

static void count(void *user, const char *line)
{
    (void)user;
    lines++;
    snprintf(last, sizeof(last), "%s", line);
}

/* Would break: text from a guest writes terminal escapes into the log, or a
 * long line overruns. */
static void log_scrubs_and_cuts(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    fc_log_init("test", FC_LOG_INFO);
    fc_log_set_sink(keep, NULL);
    fc_info("name \033[31m\n%s", big);
    assert_int_equal(strlen(last), 999);
    assert_memory_equal(last, "name ?[31m?aaa", 14);
    fc_debug("not for the sink");
    assert_memory_equal(last, "name", 4);
}

/* Would break: `log` shows other lines than the last ones, or hidden ones. */
static void log_ring_dumps_the_last(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3000; i++)
        fc_log(i % 2 ? FC_LOG_DEBUG : FC_LOG_INFO, "line %u", i);
    lines = 0;
    fc_log_dump(10, FC_LOG_INFO, count, NULL);
    assert_int_equal(lines, 10);
    assert_non_null(strstr(last, "info line 2998"));
    lines = 0;
    fc_log_dump(5000, FC_LOG_DEBUG, count, NULL);
    assert_int_equal(lines, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bucket_holds_the_rate),
        cmocka_unit_test(bucket_waits_as_long_as_it_says),
        cmocka_unit_test(reader_stops_at_the_end),
        cmocka_unit_test(zero_pages_are_zero),
        cmocka_unit_test(hash_is_xxh3_128),
        cmocka_unit_test(uuids),
        cmocka_unit_test(read_exact_tells_ends_apart),
        cmocka_unit_test(surplus_descriptors_are_closed),
        cmocka_unit_test(log_scrubs_and_cuts),
        cmocka_unit_test(log_ring_dumps_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
