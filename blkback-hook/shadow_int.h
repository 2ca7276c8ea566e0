/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SHADOW_INT_H
#define FC_SHADOW_INT_H

/*
 * The shadow's inside, shared by shadow.c (life, states, commits),
 * shadow_block.c (locks of blocks, fetches), shadow_io.c (the guest's requests
 * and what arrives), hydrate.c and cache.c.
 *
 * Locks, outermost first; none is held while the primary is asked, a request is
 * held, or (but for `gate` and `commit_lock`) during I/O:
 *   gate         shared by what stores blocks that came from the primary, and
 *                by the guest's first write; alone by fence, own and return
 *   commit_lock  one map is written at a time
 *   a block      pinned (read, or written in place, by many) or busy (by one,
 *                who changes its validity); a request has one run of them at a
 *                time, so there is no order among blocks
 *   stripe lock  the flags and pins of 256 neighbouring blocks (and of every
 *                STRIPES-th such group), and the fetches going on there
 *   lock         sets, counters, order
 *   hold_lock, cache's and hydration's locks
 * Whoever takes the gate does so before a block, never with one in hand.
 *
 * A fetch is a read of the primary for blocks that are not valid. It holds no
 * lock: blocks may become valid meanwhile by being put or written whole. That
 * makes the fetch stale for them, and what it brings is dropped.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "map.h"
#include "shadow.h"
#include "volume.h"

enum block_flag {
    B_VALID = 1,
    B_BUSY = 2,
    B_DIRTY = 4,      /* written by the guest since this open */
    B_PREFETCHED = 8, /* came because the order named it; not yet used */
    B_AWAITED = 16,   /* somebody waits to have it alone: no new pins */
    B_TIER = 3 << 5,  /* who brought it: an fc_tier */
};
#define B_TIER_SHIFT 5

struct block {
    uint8_t flags, pins;
};

#define GROUP_BLOCKS 256u /* a run never leaves its group */
#define STRIPES 64u

/* The most that one read of the primary covers. */
#define FETCH_BYTES (1u << 20)

/* Why a fetch is made. */
enum fetch_kind { FETCH_DEMAND, FETCH_ORDER, FETCH_AHEAD, FETCH_IDLE };

struct fetch {
    uint32_t first, count;             /* within one group */
    uint64_t stale[GROUP_BLOCKS / 64]; /* bits by block - first */
    enum fetch_kind kind;
    bool wanted; /* a guest's request waits for it */
    /* Of shadow_run_take, for any run: it waited for another's fetch, or made
     * one stale that a guest's request waits for. */
    bool met;
    uint32_t tier[FC_TIERS]; /* of shadow_run_take: what it pinned, by tier */
    struct fetch *next;
};

struct stripe {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a block is no longer busy, pinned or fetched */
    struct fetch *fetches;
} __attribute__((aligned(64)));

struct hydrate;
struct cache;

struct fc_shadow {
    struct fc_volume *volume;
    struct fc_map *map;
    const struct fc_primary_ops *primary;
    void *user;
    uint64_t size;
    uint32_t block_bytes, blocks;
    unsigned block_shift;
    bool is_cache;
    struct block *block;
    struct stripe stripe[STRIPES];

    pthread_rwlock_t gate;
    atomic_int state;    /* changed with the gate alone */
    atomic_bool written; /* set with the gate shared, cleared alone */
    pthread_mutex_t commit_lock;
    struct fc_blockset snapshot; /* commit_lock: what is being written */
    uint64_t committed_promise;  /* lock */
    /* commit_lock: the reads that the map knows, and since when */
    uint64_t kept_reads, kept_ms;

    /* changed with commit_lock and lock, read with either */
    uint64_t epoch;
    uint8_t migration[FC_MIGRATION_BYTES];

    pthread_mutex_t lock;
    struct fc_blockset valid, durable, ordered;
    struct fc_blockset raised; /* asked for beside a miss, by ops.want */
    /* Counts guest writes into blocks whose valid bit is not durable yet: a
     * flush must commit the map up to there. */
    uint64_t promise;

    pthread_mutex_t hold_lock;
    pthread_cond_t hold_changed;
    uint64_t hold_generation; /* hold_lock: primary up, state changed, ... */
    atomic_uint held;
    atomic_bool cancelled, reachable;

