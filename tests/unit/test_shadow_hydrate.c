/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filling a shadow ahead of the guest: in which order, through which means, and
 * what it does when the primary goes away. And the cache. */
#include <fcntl.h>
#include <stdatomic.h>

#include "primary_file.h"
#include "shadow_kit.h"

/* A primary that notes which blocks were read, in order. */
struct noting {
    struct kit_primary *p;
    pthread_mutex_t lock;
    uint32_t blocks[KIT_BLOCKS];
    unsigned count;
};

static struct noting noting;

static int noting_read(void *user, uint64_t offset, void *buf, size_t len)
{
    int rc = kit_primary_read(user, offset, buf, len);

    pthread_mutex_lock(&noting.lock);
    for (uint64_t at = offset; !rc && at < offset + len; at += KIT_BLOCK)
        if (noting.count < KIT_BLOCKS)
            noting.blocks[noting.count++] = (uint32_t)(at / KIT_BLOCK);
    pthread_mutex_unlock(&noting.lock);
    return rc;
}

static const struct fc_primary_ops noting_ops = {
    .read = noting_read,
    .write = kit_primary_write,
    .zero = kit_primary_zero,
    .trim = kit_primary_zero,
    .flush = kit_primary_flush,
    .cancel = kit_primary_cancel,
};

/* One request at a time, so that their order is the tiers'. */
static void open_noting(struct kit *k, bool cache, uint64_t budget)
{
    struct fc_shadow_config config = {
        .primary = &noting_ops,
        .primary_user = &k->primary,
        .cache = cache,
        .budget_bytes = budget,
        .depth = 1,
    };
    struct fc_volume *file;

    memset(&noting, 0, sizeof(noting));
    pthread_mutex_init(&noting.lock, NULL);
    kit_init_sized(k, KIT_SIZE, KIT_BLOCK, cache);
    assert_int_equal(
        fc_volume_new(&kit_volume_ops, &k->data, k->data.size, &config.volume),
        0);
    assert_int_equal(
        fc_volume_new(&kit_volume_ops, &k->map, k->map.size, &file), 0);
    assert_int_equal(fc_map_open(file, &k->id, &config.map), 0);
    assert_int_equal(fc_shadow_open(&config, &k->s), 0);
}

/* Would break: the blocks that the prediction names do not come first, or the
 * rest never comes. */
static void the_order_comes_first_then_the_rest(void **state)
{
    (void)state;
    struct kit k;
    const uint32_t order[] = { 500, 20, 21, 22, 400, 3, 20 };
    const uint32_t want[] = { 500, 20, 21, 22, 400, 3, 0, 1, 2, 4 };
    open_noting(&k, false, 0);
    kit_own(&k);
    assert_int_equal(fc_shadow_set_order(k.s, order, 7), 0);
    assert_int_equal(fc_shadow_start(k.s), 0);
    KIT_WAIT("all blocks", fc_shadow_complete(k.s));
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_int_equal(noting.blocks[i], want[i]);
    assert_int_equal(noting.count, KIT_BLOCKS);
    assert_int_equal(kit_status(&k).prefetched, 6);
    kit_close_shadow(&k);
    assert_memory_equal(k.data.bytes, k.primary.bytes, KIT_SIZE);
    kit_dispose(&k);
}

static void *read_block_9(void *user)
{
    struct kit *k = user;
    uint8_t byte;

    assert_int_equal(fc_shadow_read(k->s, 9 * KIT_BLOCK, &byte, 1), 0);
    return NULL;
}

/* Would break: what lies around a miss waits behind the whole prediction. */
static void a_miss_jumps_the_queue(void **state)
{
    (void)state;
    struct kit k;
    uint32_t order[300];
    pthread_t thread;
    open_noting(&k, false, 0);
    kit_own(&k);
    for (uint32_t i = 0; i < 300; i++)
        order[i] = 300 + i * 7 % 300;
    assert_int_equal(fc_shadow_set_order(k.s, order, 300), 0);
    kit_primary_set(&k.primary, false, true);
    assert_int_equal(fc_shadow_start(k.s), 0);
    KIT_WAIT("the first of the order", kit_primary_waiting(&k.primary) == 1);
    assert_int_equal(pthread_create(&thread, NULL, read_block_9, &k), 0);
    KIT_WAIT("the miss", kit_primary_waiting(&k.primary) == 2);
    kit_primary_set(&k.primary, false, false);
    pthread_join(thread, NULL);
    KIT_WAIT("all blocks", fc_shadow_complete(k.s));
    unsigned ahead = KIT_BLOCKS, last_ordered = 0;
    for (unsigned i = 0; i < noting.count; i++) {
        if (noting.blocks[i] == 10)
            ahead = i;
        if (noting.blocks[i] >= 300)
            last_ordered = i;
    }
    /* two were under way already; one may have been picked before */
    assert_true(ahead <= 3);
    assert_true(last_ordered > 290);
    kit_dispose(&k);
}

/* Would break: a primary that went away for a while leaves holes, or hydration
 * asks it all the time. */
