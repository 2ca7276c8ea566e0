/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SOURCE_H
#define FC_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blockset.h"
#include "volume.h"

/*
 * The disk at the source while it is being copied: the guest's requests go to
 * the volume, and `todo` knows which blocks the other host does not have as
 * they are now (at the start all of them).
 *
 * RUNNING  requests go through.
 * HELD     requests wait, those under way have ended: the volume stands still.
 *
 * A write marks its blocks before it is submitted and again when it has ended;
 * a copier clears a block's mark, then reads it. So whatever a read missed is
 * marked after it. Guest requests may come from any number of threads.
 */
struct fc_source;

/* Takes the volume over. block_bytes: a power of 2. 0, FC_EINVAL, FC_ENOMEM. */
int fc_source_open(struct fc_volume *volume, uint32_t block_bytes,
                   struct fc_source **s_r);
/* Makes the volume durable and closes it. No request may be running. */
void fc_source_close(struct fc_source *s); /* NULL is fine */

/*
 * The guest's requests. 0, FC_EIO with errno, FC_EINVAL (past the end) or
 * FC_ECANCEL (see fc_source_cancel). `durable`: as if a flush followed.
 */
int fc_source_read(struct fc_source *s, uint64_t offset, void *buf, size_t len);
int fc_source_write(struct fc_source *s, uint64_t offset, const void *buf,
                    size_t len, bool durable);
int fc_source_zero(struct fc_source *s, uint64_t offset, uint64_t len,
                   bool punch, bool durable);
int fc_source_trim(struct fc_source *s, uint64_t offset, uint64_t len,
                   bool durable);
int fc_source_flush(struct fc_source *s);
/* As a flush, but at once, held or not: 0 or FC_EIO. */
int fc_source_sync(struct fc_source *s);

/* Held requests and all later ones end with FC_ECANCEL: the engine ends. */
void fc_source_cancel(struct fc_source *s);

/*
 * Holds later requests back and waits until those under way have ended, at most
 * timeout_ms: 0, or FC_ETIMEOUT with everything running as before. Idempotent.
 */
int fc_source_hold(struct fc_source *s, int timeout_ms);
void fc_source_release(struct fc_source *s); /* held requests go on */

/* Which blocks are to be sent. Any thread. */
uint32_t fc_source_remaining(struct fc_source *s);
/* The first marked block at or after `from`; `blocks` when there is none. */
uint32_t fc_source_next(struct fc_source *s, uint32_t from);
bool fc_source_is_marked(struct fc_source *s, uint32_t block);
void fc_source_mark(struct fc_source *s, uint32_t first, uint32_t count);
void fc_source_clear(struct fc_source *s, uint32_t first, uint32_t count);
/* Into a set of as many blocks. Exact while the volume stands still. */
void fc_source_todo(struct fc_source *s, struct fc_blockset *to);
/* Marks what is not in `held`; `only`: and clears the marks of what is. */
void fc_source_mark_missing(struct fc_source *s, const struct fc_blockset *held,
                            bool only);

/*
 * The volume as it is, whatever the state (not the guest's way). data: as
 * fc_volume_data.
 */
int fc_source_peek(struct fc_source *s, void *buf, size_t len, uint64_t offset);
int fc_source_data(struct fc_source *s, uint64_t offset, uint64_t end,
                   uint64_t *from_r, uint64_t *to_r);

struct fc_source_status {
    uint64_t size_bytes;
    uint32_t block_bytes, blocks, remaining_blocks;
    uint64_t dirty_rate_bps; /* bytes of blocks newly marked by the guest */
    uint64_t reads, writes;
    uint64_t read_ns_sum;
    uint32_t held; /* requests waiting now */
    bool holding;
};

void fc_source_status(struct fc_source *s, struct fc_source_status *status_r);

#endif
