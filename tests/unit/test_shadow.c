/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shadow's rules, one by one, without chance. */
#include "shadow_kit.h"

static uint8_t block_of(struct kit *k, uint32_t block, unsigned at)
{
    return k->data.bytes[(uint64_t)block * KIT_BLOCK + at];
}

/* Would break: a write of a part leaves the rest of the block as whatever the
 * volume had before. */
static void a_part_fills_the_block_first(void **state)
{
    (void)state;
    struct kit k;
    uint8_t want[3 * KIT_BLOCK];
    kit_init(&k);
    kit_own(&k);
    memcpy(want, k.primary.bytes, sizeof(want));
    memset(want + KIT_BLOCK - 100, 0xab, 300);
    assert_int_equal(
        fc_shadow_write(k.s, KIT_BLOCK - 100, want + KIT_BLOCK - 100, 300), 0);
    assert_true(kit_is_valid(&k, 0) && kit_is_valid(&k, 1));
    assert_false(kit_is_valid(&k, 2));
    assert_int_equal(kit_status(&k).fills, 2);
    assert_memory_equal(k.data.bytes, want, 2 * KIT_BLOCK);
    kit_assert_reads(&k, 0, want, sizeof(want));
    kit_dispose(&k);
}

/* Would break: the disk's short last block is read or written past its end. */
static void the_last_block_may_be_short(void **state)
{
    (void)state;
    struct kit k;
    uint8_t want[1536];
    kit_init(&k);
    kit_own(&k);
    memset(want, 0xcd, sizeof(want));
    assert_int_equal(fc_shadow_write(k.s, KIT_SIZE - 1536, want, 1536), 0);
    assert_int_equal(kit_status(&k).fills, 0);
    kit_assert_reads(&k, KIT_SIZE - 1536, want, 1536);
    kit_assert_reads(&k, KIT_SIZE - 2048, k.primary.bytes + KIT_SIZE - 2048,
                     512);
    assert_int_equal(fc_shadow_write(k.s, KIT_SIZE - 1, want, 2), FC_EINVAL);
    assert_int_equal(fc_shadow_read(k.s, UINT64_MAX, want, 2), FC_EINVAL);
    assert_int_equal(fc_shadow_put(k.s, KIT_BLOCKS - 1, 2, NULL), FC_EINVAL);
    kit_dispose(&k);
}

/* Would break: a late block of a prefetch undoes what the guest has written. */
static void late_blocks_fill_only_what_is_missing(void **state)
{
    (void)state;
    struct kit k;
    uint8_t old[4 * KIT_BLOCK], new[KIT_BLOCK];
    kit_init(&k);
    kit_own(&k);
    memset(new, 0x11, sizeof(new));
    memset(old, 0x22, sizeof(old));
    assert_int_equal(fc_shadow_write(k.s, KIT_BLOCK, new, KIT_BLOCK), 0);
    assert_int_equal(fc_shadow_put(k.s, 0, 4, old), 0);
    assert_int_equal(block_of(&k, 0, 5), 0x22);
    assert_int_equal(block_of(&k, 1, 5), 0x11);
    assert_int_equal(block_of(&k, 3, 5), 0x22);
    assert_int_equal(fc_shadow_put(k.s, 0, 5, NULL), 0);
    assert_int_equal(block_of(&k, 3, 5), 0x22);
    assert_int_equal(block_of(&k, 4, 5), 0);
    assert_int_equal(kit_status(&k).valid_blocks, 5);
    kit_dispose(&k);
}

/* Would break: before the lease a read at the destination leaves a block behind
 * that the source overwrites afterwards. */
