/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store.h"

#include <fcntl.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "err.h"
#include "io.h"
#include "pfnmap.h"
#include "store_format.h"
#include "wire.h"

/*
 * The writing side. Three parts: the index in the file (hash to cell), the
 * arena (cells; its record of each cell names the index slot) and the map of
 * pfns (pfn to cell, by age).
 *
 * Invariants between calls:
 * - every slot has at least one reference, and as many as pfns map its cell;
 * - owner(cell of a slot) is that slot, so that a slot can be moved without
 *   knowing the pfns;
 * - no empty slot is between an entry and its home (removal moves entries back
 *   and leaves no marker), and no new entry is FC_STORE_PROBES slots away;
 * - used() <= budget. The index in use is sized for the budget, which may be
 *   far below what the file was made for.
 *
 * A put reserves the pfn's entry first and takes it out of the list of ages,
 * so that the evictions it causes cannot hit the pfn itself. Growth is
 * evaluated before it happens: budget is made by evictions, then memory taken.
 * For readers the contents are written before the slot that names them; a
 * reader that loses a race sees a page that fails its hash, or none.
 *
 * Not done: moving pages to empty sparse slabs. Pages put together age
 * together, so eviction by age empties slabs by itself.
 */
#define LOAD_NUM 3u /* at most 3/4 of the slots are taken */
#define LOAD_DEN 4u
#define BYTES_PER_SLOT 1024u /* of budget: pages rarely shrink below that */
#define RAW_ABOVE (FC_PAGE_SIZE - FC_PAGE_SIZE / 8)
/* After so many evictions for one page a larger cell will do: the classes'
 * shares have changed and the right slab may take thousands more. */
#define PATIENCE 32u
#define NO_SLOT UINT64_MAX

struct fc_store {
    uint8_t *map;
    size_t map_bytes;
    uint64_t *index;
    uint32_t log2, max_log2; /* slots in use, and in the file */
    uint64_t mask, epoch, max_budget;
    uint8_t *arena_base;
    struct fc_arena arena;
    struct fc_pfnmap pfns;
    struct fc_store_stats stats; /* pfns and used_bytes are filled in late */
};

struct eviction {
    fc_store_evicted *report;
    void *user;
};

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

static uint32_t log2_for(uint64_t budget, uint32_t most)
{
    uint32_t log2 = FC_STORE_LOG2_MIN;
    while (log2 < most && (uint64_t)BYTES_PER_SLOT << log2 < budget)
        log2++;
    return log2;
}

static uint64_t index_bytes(uint32_t log2)
{
    return round_up(FC_STORE_HEADER + ((uint64_t)FC_STORE_SLOT << log2),
                    FC_STORE_ALIGN);
}

/* What counts against the budget, with an index of 2^log2 slots. */
static uint64_t used_with(const struct fc_store *s, uint32_t log2)
{
    return sizeof(*s) + index_bytes(log2) + s->arena.bytes + s->pfns.bytes;
}

static uint64_t used(const struct fc_store *s)
{
    return used_with(s, s->log2);
}

int fc_store_file_new(const char *name, uint64_t budget_bytes)
{
    if (budget_bytes < FC_STORE_MIN_BYTES ||
        budget_bytes > FC_ARENA_MAX_BYTES - FC_ARENA_SLAB)
        return FC_EINVAL;
    uint32_t log2 = log2_for(budget_bytes, FC_STORE_LOG2_MAX);
    uint64_t arena_offset = index_bytes(log2);
    uint64_t arena_bytes = round_up(budget_bytes, FC_ARENA_SLAB);
    uint64_t epoch;
    do
        if (fc_random(&epoch, sizeof(epoch)))
            return FC_ESYS;
    while (!epoch);

    uint8_t raw[FC_STORE_HEADER] = { 0 };
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    fc_put_bytes(&w, FC_STORE_MAGIC, 8);
    fc_put_u32(&w, log2);
    fc_put_u32(&w, 0);
    fc_put_u64(&w, arena_offset);
    fc_put_u64(&w, arena_bytes);
    fc_put_u64(&w, epoch);
    fc_put_u32(&w, 0);
    fc_put_u32(&w, log2);

    int fd = fc_memfd_new(name, arena_offset + arena_bytes);
    if (fd >= 0 && pwrite(fd, raw, sizeof(raw), 0) != (ssize_t)sizeof(raw)) {
        fc_close(&fd);
        return FC_ESYS;
    }
    return fd;
}

