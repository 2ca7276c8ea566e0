/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shadow_kit.h"

#include <xxhash.h>

#include "golden.h"
#include "log.h"
#include "wire.h"

#define BLOCKS 70u

static const struct fc_map_id an_id = {
    .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
    .vdev = "xvda",
    .size_bytes = BLOCKS * 65536ull - 512,
    .block_bytes = 65536,
};

struct file {
    struct kit_log log;
    struct kit_volume v;
};

static void file_init(struct file *f)
{
    memset(f, 0, sizeof(*f));
    pthread_mutex_init(&f->log.lock, NULL);
    f->v = (struct kit_volume){ .log = &f->log,
                                .number = 1,
                                .size = 2 * fc_map_slot_bytes(BLOCKS) };
    f->v.bytes = calloc(1, f->v.size);
    assert_non_null(f->v.bytes);
}

static int open_id(struct file *f, const struct fc_map_id *id,
                   struct fc_map **m_r)
{
    struct fc_volume *v;

    assert_int_equal(fc_volume_new(&kit_volume_ops, &f->v, f->v.size, &v), 0);
    int rc = fc_map_open(v, id, m_r);
    if (rc)
        fc_volume_close(v);
    return rc;
}

static struct fc_map *reopen(struct file *f)
{
    struct fc_map *m;

    assert_int_equal(open_id(f, &an_id, &m), 0);
    return m;
}

/* Commits blocks `from` to the end as valid, with that epoch. */
static void commit(struct fc_map *m, uint32_t from, uint64_t epoch)
{
    struct fc_map_state state = { .state = FC_SHADOW_OWNED,
                                  .epoch = epoch,
                                  .migration = "migration-one..",
                                  .written = true,
                                  .reads = {
                                      .reads = 0x0102030405060708,
                                      .read_ns = 9,
                                      .miss_ns = 10,
                                      .hits = { 11, 12, 13, 14 },
                                      .misses = 15,
                                      .prefetched = 16,
                                      .prefetch_used = 17,
                                      .latency = { [0] = 18, [95] = 19 } } };
    struct fc_blockset valid;

    assert_int_equal(fc_blockset_init(&valid, BLOCKS, false), 0);
    fc_blockset_set_range(&valid, from, BLOCKS - from, true);
    assert_int_equal(fc_map_commit(m, &valid, &state), 0);
    fc_blockset_dispose(&valid);
}

/* Would break: the format changes without its document and version. */
static void is_as_documented(void **state)
{
    (void)state;
    struct file f;
    const size_t fields = 112 + FC_READSTATS_BYTES;
    uint8_t short_form[112 + FC_READSTATS_BYTES + 8 + 16];
    file_init(&f);
    struct fc_map *m = reopen(&f);
    assert_int_equal(fc_map_valid(m)->count, 0);
    assert_int_equal(fc_map_state(m)->state, FC_SHADOW_COPYING);
    commit(m, 66, 0x1122334455667788);
    fc_map_close(m);
    /* the golden file leaves the zeros out */
    memcpy(short_form, f.v.bytes, fields);
    memcpy(short_form + fields, f.v.bytes + 4088, 8 + 16);
    assert_golden("shadow-map", short_form, sizeof(short_form));
    for (size_t i = fields; i < 4088; i++)
        assert_int_equal(f.v.bytes[i], 0);
    free(f.v.bytes);
}

/* Would break: what was committed is not what is read. */
static void the_newest_commit_is_read(void **state)
{
    (void)state;
    struct file f;
    file_init(&f);
    struct fc_map *m = reopen(&f);
    for (uint32_t i = 1; i < 6; i++) {
        commit(m, i * 10, i);
        fc_map_close(m);
        m = reopen(&f);
        assert_int_equal(fc_map_valid(m)->count, BLOCKS - i * 10);
        assert_false(fc_blockset_test(fc_map_valid(m), i * 10 - 1));
        assert_int_equal(fc_map_state(m)->epoch, i);
        assert_true(fc_map_state(m)->written);
        assert_false(fc_map_state(m)->clean);
        assert_int_equal(fc_map_state(m)->state, FC_SHADOW_OWNED);
    }
    fc_map_close(m);
    free(f.v.bytes);
}

static void set_version(struct file *f, uint8_t version)
{
    f->v.bytes[8] = version;
    fc_le_store(f->v.bytes + 4088, XXH3_64bits(f->v.bytes, 4088), 8);
}

/* Would break: a map of before loses its blocks, or a later one is guessed at.
 */
