/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest's sectors would be torn or mixed up where a request is not aligned
 * as O_DIRECT wants it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../rng.h"
#include "direct.h"
#include "err.h"

#define BYTES 1048576u
#define SECTOR 512u

struct disk {
    struct fc_direct d;
    int fd;
    uint8_t *model;
};

static int open_disk(void **state)
{
    char path[] = "test-direct-XXXXXX";
    struct disk *k = calloc(1, sizeof(*k));
    k->fd = mkstemp(path);
    unlink(path);
    if (k->fd < 0 || ftruncate(k->fd, BYTES))
        return -1;
    /* a file system without O_DIRECT does the same work, unaligned or not */
    if (fcntl(k->fd, F_SETFL, O_DIRECT) && errno != EINVAL)
        return -1;
    k->model = calloc(1, BYTES);
    fc_direct_init(&k->d, k->fd, SECTOR, BYTES);
    *state = k;
    return 0;
}

static int close_disk(void **state)
{
    struct disk *k = *state;
    fc_direct_dispose(&k->d);
    close(k->fd);
    free(k->model);
    free(k);
    return 0;
}

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(test_rng() >> 32);
}

static void any_request_is_served(void **state)
{
    struct disk *k = *state;
    uint8_t *buf = malloc(BYTES + 64);
    for (unsigned i = 0; i < 600; i++) {
        uint64_t r = test_rng();
        size_t len = i % 50 == 0 ? 300000 + r % 200000 : 1 + r % 9000;
        uint64_t offset = test_rng() % (BYTES - len);
        uint8_t *at = buf + test_rng() % 64;
        if (i % 3 == 0) {
            len = (len + SECTOR - 1) & ~(size_t)(SECTOR - 1);
            offset &= ~(uint64_t)(SECTOR - 1);
            len = offset + len > BYTES ? BYTES - offset : len;
        }
        if (r >> 40 & 1) {
            fill(at, len);
            memcpy(k->model + offset, at, len);
            assert_int_equal(fc_direct_write(&k->d, at, len, offset), 0);
        } else {
            memset(at, 0xee, len);
            assert_int_equal(fc_direct_read(&k->d, at, len, offset), 0);
            assert_memory_equal(at, k->model + offset, len);
        }
    }
    assert_int_equal(fc_direct_read(&k->d, buf + 1, BYTES, 0), 0);
    assert_memory_equal(buf + 1, k->model, BYTES);
    free(buf);
}

static void the_end_is_the_end(void **state)
{
    struct disk *k = *state;
    uint8_t b[8] = { 0 };
    assert_int_equal(fc_direct_write(&k->d, b, 8, BYTES - 8), 0);
    assert_int_equal(fc_direct_read(&k->d, b, 8, BYTES - 8), 0);
    assert_int_equal(fc_direct_write(&k->d, b, 8, BYTES - 7), FC_EIO);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(fc_direct_read(&k->d, b, 8, BYTES - 7), FC_EIO);
    assert_int_equal(errno, EIO);
    assert_int_equal(fc_direct_read(&k->d, b, 8, UINT64_MAX - 3), FC_EIO);
    assert_int_equal(fc_direct_read(&k->d, b, 0, BYTES), 0);
}

struct writer {
    struct disk *k;
    unsigned nth;
    int rc;
};

/* Every fourth byte is this thread's. */
static void *write_bytes(void *user)
{
    struct writer *w = user;
    uint8_t byte = (uint8_t)(0x10 + w->nth);
    for (unsigned i = w->nth; i < 4 * SECTOR && !w->rc; i += 4)
        w->rc = fc_direct_write(&w->k->d, &byte, 1, i);
    return NULL;
}

static void neighbours_in_a_sector_both_stay(void **state)
{
    struct disk *k = *state;
    struct writer w[4];
    pthread_t t[4];
    uint8_t got[4 * SECTOR];
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct writer){ .k = k, .nth = i };
        assert_int_equal(pthread_create(&t[i], NULL, write_bytes, &w[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(w[i].rc, 0);
    }
    assert_int_equal(fc_direct_read(&k->d, got, sizeof(got), 0), 0);
    for (unsigned i = 0; i < sizeof(got); i++)
        assert_int_equal(got[i], 0x10 + i % 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_request_is_served, open_disk,
                                        close_disk),
        cmocka_unit_test_setup_teardown(the_end_is_the_end, open_disk,
                                        close_disk),
        cmocka_unit_test_setup_teardown(neighbours_in_a_sector_both_stay,
                                        open_disk, close_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