static void before_the_lease_nothing_is_kept(void **state)
{
    (void)state;
    struct kit k;
    uint8_t stale[KIT_BLOCK];
    kit_init(&k);
    memset(stale, 0x33, sizeof(stale));
    assert_int_equal(fc_shadow_put(k.s, 2, 1, stale), 0);
    /* copying: the primary is the truth even for what has arrived */
    kit_assert_reads(&k, 0, k.primary.bytes, 5 * KIT_BLOCK);
    assert_int_equal(kit_status(&k).valid_blocks, 1);

    struct fc_blockset invalid;
    assert_int_equal(fc_blockset_init(&invalid, KIT_BLOCKS, true), 0);
    fc_blockset_set_range(&invalid, 2, 1, false);
    kit_fence(&k, &invalid);
    kit_assert_reads(&k, 2 * KIT_BLOCK, stale, KIT_BLOCK);
    kit_assert_reads(&k, 3 * KIT_BLOCK, k.primary.bytes + 3 * KIT_BLOCK, 512);
    assert_int_equal(kit_status(&k).valid_blocks, 1);
    fc_blockset_dispose(&invalid);
    kit_dispose(&k);
}

/* Would break: a block that the source wrote after it was copied is served. */
static void a_fence_takes_blocks_away(void **state)
{
    (void)state;
    struct kit k;
    struct fc_blockset invalid;
    uint8_t *copy;
    kit_init(&k);
    copy = malloc(KIT_SIZE);
    assert_non_null(copy);
    memset(copy, 0x44, KIT_SIZE);
    assert_int_equal(fc_shadow_put(k.s, 0, KIT_BLOCKS, copy), 0);
    assert_true(fc_shadow_complete(k.s));
    assert_int_equal(fc_blockset_init(&invalid, KIT_BLOCKS, false), 0);
    fc_blockset_set_range(&invalid, 250, 20, true);
    kit_fence(&k, &invalid);
    assert_int_equal(kit_status(&k).valid_blocks, KIT_BLOCKS - 20);
    memcpy(copy + 250 * KIT_BLOCK, k.primary.bytes + 250 * KIT_BLOCK,
           20 * KIT_BLOCK);
    kit_assert_reads(&k, 0, copy, KIT_SIZE);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 7), 0);
    kit_assert_reads(&k, 0, copy, KIT_SIZE);
    assert_true(fc_shadow_complete(k.s));
    fc_blockset_dispose(&invalid);
    free(copy);
    kit_dispose(&k);
}

/* Would break: a block that changes again while it is copied stays old. */
static void copying_takes_the_newer_version(void **state)
{
    (void)state;
    struct kit k;
    uint8_t data[KIT_BLOCK];
    kit_init(&k);
    memset(data, 1, sizeof(data));
    assert_int_equal(fc_shadow_put(k.s, 9, 1, data), 0);
    memset(data, 2, sizeof(data));
    assert_int_equal(fc_shadow_put(k.s, 9, 1, data), 0);
    assert_int_equal(block_of(&k, 9, 0), 2);
    kit_dispose(&k);
}

/* Would break: two owners, or a lease that cannot be asked for again. */
static void leases_are_refused_and_repeated(void **state)
{
    (void)state;
    struct kit k;
    uint8_t other[FC_MIGRATION_BYTES] = "another", byte = 1;
    struct fc_blockset none;
    kit_init(&k);
    assert_int_equal(fc_blockset_init(&none, KIT_BLOCKS, false), 0);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 7), FC_EPERM);
    kit_fence(&k, NULL);
    kit_fence(&k, NULL);
    assert_int_equal(fc_shadow_fence(k.s, &none, other, 7), FC_EPERM);
    assert_int_equal(fc_shadow_own(k.s, other, 7), FC_EPERM);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 8), FC_EPERM);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 7), 0);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 7), 0);
    /* nothing was written: it may go back, with a higher epoch */
    assert_int_equal(fc_shadow_return(k.s, kit_migration, 7), FC_EPERM);
    assert_int_equal(fc_shadow_return(k.s, kit_migration, 8), 0);
    assert_int_equal(fc_shadow_return(k.s, kit_migration, 8), 0);
    assert_int_equal(kit_status(&k).state, FC_SHADOW_COPYING);
    assert_int_equal(fc_shadow_fence(k.s, &none, other, 7), FC_EPERM);
    assert_int_equal(fc_shadow_fence(k.s, &none, other, 9), 0);
    assert_int_equal(fc_shadow_own(k.s, other, 9), 0);
    assert_int_equal(fc_shadow_write(k.s, 0, &byte, 1), 0);
    assert_int_equal(fc_shadow_return(k.s, other, 10), FC_EPERM);
    assert_int_equal(kit_status(&k).state, FC_SHADOW_OWNED);
    assert_true(kit_status(&k).written);
    fc_blockset_dispose(&none);
    kit_dispose(&k);
}