    struct hydrate *hydrate;
    struct cache *cache; /* NULL unless is_cache */

    atomic_uint dirty_blocks;
    atomic_ullong received_bytes, writes, fills, evicted, commits;
    /* kept in the map: struct fc_readstats */
    atomic_ullong reads, hits[FC_TIERS], misses, read_ns, miss_ns, prefetched,
        prefetch_used, latency[FC_LATENCY_BUCKETS];
};

/* ---- shadow_block.c: any thread, no stripe lock held unless it says so ----
 */

static inline struct stripe *stripe_of(struct fc_shadow *s, uint32_t block)
{
    return &s->stripe[block / GROUP_BLOCKS % STRIPES];
}

/* Bytes of blocks first .. first+count-1; the last of the disk may be short. */
uint64_t shadow_block_bytes(const struct fc_shadow *s, uint32_t first,
                            uint32_t count);

/* How a run of blocks was found, see shadow_run_take. */
enum run_kind {
    RUN_PINNED,     /* valid, and pinned */
    RUN_BUSY,       /* not valid, and held alone */
    RUN_BUSY_VALID, /* valid, and held alone */
    RUN_FETCH,      /* not valid, and the fetch is entered */
    RUN_SKIP,       /* nothing taken */
};

enum run_want {
    /* valid: pinned. Else a fetch, or another's is awaited. */
    TAKE_READ,
    /* valid: pinned. Else skipped. */
    TAKE_VALID,
    /* valid: pinned. Else held alone, fetches made stale. */
    TAKE_WRITE,
    /* held alone, valid or not; fetches made stale. */
    TAKE_ALONE,
    /* valid: skipped. Else held alone, fetches made stale. */
    TAKE_PUT,
    /* neither valid nor busy nor fetched: a fetch. Else skipped, without
     * waiting. */
    TAKE_FILL,
    /* valid and free: held alone. Else skipped, without waiting. */
    TAKE_EVICT,
};

/*
 * Takes a run of like blocks from `first` on, at most `most` of them and all
 * in first's group, waiting for the first to be free. *count_r: its length.
 * RUN_FETCH uses `f`, which stays entered until shadow_fetch_end; the caller
 * sets its kind. Or FC_ECANCEL (negative) when the shadow ends, for TAKE_READ,
 * TAKE_VALID and TAKE_WRITE.
 */
int shadow_run_take(struct fc_shadow *s, uint32_t first, uint32_t most,
                    enum run_want want, struct fetch *f, uint32_t *count_r);

/* Ends RUN_PINNED; `dirtied`: the guest has written them. */
void shadow_run_unpin(struct fc_shadow *s, uint32_t first, uint32_t count,
                      bool dirtied);

/*
 * Ends RUN_BUSY and RUN_BUSY_VALID: the blocks are valid now, with the flags
 * `set` besides, or not. Tells the sets, the cache and who waits.
 */
void shadow_run_done(struct fc_shadow *s, uint32_t first, uint32_t count,
                     bool valid, uint8_t set);

/*
 * Ends a fetch. `data` (NULL: it failed) is stored for the blocks that are
 * still wanting, if the state lets it. 0, or FC_EIO of the volume (logged).
 * *fresh_r: no block had become stale, so `data` may be handed to who asked.
 */
int shadow_fetch_end(struct fc_shadow *s, struct fetch *f, const void *data,
                     bool *fresh_r);

/* ---- shadow_io.c ---- */

/*
 * Holding a request: `seen` is taken before the attempt that could not be done.
 * Waits while it is the newest, a second at most; 0: try again, or FC_ECANCEL.
 */
int shadow_hold(struct fc_shadow *s, uint64_t seen);
uint64_t shadow_hold_seen(struct fc_shadow *s);
void shadow_hold_wake(struct fc_shadow *s);

/* The primary's answer, noted for the status; passes `rc` on. */
int shadow_answer(struct fc_shadow *s, int rc);

/* Logs an error of the local volume once and returns FC_EIO. */
int shadow_volume_failed(const char *doing, uint64_t offset);

/* ---- shadow.c ---- */

/* Volume, then map. commit_lock is held. 0 or FC_EIO (logged). */
int shadow_commit(struct fc_shadow *s, bool clean);

/* Before the guest's first write is done; the gate is held shared. */
int shadow_note_written(struct fc_shadow *s);

#endif
