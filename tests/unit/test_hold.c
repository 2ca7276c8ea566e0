/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pages that a guest writes all the time would be sent in vain, or a round
 * would never begin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hold.h"

static void nothing_is_held_without_reason(void **state)
{
    struct fc_hold h;
    (void)state;
    assert_false(fc_hold_begin(&h, 0, 10000, 5)); /* rate not known */
    assert_false(fc_hold_begin(&h, 500, 49, 5));  /* too few pages */
    assert_true(fc_hold_begin(&h, 500, 50, 5));
}

static void a_quiet_guest_is_sent_at_the_first_look(void **state)
{
    struct fc_hold h;
    (void)state;
    assert_true(fc_hold_begin(&h, 500, 10000, 1000));
    /* 30 ms: 15 pages could be sent, a quarter is 3.75 */
    assert_false(fc_hold_more(&h, 3, 1030));
    assert_true(fc_hold_begin(&h, 500, 10000, 1000));
    assert_true(fc_hold_more(&h, 4, 1030));
}

static void only_pages_new_since_the_last_look_count(void **state)
{
    struct fc_hold h;
    (void)state;
    assert_true(fc_hold_begin(&h, 500, 10000, 0));
    assert_true(fc_hold_more(&h, 2000, 30));
    assert_true(fc_hold_more(&h, 2100, 60));
    assert_false(fc_hold_more(&h, 2102, 90));
    /* another user of the log took bits away: not a number below zero */
    assert_false(fc_hold_more(&h, 10, 120));
}

static void it_ends_whatever_the_guest_does(void **state)
{
    struct fc_hold h;
    uint64_t now = 0, dirty = 0;
    (void)state;
    assert_true(fc_hold_begin(&h, 500, 1000000, now));
    do {
        now += 50;
        dirty += 1000;
    } while (fc_hold_more(&h, dirty, now));
    assert_int_equal(now, FC_HOLD_MS);
    /* sending 100 pages takes 200 ms: no longer than that */
    now = dirty = 0;
    assert_true(fc_hold_begin(&h, 500, 100, now));
    do {
        now += 50;
        dirty += 1000;
    } while (fc_hold_more(&h, dirty, now));
    assert_int_equal(now, 200);
}

static void hostile_numbers_do_no_harm(void **state)
{
    struct fc_hold h;
    (void)state;
    assert_true(fc_hold_begin(&h, 1, UINT64_MAX, 0));
    assert_int_equal(h.most_ms, FC_HOLD_MS);
    assert_true(fc_hold_more(&h, UINT64_MAX, 10));
    assert_false(fc_hold_more(&h, UINT64_MAX, UINT64_MAX));
    assert_false(fc_hold_begin(&h, UINT64_MAX, 100, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_held_without_reason),
        cmocka_unit_test(a_quiet_guest_is_sent_at_the_first_look),
        cmocka_unit_test(only_pages_new_since_the_last_look_count),
        cmocka_unit_test(it_ends_whatever_the_guest_does),
        cmocka_unit_test(hostile_numbers_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
