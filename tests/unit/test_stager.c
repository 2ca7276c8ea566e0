/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is staged first would not be what is likeliest to stay, or a page that
 * no list names would never be staged. Uplink and worker are this file's own,
 * so that nothing runs beside the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "stager.h"

#define PAGES (3u * SLICE)
#define SLICE (1u << 19) /* the stager ranks so many at a time */
#define QUIET_MS 10000u
#define RISK 0.5

static struct fc_pagetab pages;
static struct fc_stager stager;
static struct fc_job *jobs[8]; /* with the worker */
static unsigned job_count, put_count;
static struct fc_job *put_jobs[64]; /* with the uplink */
static uint64_t now_ms;

/* ---- the others ---------------------------------------------------------- */

bool fc_uplink_may_put(const struct fc_uplink *u)
{
    (void)u;
    return true;
}

int fc_uplink_put(struct fc_uplink *u, uint8_t *memory, uint8_t *batch,
                  size_t bytes, void *tag)
{
    (void)u;
    (void)batch;
    (void)bytes;
    free(memory);
    assert_true(put_count < sizeof(put_jobs) / sizeof(put_jobs[0]));
    put_jobs[put_count++] = tag;
    return 0;
}

void fc_uplink_drop(struct fc_uplink *u, const uint64_t *pfns, uint32_t count)
{
    (void)u;
    (void)pfns;
    (void)count;
}

void fc_worker_submit(struct fc_worker *worker, struct fc_job *job)
{
    (void)worker;
    assert_true(job_count < sizeof(jobs) / sizeof(jobs[0]));
    jobs[job_count++] = job;
}

void fc_job_free(struct fc_job *job)
{
    free(job->batch);
    free(job);
}

/* Pages from `first` on are written with this chance; before them, less. */
static const struct {
    uint64_t first;
    float p;
} chances[] = {
    { 0, 0.30f },
    { 40, 0.04f },
    { 60, 0.6f },
    { 80, 0.01f },
    { 100, 0.9f },
    { SLICE, 0.02f },
    { SLICE + 30, 0.9f },
    { 2 * SLICE, 0.20f },
    { 2 * SLICE + 10, 0.03f },
    { 2 * SLICE + 20, 0.9f },
};

static float p_dirty(const void *state, uint64_t page, uint32_t horizon_ms)
{
    float p = 1;
    (void)state;
    (void)horizon_ms;
    for (size_t i = 0; i < sizeof(chances) / sizeof(chances[0]); i++)
        if (page >= chances[i].first)
            p = chances[i].p;
    return p;
}

static const struct fc_scorer_ops ops = { .name = "told", .p_dirty = p_dirty };
static struct fc_scorer scorer = { .ops = &ops };

/* ---- the tests ----------------------------------------------------------- */

static int set_up(void **state)
{
    const struct fc_stager_args args = { .pages = &pages, .scorer = &scorer };
    (void)state;
    now_ms = 1000000;
    job_count = put_count = 0;
    if (fc_pagetab_init(&pages, PAGES, now_ms))
        return -1;
    fc_stager_init(&stager, &args, now_ms);
    stager.uplink = (struct fc_uplink *)&stager; /* only ever handed on */
    now_ms += QUIET_MS;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < job_count; i++)
        fc_job_free(jobs[i]);
    for (unsigned i = 0; i < put_count; i++)
        fc_job_free(put_jobs[i]);
    fc_stager_dispose(&stager);
    fc_pagetab_dispose(&pages);
    return 0;
}

static void run(double list_p)
{
    const struct fc_stager_limits limits = { .quiet_ms = QUIET_MS,
                                             .risk = RISK,
                                             .list_p = list_p };
    fc_stager_run(&stager, &limits, true, now_ms);
}

/* The worker and the destination do their part; notes which pages those were.
 */
static void finish_jobs(uint64_t *order, unsigned *n, unsigned cap)
{
    while (job_count) {
        struct fc_job *job = jobs[0];
        memmove(jobs, jobs + 1, --job_count * sizeof(jobs[0]));
        for (unsigned i = 0; i < job->count; i++) {
            struct fc_job_page *p = &job->page[i];
            assert_true(*n < cap);
            order[(*n)++] = p->pfn;
            p->found = FC_PAGE_DATA;
            p->hash = (struct fc_hash){ p->pfn + 1, 7 };
        }
        job->data_pages = job->count;
        job->batch_bytes = 100;
        job->batch = malloc(FC_JOB_HEADROOM + job->batch_bytes);
        assert_non_null(job->batch);
        assert_int_equal(fc_stager_job_done(&stager, job, now_ms), 0);
        while (put_count)
            fc_stager_stored(&stager, put_jobs[--put_count], NULL, 0);
    }
}

/* Runs until nothing is left to do, twenty rounds at the most. */
static unsigned stage_all(double list_p, uint64_t *order, unsigned cap)
{
    unsigned n = 0;
    for (unsigned i = 0; i < 20 && !fc_stager_is_steady(&stager); i++) {
        run(list_p);
        finish_jobs(order, &n, cap);
        now_ms += 100;
    }
    assert_true(fc_stager_is_steady(&stager));
    return n;
}