/* Would break: after a restart a lease is forgotten, or blocks are that were
 * made durable; or a map of a crashed copy is believed. */
static void restarts_keep_what_was_promised(void **state)
{
    (void)state;
    struct kit k;
    uint8_t data[KIT_BLOCK];
    kit_init(&k);
    memset(data, 0x77, sizeof(data));
    assert_int_equal(fc_shadow_put(k.s, 3, 1, data), 0);
    kit_close_shadow(&k);
    kit_open(&k);
    assert_int_equal(kit_status(&k).valid_blocks, 1); /* closed cleanly */
    assert_int_equal(fc_shadow_sync(k.s), 0);

    /* a crash: opened again over what is there, the old one left behind */
    struct fc_shadow *crashed = k.s;
    kit_open(&k);
    assert_int_equal(kit_status(&k).valid_blocks, 0);
    assert_int_equal(fc_shadow_put(k.s, 3, 1, data), 0);
    struct fc_blockset none;
    assert_int_equal(fc_blockset_init(&none, KIT_BLOCKS, false), 0);
    kit_fence(&k, &none);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 7), 0);
    assert_int_equal(fc_shadow_write(k.s, 0, data, KIT_BLOCK), 0);
    assert_int_equal(fc_shadow_flush(k.s), 0);
    assert_int_equal(fc_shadow_write(k.s, KIT_BLOCK, data, KIT_BLOCK), 0);
    struct fc_shadow *crashed_too = k.s;
    kit_open(&k);
    assert_int_equal(kit_status(&k).state, FC_SHADOW_OWNED);
    assert_true(kit_status(&k).written);
    assert_int_equal(kit_status(&k).epoch, 7);
    assert_true(kit_is_valid(&k, 0) && kit_is_valid(&k, 3));
    assert_false(kit_is_valid(&k, 1)); /* was never flushed */
    fc_blockset_dispose(&none);
    kit_dispose(&k);
    /* what they still write is nobody's: only their memory is freed */
    k.data.bytes = malloc(KIT_SIZE);
    k.map.bytes = malloc(k.map.size);
    assert_true(k.data.bytes && k.map.bytes);
    fc_shadow_close(crashed);
    fc_shadow_close(crashed_too);
    free(k.data.bytes);
    free(k.map.bytes);
}

/* Would break: each flush of a settled disk writes the map, or one that owes it
 * does not. */
static void a_flush_writes_the_map_when_it_owes_it(void **state)
{
    (void)state;
    struct kit k;
    uint8_t data[KIT_BLOCK] = { 0 };
    kit_init(&k);
    kit_own(&k);
    assert_int_equal(fc_shadow_write(k.s, 0, data, KIT_BLOCK), 0);
    uint64_t before = kit_status(&k).commits;
    assert_int_equal(fc_shadow_flush(k.s), 0);
    assert_int_equal(kit_status(&k).commits, before + 1);
    assert_int_equal(fc_shadow_write(k.s, 100, data, 500), 0);
    assert_int_equal(fc_shadow_flush(k.s), 0);
    assert_int_equal(kit_status(&k).commits, before + 1);
    /* blocks that only arrived are still to be had from the primary ... */
    assert_int_equal(fc_shadow_put(k.s, 5, 1, data), 0);
    assert_int_equal(fc_shadow_flush(k.s), 0);
    assert_int_equal(kit_status(&k).commits, before + 1);
    /* ... until the guest writes into one */
    assert_int_equal(fc_shadow_write(k.s, 5 * KIT_BLOCK, data, 512), 0);
    assert_int_equal(fc_shadow_flush(k.s), 0);
    assert_int_equal(kit_status(&k).commits, before + 2);
    kit_dispose(&k);
}