static void hydration_outlives_an_outage(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    kit_own(&k);
    kit_primary_set(&k.primary, true, false);
    assert_int_equal(fc_shadow_start(k.s), 0);
    KIT_WAIT("a refusal", !kit_status(&k).primary_reachable);
    assert_int_equal(kit_status(&k).valid_blocks, 0);
    kit_primary_set(&k.primary, false, false);
    fc_shadow_primary_up(k.s);
    KIT_WAIT("all blocks", fc_shadow_complete(k.s));
    kit_assert_reads(&k, 0, k.primary.bytes, KIT_SIZE);
    kit_dispose(&k);
}

/* Would break: hydration before the lease keeps what the source still changes.
 */
static void hydration_waits_for_the_lease(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    assert_int_equal(fc_shadow_start(k.s), 0);
    kit_fence(&k, NULL);
    usleep(30000);
    assert_false(fc_shadow_complete(k.s));
    assert_int_equal(kit_primary_reads(&k.primary), 0);
    assert_int_equal(fc_shadow_own(k.s, kit_migration, 7), 0);
    KIT_WAIT("all blocks", fc_shadow_complete(k.s));
    kit_dispose(&k);
}

/* Would break: libaio's path puts blocks where they do not belong, on real
 * files, or loses the holes. */
static void real_files_are_hydrated_by_libaio(void **state)
{
    (void)state;
    char dir[] = "/tmp/fc-shadow-XXXXXX", from[64], to[64], map[64];
    struct fc_primary_file *p;
    struct fc_shadow_config config = { .primary = &fc_primary_file_ops,
                                       .cache = true };
    struct fc_map_id id = { .vdev = "xvda",
                            .size_bytes = 5 * 65536 + 4096,
                            .block_bytes = 65536,
                            .cache = true };
    const uint32_t order[] = { 5, 0, 1, 2, 3, 4 };
    struct fc_volume *file;
    struct fc_shadow *s;
    assert_non_null(mkdtemp(dir));
    snprintf(from, sizeof(from), "%s/from", dir);
    snprintf(to, sizeof(to), "%s/to", dir);
    snprintf(map, sizeof(map), "%s/map", dir);
    uint8_t *want = malloc(id.size_bytes), *got = malloc(id.size_bytes);
    assert_true(want && got);
    kit_fill(want, 0, id.size_bytes, 5);
    int fd = open(from, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, want, id.size_bytes, 0), id.size_bytes);
    close(fd);
    fd = open(to, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, (off_t)id.size_bytes), 0);
    close(fd);
    assert_int_equal(fc_primary_file_open(from, &p), 0);
    assert_int_equal(fc_primary_file_size(p), id.size_bytes);
    config.primary_user = p;
    assert_int_equal(fc_volume_open(to, 0, &config.volume), 0);
    assert_int_equal(fc_volume_open(map, FC_VOLUME_CREATE, &file), 0);
    assert_int_equal(fc_map_open(file, &id, &config.map), 0);
    assert_int_equal(fc_shadow_open(&config, &s), 0);
    assert_int_equal(fc_shadow_start(s), 0);
    assert_int_equal(fc_shadow_set_order(s, order, 6), 0);
    KIT_WAIT("all blocks", fc_shadow_complete(s));
    assert_int_equal(fc_shadow_read(s, 0, got, id.size_bytes), 0);
    assert_memory_equal(got, want, id.size_bytes);
    /* through: both have it */
    assert_int_equal(fc_shadow_zero(s, 65536, 65536, true), 0);
    memset(want + 65536, 0, 65536);
    assert_int_equal(fc_shadow_write(s, 1000, want + 65536, 100), 0);
    memset(want + 1000, 0, 100);
    assert_int_equal(fc_shadow_flush(s), 0);
    assert_int_equal(fc_shadow_close(s), 0);
    fc_primary_file_close(p);
    for (unsigned i = 0; i < 2; i++) {
        fd = open(i ? to : from, O_RDONLY | O_CLOEXEC);
        assert_int_equal(pread(fd, got, id.size_bytes, 0), id.size_bytes);
        assert_memory_equal(got, want, id.size_bytes);
        close(fd);
    }
    assert_true(!unlink(from) && !unlink(to) && !unlink(map) && !rmdir(dir));
    free(want);
    free(got);
}

/* ---- the cache ---- */

static void touch_block(struct kit *k, uint32_t block)
{
    kit_assert_reads(k, (uint64_t)block * KIT_BLOCK,
                     k->primary.bytes + (uint64_t)block * KIT_BLOCK, 512);
}

static void open_cache(struct kit *k, unsigned budget_blocks)
{
    open_noting(k, true, (uint64_t)budget_blocks * KIT_BLOCK);
}

/* Would break: the budget is exceeded, or the block that is used most goes. */
static void the_oldest_goes_first(void **state)
{
    (void)state;
    struct kit k;
    open_cache(&k, 8);
    for (uint32_t b = 0; b < 8; b++)
        touch_block(&k, b);
    touch_block(&k, 0);
    for (uint32_t b = 100; b < 103; b++)
        touch_block(&k, b);
    assert_int_equal(kit_status(&k).valid_blocks, 8);
    assert_int_equal(kit_status(&k).evicted, 3);
    assert_true(kit_is_valid(&k, 0) && kit_is_valid(&k, 4));
    assert_false(kit_is_valid(&k, 1) || kit_is_valid(&k, 2) ||
                 kit_is_valid(&k, 3));
    /* what went gave its space back */
    assert_int_equal(k.data.bytes[KIT_BLOCK], 0);
    touch_block(&k, 1);
    kit_dispose(&k);
}

