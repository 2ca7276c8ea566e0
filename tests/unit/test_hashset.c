/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "golden.h"
#include "hashset.h"
#include "io.h"
#include "wire.h"

static struct fc_hash nth(uint64_t i)
{
    return (struct fc_hash){ i * 0x9e3779b97f4a7c15ull + 1, i };
}

/* Would break: the sender references a page that the destination does not
 * hold, or sends one that it does. */
static void holds_what_was_added(void **state)
{
    (void)state;
    struct fc_hashset set, view;
    assert_int_equal(fc_hashset_new(&set, 5000), 0);
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(fc_hashset_add(&set, nth(i)), 0);
    assert_int_equal(fc_hashset_add(&set, nth(17)), 0);
    assert_int_equal(set.held, 5000);
    assert_int_equal(fc_hashset_map(&view, set.fd), 0);
    for (uint64_t i = 0; i < 10000; i++)
        assert_int_equal(fc_hashset_has(&view, nth(i)), i < 5000);
    assert_false(fc_hashset_has(&view, (struct fc_hash){ 0, 0 }));
    fc_hashset_dispose(&view);
    fc_hashset_dispose(&set);
}

/* Would break: colliding hashes at the end of the table are lost or loop. */
static void wraps_around(void **state)
{
    (void)state;
    struct fc_hashset set;
    assert_int_equal(fc_hashset_new(&set, 8), 0);
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(
            fc_hashset_add(&set, (struct fc_hash){ 15, i + 1 }), 0);
    assert_int_equal(fc_hashset_add(&set, (struct fc_hash){ 15, 99 }),
                     FC_EFULL);
    for (uint64_t i = 0; i < 9; i++)
        assert_int_equal(
            fc_hashset_has(&set, (struct fc_hash){ 15, i + 1 }), i < 8);
    fc_hashset_dispose(&set);
}

/* Would break: a file that lies about itself crashes or hangs the helper. */
static void bad_files_are_refused(void **state)
{
    (void)state;
    uint8_t good[32 + 16 * 16] = "FCHASHES";
    fc_le_store(good + 8, 1, 4);
    fc_le_store(good + 12, 4, 4);
    struct {
        size_t at, len;
        uint64_t value;
    } damage[] = {
        { 0, 1, 'X' }, { 8, 4, 2 },  { 12, 4, 5 },       { 12, 4, 60 },
        { 16, 8, 9 },  { 16, 8, 1 }, { 24, 8, 1 },       { 40, 8, 7 },
        { 16, 8, ~0ull },
    };
    struct fc_hashset set;
    for (unsigned i = 0; i <= sizeof(damage) / sizeof(damage[0]); i++) {
        uint8_t raw[sizeof(good)];
        memcpy(raw, good, sizeof(raw));
        if (i > 0)
            fc_le_store(raw + damage[i - 1].at, damage[i - 1].value,
                        (unsigned)damage[i - 1].len);
        int fd = fc_memfd_new("test", sizeof(raw));
        assert_int_equal(pwrite(fd, raw, sizeof(raw), 0), sizeof(raw));
        assert_int_equal(fc_hashset_map(&set, fd), i ? FC_EFORMAT : 0);
        fc_hashset_dispose(&set);
        close(fd);
    }
    int fd = fc_memfd_new("test", 8);
    assert_int_equal(fc_hashset_map(&set, fd), FC_EFORMAT);
    close(fd);
}

/* Would break: the layout changes without its document and version. */
static void golden_file(void **state)
{
    (void)state;
    struct fc_hashset set;
    assert_int_equal(fc_hashset_new(&set, 3), 0);
    for (uint64_t i = 1; i < 4; i++)
        assert_int_equal(fc_hashset_add(&set, nth(i)), 0);
    assert_golden("hash-set", set.map, set.map_bytes);
    fc_hashset_dispose(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_what_was_added),
        cmocka_unit_test(wraps_around),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(golden_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