/* Would break: zeroed blocks show old data; trimming a part loses the rest. */
static void zeros_and_trims(void **state)
{
    (void)state;
    struct kit k;
    uint8_t *want;
    kit_init(&k);
    kit_own(&k);
    want = malloc(KIT_SIZE);
    assert_non_null(want);
    memcpy(want, k.primary.bytes, KIT_SIZE);
    memset(want + 100, 0, 290 * KIT_BLOCK);
    assert_int_equal(fc_shadow_zero(k.s, 100, 290 * KIT_BLOCK, true), 0);
    assert_int_equal(kit_status(&k).fills, 2);
    kit_assert_reads(&k, 0, want, KIT_SIZE);
    assert_int_equal(fc_shadow_zero(k.s, KIT_SIZE - 700, 700, false), 0);
    memset(want + KIT_SIZE - 700, 0, 700);
    kit_assert_reads(&k, 0, want, KIT_SIZE);
    kit_dispose(&k);

    kit_init(&k);
    kit_own(&k);
    memcpy(want, k.primary.bytes, KIT_SIZE);
    assert_int_equal(fc_shadow_trim(k.s, 400 * KIT_BLOCK - 9, KIT_BLOCK + 18),
                     0);
    /* the parts at the ends were not here, and nothing is fetched for them */
    assert_int_equal(kit_status(&k).valid_blocks, 1);
    memset(want + 400 * KIT_BLOCK, 0, KIT_BLOCK);
    kit_assert_reads(&k, 0, want, KIT_SIZE);
    free(want);
    kit_dispose(&k);
}

/* Would break: prefetching looks better or worse than it was. */
static void what_prefetching_did_is_counted(void **state)
{
    (void)state;
    struct kit k;
    uint8_t data[8 * KIT_BLOCK];
    const uint32_t order[] = { 12, 11, 10, 12, KIT_BLOCKS, UINT32_MAX };
    kit_init(&k);
    kit_own(&k);
    assert_int_equal(fc_shadow_set_order(k.s, order, 6), 0);
    memcpy(data, k.primary.bytes + 8 * KIT_BLOCK, sizeof(data));
    assert_int_equal(fc_shadow_put(k.s, 8, 8, data), 0);
    struct fc_shadow_status st = kit_status(&k);
    assert_int_equal(st.prefetched, 3);
    assert_int_equal(st.prefetch_used, 0);
    assert_int_equal(st.received_bytes, sizeof(data));
    kit_assert_reads(&k, 11 * KIT_BLOCK, data + 3 * KIT_BLOCK, 4 * KIT_BLOCK);
    kit_assert_reads(&k, 12 * KIT_BLOCK, data + 4 * KIT_BLOCK, 100);
    kit_assert_reads(&k, 100 * KIT_BLOCK, k.primary.bytes + 100 * KIT_BLOCK,
                     2 * KIT_BLOCK);
    st = kit_status(&k);
    assert_int_equal(st.prefetch_used, 2);
    assert_int_equal(st.reads, 3);
    assert_int_equal(st.read_hits, 5);
    assert_int_equal(st.read_misses, 2);
    assert_int_equal(st.remaining_blocks, KIT_BLOCKS - 10);
    kit_dispose(&k);
}

/* Would break: a tier gets the credit of another, or what was counted is gone
 * when the engine is started anew. */
