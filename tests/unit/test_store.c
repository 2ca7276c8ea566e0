/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "../rng.h"
#include "err.h"
#include "golden.h"
#include "io.h"
#include "store.h"
#include "store_format.h"
#include "wire.h"

#define MIB (1ull << 20)
#define PFNS 3000u

/* Contents number `seed`; the low two bits say how well they compress. */
static struct fc_hash make_page(uint64_t seed, uint8_t *page)
{
    static const unsigned noise[4] = { 8, 700, 2500, FC_PAGE_SIZE };
    uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
    memset(page, 0x55, FC_PAGE_SIZE);
    for (unsigned i = 0; i < noise[seed % 4]; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        page[i] = (uint8_t)x;
    }
    fc_le_store(page, seed, 8);
    return fc_page_hash(page);
}

struct fixture {
    int fd;
    struct fc_store *store;
    struct fc_store_view view;
    uint64_t model[PFNS]; /* contents' number, 0: none */
    unsigned evicted;
};

static void fixture_open(struct fixture *f, uint64_t budget)
{
    memset(f, 0, sizeof(*f));
    f->fd = fc_store_file_new("test", budget);
    assert_true(f->fd >= 0);
    assert_int_equal(fc_store_open(f->fd, budget, &f->store), 0);
    assert_int_equal(fc_store_view_open(f->fd, &f->view), 0);
}

static void fixture_close(struct fixture *f)
{
    fc_store_view_dispose(&f->view);
    fc_store_free(f->store);
    close(f->fd);
}

static void on_evicted(void *user, uint64_t pfn)
{
    struct fixture *f = user;
    assert_true(pfn < PFNS);
    assert_int_not_equal(f->model[pfn], 0);
    f->model[pfn] = 0;
    f->evicted++;
}

static int put(struct fixture *f, uint64_t pfn, uint64_t seed)
{
    uint8_t page[FC_PAGE_SIZE];
    struct fc_hash hash = make_page(seed, page);
    f->model[pfn] = 0;
    int rc = fc_store_put(f->store, pfn, hash, page, on_evicted, f);
    if (!rc)
        f->model[pfn] = seed;
    return rc;
}

static int get(const struct fixture *f, uint64_t seed)
{
    uint8_t want[FC_PAGE_SIZE], page[FC_PAGE_SIZE];
    struct fc_hash hash = make_page(seed, want);
    int rc = fc_store_view_get(&f->view, hash, page);
    if (!rc)
        assert_memory_equal(page, want, FC_PAGE_SIZE);
    return rc;
}

static struct fc_store_stats stats(const struct fixture *f)
{
    struct fc_store_stats st;
    fc_store_stats_get(f->store, &st);
    return st;
}

/* Would break: a stock reader of the format cannot open the store. */
static void header_is_golden(void **state)
{
    (void)state;
    uint8_t raw[FC_STORE_HEADER];
    int fd = fc_store_file_new("test", 4 * MIB);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, raw, sizeof(raw), 0), sizeof(raw));
    assert_true(fc_le_load(raw + 32, 8) != 0);
    fc_le_store(raw + 32, 0x1122334455667788u, 8);
    assert_golden("store-header", raw, sizeof(raw));
    close(fd);
}

/* Would break: two stores take each other's acknowledgements for their own. */
static void epochs_differ(void **state)
{
    (void)state;
    struct fixture a, b;
    fixture_open(&a, MIB);
    fixture_open(&b, MIB);
    assert_int_not_equal(fc_store_epoch(a.store), fc_store_epoch(b.store));
    assert_int_equal(fc_store_epoch(a.store), a.view.epoch);
    fixture_close(&a);
    fixture_close(&b);
}

/* Would break: a restarted writer claims pages whose pfns it has forgotten. */
static void second_writer_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_store *other;
    fixture_open(&f, MIB);
    assert_int_equal(fc_store_open(f.fd, MIB, &other), FC_EFORMAT);
    assert_null(other);
    fixture_close(&f);
    assert_int_equal(fc_store_file_new("test", MIB - 1), FC_EINVAL);
    assert_int_equal(fc_store_file_new("test", UINT64_MAX), FC_EINVAL);
}

