/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SHADOW_H
#define FC_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blockset.h"
#include "io.h"
#include "primary.h"
#include "readstats.h"

/*
 * A shadow: a local volume that has some of a disk's blocks, the map that says
 * which, and the primary that has the others.
 *
 * COPYING  another host's guest writes the primary. Blocks arrive and replace
 *          older ones. Reads go to the primary, nothing is kept of them;
 *          writes wait.
 * FENCED   the primary stands still and the blocks that are not valid are
 *          known. Valid ones are read here, others from the primary and not
 *          kept; writes wait. Blocks that arrive only fill what is missing.
 * OWNED    the guest is ours: what is read is kept, what is written is valid.
 * A cache is OWNED from the start, and its primary is written through.
 *
 * Guest requests (read, write, zero, trim, flush) may come from any number of
 * threads up to FC_SHADOW_THREADS. They are held, never failed, while the
 * primary cannot be reached or the state does not allow them; FC_ECANCEL after
 * fc_shadow_cancel. All other functions are for any thread, too.
 */
struct fc_shadow;

/* Requests and arriving blocks at once; bounds the pins of one block. */
#define FC_SHADOW_THREADS 128

#define FC_MIGRATION_BYTES 16
#define FC_VDEV_BYTES 16 /* with the NUL */

#define FC_SHADOW_BLOCK_MIN 4096u
#define FC_SHADOW_BLOCK_MAX (1u << 20)
#define FC_SHADOW_BLOCK_DEFAULT 65536u

enum fc_shadow_state {
    FC_SHADOW_COPYING = 0,
    FC_SHADOW_FENCED = 1,
    FC_SHADOW_OWNED = 2,
};

struct fc_volume;
struct fc_map;

struct fc_shadow_config {
    /* Both are opened by the caller (volume.h, map.h) and taken over by a
     * successful fc_shadow_open, which closes them at fc_shadow_close. */
    struct fc_volume *volume;
    struct fc_map *map;
    const struct fc_primary_ops *primary; /* outlives the shadow */
    void *primary_user;
    bool cache;
    uint64_t budget_bytes; /* cache: most that the volume may hold; 0: all */
    unsigned depth;        /* hydration's requests at once; 0: 16 */
};

/*
 * Takes over volume and map. The map's state is the shadow's. What it says is
 * used only if it can be trusted: of a map in state COPYING, or of a cache,
 * that was not closed by fc_shadow_close, no block is valid. 0, FC_ENOMEM,
 * FC_EINVAL (sizes that do not fit, a cache without a primary that can be
 * written), or the map's error; then nothing is taken over.
 */
int fc_shadow_open(const struct fc_shadow_config *config,
                   struct fc_shadow **s_r);

/* Starts hydration's threads (after a fork, not before). 0 or FC_ESYS. */
int fc_shadow_start(struct fc_shadow *s);

/*
 * Ends every held request with FC_ECANCEL, now and later; also
 * primary_ops.cancel. For the end of the engine.
 */
void fc_shadow_cancel(struct fc_shadow *s);

/*
 * Cancels, ends the threads, makes all durable and closes. No request may be
 * running or come. 0 or the error of the last commit (logged). NULL is fine.
 */
int fc_shadow_close(struct fc_shadow *s);

/*
 * The guest's requests, at any byte offset within the size. 0, FC_EINVAL (past
 * the end), FC_ECANCEL, FC_EIO (the local volume failed, logged; errno) or the
 * primary's refusal. zero: reads as zeros afterwards, space given back where
 * the volume can; `punch` false keeps it allocated. trim: may read as anything.
 * flush: all that was answered before it is durable, data and map.
 */
int fc_shadow_read(struct fc_shadow *s, uint64_t offset, void *buf, size_t len);
int fc_shadow_write(struct fc_shadow *s, uint64_t offset, const void *buf,
                    size_t len);
int fc_shadow_zero(struct fc_shadow *s, uint64_t offset, uint64_t len,
                   bool punch);
int fc_shadow_trim(struct fc_shadow *s, uint64_t offset, uint64_t len);
int fc_shadow_flush(struct fc_shadow *s);

