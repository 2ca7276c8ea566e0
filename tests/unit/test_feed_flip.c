/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "channel_kit.h"

static enum fc_feed_state state_of(struct kit *k)
{
    struct fc_feed_status s;
    fc_feed_status(k->feed, &s);
    return s.state;
}

static enum fc_shadow_state shadow_state(struct kit *k)
{
    struct fc_shadow_status s;
    fc_shadow_status(k->shadow, &s);
    return s.state;
}

static bool up(struct kit *k)
{
    struct fc_feed_status s;
    fc_feed_status(k->feed, &s);
    return s.channel;
}

/* Would break: with a frame of the hand-over lost, or its answer, the disk has
 * no owner or two, or the blocks on their way then are never sent. */
static void lost_frames_are_asked_for_again(void **state)
{
    struct kit *k = *state;
    static const struct {
        int way;
        unsigned type;
    } frames[] = {
        { 0, FC_FRAME_MISSING },  { 0, FC_FRAME_FENCE }, { 1, FC_FRAME_FENCED },
        { 0, FC_FRAME_LEASE },    { 1, FC_FRAME_OWNED }, { 0, FC_FRAME_RETURN },
        { 1, FC_FRAME_RETURNED },
    };
    kit_writes(k, 100);
    kit_start(k);
    for (unsigned i = 0; i < 2 * sizeof(frames) / sizeof(frames[0]); i++) {
        unsigned cuts = k->cuts;
        kit_recut(k, (struct kit_cut){ .way = frames[i / 2].way,
                                       .type = frames[i / 2].type,
                                       .count = 1,
                                       .after = i % 2 });
        kit_writes(k, 20);
        assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k),
                                       false, KIT_PATIENCE_MS),
                         0);
        assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
        assert_int_equal(shadow_state(k), FC_SHADOW_OWNED);
        kit_compare(k);
        if (fc_feed_unfence(k->feed, KIT_PATIENCE_MS))
            fail_msg("no way back with %u", i);
        kit_await(k->cuts >= cuts + 2); /* ours, and the one it was told of */
        assert_int_equal(shadow_state(k), FC_SHADOW_COPYING);
    }
    assert_int_equal(
        fc_feed_fence(k->feed, kit_other, kit_epoch(k), true, KIT_PATIENCE_MS),
        0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    kit_halt(k);
    kit_compare(k);
}

/* Would break: after a migration that was given up, the next one copies
 * nothing, or trusts what is stale. */
static void given_up_before_the_lease(void **state)
{
    struct kit *k = *state;
    kit_writes(k, 100);
    kit_start(k);
    kit_await(kit_drained(k));
    uint64_t epoch = kit_epoch(k);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_migration, epoch, false, KIT_PATIENCE_MS),
        0);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_other, epoch + 1, false, KIT_PATIENCE_MS),
        FC_EPERM);
    assert_int_equal(fc_feed_unfence(k->feed, KIT_PATIENCE_MS), 0);
    assert_int_equal(fc_feed_unfence(k->feed, KIT_PATIENCE_MS), 0);
    kit_writes(k, 100); /* the guest goes on at once */
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), FC_EPERM);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_migration, epoch, false, KIT_PATIENCE_MS),
        FC_EINVAL);

    /* and given up while the channel is away, found on its return */
    kit_await(shadow_state(k) == FC_SHADOW_COPYING && kit_drained(k));
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k), false,
                                   KIT_PATIENCE_MS),
                     0);
    kit_halt(k);
    assert_int_equal(fc_feed_unfence(k->feed, KIT_PATIENCE_MS), 0);
    assert_int_equal(shadow_state(k), FC_SHADOW_FENCED);
    kit_writes(k, 100);
    kit_start(k);
    kit_await(shadow_state(k) == FC_SHADOW_COPYING && up(k));
    kit_writes(k, 100);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_other, kit_epoch(k), true, KIT_PATIENCE_MS),
        0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    kit_compare(k);
    kit_await(kit_complete(k));
}

/* Would break: a shadow that does not answer stops the guest for good; or one
 * that may own the disk is not asked before the guest goes on. */