static void versions_are_told_apart(void **state)
{
    (void)state;
    struct file f;
    fc_log_set_level(FC_LOG_ERROR);
    file_init(&f);
    struct fc_map *m = reopen(&f);
    commit(m, 10, 1);
    fc_map_close(m);
    m = reopen(&f);
    assert_int_equal(fc_map_state(m)->reads.reads, 0x0102030405060708);
    assert_int_equal(fc_map_state(m)->reads.latency[95], 19);
    fc_map_close(m);
    set_version(&f, 3);
    m = reopen(&f);
    assert_int_equal(fc_map_valid(m)->count, 0);
    fc_map_close(m);
    set_version(&f, 1); /* which had zeros there */
    m = reopen(&f);
    assert_int_equal(fc_map_valid(m)->count, 0);
    fc_map_close(m);
    memset(f.v.bytes + 112, 0, FC_READSTATS_BYTES);
    set_version(&f, 1);
    m = reopen(&f);
    assert_int_equal(fc_map_valid(m)->count, BLOCKS - 10);
    assert_int_equal(fc_map_state(m)->reads.reads, 0);
    assert_int_equal(fc_map_state(m)->reads.latency[95], 0);
    fc_map_close(m);
    free(f.v.bytes);
}

/* Would break: a torn or damaged slot is believed. */
static void a_damaged_slot_never_counts(void **state)
{
    (void)state;
    struct file f;
    size_t slot = (size_t)fc_map_slot_bytes(BLOCKS);
    fc_log_set_level(FC_LOG_ERROR);
    file_init(&f);
    struct fc_map *m = reopen(&f);
    commit(m, 10, 1); /* slot 0 */
    commit(m, 20, 2); /* slot 1 */
    fc_map_close(m);
    for (size_t i = 0; i < slot; i++) {
        f.v.bytes[slot + i] ^= 1u << (i % 8);
        m = reopen(&f);
        if (fc_map_state(m)->epoch != 1 ||
            fc_map_valid(m)->count != BLOCKS - 10)
            fail_msg("byte %zu was changed and the slot counts", i);
        fc_map_close(m);
        f.v.bytes[slot + i] ^= 1u << (i % 8);
    }
    f.v.bytes[100] ^= 1;
    m = reopen(&f);
    assert_int_equal(fc_map_state(m)->epoch, 2);
    fc_map_close(m);
    f.v.bytes[slot + 100] ^= 1;
    m = reopen(&f);
    assert_int_equal(fc_map_state(m)->state, FC_SHADOW_COPYING);
    assert_int_equal(fc_map_valid(m)->count, 0);
    fc_map_close(m);
    free(f.v.bytes);
}

/* Would break: a volume is served by the map of another disk. */
static void another_disks_map_is_refused(void **state)
{
    (void)state;
    struct file f;
    struct fc_map_id id;
    file_init(&f);
    struct fc_map *m = reopen(&f);
    commit(m, 10, 1);
    fc_map_close(m);
    for (unsigned i = 0; i < 5; i++) {
        id = an_id;
        if (i == 0)
            id.uuid[15]++;
        else if (i == 1)
            strcpy(id.vdev, "xvdb");
        else if (i == 2)
            id.size_bytes -= 512;
        else if (i == 3)
            id.block_bytes /= 2;
        else
            id.cache = true;
        assert_int_equal(open_id(&f, &id, &m), FC_EPERM);
    }
    id = an_id;
    id.block_bytes = 3 << 12;
    assert_int_equal(open_id(&f, &id, &m), FC_EINVAL);
    id = an_id;
    memset(id.vdev, 'x', FC_VDEV_BYTES);
    assert_int_equal(open_id(&f, &id, &m), FC_EINVAL);
    free(f.v.bytes);
}

/* Would break: a disk of an odd size has a block too few. */
static void sizes_are_counted(void **state)
{
    (void)state;
    assert_int_equal(fc_map_blocks(512, 4096), 1);
    assert_int_equal(fc_map_blocks(4096, 4096), 1);
    assert_int_equal(fc_map_blocks(4608, 4096), 2);
    assert_int_equal(fc_map_blocks((uint64_t)FC_BLOCKSET_MAX << 12, 4096),
                     FC_BLOCKSET_MAX);
    assert_int_equal(
        fc_map_blocks(((uint64_t)FC_BLOCKSET_MAX << 12) + 512, 4096), 0);
    assert_int_equal(fc_map_blocks(0, 4096), 0);
    assert_int_equal(fc_map_blocks(1000, 4096), 0);
    assert_int_equal(fc_map_blocks(4096, 2048), 0);
    assert_int_equal(fc_map_blocks(4096, 2u << 20), 0);
    assert_int_equal(fc_map_slot_bytes(1), 8192);
    assert_int_equal(fc_map_slot_bytes(4096 * 8 + 1), 4096 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_as_documented),
        cmocka_unit_test(versions_are_told_apart),
        cmocka_unit_test(the_newest_commit_is_read),
        cmocka_unit_test(a_damaged_slot_never_counts),
        cmocka_unit_test(another_disks_map_is_refused),
        cmocka_unit_test(sizes_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
