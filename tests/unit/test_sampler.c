/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "sampler.h"

#define PFNS 8192u
#define WORDS (PFNS / 64)

static struct {
    bool on, gone;
    uint64_t bits[WORDS];
    unsigned cleans, peeks;
    uint64_t faults; /* first writes after a CLEAN */
    int fail;
} xen;

static int size(void *user, uint32_t domid, uint64_t *pfns_r)
{
    (void)user;
    (void)domid;
    *pfns_r = PFNS;
    return 0;
}

static int enable(void *user, uint32_t domid)
{
    (void)user;
    (void)domid;
    if (xen.on)
        return FC_EBUSY;
    xen.on = true;
    memset(xen.bits, 0, sizeof(xen.bits));
    return 0;
}

static int disable(void *user, uint32_t domid)
{
    (void)user;
    (void)domid;
    xen.on = false;
    return 0;
}

static int peek(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns)
{
    (void)user;
    (void)domid;
    (void)pfns;
    if (xen.fail)
        return xen.fail;
    xen.peeks++;
    memcpy(bitmap, xen.bits, sizeof(xen.bits));
    return 0;
}

static int clean(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns)
{
    int rc = peek(user, domid, bitmap, pfns);
    if (rc)
        return rc;
    xen.peeks--;
    xen.cleans++;
    memset(xen.bits, 0, sizeof(xen.bits));
    return 0;
}

static void write_page(uint64_t pfn)
{
    uint64_t bit = 1ull << pfn % 64;
    if (!xen.on)
        return;
    xen.faults += !(xen.bits[pfn / 64] & bit);
    xen.bits[pfn / 64] |= bit;
}

static int mark(void *user, uint32_t domid, const struct fc_pfn_run *runs,
                unsigned count)
{
    (void)user;
    (void)domid;
    for (unsigned i = 0; xen.on && i < count; i++)
        for (uint32_t p = 0; p < runs[i].count; p++)
            xen.bits[(runs[i].first + p) / 64] |= 1ull
                                                  << (runs[i].first + p) % 64;
    return 0;
}

static const struct fc_dirtylog_ops ops = {
    size, enable, disable, clean, peek, mark,
};

static char proc[64];
static struct fc_dirtylog dlog;
static struct fc_pagetab pages;
static struct fc_scorer scorer;
static struct fc_sampler sampler;
static uint64_t now;
static const struct fc_sampler_limits limits = { 250, 0.01, 3000 };

static int setup(void **state)
{
    (void)state;
    memset(&xen, 0, sizeof(xen));
    strcpy(proc, "/tmp/fc-proc-XXXXXX");
    now = 1000000;
    if (!mkdtemp(proc) || fc_dirtylog_init(&dlog, &ops, NULL, proc, 1) ||
        fc_pagetab_init(&pages, PFNS, now) ||
        fc_scorer_init(&scorer, "ewma", PFNS) ||
        fc_sampler_init(&sampler, &dlog, &pages, &scorer))
        return -1;
    return fc_sampler_tick(&sampler, &limits, now);
}

static int teardown(void **state)
{
    (void)state;
    fc_sampler_dispose(&sampler);
    fc_scorer_dispose(&scorer);
    fc_pagetab_dispose(&pages);
    return rmdir(proc);
}

/* A guest that writes `rate` pages a second out of `set` for `seconds`. */
static void run(unsigned rate, unsigned set, unsigned seconds)
{
    uint64_t n = 0;
    for (unsigned ms = 0; ms < seconds * 1000; ms += 50) {
        for (unsigned i = 0; i < rate / 20; i++)
            write_page(100 + n++ % set);
        now += 50;
        int rc = fc_sampler_tick(&sampler, &limits, now);
        assert_true(rc == 0 || rc == FC_EBUSY);
    }
}

/* The guest must not lose more of its time than it was promised. */
static void test_budget(void **state)
{
    (void)state;
    run(40000, 8000, 300);
    double lost = (double)xen.faults * limits.fault_cost_ns / 300e9;
    /* the first window may end at its limit, later ones as well */
    assert_true(lost <= 0.0101);
    assert_true(xen.cleans > 50);
    assert_true(sampler.log_share <= 0.0101 && sampler.log_share > 0.001);
    unsigned before = xen.cleans;
    run(20, 100, 300);
    assert_true(xen.cleans - before >= 80); /* quiet: as often as planned */
    assert_true(sampler.log_share < 0.001);
}

/* A look costs a scan of all processes: none too many, and enough. */
static void test_interval(void **state)
{
    (void)state;
    run(1000, 1000, 76); /* twice through the planned windows */
    unsigned looks = xen.cleans + xen.peeks;
    assert_true(looks >= 130 && looks <= 160);
}

