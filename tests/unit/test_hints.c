/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest's announcement would be missed, or a hostile one would do more than
 * change the guest's own scores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "hints.h"

static struct fc_hints h;
static char why[120];

static int set(const char *name, const char *value, uint64_t now_ms)
{
    why[0] = '\0';
    int rc = fc_hints_set(&h, name, value, now_ms, why, sizeof(why));
    assert_true(rc == 0 || *why);
    return rc;
}

static float feature(enum fc_hint_kind kind, uint64_t now_ms)
{
    float f[FC_HINT_KINDS];
    fc_hints_features(&h, now_ms, f);
    return f[kind];
}

static void test_an_event_comes_and_goes(void **state)
{
    (void)state;
    fc_hints_init(&h);
    assert_float_equal(feature(FC_HINT_BACKUP, 1000), 0, 0);
    assert_int_equal(set("backup-home", "30 20", 1000), 0);
    float far = feature(FC_HINT_BACKUP, 1000);
    float nearer = feature(FC_HINT_BACKUP, 26000);
    assert_true(far > 0 && far < nearer && nearer < 1);
    assert_float_equal(far, 0.25f, 1e-4);
    assert_float_equal(feature(FC_HINT_BACKUP, 31000), 1, 0);
    assert_float_equal(feature(FC_HINT_BACKUP, 50999), 1, 0);
    assert_float_equal(feature(FC_HINT_BACKUP, 51000), 0, 0);
    assert_float_equal(feature(FC_HINT_BATCH, 31000), 0, 0);
}

static void test_kinds(void **state)
{
    (void)state;
    fc_hints_init(&h);
    set("checkpoint", "0", 0);
    set("batch_1", "0 5 3", 0);
    set("reindex", "0", 0);
    assert_float_equal(feature(FC_HINT_CHECKPOINT, 0), 1, 0);
    assert_float_equal(feature(FC_HINT_BATCH, 0), 1, 0);
    assert_float_equal(feature(FC_HINT_BATCH, 5000), 0, 0);
    assert_float_equal(feature(FC_HINT_OTHER, 0), 1, 0);
    assert_float_equal(feature(FC_HINT_BACKUP, 0), 0, 0);
}

static void test_the_same_value_is_the_same_event(void **state)
{
    (void)state;
    fc_hints_init(&h);
    set("backup", "10 5", 0);
    set("backup", "10 5", 9000);
    assert_float_equal(feature(FC_HINT_BACKUP, 10000), 1, 0);
    set("backup", "10 5", 20000);
    assert_float_equal(feature(FC_HINT_BACKUP, 20000), 0, 0);
    set("backup", "10 5 1", 20000);
    assert_float_equal(feature(FC_HINT_BACKUP, 30000), 1, 0);
}

static void test_a_removed_key_ends_it(void **state)
{
    (void)state;
    fc_hints_init(&h);
    set("backup", "0", 0);
    set("batch", "0", 0);
    fc_hints_begin(&h);
    set("batch", "0", 1000);
    fc_hints_end(&h);
    assert_int_equal(h.count, 1);
    assert_float_equal(feature(FC_HINT_BACKUP, 1000), 0, 0);
    assert_float_equal(feature(FC_HINT_BATCH, 1000), 1, 0);
    /* put again with the same value it is a new one */
    set("backup", "0", 100000);
    assert_float_equal(feature(FC_HINT_BACKUP, 100000), 1, 0);
}

static void test_hostile_hints(void **state)
{
    static const char *const values[] = {
        "",
        " ",
        "x",
        "-1",
        "+1",
        "1 ",
        " 1",
        "1  2",
        "1 0",
        "604801",
        "1 86401",
        "1 1 4294967296",
        "1 1 1 1",
        "1.5",
        "0x10",
        "1\n",
        "99999999999999999999999",
        "1 1 1111111111111111111111111111111111111",
    };
    static const char *const names[] = {
        "",
        "A",
        "a/b",
        "..",
        "a b",
        "\xff",
        "abcdefghijklmnopqrstuvwxyz0123456",
    };
    char name[16];
    (void)state;
    fc_hints_init(&h);
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        assert_int_equal(set("a", values[i], 0), FC_EFORMAT);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(set(names[i], "1", 0), FC_EFORMAT);
    assert_int_equal(h.count, 0);
    for (unsigned i = 0; i < FC_HINTS_MAX; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(set(name, "604800 86400 4294967295", 0), 0);
    }
    assert_int_equal(set("one-more", "1", 0), FC_ELIMIT);
    assert_int_equal(set("n3", "2", 0), 0);
    assert_true(feature(FC_HINT_OTHER, 0) <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event_comes_and_goes),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_the_same_value_is_the_same_event),
        cmocka_unit_test(test_a_removed_key_ends_it),
        cmocka_unit_test(test_hostile_hints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
