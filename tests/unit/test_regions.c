/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "regions.h"

/* A region found under a wrong number would be scored for another's writes. */
static void every_region_is_found_again(void **state)
{
    (void)state;
    struct fc_regions rs;
    uint32_t slot, made = 0;
    assert_int_equal(fc_regions_init(&rs, 1u << 20, 4, 1u << 20, false), 0);
    for (uint32_t number = 0; number < rs.numbers; number += 37, made++) {
        assert_int_equal(fc_regions_make(&rs, number, 5, 4, &slot), 0);
        assert_int_equal(slot, made);
        rs.all[slot].touches = number + 1;
    }
    assert_int_equal(rs.n, made);
    for (uint32_t number = 0; number < rs.numbers; number++) {
        slot = fc_regions_find(&rs, number);
        assert_int_equal(slot == FC_REGION_NONE, number % 37 != 0);
        if (slot != FC_REGION_NONE) {
            assert_int_equal(rs.all[slot].number, number);
            assert_int_equal(rs.all[slot].touches, number + 1);
            assert_int_equal(rs.last[slot], 4);
        }
    }
    assert_int_equal(fc_regions_find(&rs, rs.numbers), FC_REGION_NONE);
    assert_int_equal(fc_regions_find(&rs, UINT32_MAX), FC_REGION_NONE);
    fc_regions_dispose(&rs);
}

/* The one that takes a dropped one's place must be found at it; blocks that
 * are empty must be used again. */
static void dropping_keeps_the_others(void **state)
{
    (void)state;
    struct fc_regions rs;
    uint32_t slot, left = 400;
    assert_int_equal(fc_regions_init(&rs, 10000, 0, 10000, true), 0);
    for (uint32_t i = 0; i < 400; i++) {
        assert_int_equal(fc_regions_make(&rs, i * 25, 1, 1, &slot), 0);
        rs.week[slot].bits[0] = i;
    }
    uint32_t blocks = rs.nblocks;
    for (uint32_t i = 0; i < 400; i += 2, left--)
        fc_regions_drop(&rs, fc_regions_find(&rs, i * 25));
    assert_int_equal(rs.n, left);
    for (uint32_t i = 0; i < 400; i++) {
        slot = fc_regions_find(&rs, i * 25);
        assert_int_equal(slot == FC_REGION_NONE, i % 2 == 0);
        if (i % 2) {
            assert_int_equal(rs.all[slot].number, i * 25);
            assert_int_equal(rs.week[slot].bits[0], i);
        }
    }
    while (rs.n)
        fc_regions_drop(&rs, rs.n / 2);
    for (uint32_t i = 0; i < 400; i++)
        assert_int_equal(fc_regions_make(&rs, i * 25, 1, 1, &slot), 0);
    assert_int_equal(rs.nblocks, blocks);
    fc_regions_dispose(&rs);
}

/* A guest that touches all of a huge memory must not take all of dom0's. */
static void bounds_are_kept(void **state)
{
    (void)state;
    struct fc_regions rs;
    uint32_t slot;
    assert_int_equal(fc_regions_init(&rs, 0, 4, 10, false), FC_EINVAL);
    assert_int_equal(fc_regions_init(&rs, 1ull << 60, 4, 10, false), FC_EINVAL);
    /* 100 pages: the last region has 4 */
    assert_int_equal(fc_regions_init(&rs, 100, 4, 5, false), 0);
    assert_int_equal(rs.numbers, 7);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(fc_regions_make(&rs, i, 1, 1, &slot), 0);
    assert_int_equal(fc_regions_make(&rs, 5, 1, 1, &slot), FC_ELIMIT);
    assert_int_equal(rs.cut, 1);
    assert_int_equal(fc_regions_make(&rs, 4, 1, 1, &slot), 0);
    fc_regions_drop(&rs, 0);
    assert_int_equal(fc_regions_make(&rs, 7, 1, 1, &slot), FC_EINVAL);
    assert_int_equal(fc_regions_make(&rs, 5, 1, 1, &slot), 0);
    fc_regions_dispose(&rs);
}

/* 2 MiB that nobody touches must cost next to nothing. */
static void idle_memory_is_cheap(void **state)
{
    (void)state;
    struct fc_regions rs;
    uint32_t slot;
    uint64_t pages = 1ull << 28; /* 1 TiB */
    assert_int_equal(fc_regions_init(&rs, pages, 4, 1u << 24, false), 0);
    assert_true(fc_regions_bytes(&rs) < pages / 64);
    for (uint32_t i = 0; i < 100000; i++)
        assert_int_equal(fc_regions_make(&rs, i, 1, 1, &slot), 0);
    assert_true(fc_regions_bytes(&rs) < pages / 64 + 100000u * 16u * 12u);
    fc_regions_dispose(&rs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_region_is_found_again),
        cmocka_unit_test(dropping_keeps_the_others),
        cmocka_unit_test(bounds_are_kept),
        cmocka_unit_test(idle_memory_is_cheap),
    };
    return cmocka_run_group_tests_name("regions", tests, NULL, NULL);
}