/* Would break: equal pages of many pfns are stored many times, or vanish when
 * one of the pfns changes. */
static void equal_pages_are_stored_once(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 4 * MIB);
    for (uint64_t pfn = 0; pfn < 100; pfn++)
        assert_int_equal(put(&f, pfn, 7), 0);
    assert_int_equal(stats(&f).pages, 1);
    assert_int_equal(stats(&f).pfns, 100);
    assert_int_equal(stats(&f).duplicates, 99);
    for (uint64_t pfn = 0; pfn < 99; pfn++)
        assert_int_equal(put(&f, pfn, 100 + pfn), 0);
    assert_int_equal(get(&f, 7), 0);
    fc_store_drop(f.store, 99);
    fc_store_drop(f.store, 99);
    assert_int_equal(get(&f, 7), FC_ENOENT);
    assert_int_equal(stats(&f).pages, 99);
    fixture_close(&f);
}

/* Would break: a page that LZ4 hardly shortens is slow to read. */
static void poor_compression_is_kept_raw(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 4 * MIB);
    assert_int_equal(put(&f, 1, 3), 0);
    assert_int_equal(stats(&f).stored_bytes, FC_PAGE_SIZE);
    assert_int_equal(put(&f, 1, 2), 0);
    assert_true(stats(&f).stored_bytes < FC_PAGE_SIZE - FC_PAGE_SIZE / 8);
    assert_int_equal(get(&f, 2), 0);
    assert_int_equal(get(&f, 3), FC_ENOENT);
    fixture_close(&f);
}

static uint64_t memory_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Would break: dropped pages go on taking the destination's memory. */
static void emptied_slabs_are_given_back(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 8 * MIB);
    uint64_t before = stats(&f).used_bytes;
    for (uint64_t pfn = 0; pfn < 1000; pfn++)
        assert_int_equal(put(&f, pfn, 4 * pfn + 3), 0);
    assert_true(memory_of(f.fd) >= 4 * MIB - 96 * 1024);
    for (uint64_t pfn = 0; pfn < 1000; pfn++)
        fc_store_drop(f.store, pfn);
    assert_true(memory_of(f.fd) <= MIB);
    assert_true(stats(&f).used_bytes < before + 4096); /* slabs' records */
    assert_int_equal(stats(&f).pages, 0);
    fixture_close(&f);
}

/* Would break: the store outgrows its budget, or drops a page and tells
 * nobody, or drops young pages before old ones. */
static void oldest_pages_make_room(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 2 * MIB);
    for (uint64_t pfn = 0; pfn < 1000; pfn++) {
        assert_int_equal(put(&f, pfn, 4 * pfn + 3), 0);
        assert_true(stats(&f).used_bytes <= 2 * MIB);
    }
    assert_true(f.evicted > 450 && f.evicted < 600);
    assert_int_equal(stats(&f).evicted, f.evicted);
    for (uint64_t pfn = 0; pfn < 1000; pfn++) {
        assert_int_equal(f.model[pfn] != 0, pfn >= f.evicted);
        assert_int_equal(fc_store_has(f.store, pfn), pfn >= f.evicted);
        assert_int_equal(get(&f, 4 * pfn + 3),
                         pfn >= f.evicted ? 0 : FC_ENOENT);
    }
    fixture_close(&f);
}

/* Would break: a page put again counts as old. */
static void putting_again_makes_young(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 2 * MIB);
    for (uint64_t pfn = 1; pfn < 1000; pfn++) {
        assert_int_equal(put(&f, 0, 3), 0);
        assert_int_equal(put(&f, pfn, 4 * pfn + 3), 0);
    }
    assert_true(f.evicted > 0);
    assert_int_equal(get(&f, 3), 0);
    fixture_close(&f);
}

/* Would break: after pages that compress well, raw ones find no room, or the
 * other way round. */