/*
 * Blocks that arrived: `count` of them from `block` on, their plain bytes, or
 * NULL for zeros (the disk's last block may be short). COPYING: they replace
 * what was there; the caller keeps the order of two versions of one block.
 * FENCED, OWNED: those that are valid already are left alone. Never waits for
 * the primary. 0, FC_EINVAL (outside the disk) or FC_EIO. Durable after
 * fc_shadow_sync (or the fence) only.
 */
int fc_shadow_put(struct fc_shadow *s, uint32_t block, uint32_t count,
                  const void *data);

/*
 * COPYING -> FENCED: `not_valid` (of as many blocks as the disk has) is what
 * the primary has newer; those become invalid, and so does nothing else.
 * Returns when data and map are durable. Idempotent for the same migration and
 * epoch. FC_EPERM when OWNED or fenced for another one; FC_EINVAL; FC_EIO.
 */
int fc_shadow_fence(struct fc_shadow *s, const struct fc_blockset *not_valid,
                    const uint8_t migration[FC_MIGRATION_BYTES],
                    uint64_t epoch);

/*
 * FENCED -> OWNED by the lease of that migration and epoch; durable when it
 * returns; held requests go on. Idempotent. FC_EPERM for any other.
 */
int fc_shadow_own(struct fc_shadow *s,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch);

/*
 * Hands back to the source: FENCED or OWNED -> COPYING with `epoch`, which
 * must be above ours. FC_EPERM, and all stays, once the guest has written here.
 * Idempotent for that migration and epoch. Requests that wait keep waiting for
 * a new owner.
 */
int fc_shadow_return(struct fc_shadow *s,
                     const uint8_t migration[FC_MIGRATION_BYTES],
                     uint64_t epoch);

/* Volume and map durable now. 0 or FC_EIO. */
int fc_shadow_sync(struct fc_shadow *s);

/* The primary can be reached (again): held requests ask again. */
void fc_shadow_primary_up(struct fc_shadow *s);

/*
 * The order in which blocks will be wanted, most wanted first; replaces the
 * one before. Copied. Blocks outside the disk and doubles are passed over.
 * FC_ENOMEM.
 */
int fc_shadow_set_order(struct fc_shadow *s, const uint32_t *blocks,
                        size_t count);

/* Hydration's limit in bytes per second; 0: none. Demand is not limited. */
void fc_shadow_set_rate(struct fc_shadow *s, uint64_t bytes_ps);

/* The valid blocks, into a set of as many blocks as the disk has. */
void fc_shadow_valid(struct fc_shadow *s, struct fc_blockset *to);

/* All valid; `complete` of the status. Durable after fc_shadow_sync. */
bool fc_shadow_complete(struct fc_shadow *s);

struct fc_shadow_status {
    enum fc_shadow_state state;
    bool cache, written; /* written: the guest has, since it became ours */
    uint64_t size_bytes, epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    uint32_t block_bytes, blocks, valid_blocks, remaining_blocks;
    uint32_t dirty_blocks;   /* written by the guest since this open */
    uint64_t received_bytes; /* put from outside or pulled by hydration */
    /* these of all times, as far as the map knew (the last commit's) */
    uint64_t reads;                    /* the guest's, once the disk is ours */
    uint64_t read_hits, read_misses;   /* blocks of them: here, or fetched */
    uint64_t read_ms_sum, miss_ms_sum; /* time in reads; in those that missed */
    uint64_t writes, fills;    /* fills: blocks fetched for a write of a part */
    uint64_t prefetched;       /* blocks filled because the order named them */
    uint64_t prefetch_used;    /* of these, wanted by the guest afterwards */
    uint64_t evicted;          /* cache */
    uint64_t commits;          /* maps written */
    uint32_t held;             /* requests waiting now */
    bool primary_reachable;    /* by the last answer */
    struct fc_readstats stats; /* of these, what the map keeps */
};

/*
 * Puts what was counted of reads into the map, if it changed and none was
 * written for FC_SHADOW_KEEP_MS: engines are ended by being killed. 0 or
 * FC_EIO.
 */
#define FC_SHADOW_KEEP_MS 60000u
int fc_shadow_keep_stats(struct fc_shadow *s, uint64_t now_ms);

void fc_shadow_status(struct fc_shadow *s, struct fc_shadow_status *status_r);

#endif