static void silence_at_each_step(void **state)
{
    struct kit *k = *state;
    kit_writes(k, 50);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, 1, false, 50),
                     FC_ETIMEOUT);
    kit_writes(k, 50);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, 9, true, 50),
                     FC_ETIMEOUT);
    kit_writes(k, 50);
    kit_start(k);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k) + 10,
                                   false, KIT_PATIENCE_MS),
                     0);
    kit_halt(k);
    assert_int_equal(fc_feed_lease(k->feed, 50), FC_ETIMEOUT);
    assert_int_equal(state_of(k), FC_FEED_LEASING);
    assert_int_equal(fc_feed_unfence(k->feed, 50), FC_ETIMEOUT);
    struct fc_source_status s;
    fc_source_status(k->source, &s);
    assert_true(s.holding);
    kit_start(k);
    assert_int_equal(fc_feed_unfence(k->feed, KIT_PATIENCE_MS), 0);
    kit_writes(k, 50);
    assert_int_equal(
        fc_feed_fence(k->feed, kit_other, kit_epoch(k), true, KIT_PATIENCE_MS),
        0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    kit_compare(k);
}

/* Would break: what the guest wrote at the destination is thrown away. */
static void written_disks_are_not_given_back(void **state)
{
    struct kit *k = *state;
    kit_writes(k, 50);
    kit_start(k);
    assert_int_equal(fc_feed_fence(k->feed, kit_migration, kit_epoch(k), true,
                                   KIT_PATIENCE_MS),
                     0);
    assert_int_equal(fc_feed_lease(k->feed, KIT_PATIENCE_MS), 0);
    assert_int_equal(fc_shadow_write(k->shadow, 1000, "new", 3), 0);
    memcpy(k->model + 1000, "new", 3);
    assert_int_equal(fc_feed_unfence(k->feed, KIT_PATIENCE_MS), FC_EPEER);
    assert_int_equal(state_of(k), FC_FEED_LEASED);
    kit_recut(k, (struct kit_cut){ .count = 0 });
    kit_await(up(k));
    kit_compare(k);
    kit_await(kit_complete(k));

    /* a source that forgot may not fill the shadow again */
    struct fc_feed_status s;
    kit_halt(k);
    kit_close_source(k);
    kit_open_source(k);
    kit_start(k);
    kit_await((fc_feed_status(k->feed, &s), s.error[0]));
    assert_non_null(strstr(s.error, "not permitted"));
    assert_int_equal(k->seen[0][FC_FRAME_RETURN], 1);
    kit_compare(k);
}

/* ---- peers that are not ours ----------------------------------------------
 */

static int hello_with(struct kit *k, struct fc_frame_hello h)
{
    uint8_t frame[FC_FRAME_HEADER + 256];
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends),
                     0);
    assert_int_equal(fc_sink_channel(k->sink, ends[0], ends[0]), 0);
    ssize_t n = fc_frame_hello_make(&h, frame + FC_FRAME_HEADER, 256);
    fc_frame_head_make(frame, FC_FRAME_HELLO, frame + FC_FRAME_HEADER,
                       (uint32_t)n);
    assert_int_equal(fc_write_all(ends[1], frame, FC_FRAME_HEADER + (size_t)n),
                     0);
    uint8_t raw[FC_FRAME_HEADER];
    assert_int_equal(fc_wait_readable(ends[1], KIT_PATIENCE_MS), 1);
    assert_int_equal(fc_read_exact(ends[1], raw, sizeof(raw)), 0);
    close(ends[1]);
    return raw[5];
}

/* Would break: a shadow is filled from a disk that it is not the shadow of. */
static void other_disks_are_refused(void **state)
{
    struct kit *k = *state;
    struct fc_frame_hello good = { .highest = 1,
                                   .lowest = 1,
                                   .block_bytes = KIT_BLOCK,
                                   .size = KIT_SIZE,
                                   .name = "xvda" };
    memcpy(good.uuid, kit_uuid, sizeof(kit_uuid));
    assert_int_equal(hello_with(k, good), FC_FRAME_WELCOME);
    struct fc_frame_hello h = good;
    h.uuid[3] ^= 1;
    assert_int_equal(hello_with(k, h), FC_FRAME_ERROR);
    h = good;
    strcpy(h.name, "xvdb");
    assert_int_equal(hello_with(k, h), FC_FRAME_ERROR);
    h = good;
    h.size += 512;
    assert_int_equal(hello_with(k, h), FC_FRAME_ERROR);
    h = good;
    h.block_bytes *= 2;
    assert_int_equal(hello_with(k, h), FC_FRAME_ERROR);
    h = good;
    h.highest = h.lowest = 2;
    assert_int_equal(hello_with(k, h), FC_FRAME_ERROR);
}

int main(void)
{
#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(lost_frames_are_asked_for_again),
        TEST(given_up_before_the_lease),
        TEST(silence_at_each_step),
        TEST(written_disks_are_not_given_back),
        TEST(other_disks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