/* Would break: what the prediction names is thrown out for what it does not. */
static void predicted_blocks_are_kept(void **state)
{
    (void)state;
    struct kit k;
    const uint32_t order[] = { 2, 1, 0 }, none[] = { 599 };
    open_cache(&k, 8);
    for (uint32_t b = 0; b < 8; b++)
        touch_block(&k, b);
    assert_int_equal(fc_shadow_set_order(k.s, order, 3), 0);
    for (uint32_t b = 100; b < 150; b++)
        touch_block(&k, b);
    for (uint32_t b = 0; b < 3; b++)
        assert_true(kit_is_valid(&k, b));
    assert_int_equal(kit_status(&k).valid_blocks, 8);
    assert_int_equal(fc_shadow_set_order(k.s, none, 1), 0);
    for (uint32_t b = 200; b < 250; b++)
        touch_block(&k, b);
    for (uint32_t b = 0; b < 3; b++)
        assert_false(kit_is_valid(&k, b));
    kit_dispose(&k);
}

/* Would break: prefetching throws everything else out, or goes past the budget,
 * or never begins. */
static void prefetching_leaves_room(void **state)
{
    (void)state;
    struct kit k;
    uint32_t order[100];
    open_cache(&k, 40);
    for (uint32_t b = 0; b < 40; b++)
        touch_block(&k, b);
    for (uint32_t i = 0; i < 100; i++)
        order[i] = 300 + i * 2;
    assert_int_equal(fc_shadow_set_order(k.s, order, 100), 0);
    assert_int_equal(fc_shadow_start(k.s), 0);
    KIT_WAIT("prefetched blocks", kit_status(&k).prefetched >= 30);
    assert_true(kit_is_valid(&k, 300) && kit_is_valid(&k, 302));
    kit_close_shadow(&k);
    assert_int_equal(k.map.bytes[0], 'F');
    kit_open(&k);
    struct fc_shadow_status st = kit_status(&k);
    assert_true(st.valid_blocks <= 40); /* closed cleanly: it is all there */
    assert_true(st.valid_blocks >= 30);
    unsigned others = 0;
    for (uint32_t b = 0; b < 300; b++)
        others += kit_is_valid(&k, b);
    assert_true(others >= 40 / 8);
    assert_false(kit_is_valid(&k, 498));
    kit_dispose(&k);
}

/* Would break: the shared primary is behind its cache, or the cache behind its
 * primary, after a crash too. */
static void writes_go_through(void **state)
{
    (void)state;
    struct kit k;
    uint8_t *model, buf[3 * KIT_BLOCK];
    uint64_t rng = 99;
    open_cache(&k, 50);
    model = malloc(KIT_SIZE);
    assert_non_null(model);
    memcpy(model, k.primary.bytes, KIT_SIZE);
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t at = kit_rng(&rng) % (KIT_SIZE - sizeof(buf));
        uint64_t len = 1 + kit_rng(&rng) % sizeof(buf);
        if (i % 3) {
            kit_assert_reads(&k, at, model + at, len);
            continue;
        }
        memset(buf, (int)i, sizeof(buf));
        if (i % 5 == 0)
            memset(buf, 0, sizeof(buf));
        memcpy(model + at, buf, len);
        assert_int_equal(i % 5   ? fc_shadow_write(k.s, at, buf, len)
                         : i & 1 ? fc_shadow_zero(k.s, at, len, true)
                                 : fc_shadow_trim(k.s, at, len),
                         0);
        assert_memory_equal(k.primary.bytes + at, model + at, len);
    }
    assert_true(kit_status(&k).valid_blocks <= 50);
    assert_true(kit_status(&k).evicted > 0);
    kit_assert_reads(&k, 0, model, KIT_SIZE);
    assert_int_equal(fc_shadow_flush(k.s), 0);
    struct fc_shadow *crashed = k.s;
    kit_open(&k);
    assert_int_equal(kit_status(&k).valid_blocks, 0);
    assert_int_equal(kit_status(&k).state, FC_SHADOW_OWNED);
    kit_close_shadow(&k);
    assert_int_equal(fc_shadow_close(crashed), 0);
    free(model);
    kit_dispose(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_comes_first_then_the_rest),
        cmocka_unit_test(a_miss_jumps_the_queue),
        cmocka_unit_test(hydration_outlives_an_outage),
        cmocka_unit_test(hydration_waits_for_the_lease),
        cmocka_unit_test(real_files_are_hydrated_by_libaio),
        cmocka_unit_test(the_oldest_goes_first),
        cmocka_unit_test(predicted_blocks_are_kept),
        cmocka_unit_test(prefetching_leaves_room),
        cmocka_unit_test(writes_go_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
