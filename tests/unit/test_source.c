/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "err.h"
#include "io.h"
#include "source.h"

#define BLOCK 4096u
#define BLOCKS 300u
#define SIZE (BLOCK * BLOCKS - 1536u) /* the last block is short */
#define PATIENCE_MS 60000

/* A volume in memory that can be made to stop in the middle of a write. */
static struct {
    uint8_t bytes[SIZE];
    _Atomic int gate, waiting; /* gate: writes wait while it is 1 */
    _Atomic int syncs, fail;
} mem;

static int mem_read(void *user, void *buf, size_t len, uint64_t offset)
{
    (void)user;
    memcpy(buf, mem.bytes + offset, len);
    return 0;
}

static int mem_write(void *user, const void *buf, size_t len, uint64_t offset)
{
    (void)user;
    mem.waiting++;
    while (mem.gate)
        sched_yield();
    mem.waiting--;
    if (mem.fail) {
        errno = EIO;
        return FC_EIO;
    }
    memcpy(mem.bytes + offset, buf, len);
    return 0;
}

static int mem_zero(void *user, uint64_t offset, uint64_t len, bool punch)
{
    (void)user;
    (void)punch;
    memset(mem.bytes + offset, 0, len);
    return 0;
}

static int mem_trim(void *user, uint64_t offset, uint64_t len)
{
    return mem_zero(user, offset, len, true);
}

static int mem_sync(void *user)
{
    (void)user;
    mem.syncs++;
    return 0;
}

static void mem_close(void *user)
{
    (void)user;
}

static const struct fc_volume_ops mem_ops = {
    .read = mem_read,
    .write = mem_write,
    .zero = mem_zero,
    .trim = mem_trim,
    .sync = mem_sync,
    .close = mem_close,
};

static struct fc_source *open_source(void)
{
    struct fc_volume *v;
    struct fc_source *s;
    memset(&mem, 0, sizeof(mem));
    assert_int_equal(fc_volume_new(&mem_ops, NULL, SIZE, &v), 0);
    assert_int_equal(fc_source_open(v, BLOCK, &s), 0);
    return s;
}

/* Until the condition holds; fails the test, saying which, when it never does.
 */