static void changed_sizes_find_room(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, MIB);
    for (unsigned round = 0; round < 8; round++)
        for (uint64_t pfn = 0; pfn < PFNS; pfn++)
            assert_int_equal(
                put(&f, pfn, 4 * (round * PFNS + pfn + 1) + round % 4), 0);
    assert_true(stats(&f).used_bytes <= MIB);
    assert_int_equal(stats(&f).refused, 0);
    fixture_close(&f);
}

/* Would break: a lower budget set live is not kept, or kills the store. */
static void budget_can_change(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 8 * MIB);
    for (uint64_t pfn = 0; pfn < 1000; pfn++)
        assert_int_equal(put(&f, pfn, 4 * pfn + 3), 0);
    assert_int_equal(f.evicted, 0);
    assert_int_equal(fc_store_budget_set(f.store, 2 * MIB, on_evicted, &f),
                     2 * MIB);
    assert_true(stats(&f).used_bytes <= 2 * MIB);
    assert_true(f.evicted > 400);
    assert_int_equal(get(&f, 4 * 999 + 3), 0);
    assert_int_equal(fc_store_budget_set(f.store, UINT64_MAX, on_evicted, &f),
                     8 * MIB);
    uint64_t least = fc_store_budget_set(f.store, 0, on_evicted, &f);
    assert_int_equal(least, stats(&f).used_bytes);
    assert_int_equal(stats(&f).pfns, 0);
    assert_int_equal(put(&f, 1, 3), FC_EFULL);
    assert_int_equal(stats(&f).refused, 1);
    fixture_close(&f);
}

/* Would break: many guests at a destination make each one's share of the
 * budget vanish in an index made for all of it. */
static void index_follows_the_budget(void **state)
{
    (void)state;
    struct fixture f;
    memset(&f, 0, sizeof(f));
    f.fd = fc_store_file_new("test", 4096 * MIB);
    assert_true(f.fd >= 0);
    assert_int_equal(fc_store_open(f.fd, MIB, &f.store), 0);
    assert_int_equal(fc_store_view_open(f.fd, &f.view), 0);
    assert_true(stats(&f).used_bytes < 64 * 1024);
    for (uint64_t pfn = 0; pfn < PFNS; pfn++)
        assert_int_equal(put(&f, pfn, 1 + pfn), 0);
    assert_true(stats(&f).used_bytes <= MIB);
    static const uint64_t budgets[] = { 64, 512, 8, 2, 16, 1, 4096 };
    for (unsigned b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++) {
        uint64_t budget = budgets[b] * MIB;
        assert_int_equal(fc_store_budget_set(f.store, budget, on_evicted, &f),
                         budget);
        assert_true(stats(&f).used_bytes <= budget);
        for (unsigned i = 0; i < 2; i++) {
            for (uint64_t pfn = 0; pfn < PFNS; pfn++) {
                assert_int_equal(fc_store_has(f.store, pfn), f.model[pfn] != 0);
                if (f.model[pfn])
                    assert_int_equal(get(&f, f.model[pfn]), 0);
            }
            for (uint64_t pfn = 0; i == 0 && pfn < PFNS; pfn++)
                assert_int_equal(put(&f, pfn, 1 + (pfn + 77 * b) % 5000), 0);
        }
        assert_true(stats(&f).used_bytes <= budget);
    }
    assert_true(memory_of(f.fd) < 64 * MIB + (128 * MIB));
    fixture_close(&f);
}

/* Would break: pfns that no guest has take memory outside the budget. */
static void sparse_pfns_stay_in_the_budget(void **state)
{
    (void)state;
    struct fixture f;
    uint8_t page[FC_PAGE_SIZE];
    fixture_open(&f, MIB);
    struct fc_hash hash = make_page(4, page);
    for (uint64_t i = 0; i < 5000; i++) {
        assert_int_equal(
            fc_store_put(f.store, i * 850000, hash, page, NULL, NULL), 0);
        assert_true(stats(&f).used_bytes <= MIB);
    }
    assert_true(stats(&f).pfns > 50);
    assert_int_equal(fc_store_put(f.store, UINT32_MAX, hash, page, NULL, NULL),
                     FC_EINVAL);
    assert_int_equal(fc_store_put(f.store, 1ull << 40, hash, page, NULL, NULL),
                     FC_EINVAL);
    struct fc_hash none = { 0, 0 };
    assert_int_equal(fc_store_put(f.store, 1, none, page, NULL, NULL),
                     FC_EINVAL);
    fc_store_drop(f.store, UINT64_MAX);
    fixture_close(&f);
}

