/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "estimate.h"

static struct fc_curve curve;

/* `rate` distinct pages a second up to `most`. */
static void set_curve(double rate, double most)
{
    for (unsigned i = 0; i < FC_CURVE_POINTS; i++) {
        double pages = rate * fc_curve_age_ms[i] / 1000.0;
        curve.pages[i] = pages < most ? pages : most;
        curve.samples[i] = 20;
    }
}

static struct fc_estimate_in guest(void)
{
    return (struct fc_estimate_in){
        .pages = 32768,
        .known = 32768,
        .page_bytes = 2000,
        .link_bps = 2e6,
        .link_samples = 100,
        .curve = &curve,
        .fixed_ms = 100,
        .page_us_learned = true,
        .max_downtime_ms = 300,
        .max_rounds = 30,
    };
}

static double near(double got, double want)
{
    return got > want * 0.98 && got < want * 1.02;
}

/* An idle guest: everything once, then stop. */
static void test_idle(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate e;
    (void)state;
    set_curve(0, 0);
    fc_estimate_run(&in, &e);
    assert_true(near((double)e.bytes, 32768.0 * 2000));
    assert_true(near((double)e.total_ms, 32768.0 * 2000 / 2000 + 100));
    assert_int_equal(e.downtime_ms, 100);
    assert_int_equal(e.rounds, 1);
    assert_true(e.converges);
    assert_true(e.confidence > 0.99);
}

/* What is staged or zero must not be paid for twice. */
static void test_staged(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate cold, armed;
    (void)state;
    set_curve(100, 200);
    fc_estimate_run(&in, &cold);
    in.zero = 10000;
    in.valid = 22000;
    fc_estimate_run(&in, &armed);
    assert_int_equal(armed.missing_pages, 768);
    assert_int_equal(armed.reference_pages, 22000);
    assert_true(armed.bytes < cold.bytes / 10);
    assert_true(armed.total_ms < cold.total_ms / 8);
    assert_true(armed.bytes >= 768 * 2000 / 2 + 22000 * 16);
}

/* A guest that writes faster than the link carries must be said not to
 * converge, and the downtime be that of its working set. */
static void test_never_converges(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate e;
    (void)state;
    set_curve(4000, 8000);
    fc_estimate_run(&in, &e);
    assert_false(e.converges);
    assert_true(e.downtime_ms > 3000 && e.downtime_ms < 13000);
    assert_true(e.rounds < 30);
    assert_in_range(e.floor_pages, 3000, 8000);
    in.max_downtime_ms = 20000;
    fc_estimate_run(&in, &e);
    assert_true(e.converges);
    assert_int_equal(e.floor_pages, 0);

    /* seen too seldom: the helper has to find out */
    for (unsigned i = 0; i < FC_CURVE_POINTS; i++)
        curve.samples[i] = 7;
    in.max_downtime_ms = 300;
    fc_estimate_run(&in, &e);
    assert_false(e.converges);
    assert_int_equal(e.floor_pages, 0);
}

/* A small hot set fits the downtime after a few rounds. */
static void test_converges(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate e;
    (void)state;
    set_curve(400, 100000);
    fc_estimate_run(&in, &e);
    assert_true(e.converges);
    assert_true(e.rounds > 1 && e.rounds < 12);
    assert_true(e.downtime_ms <= 300);
    assert_true(e.bytes > 32768 / 2 * 2000);
}

/* Without knowledge the answer must not look like knowledge. */
static void test_unknown(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate e;
    (void)state;
    memset(&curve, 0, sizeof(curve));
    in.link_bps = 0;
    in.link_samples = 0;
    in.page_bytes = 0;
    in.known = 0;
    fc_estimate_run(&in, &e);
    assert_true(e.bytes > 0 && e.total_ms > 0);
    assert_true(e.confidence < 0.1);
    assert_non_null(strstr(e.basis, "assumed"));
    in.pages = 0;
    fc_estimate_run(&in, &e);
    assert_int_equal(e.bytes, 0);
}