#define await(condition)                                                       \
    do {                                                                       \
        uint64_t end = fc_now_ms() + PATIENCE_MS;                              \
        while (!(condition)) {                                                 \
            if (fc_now_ms() > end)                                             \
                fail_msg("waited in vain for " #condition);                    \
            sched_yield();                                                     \
        }                                                                      \
    } while (0)

/* Would break: blocks that changed are not sent, or all are sent always. */
static void every_change_marks_its_blocks(void **state)
{
    (void)state;
    static uint8_t buf[3 * BLOCK];
    struct fc_source *s = open_source();
    struct fc_blockset todo;
    assert_int_equal(fc_source_remaining(s), BLOCKS);
    fc_source_clear(s, 0, BLOCKS);
    assert_int_equal(fc_source_remaining(s), 0);
    assert_int_equal(fc_source_next(s, 0), BLOCKS);

    assert_int_equal(fc_source_write(s, BLOCK - 1, buf, 2, false), 0);
    assert_int_equal(fc_source_write(s, 63 * BLOCK, buf, 2 * BLOCK, true), 0);
    assert_int_equal(fc_source_zero(s, 127 * BLOCK + 512, BLOCK, true, false),
                     0);
    assert_int_equal(fc_source_trim(s, SIZE - 512, 512, false), 0);
    assert_int_equal(fc_source_read(s, 200 * BLOCK, buf, BLOCK), 0);
    static const uint32_t want[] = { 0, 1, 63, 64, 127, 128, BLOCKS - 1 };
    assert_int_equal(fc_source_remaining(s), 7);
    uint32_t at = 0;
    for (unsigned i = 0; i < 7; i++, at++) {
        at = fc_source_next(s, at);
        assert_int_equal(at, want[i]);
    }
    assert_int_equal(fc_blockset_init(&todo, BLOCKS, false), 0);
    fc_source_todo(s, &todo);
    assert_int_equal(todo.count, 7);
    assert_int_equal(mem.syncs, 1);
    assert_int_equal(fc_source_flush(s), 0);
    assert_int_equal(mem.syncs, 2);

    /* what the other host does not hold is marked; told so, only that is */
    fc_blockset_fill(&todo, true);
    fc_blockset_set_range(&todo, 64, 2, false);
    fc_source_mark_missing(s, &todo, false);
    assert_int_equal(fc_source_remaining(s), 8);
    fc_source_mark_missing(s, &todo, true);
    assert_int_equal(fc_source_remaining(s), 2);
    assert_int_equal(fc_source_next(s, 0), 64);
    fc_blockset_dispose(&todo);
    fc_source_close(s);
}

/* Would break: a guest reaches past its disk. */
static void ends_are_kept(void **state)
{
    (void)state;
    uint8_t buf[512];
    struct fc_source *s = open_source();
    assert_int_equal(fc_source_write(s, SIZE - 511, buf, 512, false),
                     FC_EINVAL);
    assert_int_equal(fc_source_read(s, UINT64_MAX - 10, buf, 512), FC_EINVAL);
    assert_int_equal(fc_source_zero(s, 512, UINT64_MAX - 511, true, false),
                     FC_EINVAL);
    fc_source_close(s);
}

struct write {
    struct fc_source *s;
    uint64_t offset;
    uint8_t byte;
    _Atomic int rc; /* 1: not done */
};

static void *write_one(void *arg)
{
    struct write *w = arg;
    w->rc = fc_source_write(w->s, w->offset, &w->byte, 1, false);
    return NULL;
}

/* Would break: a copier reads a block before the write under way got there, and
 * the write is lost. */
static void a_write_marks_before_and_after(void **state)
{
    (void)state;
    struct fc_source *s = open_source();
    struct write w = { s, 5 * BLOCK, 0x55, 1 };
    pthread_t t;
    fc_source_clear(s, 0, BLOCKS);
    mem.gate = 1;
    assert_int_equal(pthread_create(&t, NULL, write_one, &w), 0);
    await(mem.waiting);
    assert_true(fc_source_is_marked(s, 5)); /* before it is submitted */
    fc_source_clear(s, 5, 1);               /* the copier took it meanwhile */
    mem.gate = 0;
    pthread_join(t, NULL);
    assert_true(fc_source_is_marked(s, 5)); /* and when it has ended */

    /* a write that failed may have written */
    fc_source_clear(s, 5, 1);
    mem.fail = 1;
    assert_int_equal(fc_source_write(s, 5 * BLOCK, "x", 1, false), FC_EIO);
    assert_true(fc_source_is_marked(s, 5));
    fc_source_close(s);
}

/* Would break: a write reaches the source's disk after the fence, and is lost;
 * or the guest sees an error. */
static void hold_drains_and_delays(void **state)
{
    (void)state;
    struct fc_source *s = open_source();
    struct fc_source_status st;
    struct write under_way = { s, 0, 1, 1 }, later = { s, BLOCK, 2, 1 };
    pthread_t t, u;
    mem.gate = 1;
    assert_int_equal(pthread_create(&t, NULL, write_one, &under_way), 0);
    await(mem.waiting);
    assert_int_equal(fc_source_hold(s, 1), FC_ETIMEOUT);
    fc_source_status(s, &st);
    assert_false(st.holding); /* all as before */
    mem.gate = 0;
    assert_int_equal(fc_source_hold(s, PATIENCE_MS), 0);
    pthread_join(t, NULL);
    assert_int_equal(under_way.rc, 0);
    assert_int_equal(fc_source_hold(s, 0), 0); /* again: nothing to do */

    assert_int_equal(pthread_create(&u, NULL, write_one, &later), 0);
    await((fc_source_status(s, &st), st.held == 1));
    assert_int_equal(later.rc, 1);
    assert_int_equal(mem.bytes[BLOCK], 0);
    fc_source_release(s);
    pthread_join(u, NULL);
    assert_int_equal(later.rc, 0);
    assert_int_equal(mem.bytes[BLOCK], 2);

    /* the engine's end lets a held one go */
    assert_int_equal(fc_source_hold(s, 0), 0);
    later.rc = 1;
    assert_int_equal(pthread_create(&u, NULL, write_one, &later), 0);
    await((fc_source_status(s, &st), st.held == 1));
    fc_source_cancel(s);
    pthread_join(u, NULL);
    assert_int_equal(later.rc, FC_ECANCEL);
    fc_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_change_marks_its_blocks),
        cmocka_unit_test(ends_are_kept),
        cmocka_unit_test(a_write_marks_before_and_after),
        cmocka_unit_test(hold_drains_and_delays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
