/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "volume.h"

#define SIZE (1u << 20)

static char path[64];

static struct fc_volume *make(void)
{
    struct fc_volume *v;

    snprintf(path, sizeof(path), "/tmp/fc-volume-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    close(fd);
    assert_int_equal(fc_volume_open(path, 0, &v), 0);
    assert_int_equal(v->size_bytes, SIZE);
    assert_false(v->is_device);
    return v;
}

/* Would break: zeroing or trimming touches a byte beside its range. */
static void only_the_range_is_touched(void **state)
{
    (void)state;
    struct fc_volume *v = make();
    uint8_t *want = malloc(SIZE), *got = malloc(SIZE);
    assert_true(want && got);
    memset(want, 0x5c, SIZE);
    assert_int_equal(fc_volume_write(v, want, SIZE, 0), 0);
    const struct {
        uint32_t offset, len;
    } ranges[] = { { 0, 1 },       { 511, 2 },       { 700, 100 },
                   { 1024, 512 },  { 5000, 200000 }, { 300001, 65537 },
                   { SIZE - 3, 3 } };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        assert_int_equal(
            fc_volume_zero(v, ranges[i].offset, ranges[i].len, i & 1), 0);
        memset(want + ranges[i].offset, 0, ranges[i].len);
        assert_int_equal(fc_volume_read(v, got, SIZE, 0), 0);
        assert_memory_equal(got, want, SIZE);
    }
    assert_int_equal(fc_volume_trim(v, 600001, 10000), 0);
    assert_int_equal(fc_volume_read(v, got, SIZE, 0), 0);
    assert_memory_equal(got, want, 600001);
    assert_memory_equal(got + 610001, want + 610001, SIZE - 610001);
    assert_int_equal(fc_volume_sync(v), 0);
    assert_int_equal(fc_volume_read(v, got, 2, SIZE - 1), FC_EIO);
    fc_volume_close(v);
    unlink(path);
    free(want);
    free(got);
}

/* Would break: a sparse image arrives as a full one, or data passes for a
 * hole. */
static void holes_are_kept_and_found(void **state)
{
    (void)state;
    struct fc_volume *v = make();
    uint8_t data[65536];
    uint64_t from, to;
    memset(data, 1, sizeof(data));
    assert_int_equal(fc_volume_write(v, data, sizeof(data), 262144), 0);
    assert_int_equal(fc_volume_data(v, 0, SIZE, &from, &to), 0);
    assert_true(from <= 262144 && to >= 262144 + 65536);
    if (from > 0) { /* a file system that knows its holes */
        assert_int_equal(fc_volume_data(v, to, SIZE, &from, &to), 0);
        assert_true(from == SIZE && to == SIZE);
        assert_int_equal(fc_volume_zero(v, 262144, 65536, true), 0);
        assert_int_equal(fc_volume_data(v, 0, SIZE, &from, &to), 0);
        assert_int_equal(from, SIZE);
    }
    fc_volume_close(v);
    unlink(path);
}

/* Would break: a wrong path is written to, or waited for. */
static void other_things_are_refused(void **state)
{
    (void)state;
    struct fc_volume *v;
    assert_int_equal(fc_volume_open("/tmp", FC_VOLUME_READ_ONLY, &v),
                     FC_EINVAL);
    assert_int_equal(fc_volume_open("/dev/null", 0, &v), FC_EINVAL);
    assert_int_equal(fc_volume_open("/nowhere/at/all", 0, &v), FC_ESYS);
    snprintf(path, sizeof(path), "/tmp/fc-fifo-%d", (int)getpid());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(fc_volume_open(path, 0, &v), FC_EINVAL);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_range_is_touched),
        cmocka_unit_test(holes_are_kept_and_found),
        cmocka_unit_test(other_things_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
