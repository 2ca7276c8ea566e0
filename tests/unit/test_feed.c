/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "channel_kit.h"

static void *keep_writing(void *kit)
{
    struct kit *k = kit;
    while (!kit_guest(k))
        usleep(200);
    return NULL;
}

/* Would break: a disk at the destination that is not the one at the source,
 * because a write fell between copying and fence. */
static void copy_under_writes_is_exact(void **state)
{
    struct kit *k = *state;
    struct fc_source_status st;
    pthread_t guest;
    kit_writes(k, 50);
    assert_int_equal(pthread_create(&guest, NULL, keep_writing, k), 0);
    kit_start(k);
    kit_await(k->seen[0][FC_FRAME_DATA] > 100);
    uint64_t epoch = kit_epoch(k);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_migration, epoch, true, KIT_PATIENCE_MS), 0);
    kit_await((fc_source_status(k->source, &st), st.held == 1));
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    fc_source_cancel(k->source); /* the write that was held is the next one's */
    pthread_join(guest, NULL);
    kit_compare(k);
    kit_await(kit_complete(k));
    assert_int_equal(k->seen[1][FC_FRAME_WANT], 0);
    kit_halt(k);
    kit_compare_volume(k);
}

/* Would break: what a cut of the channel swallowed is never sent again. */
static void cuts_at_every_frame_lose_nothing(void **state)
{
    struct kit *k = *state;
    kit_writes(k, 200);
    kit_start(k);
    for (unsigned n = 1; n <= 40; n++) {
        unsigned before = k->cuts;
        kit_recut(k, (struct kit_cut){ .way = n % 2,
                                       .count = (n + 1) / 2,
                                       .after = n % 3 == 0 });
        kit_writes(k, 10);
        /* the one before was cut by us, this one by its own count, unless
         * there was not as much to say */
        kit_await(k->cuts > before + 1 || kit_drained(k));
    }
    kit_writes(k, 10);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k), true,
                                   KIT_PATIENCE_MS),
                     0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    kit_compare(k);
    kit_await(kit_complete(k));
    kit_halt(k);
    kit_compare_volume(k);
}

/* Would break: the blocks that the guest will want first come last. */
static void order_is_kept_and_holes_cost_nothing(void **state)
{
    struct kit *k = *state;
    uint8_t block[KIT_BLOCK];
    static const uint32_t order[] = { 90, 17, 100000, 18, 3, 90, 140 };
    static const uint32_t comes[] = { 90, 17, 18, 3, 140 };
    memset(block, 0xa5, sizeof(block));
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(fc_source_write(k->source, comes[i] * KIT_BLOCK, block,
                                         KIT_BLOCK, false),
                         0);
        memcpy(k->model + comes[i] * KIT_BLOCK, block, KIT_BLOCK);
    }
    assert_int_equal(fc_feed_order(k->feed, order, 7), 0);
    kit_start(k);
    kit_await(kit_drained(k));
    assert_true(k->noffsets > 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(k->offsets[i], comes[i] * KIT_BLOCK);
    /* five blocks of one byte, and runs of zeros */
    assert_true(k->data_wire < 2 * KIT_BLOCK);
    struct fc_feed_status s;
    fc_feed_status(k->feed, &s);
    assert_int_equal(s.data_bytes, KIT_SIZE);
    assert_int_equal(s.zero_bytes, KIT_SIZE - 5 * KIT_BLOCK);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_migration, 1, true, KIT_PATIENCE_MS), 0);
    kit_compare(k);
}

/* Would break: with the disk flipped before all was copied, the guest reads
 * what is not there; or the rest never comes. */
static void lazy_flip_serves_what_is_missing(void **state)
{
    struct kit *k = *state;
    struct fc_sink_status st;
    kit_fill(k);
    fc_feed_rate(k->feed, 1); /* what fits in a burst, then nothing */
    kit_start(k);
    kit_await(k->seen[1][FC_FRAME_HELD] > 0);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k), false,
                                   KIT_PATIENCE_MS),
                     0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    assert_true(fc_source_remaining(k->source) > 0);
    kit_compare(k);
    fc_sink_status(k->sink, &st);
    assert_true(st.wants > 0);
    assert_int_equal(st.waiting, 0);
    fc_feed_rate(k->feed, 0);
    kit_await(kit_complete(k));
    kit_halt(k);
    kit_compare(k); /* with no channel at all */
    kit_compare_volume(k);
}

struct read {
    struct kit *k;
    _Atomic int rc; /* 1: not done */
    uint8_t buf[KIT_BLOCK];
};

static void *read_last(void *arg)
{
    struct read *r = arg;
    r->rc =
        fc_shadow_read(r->k->shadow, KIT_SIZE - KIT_BLOCK, r->buf, KIT_BLOCK);
    return NULL;
}

/* Would break: a link that is down for a minute gives the guest an I/O error;
 * or a source engine that was started anew does not serve what is missing. */
static void reads_outlive_the_source_engine(void **state)
{
    struct kit *k = *state;
    struct fc_shadow_status st;
    struct read r = { .k = k, .rc = 1 };
    pthread_t t;
    kit_fill(k);
    fc_feed_rate(k->feed, 1);
    kit_start(k);
    kit_await(k->seen[1][FC_FRAME_HELD] > 0);
    uint64_t epoch = kit_epoch(k);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_migration, epoch, false, KIT_PATIENCE_MS),
        0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    kit_halt(k);
    kit_close_source(k);
    assert_int_equal(pthread_create(&t, NULL, read_last, &r), 0);
    kit_await((fc_shadow_status(k->shadow, &st), st.held > 0 || r.rc != 1));
    assert_int_equal(r.rc, 1);

    kit_open_source(k);
    assert_int_equal(fc_feed_freeze(k->feed, kit_migration, epoch), 0);
    assert_int_equal(fc_feed_freeze(k->feed, kit_migration, epoch), 0);
    kit_start(k);
    pthread_join(t, NULL);
    assert_int_equal(r.rc, 0);
    assert_memory_equal(r.buf, k->model + KIT_SIZE - KIT_BLOCK, KIT_BLOCK);
    kit_await(kit_complete(k));
    kit_compare(k);
    /* held to the end: a write now would be lost */
    struct fc_source_status ss;
    fc_source_status(k->source, &ss);
    assert_true(ss.holding);
}

/* Would break: a shadow engine that was killed while it was being filled is
 * taken for one that has what was sent to it. */
static void a_shadow_that_forgot_is_filled_again(void **state)
{
    struct kit *k = *state;
    kit_writes(k, 300);
    kit_start(k);
    kit_await(kit_drained(k));
    kit_halt(k);
    kit_close_shadow(k);
    char path[128];
    snprintf(path, sizeof(path), "%s/map", k->dir);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/shadow", k->dir);
    assert_int_equal(unlink(path), 0);
    kit_open_shadow(k);
    kit_start(k);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k), true,
                                   KIT_PATIENCE_MS),
                     0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    kit_halt(k);
    kit_compare(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(copy_under_writes_is_exact, kit_setup,
                                        kit_teardown),
        cmocka_unit_test_setup_teardown(cuts_at_every_frame_lose_nothing,
                                        kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(order_is_kept_and_holes_cost_nothing,
                                        kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(lazy_flip_serves_what_is_missing,
                                        kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(reads_outlive_the_source_engine,
                                        kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(a_shadow_that_forgot_is_filled_again,
                                        kit_setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
