/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_MAP_H
#define FC_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "blockset.h"
#include "readstats.h"
#include "shadow.h"
#include "volume.h"

/*
 * The map of a shadow on disk: docs/formats/shadow-map.md. Not thread-safe:
 * the shadow's commit lock covers it.
 */
struct fc_map;

/* Whose map it is; never changes. */
struct fc_map_id {
    uint8_t uuid[FC_UUID_BYTES];
    char vdev[FC_VDEV_BYTES]; /* zeros after the text */
    uint64_t size_bytes;
    uint32_t block_bytes;
    bool cache;
};

/* What changes beside the bits. */
struct fc_map_state {
    enum fc_shadow_state state;
    uint64_t epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    bool clean, written;
    struct fc_readstats reads; /* for showing */
};

/* Blocks of a disk, or 0 when sizes are not as the format has them. */
uint32_t fc_map_blocks(uint64_t size_bytes, uint32_t block_bytes);

/*
 * Reads the map in `file`, which may be empty, and takes the volume over when
 * it returns 0. With no usable slot: nothing valid, COPYING (a cache: OWNED),
 * epoch 0.
 * FC_EINVAL (id), FC_EPERM (another disk's map), FC_ENOMEM, FC_EIO. Logs what
 * it refuses or passes over.
 */
int fc_map_open(struct fc_volume *file, const struct fc_map_id *id,
                struct fc_map **m_r);

void fc_map_close(struct fc_map *m); /* NULL is fine */

const struct fc_map_id *fc_map_id(const struct fc_map *m);
const struct fc_map_state *fc_map_state(const struct fc_map *m);

/* As read at opening, or as committed last. */
const struct fc_blockset *fc_map_valid(const struct fc_map *m);

/*
 * Writes the other slot and makes it durable. The blocks' data must be durable
 * already. 0 or FC_EIO with errno; then the map is what it was before.
 */
int fc_map_commit(struct fc_map *m, const struct fc_blockset *valid,
                  const struct fc_map_state *state);

/* Bytes of one slot for so many blocks. */
uint64_t fc_map_slot_bytes(uint32_t blocks);

#endif