/* A host slower than its link: pages that are staged cost time all the same. */
static void test_slow_host(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate e;
    struct fc_calibration c = { 0 };
    struct fc_migration m = { .elapsed_ms = 41000,
                              .precopy_ms = 38700,
                              .outage_ms = 1300,
                              .first_ms = 28700,
                              .first_pages = 32768,
                              .first_bytes = 56000000,
                              .final_bytes = 7000000,
                              .link_bps = 14e6 };
    (void)state;
    fc_calibration_learn(&c, &m);
    assert_int_equal(c.samples, 1);
    assert_true(near(c.page_us, 28700000.0 / 32768));
    assert_true(near(c.fixed_ms, 1300 - 500));
    assert_true(near(c.overhead_ms, 1000));
    set_curve(100, 1000);
    in.valid = 30000;
    in.link_bps = 14e6;
    in.page_us = c.page_us;
    in.fixed_ms = c.fixed_ms;
    in.overhead_ms = c.overhead_ms;
    fc_estimate_run(&in, &e);
    assert_true(e.total_ms > 30000 && e.total_ms < 35000);
    assert_true(e.downtime_ms >= 800);
    /* one that waited for its link does not make pages dear */
    m.first_ms = 280000;
    m.link_bps = 200000;
    fc_calibration_learn(&c, &m);
    assert_true(near(c.page_us, 28700000.0 / 32768));
    /* nor does one with disks make others' hand-over long */
    double fixed_ms = c.fixed_ms;
    m.with_disks = true;
    m.outage_ms = 10500;
    m.link_bps = 14e6;
    fc_calibration_learn(&c, &m);
    assert_true(c.fixed_ms == fixed_ms);
    assert_true(near(c.disks_ms, 10000 - fixed_ms));
    m.with_disks = false;
    /* and nothing can be learned from next to nothing */
    m.first_pages = 3;
    fc_calibration_learn(&c, &m);
    assert_int_equal(c.samples, 2);
}

/* A walk through a large physical map must not make each page dear. */
static void test_scan(void **state)
{
    struct fc_estimate_in in = guest();
    struct fc_estimate e, dear;
    struct fc_calibration c = { 0 };
    struct fc_migration m = { .elapsed_ms = 16000,
                              .precopy_ms = 14000,
                              .outage_ms = 1000,
                              .first_ms = 10000 + 3276.8,
                              .first_pages = 32768,
                              .first_bytes = 500000,
                              .later_ms = 500,
                              .later_pages = 5000,
                              .later_bytes = 500000,
                              .link_bps = 2e6 };
    (void)state;
    fc_calibration_learn(&c, &m);
    assert_true(near(c.page_us, 100));
    assert_true(near(c.scan_ms, 10000));
    /* the same first round, and nothing after it */
    m.later_pages = 0;
    fc_calibration_learn(&c, &m);
    assert_true(near(c.page_us, 100));
    assert_true(near(c.scan_ms, 10000));

    set_curve(0, 0);
    in.valid = 32768;
    in.page_us = c.page_us;
    in.scan_ms = c.scan_ms;
    fc_estimate_run(&in, &e);
    assert_true(near((double)e.total_ms, 10000 + 3276.8 + 100));
    /* a stop of a thousand pages: none of that walk is in it */
    set_curve(4000, 1000);
    fc_estimate_run(&in, &e);
    in.scan_ms = 0;
    in.page_us = m.first_ms * 1000.0 / 32768;
    fc_estimate_run(&in, &dear);
    assert_true(e.downtime_ms <= dear.downtime_ms);
    assert_true(near((double)e.downtime_ms, 1000 + 100));

    /* later rounds that waited for the link tell nothing of it */
    memset(&c, 0, sizeof(c));
    m.later_pages = 5000;
    m.later_bytes = 1000000;
    fc_calibration_learn(&c, &m);
    assert_true(near(c.page_us, 13276.8 / 32.768));
    assert_true(c.scan_ms == 0);
    m.later_bytes = 500000;
    fc_calibration_learn(&c, &m);
    assert_true(near(c.page_us, 100));
    assert_true(near(c.scan_ms, 10000));
}

/* The curve between and beyond its points. */
static void test_curve(void **state)
{
    (void)state;
    set_curve(100, 400);
    assert_true(near(fc_curve_at(&curve, 500, 1e6), 50));
    assert_true(near(fc_curve_at(&curve, 750, 1e6), 75));
    assert_true(near(fc_curve_at(&curve, 60000, 1e6), 400));
    set_curve(100, 1e9);
    assert_true(near(fc_curve_at(&curve, 32000, 1e6), 3200));
    assert_true(near(fc_curve_at(&curve, 32000, 1000), 1000));
    memset(&curve, 0, sizeof(curve));
    assert_true(fc_curve_at(&curve, 1000, 1e6) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_staged),
        cmocka_unit_test(test_never_converges),
        cmocka_unit_test(test_converges),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_slow_host),
        cmocka_unit_test(test_scan),
        cmocka_unit_test(test_curve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