int fc_store_readonly_fd(int fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int ro = open(path, O_RDONLY | O_CLOEXEC);
    return ro < 0 ? FC_ESYS : ro;
}

static void use_slots(struct fc_store *s, uint32_t log2)
{
    s->log2 = log2;
    s->mask = (1ull << log2) - 1;
    fc_store_in_use_set(s->map, log2);
}

int fc_store_open(int fd, uint64_t budget_bytes, struct fc_store **store_r)
{
    struct fc_store_view view;
    *store_r = NULL;
    int rc = fc_store_view_open(fd, &view);
    if (rc)
        return rc;
    struct fc_store *s = calloc(1, sizeof(*s));
    if (!s) {
        rc = FC_ENOMEM;
        goto out;
    }
    fc_pfnmap_init(&s->pfns);
    s->mask = view.mask;
    while (s->mask >> s->max_log2)
        s->max_log2++;
    s->epoch = view.epoch;
    void *map =
        mmap(NULL, view.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        rc = FC_ESYS;
        goto out;
    }
    s->map = map;
    s->map_bytes = view.map_bytes;
    s->index = (uint64_t *)(void *)(s->map + FC_STORE_HEADER);
    s->arena_base = s->map + view.arena_offset;
    if (fc_le_load(s->map + FC_STORE_WRITERS_AT, 4)) {
        rc = FC_EFORMAT;
        goto out;
    }
    fc_le_store(s->map + FC_STORE_WRITERS_AT, 1, 4);

    uint64_t arena_bytes = view.arena_bytes / FC_ARENA_SLAB * FC_ARENA_SLAB;
    rc = fc_arena_init(&s->arena, fd, (off_t)view.arena_offset, arena_bytes);
    if (rc)
        goto out;
    s->max_budget = view.arena_bytes;
    use_slots(s, log2_for(budget_bytes, s->max_log2));
    if (budget_bytes < used(s)) {
        rc = FC_EINVAL;
        goto out;
    }
    s->stats.budget_bytes =
        budget_bytes < s->max_budget ? budget_bytes : s->max_budget;
    *store_r = s;
out:
    if (rc)
        fc_store_free(s);
    fc_store_view_dispose(&view);
    return rc;
}

void fc_store_free(struct fc_store *s)
{
    if (!s)
        return;
    fc_arena_dispose(&s->arena);
    fc_pfnmap_dispose(&s->pfns);
    if (s->map)
        munmap(s->map, s->map_bytes);
    free(s);
}

uint64_t fc_store_epoch(const struct fc_store *s)
{
    return s->epoch;
}

static uint64_t *slot_at(const struct fc_store *s, uint64_t i)
{
    return s->index + i * (FC_STORE_SLOT / sizeof(uint64_t));
}

static bool slot_empty(const uint64_t *slot)
{
    return !(fc_store_word_get(slot, FC_STORE_LO) |
             fc_store_word_get(slot, FC_STORE_HI));
}

static uint32_t slot_cell(const uint64_t *slot)
{
    return (uint32_t)(fc_store_word_get(slot, FC_STORE_OFFSET) / FC_ARENA_UNIT);
}

static uint32_t slot_stored(const uint64_t *slot)
{
    return fc_store_word_get(slot, FC_STORE_REST) & 0xffff;
}

/*
 * The slot that holds the hash, with *held_r set, or the empty one that would
 * take it; NO_SLOT when that would be too far from its home.
 */
