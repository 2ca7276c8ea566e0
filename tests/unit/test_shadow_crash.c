/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts: every change and sync of volume and map is recorded through a
 * copy, a fence, a lease and a guest's writes; then the record is cut after
 * each entry, what was not made durable by then is dropped, torn or reordered
 * by chance, and the shadow is opened on what is left.
 */
#include "log.h"
#include "shadow_kit.h"

#define BLOCKS 40u
#define SIZE ((uint64_t)(BLOCKS - 1) * KIT_BLOCK + 1536)
#define SECTORS (SIZE / 512)
#define ROUNDS 4u /* chances for each cut */
#define SEEDS 3u

/* One thing that the test was told, and after how many entries. */
struct moment {
    size_t entries;
    enum { FENCING, FENCED, OWNING, OWNED, WRITTEN } what;
};

/* A value that a sector was given: from `begun` entries on it may be seen. */
struct given {
    uint64_t sector;
    size_t begun;
    size_t flushed; /* durable for sure from here on; SIZE_MAX: never */
    uint8_t bytes[512];
};

struct history {
    struct kit k;
    uint8_t *frozen; /* the primary at the fence */
    struct moment moments[8];
    unsigned moment_count;
    struct given *given;
    size_t given_count, given_room;
};

static void note_moment(struct history *h, int what)
{
    struct moment *m = &h->moments[h->moment_count++];

    m->entries = h->k.log.count;
    m->what = what;
}

static bool before(const struct history *h, size_t cut, int what)
{
    for (unsigned i = 0; i < h->moment_count; i++)
        if ((int)h->moments[i].what == what)
            return cut >= h->moments[i].entries;
    return false;
}

/* ---- what is recorded ---- */

static void guest_write(struct history *h, uint64_t sector, uint64_t count,
                        uint64_t version)
{
    uint8_t *buf = malloc(count * 512);

    assert_non_null(buf);
    kit_fill(buf, sector * 512, count * 512, version);
    for (uint64_t i = 0; i < count; i++) {
        if (h->given_count == h->given_room) {
            h->given_room = h->given_room ? h->given_room * 2 : 256;
            h->given = realloc(h->given, h->given_room * sizeof(*h->given));
            assert_non_null(h->given);
        }
        struct given *g = &h->given[h->given_count++];
        g->sector = sector + i;
        g->begun = h->k.log.count;
        g->flushed = SIZE_MAX;
        memcpy(g->bytes, buf + i * 512, 512);
    }
    assert_int_equal(fc_shadow_write(h->k.s, sector * 512, buf, count * 512),
                     0);
    free(buf);
}

static void guest_flush(struct history *h)
{
    assert_int_equal(fc_shadow_flush(h->k.s), 0);
    for (size_t i = 0; i < h->given_count; i++)
        if (h->given[i].flushed == SIZE_MAX)
            h->given[i].flushed = h->k.log.count;
}

/* The source's guest goes on writing while blocks are copied. */
static void record_copy(struct history *h, uint64_t *rng,
                        struct fc_blockset *todo)
{
    struct kit *k = &h->k;
    uint8_t block[KIT_BLOCK];

    for (unsigned i = 0; i < 50; i++) {
        uint32_t b = kit_rng(rng) % BLOCKS;
        uint64_t at = (uint64_t)b * KIT_BLOCK;
        uint64_t len = SIZE - at < KIT_BLOCK ? SIZE - at : KIT_BLOCK;
        if (kit_rng(rng) % 3 == 0) {
            kit_fill(k->primary.bytes + at, at, len, 100 + i);
            fc_blockset_set(todo, b);
        } else {
            memcpy(block, k->primary.bytes + at, len);
            assert_int_equal(fc_shadow_put(k->s, b, 1, block), 0);
            fc_blockset_set_range(todo, b, 1, false);
        }
        if (i % 20 == 19)
            assert_int_equal(fc_shadow_sync(k->s), 0);
    }
}

static void record_guest(struct history *h, uint64_t *rng)
{
    for (unsigned i = 0; i < 40; i++) {
        uint64_t sector = kit_rng(rng) % SECTORS;
        uint64_t count = 1 + kit_rng(rng) % 20;
        unsigned op = kit_rng(rng) % 8;
        uint32_t b = kit_rng(rng) % BLOCKS;
        uint8_t block[KIT_BLOCK];
        if (count > SECTORS - sector)
            count = SECTORS - sector;
        if (op < 4) {
            guest_write(h, sector, count, 1000 + i);
        } else if (op < 6) {
            uint64_t at = (uint64_t)b * KIT_BLOCK;
            memcpy(block, h->frozen + at,
                   SIZE - at < KIT_BLOCK ? SIZE - at : KIT_BLOCK);
            assert_int_equal(fc_shadow_put(h->k.s, b, 1, block), 0);
        } else if (op == 6) {
            guest_flush(h);
        } else {
            assert_int_equal(fc_shadow_read(h->k.s, b * KIT_BLOCK, block, 100),
                             0);
        }
    }
}

