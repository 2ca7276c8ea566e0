/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLOCKSET_H
#define FC_BLOCKSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A set of a disk's blocks: a bitmap that knows how many bits are set, and its
 * bounded form for the wire (docs/formats/block-set.md).
 *
 * Not thread-safe: the caller's lock covers it.
 */

/* 16 TiB in blocks of 64 KiB; a bitmap of 32 MiB. */
#define FC_BLOCKSET_MAX (1u << 28)

struct fc_blockset {
    uint64_t *words; /* bits past `blocks` are always clear */
    uint32_t blocks; /* numbers 0 to blocks-1 can be held */
    uint32_t count;  /* how many are */
};

/* 0, FC_EINVAL (0 or more than FC_BLOCKSET_MAX blocks) or FC_ENOMEM. */
int fc_blockset_init(struct fc_blockset *s, uint32_t blocks, bool all);
void fc_blockset_dispose(struct fc_blockset *s);

/* `block` must be below `blocks`. set: whether that changed it. */
bool fc_blockset_test(const struct fc_blockset *s, uint32_t block);
bool fc_blockset_set(struct fc_blockset *s, uint32_t block);

/* All of them, or none. */
void fc_blockset_fill(struct fc_blockset *s, bool all);

/* first <= block < first + count; both ends within the set. */
void fc_blockset_set_range(struct fc_blockset *s, uint32_t first,
                           uint32_t count, bool on);

/* How many of them are held; likewise. */
uint32_t fc_blockset_count_range(const struct fc_blockset *s, uint32_t first,
                                 uint32_t count);

/* Both of the same number of blocks. */
void fc_blockset_copy(struct fc_blockset *to, const struct fc_blockset *from);

/* The first held (not held) block at or after `from`; `blocks` when none. */
uint32_t fc_blockset_next(const struct fc_blockset *s, uint32_t from);
uint32_t fc_blockset_next_clear(const struct fc_blockset *s, uint32_t from);

/* A piece's head, and the least buffer that fc_blockset_encode takes. */
#define FC_BLOCKSET_HEAD_BYTES 16
#define FC_BLOCKSET_PIECE_MIN 64

/*
 * Writes what the set holds from block `first` on into `buf` as one piece of
 * the wire form, covering as many blocks as its `cap` bytes hold (at least
 * FC_BLOCKSET_PIECE_MIN). *len_r gets the piece's length, *next_r the block
 * after the last one covered (`blocks` when that was all): a large set takes
 * several pieces. 0 or FC_EINVAL.
 */
int fc_blockset_encode(const struct fc_blockset *s, uint32_t first, void *buf,
                       size_t cap, size_t *len_r, uint32_t *next_r);

/*
 * Takes one piece: the blocks that it covers become as it says, the others
 * stay. It must begin at block `first` (so that pieces come in order and leave
 * nothing out); *next_r as above. 0, or FC_EFORMAT with the set unchanged.
 */
int fc_blockset_decode(struct fc_blockset *s, uint32_t first, const void *buf,
                       size_t len, uint32_t *next_r);

#endif