static uint64_t slot_find(const struct fc_store *s, struct fc_hash hash,
                          bool *held_r)
{
    uint64_t i = hash.lo & s->mask;
    *held_r = false;
    for (unsigned n = 0; n < FC_STORE_PROBES; n++) {
        const uint64_t *slot = slot_at(s, i);
        if (slot_empty(slot))
            return i;
        if (fc_store_word_get(slot, FC_STORE_LO) == hash.lo &&
            fc_store_word_get(slot, FC_STORE_HI) == hash.hi) {
            *held_r = true;
            return i;
        }
        i = (i + 1) & s->mask;
    }
    return NO_SLOT;
}

/* The hash last: a reader that sees it sees the rest. */
static void slot_write(uint64_t *slot, struct fc_hash hash, uint64_t offset,
                       uint64_t rest)
{
    fc_store_word_set(slot, FC_STORE_OFFSET, offset);
    fc_store_word_set(slot, FC_STORE_REST, rest);
    fc_store_word_set(slot, FC_STORE_HI, hash.hi);
    fc_store_word_set(slot, FC_STORE_LO, hash.lo);
}

/* Empties a slot and closes the gap (Knuth, TAOCP 3, algorithm 6.4R). */
static void slot_remove(struct fc_store *s, uint64_t hole)
{
    for (uint64_t i = (hole + 1) & s->mask;; i = (i + 1) & s->mask) {
        const uint64_t *slot = slot_at(s, i);
        if (slot_empty(slot))
            break;
        struct fc_hash hash = { fc_store_word_get(slot, FC_STORE_LO),
                                fc_store_word_get(slot, FC_STORE_HI) };
        if (((i - hash.lo) & s->mask) < ((i - hole) & s->mask))
            continue;
        slot_write(slot_at(s, hole), hash,
                   fc_store_word_get(slot, FC_STORE_OFFSET),
                   fc_store_word_get(slot, FC_STORE_REST));
        fc_arena_owner_set(&s->arena, slot_cell(slot), (uint32_t)hole);
        hole = i;
    }
    slot_write(slot_at(s, hole), (struct fc_hash){ 0, 0 }, 0, 0);
}

static void cell_hold(struct fc_store *s, uint32_t cell)
{
    uint64_t *slot = slot_at(s, fc_arena_owner(&s->arena, cell));
    fc_store_word_set(slot, FC_STORE_REST,
                      fc_store_word_get(slot, FC_STORE_REST) + (1ull << 32));
}

static void cell_let_go(struct fc_store *s, uint32_t cell)
{
    uint32_t at = fc_arena_owner(&s->arena, cell);
    uint64_t *slot = slot_at(s, at);
    uint64_t rest = fc_store_word_get(slot, FC_STORE_REST);
    if (rest >> 32 > 1) {
        fc_store_word_set(slot, FC_STORE_REST, rest - (1ull << 32));
        return;
    }
    s->stats.pages--;
    s->stats.stored_bytes -= slot_stored(slot);
    slot_remove(s, at);
    fc_arena_release(&s->arena, cell);
}

static void drop_linked(struct fc_store *s, uint32_t pfn,
                        struct fc_pfnmap_entry *entry)
{
    fc_pfnmap_unlink(&s->pfns, entry);
    cell_let_go(s, entry->cell);
    fc_pfnmap_remove(&s->pfns, pfn);
}

static bool evict_one(struct fc_store *s, const struct eviction *ev)
{
    uint32_t pfn = s->pfns.oldest;
    if (pfn == FC_PFNMAP_NONE)
        return false;
    drop_linked(s, pfn, fc_pfnmap_find(&s->pfns, pfn));
    s->stats.evicted++;
    if (ev->report)
        ev->report(ev->user, pfn);
    return true;
}

/* An entry for pfn in no list, its old cell (or none) still held. */
static struct fc_pfnmap_entry *reserve(struct fc_store *s, uint32_t pfn,
                                       const struct eviction *ev)
{
    struct fc_pfnmap_entry *entry = fc_pfnmap_find(&s->pfns, pfn);
    if (entry) {
        fc_pfnmap_unlink(&s->pfns, entry);
        return entry;
    }
    while (used(s) + fc_pfnmap_cost(&s->pfns, pfn) > s->stats.budget_bytes)
        if (!evict_one(s, ev))
            return NULL;
    return fc_pfnmap_reserve(&s->pfns, pfn);
}

