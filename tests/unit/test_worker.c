/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "batch.h"
#include "err.h"
#include "worker.h"

/* Page n: absent when n % 5 == 0, zero when n % 5 == 1, else n throughout. */
static int opens, closes, copy_fails;

static int mem_open(void *user, void **handle_r)
{
    *handle_r = user;
    opens++;
    return 0;
}

static void mem_close(void *handle)
{
    (void)handle;
    closes++;
}

static void make_page(uint64_t pfn, uint8_t *page)
{
    memset(page, pfn % 5 == 1 ? 0 : (int)(pfn % 251 + 1), FC_PAGE_SIZE);
}

static int mem_copy(void *handle, uint32_t domid, const uint64_t *pfns,
                    unsigned count, uint8_t *pages, uint8_t *good)
{
    assert_non_null(handle);
    if (domid == 13)
        return copy_fails;
    for (unsigned i = 0; i < count; i++) {
        good[i] = pfns[i] % 5 != 0;
        if (good[i])
            make_page(pfns[i], pages + (size_t)i * FC_PAGE_SIZE);
    }
    return 0;
}

static const struct fc_guestmem_ops mem = { mem_open, mem_close, mem_copy };

static struct event_base *base;
static struct fc_worker *worker;
static struct fc_job *jobs[64];
static unsigned njobs;

static void done(void *user, struct fc_job *job)
{
    assert_ptr_equal(user, &njobs);
    jobs[njobs++] = job;
}

static int setup(void **state)
{
    (void)state;
    base = event_base_new();
    njobs = 0;
    opens = closes = 0;
    return fc_worker_new(base, &mem, &opens, done, &njobs, &worker);
}

static int teardown(void **state)
{
    (void)state;
    fc_worker_free(worker);
    for (unsigned i = 0; i < njobs; i++)
        fc_job_free(jobs[i]);
    event_base_free(base);
    return 0;
}

static struct fc_job *job_of(uint64_t first, unsigned count, uint32_t domid)
{
    struct fc_job *job = calloc(1, sizeof(*job));
    assert_non_null(job);
    job->domid = domid;
    job->owner = first;
    job->count = count;
    for (unsigned i = 0; i < count; i++)
        job->page[i].pfn = first + i;
    return job;
}

static void wait_for(unsigned count)
{
    while (njobs < count)
        event_base_loop(base, EVLOOP_ONCE);
}

static void check(const struct fc_job *job)
{
    static uint8_t unpacked[FC_JOB_PAGES * FC_PAGE_SIZE];
    static uint8_t good[FC_JOB_PAGES];
    uint8_t page[FC_PAGE_SIZE];
    struct fc_batch batch;
    struct fc_batch_iter it;
    struct fc_batch_step step;
    const char *why;
    unsigned data = 0;

    assert_int_equal(job->rc, 0);
    assert_int_equal(fc_batch_parse(job->batch + FC_JOB_HEADROOM,
                                    job->batch_bytes, &batch, &why),
                     0);
    assert_int_equal(batch.data_pages, job->data_pages);
    assert_int_equal(fc_batch_unpack(&batch, unpacked, good), job->data_pages);
    fc_batch_iter_init(&it, &batch);
    for (unsigned i = 0; i < job->count; i++) {
        const struct fc_job_page *p = &job->page[i];
        enum fc_page_found want = p->pfn % 5 == 0   ? FC_PAGE_ABSENT
                                  : p->pfn % 5 == 1 ? FC_PAGE_ZERO
                                                    : FC_PAGE_DATA;
        if (!fc_hash_is_none(p->known) && want == FC_PAGE_DATA)
            want = FC_PAGE_SAME;
        assert_int_equal(p->found, want);
        if (want != FC_PAGE_DATA)
            continue;
        make_page(p->pfn, page);
        assert_int_equal(fc_batch_next(&it, &step), 1);
        assert_int_equal(step.entry, p->pfn);
        assert_true(fc_hash_equal(step.hash, fc_page_hash(page)));
        assert_memory_equal(unpacked + data++ * FC_PAGE_SIZE, page,
                            FC_PAGE_SIZE);
    }
    assert_int_equal(fc_batch_next(&it, &step), 0);
}

/* What the destination gets must be what the guest has. */
static void test_pages(void **state)
{
    uint8_t page[FC_PAGE_SIZE];
    (void)state;
    struct fc_job *job = job_of(1000, FC_JOB_PAGES, 1);
    make_page(1002, page);
    job->page[2].known = fc_page_hash(page); /* staged, and unchanged */
    fc_worker_submit(worker, job);
    wait_for(1);
    assert_ptr_equal(jobs[0], job);
    assert_int_equal(job->page[2].found, FC_PAGE_SAME);
    check(job);
}

/* Jobs come back in order, however fast they are given. */
static void test_many(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 64; i++)
        fc_worker_submit(worker, job_of(i * 100, 1 + i, 1));
    wait_for(64);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(jobs[i]->owner, i * 100);
        assert_int_equal(jobs[i]->rc, 0);
        if (jobs[i]->data_pages)
            check(jobs[i]);
    }
    assert_int_equal(opens, 1);
}

/* A domain that died under a job is an error, not contents. */
static void test_failure(void **state)
{
    (void)state;
    copy_fails = FC_ENODOM;
    fc_worker_submit(worker, job_of(1, 3, 13));
    fc_worker_submit(worker, job_of(10, 1, 1)); /* a hole alone: no batch */
    wait_for(2);
    assert_int_equal(jobs[0]->rc, FC_ENODOM);
    assert_null(jobs[0]->batch);
    assert_int_equal(jobs[1]->rc, 0);
    assert_null(jobs[1]->batch);
}

/* Ending it with work left must neither hang nor leak. */
static void test_end_with_work(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        fc_worker_submit(worker, job_of(i * 100, FC_JOB_PAGES, 1));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pages),
        TEST(test_many),
        TEST(test_failure),
        TEST(test_end_with_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
