/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "eval_cache.h"

#define EXTENTS 100u /* the caches hold ten */

static struct fc_eval_cache *filled(uint64_t *address)
{
    struct fc_eval_cache *c;
    assert_int_equal(fc_eval_cache_new(10, &c), 0);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        address[i] = 1000 + i;
        assert_int_equal(fc_eval_cache_access(c, i, false), 0);
    }
    return c;
}

static void expect(const struct fc_eval_cache *c, double lru, double lfu,
                   double predicted)
{
    assert_float_equal(fc_eval_cache_hits(c, FC_EVAL_LRU), lru, 1e-9);
    assert_float_equal(fc_eval_cache_hits(c, FC_EVAL_LFU), lfu, 1e-9);
    assert_float_equal(fc_eval_cache_hits(c, FC_EVAL_PREDICTED), predicted,
                       1e-9);
}

/* Would break: a policy keeps something else than what it says. Extents 90 to
 * 99 were used last; 5 was used most; 7 is the likeliest. */
static void each_keeps_its_own(void **state)
{
    (void)state;
    uint64_t address[EXTENTS];
    float p[EXTENTS] = { 0 };
    struct fc_eval_cache *c = filled(address);
    for (unsigned k = 0; k < 5; k++)
        assert_int_equal(fc_eval_cache_access(c, 5, false), 0);
    p[7] = 0.9f;
    assert_int_equal(fc_eval_cache_tick(c, EXTENTS, p, address), 0);
    for (uint32_t i = 20; i < 29; i++) /* nine new ones */
        assert_int_equal(fc_eval_cache_access(c, i, false), 0);
    assert_int_equal(fc_eval_cache_access(c, 30, false), 0);
    assert_int_equal(fc_eval_cache_access(c, 31, false), 0);
    assert_int_equal(fc_eval_cache_access(c, 5, true), 0);
    assert_int_equal(fc_eval_cache_access(c, 7, true), 0);
    expect(c, 0, 0.5, 0.5);
    assert_int_equal(fc_eval_cache_access(c, 31, true), 0);
    assert_int_equal(fc_eval_cache_access(c, 31, true), 0);
    assert_float_equal(fc_eval_cache_hits(c, FC_EVAL_LRU), 0.5, 1e-9);
    fc_eval_cache_free(c);
}

/* Would break: the sequential one is not what prediction is compared with: it
 * fetches one extent a tick in order of address, from where it was. */
static void sequential_goes_by_address(void **state)
{
    (void)state;
    uint64_t address[EXTENTS];
    float p[EXTENTS];
    struct fc_eval_cache *c = filled(address);
    for (uint32_t i = 0; i < EXTENTS; i++)
        p[i] = 0.01f; /* none is worth fetching */
    for (unsigned k = 0; k < 9; k++)
        assert_int_equal(fc_eval_cache_tick(c, EXTENTS, p, address), 0);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(fc_eval_cache_access(c, i, true), 0);
    assert_float_equal(fc_eval_cache_hits(c, FC_EVAL_SEQUENTIAL), 1, 1e-9);
    expect(c, 0, 0, 0);
    fc_eval_cache_free(c);
}

/* Ten turns over `n` extents from `from` on, one a tick; `p` as given. */
static void turns(struct fc_eval_cache *c, const uint64_t *address, float *p,
                  uint32_t from, uint32_t n, bool count)
{
    for (uint32_t i = 0; i < 10 * n; i++) {
        assert_int_equal(fc_eval_cache_access(c, from + i % n, count), 0);
        assert_int_equal(fc_eval_cache_tick(c, EXTENTS, p, address), 0);
    }
}

/* Would break: the guarded one stays with chances that mislead, or leaves those
 * that are right. */
static void guard_follows_the_better(void **state)
{
    (void)state;
    uint64_t address[EXTENTS];
    float p[EXTENTS] = { 0 };
    struct fc_eval_cache *c = filled(address);
    for (uint32_t i = 60; i < 70; i++)
        p[i] = 0.9f; /* never asked for */
    turns(c, address, p, 20, 5, false);
    turns(c, address, p, 20, 5, true);
    double lru = fc_eval_cache_hits(c, FC_EVAL_LRU);
    double guarded = fc_eval_cache_hits(c, FC_EVAL_GUARDED);
    assert_float_equal(lru, 1, 1e-9);
    assert_true(fc_eval_cache_hits(c, FC_EVAL_PREDICTED) < 0.9);
    assert_true(guarded > 0.95);
    fc_eval_cache_free(c);

    c = filled(address);
    for (uint32_t i = 0; i < EXTENTS; i++)
        p[i] = i >= 20 && i < 29 ? 0.9f : 0;
    turns(c, address, p, 20, 20, false);
    turns(c, address, p, 20, 20, true);
    assert_float_equal(fc_eval_cache_hits(c, FC_EVAL_LRU), 0, 1e-9);
    assert_true(fc_eval_cache_hits(c, FC_EVAL_GUARDED) > 0.3);
    fc_eval_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_keeps_its_own),
        cmocka_unit_test(sequential_goes_by_address),
        cmocka_unit_test(guard_follows_the_better),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