/* Estimates stand on the curve: it must show the working set. */
static void test_curve(void **state)
{
    (void)state;
    run(1000, 3000, 200);
    for (unsigned i = 0; i < FC_CURVE_POINTS; i++) {
        double want = fc_curve_age_ms[i];
        if (want > 3000)
            want = 3000;
        assert_true(sampler.curve.samples[i] > 0);
        assert_true(sampler.curve.pages[i] > want * 0.7 &&
                    sampler.curve.pages[i] < want * 1.3 + 2);
    }
    assert_true(sampler.written_per_s > 300);
}

/* Pages and scorer must hear what was written. */
static void test_feeds(void **state)
{
    (void)state;
    run(1000, 200, 30);
    assert_false(fc_pagetab_candidate(&pages, 150, now, 10000, false));
    assert_true(fc_pagetab_candidate(&pages, 5000, now, 10000, false));
    assert_true(scorer.ops->p_dirty(scorer.state, 150, 1000) > 0.5f);
    assert_true(scorer.ops->p_dirty(scorer.state, 5000, 1000) < 0.05f);
}

/* A log that went and came back: nothing is valid in between. */
static void test_gap(void **state)
{
    struct fc_hash hash = { 1, 1 };
    (void)state;
    run(20, 100, 20);
    fc_pagetab_begin(&pages, 6000);
    fc_pagetab_read(&pages, 6000, FC_PAGE_DATA, now);
    fc_pagetab_staged(&pages, 6000, hash);
    assert_int_equal(pages.valid, 1);
    xen.on = false; /* a short save */
    run(0, 1, 2);
    assert_int_equal(pages.valid, 0);
    assert_true(dlog.on && xen.on);
    assert_false(sampler.paused);
}

/* A failing log is switched on anew, not believed. */
static void test_failure(void **state)
{
    (void)state;
    xen.fail = FC_ESYS;
    int rc = 0;
    for (int i = 0; i < 20 && !rc; i++)
        rc = fc_sampler_tick(&sampler, &limits, now += 50);
    assert_int_equal(rc, FC_ESYS);
    assert_false(dlog.on);
    xen.fail = 0;
    run(20, 100, 3);
    assert_true(dlog.on);
    assert_int_equal(fc_sampler_tick(&sampler, &limits, now), 0);
}

static struct {
    uint64_t ticks, pages, ms, lost;
} heard;

static void hear_taken(void *user, const uint64_t *bits, uint64_t window_ms)
{
    (void)user;
    heard.ticks++;
    heard.ms += window_ms;
    for (unsigned w = 0; w < WORDS; w++)
        heard.pages += (unsigned)__builtin_popcountll(bits[w]);
}

static void hear_lost(void *user)
{
    (void)user;
    heard.lost++;
}

static const struct fc_sampler_watcher watcher = { hear_taken, hear_lost };

static void listen_in(void)
{
    memset(&heard, 0, sizeof(heard));
    sampler.watcher = &watcher;
}

/* A recording would miss windows, or take one for whole that is not. */
static void test_watcher(void **state)
{
    (void)state;
    listen_in();
    run(100, 100, 60);
    assert_int_equal(heard.ticks, xen.cleans);
    assert_true(heard.ms <= 60000 && heard.ms > 40000);
    assert_int_equal(heard.lost, 0);
    xen.on = false; /* a short save */
    memset(xen.bits, 0, sizeof(xen.bits));
    run(100, 100, 2);
    assert_int_equal(heard.lost, 1);
}

/* A recording's windows: as long as asked for while the guest can bear it,
 * longer when not; a guest that is only recorded has neither pages nor
 * scorer. */
static void test_fixed(void **state)
{
    (void)state;
    sampler.fixed_ms = 100;
    sampler.pages = NULL;
    sampler.scorer = NULL;
    listen_in();
    run(100, 100, 60);
    assert_in_range(heard.ticks, 599, 600);
    assert_in_range(heard.ms, 59900, 60000);
    assert_int_equal(xen.peeks, 0);
    xen.faults = 0;
    run(40000, 8000, 300);
    double lost = (double)xen.faults * limits.fault_cost_ns / 300e9;
    /* the first window and the last are beyond it */
    assert_true(lost <= 0.0103 && lost > 0.005);
    fc_sampler_resume(&sampler, now);
    assert_int_equal(heard.lost, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_budget),  TEST(test_interval), TEST(test_curve),
        TEST(test_feeds),   TEST(test_gap),      TEST(test_failure),
        TEST(test_watcher), TEST(test_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