/* Would break: an entry costs the destination more than was promised. */
static void bookkeeping_is_small(void **state)
{
    (void)state;
    struct fixture f;
    uint8_t page[FC_PAGE_SIZE];
    fixture_open(&f, 64 * MIB);
    struct fc_hash hash = make_page(4, page);
    assert_int_equal(fc_store_put(f.store, 0, hash, page, NULL, NULL), 0);
    uint64_t before = stats(&f).used_bytes;
    for (uint64_t pfn = 1; pfn < 65536; pfn++)
        assert_int_equal(fc_store_put(f.store, pfn, hash, page, NULL, NULL), 0);
    assert_true((stats(&f).used_bytes - before) / 65535 < 24);
    fixture_close(&f);
}

/* Hashes that all want one slot: the index's worst case. */
static struct fc_hash colliding(uint64_t i)
{
    return (struct fc_hash){ 255, i + 1 };
}

/* Would break: chosen hashes make searches endless or lose entries when one
 * in the middle goes. */
static void colliding_hashes_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    uint8_t page[FC_PAGE_SIZE] = { 0 }, out[FC_PAGE_SIZE];
    unsigned held = 0;
    fixture_open(&f, 8 * MIB);
    for (uint64_t i = 0; i < 1500; i++)
        held += !fc_store_put(f.store, i, colliding(i), page, NULL, NULL);
    assert_int_equal(held, FC_STORE_PROBES);
    for (uint64_t i = 0; i < FC_STORE_PROBES; i += 3)
        fc_store_drop(f.store, i);
    for (uint64_t i = 0; i < FC_STORE_PROBES; i++)
        assert_int_equal(fc_store_view_get(&f.view, colliding(i), out),
                         i % 3 ? FC_ECHECK : FC_ENOENT);
    /* A smaller index puts two lots of colliding hashes together. */
    for (uint64_t i = 0; i < 1500; i++) {
        struct fc_hash hash = { 255 + (1u << 12), i + 1 };
        fc_store_put(f.store, 2000 + i, hash, page, NULL, NULL);
    }
    assert_int_equal(fc_store_budget_set(f.store, 3 * MIB, NULL, NULL),
                     3 * MIB);
    for (uint64_t pfn = 0; pfn < 3500; pfn++)
        fc_store_drop(f.store, pfn);
    assert_int_equal(stats(&f).pages, 0);
    fixture_close(&f);
}

/* Would break: under any order of puts and drops, a page is lost, wrong, or
 * held without being counted. */
static void agrees_with_a_model(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 3 * MIB);
    for (unsigned step = 0; step < 60000; step++) {
        uint64_t pfn = test_rng() % PFNS;
        if (test_rng() % 4 == 0) {
            fc_store_drop(f.store, pfn);
            f.model[pfn] = 0;
        } else {
            uint64_t seed = 1 + test_rng() % 5000;
            if (step / 10000 % 2)
                seed |= 3;
            assert_int_equal(put(&f, pfn, seed), 0);
        }
        assert_true(stats(&f).used_bytes <= 3 * MIB);
        if (step % 64 == 0) {
            uint64_t some = test_rng() % PFNS;
            assert_int_equal(fc_store_has(f.store, some), f.model[some] != 0);
            if (f.model[some])
                assert_int_equal(get(&f, f.model[some]), 0);
        }
    }
    static uint8_t held[5001];
    unsigned pfns = 0, pages = 0;
    memset(held, 0, sizeof(held));
    for (unsigned i = 0; i < PFNS; i++) {
        pfns += f.model[i] != 0;
        if (f.model[i])
            held[f.model[i]] = 1;
    }
    for (unsigned seed = 1; seed <= 5000; seed++) {
        pages += held[seed];
        assert_int_equal(get(&f, seed), held[seed] ? 0 : FC_ENOENT);
    }
    assert_int_equal(stats(&f).pfns, pfns);
    assert_int_equal(stats(&f).pages, pages);
    assert_true(f.evicted > 0);
    fixture_close(&f);
}

