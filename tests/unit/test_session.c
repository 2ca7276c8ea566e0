/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "document.h"
#include "err.h"
#include "session.h"

#define UUID "12345678-1234-1234-1234-123456789abc"
#define BASE "version=1,uuid=" UUID

/* The helper would be told something else than the front end said. */
static void test_round_trip(void **state)
{
    (void)state;
    struct fc_session a, b;
    char text[FC_SESSION_TEXT], why[160];
    fc_session_defaults(&a);
    for (int kind = 0; kind < 2; kind++) {
        if (kind) {
            a = (struct fc_session){
                .back_fd = 1023,
                .status_fd = 1022,
                .staged_fd = 1021,
                .epoch = UINT64_MAX,
                .max_downtime_ms = 3600000,
                .deadline_s = 86400,
                .abort_at_deadline = true,
                .max_rounds = 1000,
                .window_bytes = 1073741824,
                .hello_ms = 60000,
                .peer_timeout_s = 3600,
                .fail_when_plain = true,
                .fixed_ms = 60000,
                .link_bps = UINT64_C(1000000000000),
                .floor_pages = UINT64_C(1) << 40,
            };
            memset(a.token, 0xab, sizeof(a.token));
            memset(a.uuid, 0xcd, sizeof(a.uuid));
        }
        assert_int_equal(fc_session_format(&a, text), 0);
        assert_int_equal(fc_session_parse(text, &b, why, sizeof(why)), 0);
        assert_int_equal(a.back_fd, b.back_fd);
        assert_int_equal(a.status_fd, b.status_fd);
        assert_int_equal(a.staged_fd, b.staged_fd);
        assert_memory_equal(a.token, b.token, sizeof(a.token));
        assert_memory_equal(a.uuid, b.uuid, sizeof(a.uuid));
        assert_int_equal(a.epoch, b.epoch);
        assert_int_equal(a.max_downtime_ms, b.max_downtime_ms);
        assert_int_equal(a.deadline_s, b.deadline_s);
        assert_int_equal(a.abort_at_deadline, b.abort_at_deadline);
        assert_int_equal(a.max_rounds, b.max_rounds);
        assert_int_equal(a.window_bytes, b.window_bytes);
        assert_int_equal(a.hello_ms, b.hello_ms);
        assert_int_equal(a.peer_timeout_s, b.peer_timeout_s);
        assert_int_equal(a.fail_when_plain, b.fail_when_plain);
        assert_int_equal(a.fixed_ms, b.fixed_ms);
        assert_int_equal(a.link_bps, b.link_bps);
        assert_int_equal(a.floor_pages, b.floor_pages);
    }
}

/* A default would differ from the one in the document. */
static void test_defaults(void **state)
{
    (void)state;
    struct fc_session s;
    char why[160];
    assert_int_equal(fc_session_parse(BASE, &s, why, sizeof(why)), 0);
    assert_int_equal(s.back_fd, -1);
    assert_int_equal(s.status_fd, -1);
    assert_int_equal(s.staged_fd, -1);
    assert_int_equal(s.max_downtime_ms, 300);
    assert_int_equal(s.deadline_s, 0);
    assert_false(s.abort_at_deadline);
    assert_int_equal(s.max_rounds, 30);
    assert_int_equal(s.window_bytes, 2097152);
    assert_int_equal(s.hello_ms, 10000);
    assert_int_equal(s.peer_timeout_s, 30);
    assert_false(s.fail_when_plain);
    assert_int_equal(s.fixed_ms, 100);
    assert_int_equal(s.floor_pages, 0);
    assert_int_equal(s.uuid[15], 0xbc);
}

/* A session that means something else would be half obeyed. */
static void test_bad_sessions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
        const char *why;
    } cases[] = {
        { "", FC_EFORMAT, "key=value" },
        { "version=1", FC_EFORMAT, "no uuid" },
        { "uuid=" UUID, FC_EFORMAT, "no version" },
        { "version=2,uuid=" UUID, FC_EVERSION, "version 2" },
        { "version=x,uuid=" UUID, FC_EFORMAT, "out of range for version" },
        { BASE ",", FC_EFORMAT, "key=value" },
        { BASE ",colour=red", FC_EFORMAT, "unknown key 'colour'" },
        { BASE ",back_fd=2", FC_EFORMAT, "out of range for back_fd" },
        { BASE ",back_fd=1024", FC_EFORMAT, "back_fd" },
        { BASE ",back_fd=-1", FC_EFORMAT, "back_fd" },
        { BASE ",back_fd= 5", FC_EFORMAT, "back_fd" },
        { BASE ",back_fd=5x", FC_EFORMAT, "back_fd" },
        { BASE ",back_fd=", FC_EFORMAT, "back_fd" },
        { BASE ",max_downtime_ms=0", FC_EFORMAT, "max_downtime_ms" },
        { BASE ",max_rounds=1001", FC_EFORMAT, "max_rounds" },
        { BASE ",window_bytes=65535", FC_EFORMAT, "window_bytes" },
        { BASE ",window_bytes=99999999999999999999", FC_EFORMAT, "window" },
        { BASE ",epoch=18446744073709551616", FC_EFORMAT, "epoch" },
        { BASE ",at_deadline=maybe", FC_EFORMAT, "at_deadline" },
        { BASE ",fallback=", FC_EFORMAT, "fallback" },
        { BASE ",token=12", FC_EFORMAT, "token" },
        { "version=1,uuid=12345678", FC_EFORMAT, "uuid" },
    };
    struct fc_session s;
    char why[160], lots[2000];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rc = fc_session_parse(cases[i].text, &s, why, sizeof(why));
        if (rc != cases[i].rc || !strstr(why, cases[i].why))
            fail_msg("'%s': %d '%s'", cases[i].text, rc, why);
    }
    memset(lots, 'a', sizeof(lots) - 1);
    lots[sizeof(lots) - 1] = '\0';
    assert_int_equal(fc_session_parse(lots, &s, why, sizeof(why)), FC_EFORMAT);
    assert_non_null(strstr(why, "longer"));
}

/* A key would be in use that the document does not know, or the reverse. */
static void test_documented(void **state)
{
    (void)state;
    struct fc_session s;
    char text[FC_SESSION_TEXT], row[64], *rest = text, *item;
    char *document = read_document("docs/formats/session.md");
    unsigned keys = 0, rows = 0;
    fc_session_defaults(&s);
    s.back_fd = s.status_fd = s.staged_fd = 5;
    assert_int_equal(fc_session_format(&s, text), 0);
    while ((item = strsep(&rest, ","))) {
        snprintf(row, sizeof(row), "\n| %.*s |", (int)strcspn(item, "="), item);
        if (!strstr(document, row))
            fail_msg("%s is not documented", item);
        keys++;
    }
    for (const char *p = document; (p = strstr(p, "\n| ")); p++)
        rows++;
    assert_int_equal(rows, keys + 1); /* and the table's head */
    free(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_bad_sessions),
        cmocka_unit_test(test_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