static bool affordable(const struct fc_store *s, unsigned class)
{
    return used(s) + fc_arena_cost(&s->arena, class) <= s->stats.budget_bytes;
}

/* A free cell for that class, evicting as needed; FC_ARENA_NONE: no way. */
static uint32_t take_cell(struct fc_store *s, unsigned class,
                          const struct eviction *ev)
{
    for (unsigned n = 0;; n++) {
        uint32_t cell = fc_arena_take(&s->arena, class, 0);
        if (cell == FC_ARENA_NONE && affordable(s, class) &&
            !fc_arena_grow(&s->arena, class))
            cell = fc_arena_take(&s->arena, class, 0);
        for (unsigned c = class + 1;
             n > PATIENCE && cell == FC_ARENA_NONE && c <= FC_ARENA_CLASSES;
             c++)
            cell = fc_arena_take(&s->arena, c, 0);
        if (cell != FC_ARENA_NONE || !evict_one(s, ev))
            return cell;
    }
}

static uint64_t most_pages(uint32_t log2)
{
    return (1ull << log2) / LOAD_DEN * LOAD_NUM;
}

/* Stores contents that are not held yet; their cell, or FC_ARENA_NONE. */
static uint32_t add_contents(struct fc_store *s, struct fc_hash hash,
                             const void *page, const struct eviction *ev)
{
    char packed[FC_PAGE_SIZE];
    const void *bytes = packed;
    int stored = LZ4_compress_default(page, packed, FC_PAGE_SIZE, RAW_ABOVE);
    if (stored <= 0) {
        bytes = page;
        stored = FC_PAGE_SIZE;
    }
    while (s->stats.pages >= most_pages(s->log2))
        if (!evict_one(s, ev))
            return FC_ARENA_NONE;
    uint32_t cell = take_cell(s, fc_arena_class((size_t)stored), ev);
    if (cell == FC_ARENA_NONE)
        return cell;
    bool held;
    uint64_t at = slot_find(s, hash, &held);
    if (at == NO_SLOT) {
        fc_arena_release(&s->arena, cell);
        return FC_ARENA_NONE;
    }
    uint64_t offset = (uint64_t)cell * FC_ARENA_UNIT;
    memcpy(s->arena_base + offset, bytes, (size_t)stored);
    fc_arena_owner_set(&s->arena, cell, (uint32_t)at);
    slot_write(slot_at(s, at), hash, offset, (uint64_t)stored | 1ull << 32);
    s->stats.pages++;
    s->stats.stored_bytes += (uint64_t)stored;
    return cell;
}

int fc_store_put(struct fc_store *s, uint64_t pfn, struct fc_hash hash,
                 const void *page, fc_store_evicted *evicted, void *user)
{
    const struct eviction ev = { evicted, user };
    if (pfn >= FC_PFNMAP_NONE || fc_hash_is_none(hash)) {
        fc_store_drop(s, pfn);
        s->stats.refused++;
        return FC_EINVAL;
    }
    struct fc_pfnmap_entry *entry = reserve(s, (uint32_t)pfn, &ev);
    if (!entry) {
        s->stats.refused++;
        return FC_EFULL;
    }
    bool held;
    uint64_t at = slot_find(s, hash, &held);
    uint32_t old = entry->cell, cell = FC_ARENA_NONE;
    if (held) {
        cell = slot_cell(slot_at(s, at));
        cell_hold(s, cell);
        s->stats.duplicates++;
    }
    if (old != FC_PFNMAP_NONE)
        cell_let_go(s, old);
    entry->cell = FC_PFNMAP_NONE;
    if (!held)
        cell = add_contents(s, hash, page, &ev);
    if (cell == FC_ARENA_NONE) {
        fc_pfnmap_remove(&s->pfns, (uint32_t)pfn);
        s->stats.refused++;
        return FC_EFULL;
    }
    entry->cell = cell;
    fc_pfnmap_link(&s->pfns, (uint32_t)pfn, entry);
    s->stats.puts++;
    return 0;
}

