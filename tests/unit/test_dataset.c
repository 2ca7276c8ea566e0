/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "dataset.h"
#include "err.h"
#include "feature.h"
#include "synth.h"

#define SECONDS 12u
#define STEPS 8u
#define COLUMNS 3u

static char path[] = "/tmp/fc-dataset-XXXXXX";

static int make_trace(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    if (fd < 0 || fc_synth_write(fd, 5, SECONDS))
        return -1;
    return close(fd);
}

static int drop_trace(void **state)
{
    (void)state;
    return unlink(path);
}

static void load(struct fc_dataset *d, uint32_t cap)
{
    struct fc_trace_problem problem = { "" };
    struct fc_replay_info info;
    if (fc_dataset_load(d, path, 1000, NULL, cap, &info, &problem))
        fail_msg("%s", problem.text);
    assert_int_equal(info.kind, FC_TRACE_MEMORY);
    assert_int_equal(d->inputs, FC_FEATURE_STRIDE);
}

/* Would break: a seed means another guest today than it did yesterday, or
 * makes none at all. */
static void made_up_guests_are_the_same_again(void **state)
{
    (void)state;
    struct fc_trace_summary first, second, other;
    struct fc_trace_problem problem;
    char again[] = "/tmp/fc-dataset-XXXXXX";
    int fd = mkstemp(again);

    assert_true(fd >= 0);
    assert_int_equal(fc_synth_write(fd, 5, SECONDS), 0);
    assert_int_equal(fc_trace_scan(path, &first, &problem), 0);
    assert_int_equal(fc_trace_scan(again, &second, &problem), 0);
    assert_int_equal(first.hash, second.hash);
    assert_int_equal(first.ticks, SECONDS * 20);
    assert_true(first.touched > first.ticks);
    assert_true(first.whole);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(fc_synth_write(fd, 6, SECONDS), 0);
    assert_int_equal(fc_trace_scan(again, &other, &problem), 0);
    assert_int_not_equal(first.hash, other.hash);
    close(fd);
    unlink(again);
}

/* Would break: rows of one region under another's name, out of order, or
 * labels from beyond the trace's end. */
static void rows_are_ordered(void **state)
{
    (void)state;
    struct fc_dataset d;
    unsigned known = 0, unknown = 0;

    load(&d, 1000000);
    assert_true(d.rows > 100 && d.regions > 10);
    assert_int_equal(d.start[0], 0);
    assert_int_equal(d.start[d.regions], d.rows);
    for (uint32_t r = 0; r < d.regions; r++) {
        assert_true(d.start[r] < d.start[r + 1]);
        assert_true(d.start[r + 1] - d.start[r] <= SECONDS);
        for (uint32_t i = d.start[r]; i < d.start[r + 1]; i++) {
            assert_int_equal(d.region[d.order[i]],
                             d.region[d.order[d.start[r]]]);
            if (i > d.start[r])
                assert_true(d.order[i] > d.order[i - 1]);
        }
    }
    for (uint32_t i = 0; i < d.rows; i++) {
        unsigned touched = d.label[i] & 15, sure = d.label[i] >> 4;
        assert_int_equal(touched & ~sure, 0);
        /* touched within a horizon, so within any longer one that is known */
        for (unsigned z = 0; z + 1 < FC_GRU_OUTPUTS; z++)
            if (touched >> z & 1 && sure >> (z + 1) & 1)
                assert_true(touched >> (z + 1) & 1);
        known += sure & 1;
        unknown += !(sure >> 2 & 1); /* 10 s of 12 */
    }
    assert_true(known > d.rows / 2 && unknown > d.rows / 2);
    fc_dataset_dispose(&d);
}

/* Would break: a long trace takes all memory, or loses whole regions' order. */
static void long_traces_are_thinned(void **state)
{
    (void)state;
    struct fc_dataset all, some;
    load(&all, 1000000);
    load(&some, all.rows / 3);
    assert_true(some.rows <= all.rows / 3 && some.rows > 0);
    for (uint32_t r = 0; r < some.regions; r++) {
        uint64_t region = some.region[some.order[some.start[r]]];
        uint32_t whole = 0;
        for (uint32_t i = 0; i < all.rows; i++)
            whole += all.region[i] == region;
        assert_int_equal(some.start[r + 1] - some.start[r], whole);
    }
    fc_dataset_dispose(&all);
    fc_dataset_dispose(&some);
}

/* Would break: a window that runs into the next region, or warms up where the
 * region began. */
static void windows_are_one_regions(void **state)
{
    (void)state;
    static float x[STEPS * COLUMNS * FC_FEATURE_STRIDE];
    static float now[STEPS * COLUMNS * FC_FEATURE_STRIDE];
    static float label[STEPS * COLUMNS * FC_GRU_OUTPUTS];
    static float weight[STEPS * COLUMNS * FC_GRU_OUTPUTS];
    struct fc_dataset d;

    load(&d, 1000000);
    for (uint64_t row = 0; row < d.rows; row += 7) {
        uint64_t pick[2] = { row, row / 3 };
        uint32_t r = 0;
        while (d.start[r + 1] <= row)
            r++;
        uint32_t length = d.start[r + 1] - d.start[r];
        uint32_t skip =
            length > STEPS ? (uint32_t)(pick[1] % (length - STEPS + 1)) : 0;
        fc_dataset_window(&d, pick, STEPS, 2, 1, COLUMNS, x, now, label,
                          weight);
        for (uint32_t step = 0; step < STEPS; step++) {
            size_t cell = (size_t)step * COLUMNS + 1;
            const float *at = x + cell * FC_FEATURE_STRIDE;
            float known = weight[cell * FC_GRU_OUTPUTS];
            if (step >= length) {
                assert_true(known == 0 && at[0] == 0);
                continue;
            }
            uint32_t from = d.order[d.start[r] + skip + step];
            assert_memory_equal(at, d.x + (size_t)from * d.inputs,
                                d.inputs * sizeof(float));
            assert_memory_equal(now + cell * FC_FEATURE_STRIDE,
                                d.now + (size_t)from * d.inputs,
                                d.inputs * sizeof(float));
            bool counts = skip == 0 || step >= 2;
            assert_true(known == (counts ? (d.label[from] >> 4 & 1) : 0));
            assert_true(label[cell * FC_GRU_OUTPUTS] == (d.label[from] & 1));
        }
    }
    fc_dataset_dispose(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up_guests_are_the_same_again),
        cmocka_unit_test(rows_are_ordered),
        cmocka_unit_test(long_traces_are_thinned),
        cmocka_unit_test(windows_are_one_regions),
    };
    return cmocka_run_group_tests_name("dataset", tests, make_trace,
                                       drop_trace);
}