static void who_brought_what_is_counted_and_kept(void **state)
{
    (void)state;
    struct kit k;
    const uint32_t order[] = { 20 };
    uint8_t data[KIT_BLOCK], want[KIT_BLOCK];
    kit_init_sized(&k, KIT_SIZE, KIT_BLOCK, false);
    assert_int_equal(kit_try_open(&k, &kit_pushing_ops, 0), 0);
    kit_own(&k);
    assert_int_equal(fc_shadow_set_order(k.s, order, 1), 0);
    /* a miss of 50 raises 51; 20 is ordered; 100 is neither; 200 is written */
    kit_assert_reads(&k, 50 * KIT_BLOCK, k.primary.bytes + 50 * KIT_BLOCK, 1);
    assert_int_equal(
        fc_shadow_put(k.s, 51, 1, k.primary.bytes + 51 * KIT_BLOCK), 0);
    assert_int_equal(
        fc_shadow_put(k.s, 20, 1, k.primary.bytes + 20 * KIT_BLOCK), 0);
    assert_int_equal(
        fc_shadow_put(k.s, 100, 2, k.primary.bytes + 100 * KIT_BLOCK), 0);
    memset(data, 7, sizeof(data));
    memcpy(want, data, sizeof(want));
    assert_int_equal(fc_shadow_write(k.s, 200 * KIT_BLOCK, data, KIT_BLOCK), 0);
    kit_assert_reads(&k, 50 * KIT_BLOCK, k.primary.bytes + 50 * KIT_BLOCK,
                     2 * KIT_BLOCK);
    kit_assert_reads(&k, 20 * KIT_BLOCK, k.primary.bytes + 20 * KIT_BLOCK, 9);
    kit_assert_reads(&k, 20 * KIT_BLOCK, k.primary.bytes + 20 * KIT_BLOCK, 9);
    kit_assert_reads(&k, 100 * KIT_BLOCK, k.primary.bytes + 100 * KIT_BLOCK,
                     2 * KIT_BLOCK);
    kit_assert_reads(&k, 200 * KIT_BLOCK, want, KIT_BLOCK);
    struct fc_readstats before = kit_status(&k).stats;
    uint64_t timed = 0;
    assert_int_equal(before.misses, 1);
    assert_int_equal(before.hits[FC_TIER_OTHER], 2);
    assert_int_equal(before.hits[FC_TIER_CRITICAL], 1);
    assert_int_equal(before.hits[FC_TIER_PREDICTIVE], 2);
    assert_int_equal(before.hits[FC_TIER_BACKGROUND], 2);
    for (unsigned i = 0; i < FC_LATENCY_BUCKETS; i++)
        timed += before.latency[i];
    assert_int_equal(timed, before.reads);
    assert_int_equal(before.reads, 6);
    /* a commit of its own, but not too soon, nor for nothing */
    uint64_t commits = kit_status(&k).commits;
    uint64_t later = fc_now_ms() + FC_SHADOW_KEEP_MS;
    assert_int_equal(fc_shadow_keep_stats(k.s, 1), 0);
    assert_int_equal(kit_status(&k).commits, commits);
    assert_int_equal(fc_shadow_keep_stats(k.s, later), 0);
    assert_int_equal(kit_status(&k).commits, commits + 1);
    later = fc_now_ms() + FC_SHADOW_KEEP_MS;
    assert_int_equal(fc_shadow_keep_stats(k.s, later), 0);
    assert_int_equal(kit_status(&k).commits, commits + 1);
    kit_close_shadow(&k);
    assert_int_equal(kit_try_open(&k, &kit_pushing_ops, 0), 0);
    struct fc_readstats after = kit_status(&k).stats;
    assert_memory_equal(&after, &before, sizeof(before));
    kit_assert_reads(&k, 20 * KIT_BLOCK, k.primary.bytes + 20 * KIT_BLOCK, 9);
    assert_int_equal(kit_status(&k).reads, 7);
    kit_dispose(&k);
}

