/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A keeper's store and its life: pages in, cuts, evictions, its end. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "keeper_kit.h"

/* Would break: pages staged over two channels are not there for the restore. */
static void two_channels_fill_one_store(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 16 * MIB, 60000, 0);
    int a = attach(&f, 1), b = attach(&f, 2);
    struct fc_channel_welcome wa = greet(a, 0), wb = greet(b, 1);
    assert_int_equal(wa.epoch, wb.epoch);
    assert_int_equal(wa.epoch, f.view.epoch);
    assert_int_equal(wa.budget_bytes, 16 * MIB);
    put(a, 1, 0, 1000, -1);
    put(b, 1, 1000, 1000, -1);
    assert_int_equal(stored(a, 1, 1000, NULL), 0);
    assert_int_equal(stored(b, 1, 1000, NULL), 0);
    for (uint64_t i = 0; i < 2000; i += 7)
        assert_true(held(&f, i));
    until(&f, f.status.pfns == 2000 && f.status.channels == 2);
    assert_int_equal(f.status.epoch, wa.epoch);
    assert_int_equal(f.status.puts, 2000);
    assert_true(f.status.received_bytes > 2000 * FC_PAGE_SIZE);
    close(a);
    close(b);
    until(&f, f.status.channels == 0 && f.nclosed == 2);
    assert_int_equal(f.closed[0] + f.closed[1], 3);
    assert_int_equal(stop(&f), 0);
}

/* Would break: after a cut in the middle of a frame the source has to send
 * everything again. */
static void cut_and_resume_keeps_pages(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 16 * MIB, 60000, 0);
    int a = attach(&f, 1);
    struct fc_channel_welcome first = greet(a, 0);
    put(a, 1, 0, 500, -1);
    assert_int_equal(stored(a, 1, 500, NULL), 0);
    memset(body, 0, 400);
    fc_channel_head_make(body, FC_CHANNEL_PUT, body + 16, 400);
    assert_int_equal(fc_write_all(a, body, 200), 0);
    close(a);
    until(&f, f.nclosed == 1);
    a = attach(&f, 2);
    struct fc_channel_welcome second = greet(a, 0);
    assert_int_equal(second.epoch, first.epoch);
    assert_int_equal(second.pages_held, 500);
    assert_true(held(&f, 499));
    close(a);
    assert_int_equal(stop(&f), 0);
}

/* Would break: a half-open old connection locks its successor out. */
static void newer_channel_takes_the_number(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_channel_head head;
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1), b = attach(&f, 2);
    greet(a, 5);
    greet(b, 5);
    assert_int_equal(recv_frame(a, &head), 0);
    put(b, 9, 0, 3, -1);
    assert_int_equal(stored(b, 9, 3, NULL), 0);
    close(a);
    close(b);
    assert_int_equal(stop(&f), 0);
}

/* Would break: the source counts on pages that the budget threw out. */
static void evictions_are_told(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_channel_head head;
    unsigned evicted = 0;
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1), b = attach(&f, 2);
    greet(a, 0);
    greet(b, 1);
    for (unsigned i = 0; i < 8; i++) {
        put(b, i, i * 500, 500, -1);
        assert_int_equal(stored(b, i, 500, NULL), 0);
    }
    until(&f, f.status.puts == 4000);
    assert_true(f.status.evicted > 2900 && f.status.evicted < 3300);
    assert_int_equal(f.status.pfns + f.status.evicted, 4000);
    assert_true(f.status.used_bytes <= 4 * MIB);
    while (evicted < f.status.evicted) {
        assert_int_equal(recv_frame(a, &head), FC_CHANNEL_EVICTED);
        for (unsigned i = 0; i < head.length / 8; i++)
            assert_int_equal(fc_le_load(body + 8 * i, 8), evicted++);
    }
    assert_int_equal(evicted, f.status.evicted);
    assert_int_equal(fc_keeper_set_budget(f.sock, 2 * MIB), 0);
    until(&f, f.status.budget_bytes == 2 * MIB);
    assert_true(f.status.used_bytes <= 2 * MIB);
    while (evicted < f.status.evicted) {
        assert_int_equal(recv_frame(a, &head), FC_CHANNEL_EVICTED);
        evicted += head.length / 8;
    }
    close(a);
    close(b);
    assert_int_equal(stop(&f), 0);
}

/* Would break: what a guest brings along does not reach the daemon, though the
 * keeper ends right after it came; or one that is too long is read. */
