/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is told of a disk's reads would not be what was counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "ctl.h"
#include "readstats.h"

/* Each time lies in its bucket, and buckets are a quarter wide at most. */
static void test_buckets(void **state)
{
    (void)state;
    assert_int_equal(fc_latency_bucket(0), 0);
    assert_int_equal(fc_latency_bucket(1023), 0);
    assert_int_equal(fc_latency_bucket(1024), 1);
    assert_int_equal(fc_latency_bucket(UINT64_MAX), FC_LATENCY_BUCKETS - 1);
    for (unsigned i = 0; i + 1 < FC_LATENCY_BUCKETS; i++) {
        uint64_t end = fc_latency_end_ns(i), next = fc_latency_end_ns(i + 1);
        assert_int_equal(fc_latency_bucket(end - 1), i);
        assert_int_equal(fc_latency_bucket(end), i + 1);
        assert_true(next > end && next <= end + end / 4);
    }
}

static void test_quantiles(void **state)
{
    struct fc_readstats s = { .reads = 0 };
    (void)state;
    assert_int_equal(fc_readstats_quantile_ns(&s, 0.5), 0);
    s.latency[3] = 98;
    s.latency[40] = 2;
    assert_int_equal(fc_readstats_quantile_ns(&s, 0), fc_latency_end_ns(3));
    assert_int_equal(fc_readstats_quantile_ns(&s, 0.5), fc_latency_end_ns(3));
    assert_int_equal(fc_readstats_quantile_ns(&s, 0.98), fc_latency_end_ns(3));
    assert_int_equal(fc_readstats_quantile_ns(&s, 0.99), fc_latency_end_ns(40));
    assert_int_equal(fc_readstats_quantile_ns(&s, 1), fc_latency_end_ns(40));
}

static void test_round_trips(void **state)
{
    uint8_t bytes[FC_READSTATS_BYTES];
    struct fc_readstats s, back, sum;
    uint64_t *number = (uint64_t *)(void *)&s;
    (void)state;
    for (unsigned i = 0; i < sizeof(s) / 8; i++)
        number[i] = i + 1;
    memset(&back, 0, sizeof(back));
    fc_readstats_encode(&s, bytes);
    fc_readstats_decode(bytes, &back);
    assert_memory_equal(&s, &back, sizeof(s));
    struct json_object *o = fc_readstats_json(&s);
    fc_readstats_of_json(o, &back);
    assert_memory_equal(&s, &back, sizeof(s));
    json_object_put(o);
    sum = s;
    fc_readstats_add(&sum, &s);
    assert_int_equal(sum.reads, 2 * s.reads);
    assert_int_equal(sum.hits[3], 2 * s.hits[3]);
    assert_int_equal(sum.latency[95], 2 * s.latency[95]);
}

/* An engine that says nonsense. */
static void test_strange_json(void **state)
{
    struct fc_readstats s;
    (void)state;
    struct json_object *o = json_tokener_parse(
        "{\"reads\":-4,\"misses\":\"x\",\"latency\":{\"a\":1}}");
    fc_readstats_of_json(o, &s);
    assert_int_equal(s.reads, 0);
    assert_int_equal(s.misses, 0);
    json_object_put(o);
    fc_readstats_of_json(NULL, &s);
    assert_int_equal(fc_readstats_hits(&s), 0);
    struct json_object *long_one = json_object_new_object();
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < 2 * FC_LATENCY_BUCKETS; i++)
        json_object_array_add(list, json_object_new_int(i ? 1 : -1));
    json_object_object_add(long_one, "latency", list);
    fc_readstats_of_json(long_one, &s);
    assert_int_equal(s.latency[0], 0);
    assert_int_equal(s.latency[95], 1);
    json_object_put(long_one);
}

static void test_shown(void **state)
{
    struct fc_readstats s = { .hits = { 1, 2, 3, 3 }, .misses = 3 };
    (void)state;
    struct json_object *o = json_object_new_object();
    s.latency[0] = 1;
    fc_readstats_show(&s, o);
    assert_float_equal(fc_json_double(o, "hit_percent", 0), 75, 0.001);
    assert_int_equal(fc_json_int(o, "hits_predictive", 0), 3);
    assert_int_equal(fc_json_int(o, "misses", 0), 3);
    assert_int_equal(fc_json_int(o, "read_p99_us", 0), 1);
    json_object_put(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),     cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_strange_json),
        cmocka_unit_test(test_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
