/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers would see lists out of order, torn, or beyond their end. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "golden.h"
#include "io.h"
#include "mixture_kit.h"
#include "ranklist.h"

#define N 3000u
#define HORIZONS 3u

static const uint32_t horizon_ms[HORIZONS] = { 50, 1000, 10000 };
static struct fc_region_ref regions[N];
static float chances[HORIZONS][N];
static const float *const p[HORIZONS] = { chances[0], chances[1], chances[2] };
static struct fc_ranklist *list;
static struct fc_rank_reader reader;

static struct fc_rank_source source_of(unsigned n, unsigned horizon)
{
    return (struct fc_rank_source){
        .n = n,
        .regions = regions,
        .p = p,
        .horizon_ms = horizon_ms,
        .horizons = HORIZONS,
        .horizon = horizon,
        .min_p = 0,
        .max_p = 1,
        .confidence = 0.9f,
    };
}

static int set_up(void **state)
{
    const struct fc_ranklist_config config = { .kind = FC_ENGINE_MEMORY,
                                               .room = { N, 100, 0 } };
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        regions[i] = (struct fc_region_ref){ .first = i * 16, .pages = 16 };
        chances[1][i] = chance();
        chances[0][i] = chances[1][i] / 4;
        chances[2][i] = 1 - (1 - chances[1][i]) * (1 - chances[1][i]);
    }
    int rc = fc_ranklist_create(&config, &list);
    if (rc)
        return rc;
    int fd = fc_ranklist_fd(list);
    rc = fc_rank_reader_map(&reader, fd);
    fc_close(&fd);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    fc_rank_reader_unmap(&reader);
    fc_ranklist_destroy(list);
    return 0;
}

static void test_nothing_yet(void **state)
{
    struct fc_rank_view v;
    (void)state;
    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_STAGING, &v),
                     FC_ENOENT);
    fc_ranklist_begin(list, 1, 5);
    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_STAGING, &v),
                     FC_ENOENT);
    fc_ranklist_publish(list);
    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_STAGING, &v), 0);
    assert_int_equal(v.count, 0);
}

static void test_order_and_contents(void **state)
{
    struct fc_rank_view v;
    struct fc_rank_source s = source_of(N, 1);
    (void)state;
    s.max_p = 0.3f;
    fc_ranklist_begin(list, 7, 1234);
    uint32_t cold = fc_ranklist_fill(list, FC_RANK_STAGING, &s);
    s = source_of(N, 1);
    assert_int_equal(fc_ranklist_fill(list, FC_RANK_DELTA, &s), 100);
    fc_ranklist_publish(list);

    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_STAGING, &v), 0);
    assert_int_equal(v.count, cold);
    assert_int_equal(v.tick, 7);
    assert_int_equal(v.time_ms, 1234);
    assert_int_equal(v.horizon_ms, 1000);
    assert_int_equal(v.chosen_from, N);
    assert_float_equal(v.confidence, 0.9f, 0);
    unsigned wanted = 0;
    for (unsigned i = 0; i < N; i++)
        wanted += chances[1][i] <= 0.3f;
    assert_int_equal(v.count, wanted);
    for (unsigned i = 0; i < v.count; i++) {
        assert_float_equal(v.entries[i].p, chances[1][v.entries[i].first / 16],
                           0);
        assert_true(v.entries[i].p <= 0.3f);
        assert_true(!i || v.entries[i].p > v.entries[i - 1].p * 0.985f);
    }
    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_DELTA, &v), 0);
    float least = 1;
    for (unsigned i = 0; i < v.count; i++) {
        assert_true(!i || v.entries[i].p < v.entries[i - 1].p * 1.015f);
        least = v.entries[i].p < least ? v.entries[i].p : least;
    }
    unsigned hotter = 0; /* the hundred are the hottest, within a bucket */
    for (unsigned i = 0; i < N; i++)
        hotter += chances[1][i] > 1 - (1 - least) * 0.98f;
    assert_true(hotter <= 100);
    assert_true(fc_rank_reader_whole(&reader, &v));
}

static void test_a_reader_is_told_when_it_was_too_slow(void **state)
{
    struct fc_rank_view v;
    struct fc_rank_source s = source_of(10, 0);
    (void)state;
    for (unsigned t = 1; t <= 3; t++) {
        fc_ranklist_begin(list, t, t);
        fc_ranklist_fill(list, FC_RANK_STAGING, &s);
        fc_ranklist_publish(list);
    }
    assert_int_equal(fc_rank_reader_look(&reader, FC_RANK_STAGING, &v), 0);
    assert_int_equal(v.tick, 3);
    fc_ranklist_begin(list, 4, 4);
    assert_true(fc_rank_reader_whole(&reader, &v));
    fc_ranklist_publish(list);
    assert_true(fc_rank_reader_whole(&reader, &v));
    fc_ranklist_begin(list, 5, 5);
    assert_false(fc_rank_reader_whole(&reader, &v));
}