static void model_is_passed_on(void **state)
{
    (void)state;
    struct fixture f;
    static uint8_t model[FC_CHANNEL_MAX_MODEL + 1];
    uint8_t bye[64];
    for (size_t i = 0; i < sizeof(model); i++)
        model[i] = (uint8_t)(i * 7 + i / 251);
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1), b = attach(&f, 2);
    greet(a, 0);
    greet(b, 1);
    uint8_t head[FC_CHANNEL_HEADER];
    fc_channel_head_make(head, FC_CHANNEL_MODEL, model, sizeof(model));
    assert_int_equal(fc_write_all(b, head, sizeof(head)), 0);
    expect_text(b, FC_CHANNEL_ERROR, 0, "too long");
    send_frame(a, FC_CHANNEL_MODEL, model, FC_CHANNEL_MAX_MODEL);
    send_frame(a, FC_CHANNEL_BYE, bye,
               fc_channel_text_make(FC_CHANNEL_BYE, FC_BYE_MIGRATED, "migrated",
                                    bye, sizeof(bye)));
    assert_int_equal(finish(&f), 0);
    assert_int_equal(f.model_have, FC_CHANNEL_MAX_MODEL);
    assert_memory_equal(f.model, model, FC_CHANNEL_MAX_MODEL);
    close(a);
    close(b);
}

/* Would break: PING goes unanswered, or a dead source's channel stays. */
static void pings_keep_a_channel(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_channel_head head;
    static const uint8_t value[8] = "pingpong";
    start(&f, 4 * MIB, 60000, 2500);
    int a = attach(&f, 1);
    greet(a, 0);
    for (unsigned i = 0; i < 10; i++) {
        usleep(300000);
        send_frame(a, FC_CHANNEL_PING, value, 8);
        assert_int_equal(recv_frame(a, &head), FC_CHANNEL_PONG);
        assert_memory_equal(body, value, 8);
    }
    expect_text(a, FC_CHANNEL_ERROR, 0, "silent");
    close(a);
    assert_int_equal(stop(&f), 0);
}

/* Would break: the store outlives the guest's departure, or goes when the
 * source only pauses. */
static void bye_keeps_or_frees(void **state)
{
    (void)state;
    for (uint16_t reason = 0; reason < 4; reason++) {
        struct fixture f;
        start(&f, 4 * MIB, 60000, 0);
        int a = attach(&f, 1), b = attach(&f, 2);
        greet(a, 0);
        greet(b, 1);
        put(a, 1, 0, 10, -1);
        assert_int_equal(stored(a, 1, 10, NULL), 0);
        bye(a, reason);
        if (reason == FC_BYE_MIGRATED || reason == FC_BYE_DISARMED) {
            expect_text(a, FC_CHANNEL_BYE, reason, "freed");
            expect_text(b, FC_CHANNEL_BYE, reason, "freed");
            assert_int_equal(finish(&f), 0);
            assert_int_equal(f.status.ending, 1);
        } else {
            expect_text(a, FC_CHANNEL_BYE, reason, "kept");
            put(b, 1, 10, 10, -1);
            assert_int_equal(stored(b, 1, 10, NULL), 0);
            assert_true(held(&f, 5));
            assert_int_equal(stop(&f), 0);
        }
        close(a);
        close(b);
    }
}

/* Would break: the daemon cannot end a keeper, or the source is not told. */
static void daemon_ends_the_keeper(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1);
    greet(a, 0);
    assert_int_equal(fc_keeper_free(f.sock), 0);
    expect_text(a, FC_CHANNEL_BYE, FC_BYE_DISARMED, "freed");
    assert_int_equal(finish(&f), 0);
    close(a);

    start(&f, 4 * MIB, 60000, 0);
    a = attach(&f, 1);
    greet(a, 0);
    assert_int_equal(fc_keeper_shutdown(f.sock), 0);
    expect_text(a, FC_CHANNEL_BYE, FC_BYE_SHUTDOWN, "");
    assert_int_equal(finish(&f), 0);
    close(a);
}

/* Would break: stores of guests that never came are kept for ever. */
static void lonely_store_is_freed(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * MIB, 300, 0);
    int a = attach(&f, 1);
    greet(a, 0);
    usleep(600000);
    put(a, 1, 0, 1, -1);
    assert_int_equal(stored(a, 1, 1, NULL), 0);
    close(a);
    assert_int_equal(finish(&f), 0);
    assert_int_equal(f.status.ending, 1);
}

/* Would break: keepers stay when the daemon dies. */
static void orphan_ends(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_channel_head head;
    int status;
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1);
    greet(a, 0);
    close(f.sock);
    assert_int_equal(recv_frame(a, &head), 0);
    assert_int_equal(waitpid(f.pid, &status, 0), f.pid);
    assert_int_equal(status, 0);
    close(a);
    close(f.store_fd);
    fc_store_view_dispose(&f.view);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_channels_fill_one_store),
        cmocka_unit_test(cut_and_resume_keeps_pages),
        cmocka_unit_test(newer_channel_takes_the_number),
        cmocka_unit_test(evictions_are_told),
        cmocka_unit_test(model_is_passed_on),
        cmocka_unit_test(pings_keep_a_channel),
        cmocka_unit_test(bye_keeps_or_frees),
        cmocka_unit_test(daemon_ends_the_keeper),
        cmocka_unit_test(lonely_store_is_freed),
        cmocka_unit_test(orphan_ends),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