/* Would break: a miss asks the other side for nothing around it. */
static void a_miss_raises_its_neighbourhood(void **state)
{
    (void)state;
    struct kit k;
    kit_init_sized(&k, KIT_SIZE, KIT_BLOCK, false);
    assert_int_equal(kit_try_open(&k, &kit_pushing_ops, 0), 0);
    kit_own(&k);
    assert_int_equal(fc_shadow_start(k.s), 0);
    assert_int_equal(fc_shadow_put(k.s, 52, 2, NULL), 0);
    kit_assert_reads(&k, 50 * KIT_BLOCK, k.primary.bytes + 50 * KIT_BLOCK, 1);
    /* what is here already is not asked for, nor what was missed itself */
    assert_true(k.primary.wants >= 6);
    assert_int_equal(k.primary.wanted[0], 51);
    assert_int_equal(k.primary.wanted[1], 1);
    assert_int_equal(k.primary.wanted[2], 54);
    assert_true(k.primary.wanted[3] > 0);
    unsigned last = k.primary.wants - 2;
    assert_int_equal(k.primary.wanted[last] + k.primary.wanted[last + 1], 50);
    kit_dispose(&k);
}

/* Would break: a failing local volume is taken for a good one. */
static void a_failing_volume_is_reported(void **state)
{
    (void)state;
    struct kit k;
    uint8_t data[KIT_BLOCK] = { 1 };
    kit_init(&k);
    kit_own(&k);
    assert_int_equal(fc_shadow_write(k.s, 0, data, 512), 0);
    k.data.fail = true;
    assert_int_equal(fc_shadow_write(k.s, KIT_BLOCK, data, KIT_BLOCK), FC_EIO);
    assert_false(kit_is_valid(&k, 1));
    assert_int_equal(fc_shadow_flush(k.s), FC_EIO);
    /* what cannot be kept can still be read */
    kit_assert_reads(&k, 7 * KIT_BLOCK, k.primary.bytes + 7 * KIT_BLOCK,
                     KIT_BLOCK);
    assert_false(kit_is_valid(&k, 7));
    k.data.fail = false;
    k.map.fail = true;
    assert_int_equal(fc_shadow_write(k.s, KIT_BLOCK, data, KIT_BLOCK), 0);
    assert_int_equal(fc_shadow_flush(k.s), FC_EIO);
    k.map.fail = false;
    assert_int_equal(fc_shadow_flush(k.s), 0);
    kit_dispose(&k);
}

/* Would break: sizes that do not fit are opened, and written past the end. */
static void sizes_must_fit(void **state)
{
    (void)state;
    struct kit k;
    kit_init_sized(&k, KIT_SIZE, KIT_BLOCK, false);
    k.data.size -= 512;
    assert_int_equal(kit_try_open(&k, &kit_primary_ops, 0), FC_EINVAL);
    k.data.size += 512;
    k.id.block_bytes = 5000;
    assert_int_equal(kit_try_open(&k, &kit_primary_ops, 0), FC_EINVAL);
    k.id.block_bytes = KIT_BLOCK;
    k.id.cache = true; /* whose primary cannot be written */
    assert_int_equal(kit_try_open(&k, &kit_pushing_ops, 0), FC_EINVAL);
    kit_dispose(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_fills_the_block_first),
        cmocka_unit_test(the_last_block_may_be_short),
        cmocka_unit_test(late_blocks_fill_only_what_is_missing),
        cmocka_unit_test(before_the_lease_nothing_is_kept),
        cmocka_unit_test(a_fence_takes_blocks_away),
        cmocka_unit_test(copying_takes_the_newer_version),
        cmocka_unit_test(leases_are_refused_and_repeated),
        cmocka_unit_test(restarts_keep_what_was_promised),
        cmocka_unit_test(a_flush_writes_the_map_when_it_owes_it),
        cmocka_unit_test(zeros_and_trims),
        cmocka_unit_test(what_prefetching_did_is_counted),
        cmocka_unit_test(who_brought_what_is_counted_and_kept),
        cmocka_unit_test(a_miss_raises_its_neighbourhood),
        cmocka_unit_test(a_failing_volume_is_reported),
        cmocka_unit_test(sizes_must_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