/* The chances in the order of staging, each once. */
static unsigned chances_of(const uint64_t *order, unsigned n, float *p)
{
    unsigned runs = 0;
    for (unsigned i = 0; i < n; i++) {
        float now = p_dirty(NULL, order[i], 10000);
        if (!runs || now != p[runs - 1]) {
            assert_true(runs < 16);
            p[runs++] = now;
        }
    }
    return runs;
}

static void expect_order(double list_p, const float *want, unsigned count)
{
    static uint64_t order[1000];
    float p[16];
    unsigned n = stage_all(list_p, order, 1000);
    /* all that may be staged at all, whatever the list says */
    assert_int_equal(n, 40 + 20 + 20 + 30 + 10 + 10);
    assert_int_equal(pages.staged, n);
    assert_int_equal(chances_of(order, n, p), count);
    for (unsigned i = 0; i < count; i++)
        assert_true(p[i] == want[i]);
}

/* Would break: without a list nothing is staged, or hot pages are. */
static void without_a_list(void **state)
{
    static const float want[] = { 0.01f, 0.04f, 0.30f, 0.02f, 0.03f, 0.20f };
    (void)state;
    expect_order(-1, want, 6);
}

/* Would break: pages that are likely to be written again take the link while
 * surer ones wait; or those that the list leaves out are never staged. */
static void what_the_list_holds_goes_first(void **state)
{
    static const float want[] = { 0.01f, 0.04f, 0.02f, 0.03f, 0.20f, 0.30f };
    (void)state;
    /* the others are looked for from where the first look ended */
    expect_order(0.05, want, 6);
}

/* Would break: a list that can hold its risk with no page at all stops
 * staging. */
static void an_empty_list_stops_nothing(void **state)
{
    static const float want[] = { 0.01f, 0.04f, 0.30f, 0.02f, 0.03f, 0.20f };
    (void)state;
    expect_order(0, want, 6);
}

/* Would break: a list widens what was set to be staged at the most. */
static void the_limit_that_was_set_stays(void **state)
{
    static const float want[] = { 0.01f, 0.04f, 0.30f, 0.02f, 0.03f, 0.20f };
    (void)state;
    expect_order(0.95, want, 6);
}

/* Would break: after the last round a page that has been written is not staged
 * again, or is before it was quiet. */
static void written_pages_are_staged_again(void **state)
{
    static uint64_t order[1000], bits[PAGES / 64];
    (void)state;
    (void)stage_all(0.05, order, 1000);
    bits[SLICE / 64] = 1; /* of chance .02 */
    assert_int_equal(fc_pagetab_seen(&pages, bits, true, now_ms), 0);
    bits[SLICE / 64] = 0;
    assert_int_equal(fc_pagetab_seen(&pages, bits, true, now_ms), 0);
    uint64_t written_ms = now_ms;
    unsigned n = 0;
    for (unsigned i = 0; i < 100 && !n; i++) {
        now_ms += 1000;
        run(0.05);
        finish_jobs(order, &n, 1000);
    }
    assert_int_equal(n, 1);
    assert_int_equal(order[0], SLICE);
    assert_true(now_ms - written_ms >= QUIET_MS);
}

/* Would break: a guest of which all is staged is shown as being staged each
 * time that is looked at again. */
static void is_steady_until_something_is_found(void **state)
{
    static uint64_t order[1000];
    unsigned n = 0;
    (void)state;
    (void)stage_all(0.05, order, 1000);
    for (unsigned i = 0; i < 20; i++) {
        now_ms += 500;
        run(0.05);
        assert_int_equal(job_count, 0);
        assert_true(fc_stager_is_steady(&stager));
    }
    fc_stager_evicted(&stager, order, 1);
    stager.full = false;
    for (unsigned i = 0; i < 20 && !job_count; i++) {
        now_ms += 500;
        run(0.05);
    }
    assert_int_equal(job_count, 1);
    assert_false(fc_stager_is_steady(&stager));
    finish_jobs(order, &n, 1000);
    assert_int_equal(n, 1);
    fc_stager_up(&stager, true);
    assert_false(fc_stager_is_steady(&stager));
}

/* Would break: the list becomes untrusted in the middle of a round and what
 * was begun by it never ends. */
static void a_list_that_is_lost(void **state)
{
    static uint64_t order[1000];
    unsigned n = 0;
    (void)state;
    run(0.05);
    finish_jobs(order, &n, 1000);
    assert_true(stager.by_list);
    n += stage_all(-1, order, 1000);
    assert_false(stager.by_list);
    assert_int_equal(pages.staged, n);
    assert_int_equal(n, 40 + 20 + 20 + 30 + 10 + 10);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(without_a_list),
        T(what_the_list_holds_goes_first),
        T(an_empty_list_stops_nothing),
        T(the_limit_that_was_set_stays),
        T(written_pages_are_staged_again),
        T(is_steady_until_something_is_found),
        T(a_list_that_is_lost),
    };
    return cmocka_run_group_tests_name("stager", tests, NULL, NULL);
}
