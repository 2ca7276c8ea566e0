/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations that end early, by fault or by wish: both ends notice, say why,
 * and the guest is not stopped.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "log.h"
#include "stream_run.h"

/* --fallback fail would migrate plainly all the same. */
static void test_fail_when_plain(void **state)
{
    (void)state;
    struct run r = { .seed = 5, .busy_guest = true };
    session_for_tests(&r.session);
    r.session.hello_ms = 150;
    r.session.fail_when_plain = true;
    migrate(&r);
    assert_true(r.finished < 0);
    assert_int_equal(r.save.suspends, 0);
    assert_event(&r, "\"event\":\"failed\",\"fault\":\"peer\"");
    assert_event(&r, "did not answer");
    assert_event(&r, "\"success\":false");
    run_free(&r);
}

static void abort_soon(struct run *r)
{
    usleep(20000);
    assert_int_equal(send(r->status[1], "abort", 5, 0), 5);
}

/* An abort would be ignored, or end a guest that is stopped. */
static void test_abort(void **state)
{
    (void)state;
    struct run r = { .seed = 9,
                     .with_back = true,
                     .busy_guest = true,
                     .line = { .piece_us = 20000 },
                     .meddle = abort_soon };
    session_for_tests(&r.session);
    migrate(&r);
    assert_true(r.finished < 0);
    assert_int_equal(r.save.suspends, 0);
    assert_event(&r, "\"fault\":\"user\"");
    run_free(&r);
}

/* A suspend that libxl refuses would be taken for one that came about. */
static void test_refused_suspend(void **state)
{
    (void)state;
    struct run r = { .seed = 3, .with_back = true, .refuse_suspend = true };
    session_for_tests(&r.session);
    migrate(&r);
    assert_true(r.finished < 0);
    assert_event(&r, "\"fault\":\"guest\"");
    assert_null(strstr((char *)r.events.p, "\"suspended\""));
    run_free(&r);
}

/* A receiver that gives up would be noticed by a timeout only, or never. */
static void test_receiver_fails(void **state)
{
    (void)state;
    struct run r = { .seed = 4,
                     .with_back = true,
                     .busy_guest = true,
                     .restore_fail_after = 5 };
    session_for_tests(&r.session);
    migrate(&r);
    assert_true(r.finished < 0);
    assert_null(strstr((char *)r.events.p, "silent for"));
    assert_int_equal(r.save.suspends, 0);
    run_free(&r);
}

/* A cut line would hang one of the two ends. */
static void test_cut_line(void **state)
{
    (void)state;
    struct run r = { .seed = 6,
                     .with_back = true,
                     .with_store = true,
                     .busy_guest = true,
                     .line = { .cut_after = 30000 } };
    session_for_tests(&r.session);
    migrate(&r);
    assert_true(r.finished < 0);
    assert_true(r.received < 0);
    assert_true(strlen(r.receiver_why) > 0);
    assert_int_equal(r.save.suspends, 0);
    run_free(&r);
}

/* A destination that fell silent would hold the guest in its rounds. */
static void test_silence(void **state)
{
    (void)state;
    struct run r = {
        .seed = 12, .with_back = true, .busy_guest = true, .mute_after = 1
    };
    session_for_tests(&r.session);
    r.session.peer_timeout_s = 1;
    migrate(&r);
    assert_true(r.finished < 0);
    assert_int_equal(r.save.suspends, 0);
    assert_event(&r, "\"fault\":\"peer\"");
    assert_event(&r, "destination silent for 1 s");
    run_free(&r);
}

/* So would one that says it is alive while nothing reaches it. */
static void test_hanging_receiver(void **state)
{
    (void)state;
    struct run r = { .seed = 13,
                     .with_back = true,
                     .busy_guest = true,
                     .line = { .stall_after = 150000 } };
    session_for_tests(&r.session);
    r.session.peer_timeout_s = 2; /* above the tick of ACKs */
    migrate(&r);
    assert_true(r.finished < 0);
    assert_int_equal(r.save.suspends, 0);
    assert_event(&r, "does not get on for 8 s");
    run_free(&r);
}

static void terminate_soon(struct run *r)
{
    usleep(20000);
    assert_int_equal(write(r->term[1], "x", 1), 1);
}

/* libxl's SIGTERM would not end the migration. */
static void test_terminate(void **state)
{
    (void)state;
    struct run r = { .seed = 14,
                     .with_back = true,
                     .busy_guest = true,
                     .line = { .piece_us = 20000 },
                     .meddle = terminate_soon };
    session_for_tests(&r.session);
    migrate(&r);
    assert_true(r.finished < 0);
    assert_int_equal(r.save.suspends, 0);
    assert_event(&r, "libxl ended the migration");
    run_free(&r);
}

/* The user's deadline would pass unnoticed. */
static void test_deadline(void **state)
{
    (void)state;
    for (int aborting = 0; aborting < 2; aborting++) {
        struct run r = { .seed = 15,
                         .with_back = true,
                         .busy_guest = true,
                         .restless_guest = true,
                         .line = { .piece_us = 30000 } };
        session_for_tests(&r.session);
        r.session.max_downtime_ms = 1;
        r.session.max_rounds = 1000;
        r.session.deadline_s = 1;
        r.session.abort_at_deadline = aborting;
        migrate(&r);
        if (aborting) {
            assert_true(r.finished < 0);
            assert_int_equal(r.save.suspends, 0);
            assert_event(&r, "\"fault\":\"user\"");
        } else {
            assert_migrated(&r);
        }
        assert_event(&r, "the deadline has passed");
        run_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_when_plain),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_refused_suspend),
        cmocka_unit_test(test_receiver_fails),
        cmocka_unit_test(test_cut_line),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_hanging_receiver),
        cmocka_unit_test(test_terminate),
        cmocka_unit_test(test_deadline),
    };
    signal(SIGPIPE, SIG_IGN);
    fc_log_init("test", FC_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