static void test_next_touch(void **state)
{
    const float even[] = { 0.5f, 0.75f }, soon[] = { 0.9f, 0.99f };
    const float later[] = { 0.1f, 0.1f, 0.5f }, never[] = { 0, 0, 0 };
    const float absurd[] = { 0.4f, 0.2f, 0.1f };
    const uint32_t two[] = { 1000, 2000 };
    (void)state;
    assert_int_equal(fc_rank_next_ms(even, two, 2), 1000);
    assert_true(fc_rank_next_ms(soon, two, 2) < 310);
    assert_in_range(fc_rank_next_ms(later, horizon_ms, 3), 9900, 10000);
    /* an unlikely touch is far off, never a small number */
    assert_true(fc_rank_next_ms(never, horizon_ms, 3) > 1000 * 1000);
    assert_true(fc_rank_next_ms(absurd, horizon_ms, 3) > 50);
    assert_int_equal(fc_rank_next_ms(even, two, 0), FC_RANK_NEVER);
}

static void test_readers_cannot_write(void **state)
{
    (void)state;
    int fd = fc_ranklist_fd(list);
    assert_true(fd >= 0);
    assert_ptr_equal(
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
        MAP_FAILED);
    fc_close(&fd);
}

/* Each tick's entries carry the tick's number; a list that is whole by the
 * rules has one number throughout. */
static bool stop;

static void *write_ticks(void *arg)
{
    struct fc_rank_source s = source_of(500, 1);
    (void)arg;
    for (uint64_t t = 1; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); t++) {
        for (unsigned i = 0; i < 500; i++)
            regions[i].first = t;
        fc_ranklist_begin(list, t, t);
        fc_ranklist_fill(list, FC_RANK_STAGING, &s);
        fc_ranklist_publish(list);
        usleep(200);
    }
    return NULL;
}

static void test_never_torn(void **state)
{
    pthread_t writer;
    unsigned whole = 0;
    (void)state;
    stop = false;
    assert_int_equal(pthread_create(&writer, NULL, write_ticks, NULL), 0);
    for (unsigned tries = 0; whole < 300 && tries < 1000000; tries++) {
        struct fc_rank_view v;
        if (fc_rank_reader_look(&reader, FC_RANK_STAGING, &v)) {
            usleep(50);
            continue;
        }
        bool same = true;
        for (unsigned i = 0; i < v.count; i++)
            same = same && v.entries[i].first == v.tick;
        if (!fc_rank_reader_whole(&reader, &v))
            continue;
        assert_true(same);
        assert_int_equal(v.count, 500);
        whole++;
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    pthread_join(writer, NULL);
    assert_int_equal(whole, 300);
}

static void test_golden(void **state)
{
    static const float some[HORIZONS][3] = { { 0.02f, 0.5f, 0.001f },
                                             { 0.1f, 0.9f, 0.01f },
                                             { 0.4f, 0.99f, 0.05f } };
    const float *const q[HORIZONS] = { some[0], some[1], some[2] };
    static const struct fc_region_ref three[] = {
        { .first = 0, .pages = 16 },
        { .first = 16, .pages = 16 },
        { .first = 32, .pages = 16 },
    };
    const struct fc_ranklist_config config = { .kind = FC_ENGINE_DISK,
                                               .room = { 2, 1, 3 } };
    struct fc_ranklist *small;
    struct fc_rank_source s = source_of(3, 1);
    (void)state;
    s.p = q;
    s.regions = three;
    assert_int_equal(fc_ranklist_create(&config, &small), 0);
    fc_ranklist_begin(small, 258, 987654321);
    for (unsigned l = 0; l < FC_RANK_LISTS; l++)
        fc_ranklist_fill(small, (enum fc_rank_list)l, &s);
    fc_ranklist_publish(small);
    int fd = fc_ranklist_fd(small);
    uint8_t bytes[64 + 2 * (160 + 6 * 24)];
    assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_golden("ranklist", bytes, sizeof(bytes));
    fc_close(&fd);
    fc_ranklist_destroy(small);
}

static int map_of(const uint8_t *bytes, size_t len)
{
    struct fc_rank_reader r;
    int fd = fc_memfd_new("test", len);
    assert_int_equal(pwrite(fd, bytes, len, 0), len);
    int rc = fc_rank_reader_map(&r, fd);
    if (!rc) {
        struct fc_rank_view v;
        rc = fc_rank_reader_look(&r, FC_RANK_STAGING, &v);
        fc_rank_reader_unmap(&r);
    }
    fc_close(&fd);
    return rc;
}

static void test_damage_is_refused(void **state)
{
    uint8_t bytes[64 + 2 * 160] = "FCRANKED";
    (void)state;
    bytes[8] = 1;
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_ENOENT);
    bytes[40] = 1;
    assert_int_equal(map_of(bytes, sizeof(bytes)), 0);
    assert_int_equal(map_of(bytes, sizeof(bytes) - 1), FC_EFORMAT);
    assert_int_equal(map_of(bytes, 10), FC_EFORMAT);
    bytes[64 + 160 + 16] = 1; /* an entry where there is no room */
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_EFORMAT);
    bytes[64 + 160 + 16] = 0;
    bytes[16] = 1;
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_EFORMAT);
    bytes[19] = 0xff;
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_EFORMAT);
    bytes[16] = bytes[19] = 0;
    bytes[12] = 2;
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_EFORMAT);
    bytes[12] = 0;
    bytes[8] = 2;
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_EVERSION);
    bytes[0] = 'X';
    assert_int_equal(map_of(bytes, sizeof(bytes)), FC_EFORMAT);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_nothing_yet),
        T(test_order_and_contents),
        T(test_a_reader_is_told_when_it_was_too_slow),
        cmocka_unit_test(test_next_touch),
        T(test_readers_cannot_write),
        T(test_never_torn),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_damage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
