/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest busy every night would be said to be quiet then, or a damaged
 * profile would be believed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

#include "err.h"
#include "golden.h"
#include "profile.h"
#include "wire.h"

#define HOUR 3600ull
#define DAY (24 * HOUR)
#define WEEK (7 * DAY)
#define MONDAY (4 * DAY) /* 1970-01-05 */
#define START (MONDAY + 2700 * WEEK)

static struct fc_profile p;
static uint8_t bytes[FC_PROFILE_BYTES];

static struct fc_profile_load load_of(double rate)
{
    struct fc_profile_load load = { .rate = rate };
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++)
        load.pages[i] = rate * (i + 1);
    return load;
}

/* Quiet but for three hours from 2:00, and all Saturday. */
static double habit(uint64_t wall_s)
{
    unsigned hour = (unsigned)(wall_s / HOUR % 24);
    unsigned day = (unsigned)((wall_s - MONDAY) / DAY % 7);
    if (day == 5)
        return 9000;
    return hour >= 2 && hour < 5 ? 20000 : 100;
}

static void live(uint64_t from_s, uint64_t to_s, double (*rate)(uint64_t))
{
    for (uint64_t t = from_s; t < to_s; t += 600) {
        struct fc_profile_load load = load_of(rate(t));
        fc_profile_add(&p, t, 600, &load);
    }
}

static struct fc_profile_forecast expect(uint64_t now_s, uint64_t at_s)
{
    struct fc_profile_forecast f;
    fc_profile_expect(&p, now_s, NULL, at_s, &f);
    return f;
}

static void test_empty(void **state)
{
    struct fc_profile_forecast f;
    struct fc_profile_load now = load_of(500);
    (void)state;
    fc_profile_init(&p);
    f = expect(START, START + HOUR);
    assert_int_equal(f.basis, FC_PROFILE_NOTHING);
    assert_float_equal(f.confidence, 0, 0);
    /* what goes on now is all there is, and says less of later hours */
    fc_profile_expect(&p, START, &now, START, &f);
    assert_int_equal(f.basis, FC_PROFILE_NOW);
    assert_float_equal(f.load.rate, 500, 0.1);
    float sure = f.confidence;
    fc_profile_expect(&p, START, &now, START + 6 * HOUR, &f);
    assert_true(f.confidence < sure / 2);
}

static void test_hours_of_the_week(void **state)
{
    uint64_t now = START + 4 * WEEK;
    (void)state;
    fc_profile_init(&p);
    live(START, now, habit);
    struct fc_profile_forecast night = expect(now, now + 3 * HOUR);
    struct fc_profile_forecast noon = expect(now, now + 12 * HOUR);
    struct fc_profile_forecast weekend = expect(now, now + 5 * DAY + 12 * HOUR);
    assert_int_equal(night.basis, FC_PROFILE_WEEKS);
    assert_true(night.load.rate > 15000 && noon.load.rate < 1800);
    assert_true(weekend.load.rate > 5 * noon.load.rate);
    assert_true(noon.confidence > 0.2f);
    for (unsigned i = 1; i < FC_PROFILE_AGES; i++)
        assert_true(night.load.pages[i] >= night.load.pages[i - 1]);
}

static void test_two_days_tell_the_third(void **state)
{
    uint64_t now = START + 2 * DAY;
    (void)state;
    fc_profile_init(&p);
    live(START, now, habit);
    struct fc_profile_forecast f = expect(now, now + 3 * HOUR);
    assert_int_equal(f.basis, FC_PROFILE_HOUR);
    assert_true(f.load.rate > 15000);
    float after_two_days = f.confidence;
    live(now, START + 4 * WEEK, habit);
    assert_true(
        expect(START + 4 * WEEK, START + 4 * WEEK + 3 * HOUR).confidence >
        after_two_days);
}

static double idle(uint64_t wall_s)
{
    (void)wall_s;
    return 0;
}

static void test_a_habit_given_up_is_forgotten(void **state)
{
    uint64_t change = START + 8 * WEEK, now = change + 8 * WEEK;
    (void)state;
    fc_profile_init(&p);
    live(START, change, habit);
    live(change, now, idle);
    assert_true(expect(now, now + 3 * HOUR).load.rate < 3000);
}

static void test_absurd_observations(void **state)
{
    struct fc_profile_load load = load_of(NAN);
    (void)state;
    fc_profile_init(&p);
    fc_profile_add(&p, START, 60, &load);
    load = load_of(-5);
    fc_profile_add(&p, START, 60, &load);
    load = load_of(1e30);
    fc_profile_add(&p, START, 60, &load);
    load = load_of(5);
    fc_profile_add(&p, START, 0, &load);
    fc_profile_add(&p, START, NAN, &load);
    fc_profile_add(&p, START, 1e9, &load);
    fc_profile_add(&p, UINT64_MAX, 60, &load);
    assert_int_equal(p.last_s, 0);
    assert_float_equal(expect(START, START).confidence, 0, 0);
}

