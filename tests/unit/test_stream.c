/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sender and receiver with all their threads, between a model of libxc that
 * saves a model of a guest with a dirty log and a model that restores it. The
 * guest writes at random moments; the receiver loses references and chunks.
 * What counts: the restored guest is the saved one, byte for byte.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include <sys/ioctl.h>

#include "log.h"
#include "stream_run.h"

/* A guest would arrive with a page that is not its own. */
static void test_random_schedules(void **state)
{
    (void)state;
    const char *text = getenv("FC_STREAM_SEEDS");
    uint64_t seeds = text ? strtoull(text, NULL, 10) : 150;
    uint64_t skipped = 0, pulled = 0, refs = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct run r = { .seed = seed,
                         .with_back = true,
                         .with_store = seed % 4 != 0,
                         .busy_guest = seed % 8 != 7,
                         .lose_one_in = seed % 3 ? 0 : 5,
                         .line = { .damage_one_in = seed % 5 ? 0 : 200000,
                                   .piece_us = seed % 7 ? 0 : 300 },
                         .restore_slow_us = seed % 6 ? 0 : 200,
                         .peek_rc = seed % 16 == 9 ? FC_ENOLOG : 0 };
        session_for_tests(&r.session);
        if (seed % 2)
            r.session.max_downtime_ms = 1;
        if (r.line.damage_one_in) /* it holds whole records */
            r.session.window_bytes = 1048576;
        migrate(&r);
        assert_migrated(&r);
        assert_event(&r, "\"event\":\"mode\",\"mode\":\"predictive\"");
        assert_event(&r, "\"event\":\"suspended\"");
        assert_event(&r, "\"success\":true");
        skipped += strstr((char *)r.events.p, "\"skipped_pages\":0") == NULL;
        pulled += r.counts.missing != 0;
        refs += r.counts.ref != 0;
        run_free(&r);
    }
    /* the test tests what it claims to */
    assert_true(skipped > seeds / 4);
    assert_true(pulled > seeds / 8);
    assert_true(refs > seeds / 2);
}

/* A destination without forecopy would end a migration. */
static void test_silent_destination(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct run r = { .seed = 5, .busy_guest = true };
        session_for_tests(&r.session);
        r.session.hello_ms = 150;
        if (kind == 1)
            r.guest_type = FC_DOMAIN_PV;
        migrate(&r);
        assert_migrated(&r);
        assert_event(&r, "\"mode\":\"plain\",\"reason\":\"");
        assert_event(&r, kind ? "no PVH or HVM" : "did not answer");
        assert_int_equal(r.counts.ref + r.counts.data, 0);
        run_free(&r);
    }
}

/* Lost references would be asked for again for ever, or the guest be stopped
 * while pages are missing. */
static void test_all_references_lost(void **state)
{
    (void)state;
    struct run r = { .seed = 8,
                     .with_back = true,
                     .with_store = true,
                     .busy_guest = true,
                     .lose_one_in = 1 };
    session_for_tests(&r.session);
    migrate(&r);
    assert_migrated(&r);
    assert_int_equal(r.counts.ref, 0);
    assert_true(r.counts.missing > 100);
    run_free(&r);
}

/* Looks how much is under way while nothing gets through. */
static void watch_stall(struct run *r)
{
    r->line.stall = true;
    usleep(300000);
    r->passed_at_stall = r->line.passed;
    ioctl(r->line.from, FIONREAD, &r->queued_at_stall);
    r->line.stall = false;
}

/* More would be under way than the window allows: downtime. */
static void test_window(void **state)
{
    (void)state;
    struct run r = { .seed = 10, .with_back = true, .meddle = watch_stall };
    session_for_tests(&r.session);
    migrate(&r);
    assert_migrated(&r);
    /* the stall was in the middle, and the queue not endless */
    assert_true(r.passed_at_stall < 2 * 65536);
    assert_in_range(r.queued_at_stall, 1, 65536);
    run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_schedules),
        cmocka_unit_test(test_silent_destination),
        cmocka_unit_test(test_all_references_lost),
        cmocka_unit_test(test_window),
    };
    signal(SIGPIPE, SIG_IGN);
    fc_log_init("test", FC_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