static void record(struct history *h, uint64_t seed)
{
    uint64_t rng = seed;
    struct fc_blockset todo;

    memset(h, 0, sizeof(*h));
    kit_init_sized(&h->k, SIZE, KIT_BLOCK, false);
    memset(h->k.data.bytes, 0, SIZE); /* what a cut starts from */
    h->k.log.keep = true;
    kit_open(&h->k);
    assert_int_equal(fc_blockset_init(&todo, BLOCKS, true), 0);
    record_copy(h, &rng, &todo);
    note_moment(h, FENCING);
    assert_int_equal(fc_shadow_fence(h->k.s, &todo, kit_migration, 7), 0);
    note_moment(h, FENCED);
    h->frozen = malloc(SIZE);
    assert_non_null(h->frozen);
    memcpy(h->frozen, h->k.primary.bytes, SIZE);
    note_moment(h, OWNING);
    assert_int_equal(fc_shadow_own(h->k.s, kit_migration, 7), 0);
    note_moment(h, OWNED);
    guest_write(h, 3, 2, 999);
    note_moment(h, WRITTEN);
    record_guest(h, &rng);
    fc_blockset_dispose(&todo);
}

/* ---- cutting ---- */

/* Bytes of an entry reach the disk as whole sectors or not at all. */
static void apply(struct kit *to, const struct kit_entry *e, uint64_t *rng,
                  bool torn)
{
    uint8_t *bytes = e->volume ? to->map.bytes : to->data.bytes;

    for (uint64_t at = 0; at < e->len; at += 512) {
        uint64_t n = e->len - at < 512 ? e->len - at : 512;
        if (torn && kit_rng(rng) & 1)
            continue;
        if (e->data)
            memcpy(bytes + e->offset + at, e->data + at, n);
        else
            memset(bytes + e->offset + at, 0, n);
    }
}

/* Whether entry i is durable when the power goes after `cut` entries. */
static bool durable(const struct kit_log *log, size_t i, size_t cut)
{
    for (size_t j = i + 1; j < cut; j++)
        if (log->entries[j].kind == KIT_SYNC &&
            log->entries[j].volume == log->entries[i].volume)
            return true;
    return false;
}

static void cut_power(const struct history *h, struct kit *to, size_t cut,
                      uint64_t *rng)
{
    const struct kit_log *log = &h->k.log;
    size_t loose[256], n = 0;

    kit_init_sized(to, SIZE, KIT_BLOCK, false);
    memset(to->data.bytes, 0, SIZE);
    if (h->frozen)
        memcpy(to->primary.bytes, h->frozen, SIZE);
    for (size_t i = 0; i < cut; i++) {
        if (log->entries[i].kind == KIT_SYNC)
            continue;
        if (durable(log, i, cut)) {
            apply(to, &log->entries[i], rng, false);
            continue;
        }
        assert_true(n < 256);
        loose[n++] = i;
    }
    while (n) {
        size_t pick = kit_rng(rng) % n;
        unsigned fate = kit_rng(rng) % 4;
        if (fate) /* 0: dropped, 1: torn, else whole; in any order */
            apply(to, &log->entries[loose[pick]], rng, fate == 1);
        loose[pick] = loose[--n];
    }
}

/* ---- what must hold afterwards ---- */

/*
 * Whether `bytes` may be what a sector reads: the newest that was flushed by
 * then, or anything given to it since.
 */
static bool may_read(const struct history *h, uint64_t sector,
                     const uint8_t *bytes, size_t cut)
{
    bool base = true;

    /* from the newest back to the one that was surely durable */
    for (size_t i = h->given_count; i-- > 0;) {
        const struct given *g = &h->given[i];
        if (g->sector != sector || g->begun > cut)
            continue;
        if (!memcmp(g->bytes, bytes, 512))
            return true;
        if (g->flushed <= cut) {
            base = false;
            break;
        }
    }
    return base && !memcmp(h->frozen + sector * 512, bytes, 512);
}

static void check(const struct history *h, size_t cut, uint64_t *rng)
{
    struct kit k;
    uint8_t disk[SIZE];

    cut_power(h, &k, cut, rng);
    kit_open(&k);
    struct fc_shadow_status st = kit_status(&k);
    if (!before(h, cut, FENCING) || st.state == FC_SHADOW_COPYING)
        assert_int_equal(st.valid_blocks, 0);
    if (before(h, cut, FENCED))
        assert_true(st.state >= FC_SHADOW_FENCED);
    if (before(h, cut, OWNED))
        assert_int_equal(st.state, FC_SHADOW_OWNED);
    else if (!before(h, cut, OWNING))
        assert_true(st.state < FC_SHADOW_OWNED);
    if (before(h, cut, WRITTEN))
        assert_true(st.written);
    if (st.state != FC_SHADOW_COPYING) {
        assert_int_equal(st.epoch, 7);
        assert_memory_equal(st.migration, kit_migration, FC_MIGRATION_BYTES);
    }
    assert_int_equal(fc_shadow_read(k.s, 0, disk, SIZE), 0);
    for (uint64_t sector = 0; sector < SECTORS; sector++)
        if (!may_read(h, sector, disk + sector * 512, cut))
            fail_msg("cut after %zu of %zu: sector %llu is stale or torn", cut,
                     h->k.log.count, (unsigned long long)sector);
    kit_dispose(&k);
}

/* Would break: after a power cut or a killed engine a block is served that is
 * stale, torn or never was, or a flushed write is gone. */
static void no_cut_shows_a_stale_block(void **state)
{
    (void)state;
    uint64_t rng = 20261121;
    unsigned cuts = 0;

    fc_log_set_level(FC_LOG_ERROR); /* damaged slots are the point here */
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct history h;
        record(&h, seed * 7919);
        for (size_t cut = 0; cut <= h.k.log.count; cut++)
            for (unsigned round = 0; round < ROUNDS; round++, cuts++)
                check(&h, cut, &rng);
        free(h.frozen);
        free(h.given);
        kit_dispose(&h.k);
    }
    assert_true(cuts > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_cut_shows_a_stale_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