static uint8_t *map_all(const struct fixture *f)
{
    uint8_t *map = mmap(NULL, f->view.map_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED, f->fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    return map;
}

/* Would break: a damaged staged page reaches a guest. */
static void any_flipped_byte_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    uint8_t page[FC_PAGE_SIZE];
    fixture_open(&f, MIB);
    uint8_t *map = map_all(&f);
    for (uint64_t seed = 4; seed < 8; seed++) {
        assert_int_equal(put(&f, 1, seed), 0);
        uint64_t stored = stats(&f).stored_bytes, slot, wrong = 0;
        struct fc_hash hash = make_page(seed, page);
        for (slot = 0; fc_le_load(map + 64 + 32 * slot, 8) != hash.lo;)
            slot++;
        uint8_t *at = map + f.view.arena_offset +
                      fc_le_load(map + 64 + 32 * slot + 16, 8);
        for (uint64_t i = 0; i < stored; i++) {
            at[i] ^= 0x10;
            int rc = get(&f, seed);
            assert_true(rc == 0 || rc == FC_ECHECK);
            wrong += rc == FC_ECHECK;
            at[i] ^= 0x10;
        }
        /* LZ4 has a few bits that say the same in two ways. */
        assert_true(wrong + 4 >= stored);
        assert_int_equal(get(&f, seed), 0);
    }
    munmap(map, f.view.map_bytes);
    fixture_close(&f);
}

/* Would break: a taken-over keeper makes the reader read outside the file. */
static void hostile_index_is_harmless(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {
        0, 1, MIB - 1, MIB, MIB + 1, UINT64_MAX, UINT64_MAX - 4095, 1ull << 63
    };
    struct fixture f;
    uint8_t page[FC_PAGE_SIZE];
    fixture_open(&f, MIB);
    uint8_t *map = map_all(&f);
    for (unsigned o = 0; o < sizeof(offsets) / sizeof(offsets[0]); o++)
        for (unsigned stored = 0; stored < 65536; stored += 1365) {
            struct fc_hash hash = { 3, 9 };
            uint8_t *slot = map + 64 + 32 * 3;
            fc_le_store(slot, hash.lo, 8);
            fc_le_store(slot + 8, hash.hi, 8);
            fc_le_store(slot + 16, offsets[o], 8);
            fc_le_store(slot + 24, stored, 8);
            assert_int_equal(fc_store_view_get(&f.view, hash, page), FC_ECHECK);
        }
    memset(map + 64, 0xff, 32u << 10);
    assert_int_equal(fc_store_view_get(&f.view, (struct fc_hash){ 3, 8 }, page),
                     FC_ENOENT);
    munmap(map, f.view.map_bytes);
    fixture_close(&f);
}

static int view_of(const uint8_t *raw, size_t len, uint64_t size, int seals)
{
    struct fc_store_view view;
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(pwrite(fd, raw, len, 0), len);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    int rc = fc_store_view_open(fd, &view);
    fc_store_view_dispose(&view);
    close(fd);
    return rc;
}

/* Would break: a file that is no store, or lies about its size, is mapped and
 * read. */
static void header_is_checked(void **state)
{
    (void)state;
    static const unsigned bad_at[] = { 0,  7,  8,  11, 12, 15, 16, 17,
                                       20, 24, 31, 41, 43, 45, 48, 63 };
    uint8_t raw[64];
    int fd = fc_store_file_new("test", MIB);
    struct stat st;
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pread(fd, raw, 64, 0), 64);
    close(fd);
    uint64_t size = (uint64_t)st.st_size;
    assert_int_equal(view_of(raw, 64, size, F_SEAL_SHRINK), 0);
    assert_int_equal(view_of(raw, 64, size, F_SEAL_GROW), FC_EFORMAT);
    assert_int_equal(view_of(raw, 64, size - 4096, F_SEAL_SHRINK), FC_EFORMAT);
    assert_int_equal(view_of(raw, 63, 63, F_SEAL_SHRINK), FC_EFORMAT);
    assert_int_equal(view_of(raw, 0, 0, F_SEAL_SHRINK), FC_EFORMAT);
    for (unsigned i = 0; i < sizeof(bad_at) / sizeof(bad_at[0]); i++) {
        raw[bad_at[i]] ^= 0x60;
        assert_int_equal(view_of(raw, 64, size, F_SEAL_SHRINK), FC_EFORMAT);
        raw[bad_at[i]] ^= 0x60;
    }
    memset(raw + 32, 0, 8);
    assert_int_equal(view_of(raw, 64, size, F_SEAL_SHRINK), FC_EFORMAT);
}