static void test_best_window(void **state)
{
    struct fc_profile_window w[4] = {
        { .total_ms = 9000,
          .downtime_ms = 100,
          .converges = true,
          .confidence = 0.5f },
        { .total_ms = 8900,
          .downtime_ms = 90,
          .converges = true,
          .confidence = 0.5f },
        { .total_ms = 4000,
          .downtime_ms = 200,
          .converges = true,
          .confidence = 0.5f },
        { .total_ms = 10,
          .downtime_ms = 900,
          .converges = false,
          .confidence = 1 },
    };
    (void)state;
    assert_int_equal(fc_profile_best(w, 0), -1);
    assert_int_equal(fc_profile_best(w, 2), 0); /* not worth the wait */
    assert_int_equal(fc_profile_best(w, 4), 2);
    w[2].confidence = 0;
    w[2].total_ms = 7900; /* better, but nobody knows */
    assert_int_equal(fc_profile_best(w, 4), 0);
    for (unsigned i = 0; i < 4; i++)
        w[i].converges = false;
    assert_int_equal(fc_profile_best(w, 4), 0);
    w[3].downtime_ms = 50;
    assert_int_equal(fc_profile_best(w, 4), 3);
}

static void test_golden(void **state)
{
    struct fc_profile back;
    char why[80];
    (void)state;
    fc_profile_init(&p);
    live(START, START + DAY + 3 * HOUR, habit);
    assert_int_equal(fc_profile_encode(&p, bytes, sizeof(bytes)),
                     FC_PROFILE_BYTES);
    assert_golden("profile", bytes, sizeof(bytes));
    assert_int_equal(
        fc_profile_decode(bytes, sizeof(bytes), &back, why, sizeof(why)), 0);
    assert_memory_equal(&p, &back, sizeof(p));
    assert_int_equal(fc_profile_encode(&p, bytes, sizeof(bytes) - 1),
                     FC_ETOOBIG);
    assert_int_equal(fc_profile_encode(&p, bytes, 10), FC_ETOOBIG);
}

static int decode(size_t len, bool seal)
{
    struct fc_profile back;
    char why[80] = "";
    if (seal)
        fc_le_store(bytes + FC_PROFILE_BYTES - 8,
                    XXH3_64bits(bytes, FC_PROFILE_BYTES - 8), 8);
    int rc = fc_profile_decode(bytes, len, &back, why, sizeof(why));
    if (rc) {
        assert_true(*why);
        assert_int_equal(back.last_s, 0);
    }
    return rc;
}

static void spoil(size_t at, uint32_t value)
{
    fc_profile_encode(&p, bytes, sizeof(bytes));
    fc_le_store(bytes + at, value, 4);
}

static void test_damage_is_refused(void **state)
{
    const uint32_t not_a_number = 0x7fc00000, minus_one = 0xbf800000;
    (void)state;
    fc_profile_init(&p);
    live(START, START + 3 * HOUR, habit);
    spoil(0, 1);
    assert_int_equal(decode(sizeof(bytes), true), FC_EFORMAT);
    spoil(8, 2);
    assert_int_equal(decode(sizeof(bytes), true), FC_EVERSION);
    spoil(12, 192);
    assert_int_equal(decode(sizeof(bytes), true), FC_EFORMAT);
    spoil(24, 1);
    assert_int_equal(decode(sizeof(bytes), true), FC_EFORMAT);
    spoil(32, not_a_number);
    assert_int_equal(decode(sizeof(bytes), true), FC_EFORMAT);
    spoil(32 + 12, minus_one);
    assert_int_equal(decode(sizeof(bytes), true), FC_EFORMAT);
    spoil(32 + 48 * 192 + 44, 0); /* the last age is less than the one before */
    assert_int_equal(decode(sizeof(bytes), true), FC_EFORMAT);
    spoil(40, 77);
    assert_int_equal(decode(sizeof(bytes), false), FC_ECHECK);
    spoil(40, 77);
    assert_int_equal(decode(sizeof(bytes), true), 0);
    for (size_t len = 0; len < sizeof(bytes); len += 7)
        assert_true(decode(len, false) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_hours_of_the_week),
        cmocka_unit_test(test_two_days_tell_the_third),
        cmocka_unit_test(test_a_habit_given_up_is_forgotten),
        cmocka_unit_test(test_absurd_observations),
        cmocka_unit_test(test_best_window),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_damage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
