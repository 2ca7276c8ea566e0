/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A forecast would be made for another host's link, or records of damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "linkrate.h"

static void test_each_host_its_own(void **state)
{
    struct fc_linkrate l = { 0 };
    (void)state;
    assert_true(fc_linkrate_of(&l, "b") == 0);
    fc_linkrate_learn(&l, "b", 2e6);
    fc_linkrate_learn(&l, "root@c", 100e6);
    assert_true(fc_linkrate_of(&l, "admin@b") == 2e6);
    assert_true(fc_linkrate_of(&l, "c") == 100e6);
    fc_linkrate_learn(&l, "b", 4e6);
    assert_true(fc_linkrate_of(&l, "b") == 3e6);
    assert_int_equal(l.count, 2);
}

static void test_nonsense_is_left_out(void **state)
{
    struct fc_linkrate l = { 0 };
    char name[FC_LINKRATE_NAME + 1];
    (void)state;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    fc_linkrate_learn(&l, name, 1e6);
    fc_linkrate_learn(&l, "", 1e6);
    fc_linkrate_learn(&l, "b", 0);
    fc_linkrate_learn(&l, "b", -5);
    fc_linkrate_learn(&l, "b", 1e300);
    assert_int_equal(l.count, 0);
}

static void test_the_one_unused_longest_goes(void **state)
{
    struct fc_linkrate l = { 0 };
    char name[8];
    (void)state;
    for (unsigned i = 0; i < FC_LINKRATE_HOSTS; i++) {
        snprintf(name, sizeof(name), "h%u", i);
        fc_linkrate_learn(&l, name, 1e6 + i);
    }
    fc_linkrate_learn(&l, "h0", 1e6);
    fc_linkrate_learn(&l, "new", 7e6);
    assert_int_equal(l.count, FC_LINKRATE_HOSTS);
    assert_true(fc_linkrate_of(&l, "h0") == 1e6);
    assert_true(fc_linkrate_of(&l, "h1") == 0);
    assert_true(fc_linkrate_of(&l, "h2") == 1e6 + 2);
    assert_true(fc_linkrate_of(&l, "new") == 7e6);
}

static void test_bytes(void **state)
{
    struct fc_linkrate l = { 0 }, m;
    uint8_t bytes[FC_LINKRATE_BYTES];
    (void)state;
    fc_linkrate_learn(&l, "one", 1e6);
    fc_linkrate_learn(&l, "two", 2e6);
    ssize_t n = fc_linkrate_encode(&l, bytes, sizeof(bytes));
    assert_int_equal(n, 8 + 2 * (10 + 3));
    assert_int_equal(fc_linkrate_decode(bytes, (size_t)n, &m), 0);
    assert_memory_equal(&l, &m, sizeof(l));
    assert_int_equal(fc_linkrate_encode(&l, bytes, 30), FC_ETOOBIG);
    for (size_t cut = 0; cut < (size_t)n; cut++) {
        assert_int_equal(fc_linkrate_decode(bytes, cut, &m), FC_EFORMAT);
        assert_int_equal(m.count, 0);
    }
    n = fc_linkrate_encode(&l, bytes, sizeof(bytes));
    bytes[4] = FC_LINKRATE_HOSTS + 1;
    assert_int_equal(fc_linkrate_decode(bytes, (size_t)n, &m), FC_EFORMAT);
    bytes[4] = 2;
    bytes[0]++;
    assert_int_equal(fc_linkrate_decode(bytes, (size_t)n, &m), FC_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_host_its_own),
        cmocka_unit_test(test_nonsense_is_left_out),
        cmocka_unit_test(test_the_one_unused_longest_goes),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