/* Would break: whoever is given the store to read can write it. */
static void readonly_descriptor_cannot_write(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_store_view view;
    fixture_open(&f, MIB);
    assert_int_equal(put(&f, 1, 5), 0);
    int ro = fc_store_readonly_fd(f.fd);
    assert_true(ro >= 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, ro, 0),
                     MAP_FAILED);
    assert_true(write(ro, "x", 1) < 0);
    assert_int_equal(fc_store_view_open(ro, &view), 0);
    fc_store_view_dispose(&view);
    close(ro);
    fixture_close(&f);
}

static int read_until_told(int fd, int stop)
{
    struct fc_store_view view;
    uint8_t page[FC_PAGE_SIZE], want[FC_PAGE_SIZE];
    uint64_t hits = 0, n = 0;
    if (fc_store_view_open(fd, &view))
        return 1;
    while (fc_wait_readable(stop, 0) == 0)
        for (unsigned i = 0; i < 200; i++) {
            uint64_t seed = 1 + n++ % 600;
            struct fc_hash hash = make_page(seed, want);
            int rc = fc_store_view_get(&view, hash, page);
            if (!rc && memcmp(page, want, FC_PAGE_SIZE))
                return 2;
            if (rc && rc != FC_ENOENT && rc != FC_ECHECK)
                return 3;
            hits += !rc;
        }
    return hits ? 0 : 4;
}

/* Would break: the restore helper reads a page that the keeper is replacing
 * and takes it for good. */
static void reader_beside_a_writer(void **state)
{
    (void)state;
    struct fixture f;
    int stop[2], status;
    fixture_open(&f, MIB);
    assert_int_equal(pipe(stop), 0);
    for (uint64_t pfn = 0; pfn < 100; pfn++)
        assert_int_equal(put(&f, pfn, 1 + pfn), 0);
    pid_t pid = fork();
    if (!pid)
        _exit(read_until_told(f.fd, stop[0]));
    uint64_t end = fc_now_ms() + 1500;
    while (fc_now_ms() < end)
        for (unsigned i = 0; i < 200; i++)
            assert_int_equal(put(&f, test_rng() % 600, 1 + test_rng() % 600),
                             0);
    assert_int_equal(write(stop[1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(stop[0]);
    close(stop[1]);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_is_golden),
        cmocka_unit_test(epochs_differ),
        cmocka_unit_test(second_writer_is_refused),
        cmocka_unit_test(equal_pages_are_stored_once),
        cmocka_unit_test(poor_compression_is_kept_raw),
        cmocka_unit_test(emptied_slabs_are_given_back),
        cmocka_unit_test(oldest_pages_make_room),
        cmocka_unit_test(putting_again_makes_young),
        cmocka_unit_test(changed_sizes_find_room),
        cmocka_unit_test(budget_can_change),
        cmocka_unit_test(index_follows_the_budget),
        cmocka_unit_test(sparse_pfns_stay_in_the_budget),
        cmocka_unit_test(bookkeeping_is_small),
        cmocka_unit_test(colliding_hashes_are_bounded),
        cmocka_unit_test(agrees_with_a_model),
        cmocka_unit_test(any_flipped_byte_is_noticed),
        cmocka_unit_test(hostile_index_is_harmless),
        cmocka_unit_test(header_is_checked),
        cmocka_unit_test(readonly_descriptor_cannot_write),
        cmocka_unit_test(reader_beside_a_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