void fc_store_drop(struct fc_store *s, uint64_t pfn)
{
    struct fc_pfnmap_entry *entry =
        pfn < FC_PFNMAP_NONE ? fc_pfnmap_find(&s->pfns, (uint32_t)pfn) : NULL;
    if (entry)
        drop_linked(s, (uint32_t)pfn, entry);
}

bool fc_store_has(const struct fc_store *s, uint64_t pfn)
{
    return pfn < FC_PFNMAP_NONE && fc_pfnmap_find(&s->pfns, (uint32_t)pfn);
}

/* Empties the index in use and gives its memory back. */
static void index_clear(struct fc_store *s)
{
    uint64_t bytes = index_bytes(s->log2);
    memset(s->index, 0, FC_STORE_ALIGN - FC_STORE_HEADER);
    if (fallocate(s->arena.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  FC_STORE_ALIGN, (off_t)(bytes - FC_STORE_ALIGN)) < 0)
        memset(s->map + FC_STORE_ALIGN, 0, bytes - FC_STORE_ALIGN);
}

/*
 * Makes the index 2^log2 slots large. The entries wait in private memory
 * meanwhile, and readers miss what they look for: budgets change when keepers
 * come and go, not while a migration reads. Entries whose hashes collide on
 * purpose may land too far from home to be found; they are dropped with their
 * pfns like any other.
 */
static int index_resize(struct fc_store *s, uint32_t log2)
{
    uint64_t held = s->stats.pages, n = 0;
    uint64_t(*moved)[FC_STORE_SLOT / sizeof(uint64_t)] =
        malloc((held + 1) * sizeof(*moved));
    if (!moved)
        return FC_ENOMEM;
    for (uint64_t i = 0; i <= s->mask && n < held; i++)
        if (!slot_empty(slot_at(s, i)))
            memcpy(moved[n++], slot_at(s, i), FC_STORE_SLOT);
    index_clear(s);
    use_slots(s, log2);
    for (uint64_t k = 0; k < n; k++) {
        struct fc_hash hash = { fc_store_word_get(moved[k], FC_STORE_LO),
                                fc_store_word_get(moved[k], FC_STORE_HI) };
        uint64_t at = hash.lo & s->mask;
        while (!slot_empty(slot_at(s, at)))
            at = (at + 1) & s->mask;
        slot_write(slot_at(s, at), hash,
                   fc_store_word_get(moved[k], FC_STORE_OFFSET),
                   fc_store_word_get(moved[k], FC_STORE_REST));
        fc_arena_owner_set(&s->arena, slot_cell(moved[k]), (uint32_t)at);
    }
    free(moved);
    return 0;
}

uint64_t fc_store_budget_set(struct fc_store *s, uint64_t budget_bytes,
                             fc_store_evicted *evicted, void *user)
{
    const struct eviction ev = { evicted, user };
    if (budget_bytes > s->max_budget)
        budget_bytes = s->max_budget;
    uint32_t log2 = log2_for(budget_bytes, s->max_log2);
    while ((used_with(s, log2) > budget_bytes ||
            s->stats.pages > most_pages(log2)) &&
           evict_one(s, &ev))
        ;
    if (log2 != s->log2 && index_resize(s, log2)) {
        /* Without memory the index stays as it is, and pages pay for it. */
        while (used(s) > budget_bytes && evict_one(s, &ev))
            ;
    }
    if (budget_bytes < used(s))
        budget_bytes = used(s);
    s->stats.budget_bytes = budget_bytes;
    return budget_bytes;
}

void fc_store_stats_get(const struct fc_store *s,
                        struct fc_store_stats *stats_r)
{
    *stats_r = s->stats;
    stats_r->pfns = s->pfns.linked;
    stats_r->used_bytes = used(s);
}
