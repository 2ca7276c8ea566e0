/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "err.h"
#include "log.h"
#include "wire.h"

#define MAGIC "FCSHADOW"
#define MAGIC_BYTES 8
#define VERSION 2 /* 1: without how reads were served */
#define HEAD_BYTES 4096u
#define HEAD_SUM_AT (HEAD_BYTES - 8)

enum { FLAG_CLEAN = 1, FLAG_WRITTEN = 2, FLAG_CACHE = 4, FLAGS_ALL = 7 };

struct fc_map {
    struct fc_volume *file;
    struct fc_map_id id;
    struct fc_map_state state;
    struct fc_blockset valid;
    uint64_t sequence;
    unsigned slot;  /* the one in use: 0 or 1 */
    uint8_t *image; /* a slot's bytes */
    size_t slot_bytes;
};

/* A slot's header, checked by itself. */
struct head {
    struct fc_map_id id;
    struct fc_map_state state;
    uint32_t blocks, valid_blocks;
    uint64_t sequence, bitmap_sum;
};

uint32_t fc_map_blocks(uint64_t size_bytes, uint32_t block_bytes)
{
    if (!size_bytes || size_bytes % 512 || block_bytes < FC_SHADOW_BLOCK_MIN ||
        block_bytes > FC_SHADOW_BLOCK_MAX || block_bytes & (block_bytes - 1))
        return 0;
    uint64_t blocks =
        size_bytes / block_bytes + (size_bytes % block_bytes != 0);
    return blocks <= FC_BLOCKSET_MAX ? (uint32_t)blocks : 0;
}

uint64_t fc_map_slot_bytes(uint32_t blocks)
{
    uint64_t bitmap = ((uint64_t)blocks + 7) / 8;

    return HEAD_BYTES + (bitmap + HEAD_BYTES - 1) / HEAD_BYTES * HEAD_BYTES;
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* Whether a header is whole and by the rules; HEAD_BYTES at `p`. */
static bool head_parse(const uint8_t *p, struct head *h)
{
    struct fc_reader r = fc_reader_of(p, HEAD_BYTES);
    uint32_t version;

    if (memcmp(fc_get_bytes(&r, MAGIC_BYTES), MAGIC, MAGIC_BYTES) ||
        XXH3_64bits(p, HEAD_SUM_AT) != fc_le_load(p + HEAD_SUM_AT, 8) ||
        (version = fc_get_u32(&r)) < 1 || version > VERSION)
        return false;
    h->id.block_bytes = fc_get_u32(&r);
    h->id.size_bytes = fc_get_u64(&r);
    h->blocks = fc_get_u32(&r);
    h->valid_blocks = fc_get_u32(&r);
    memcpy(h->id.uuid, fc_get_bytes(&r, FC_UUID_BYTES), FC_UUID_BYTES);
    memcpy(h->id.vdev, fc_get_bytes(&r, FC_VDEV_BYTES), FC_VDEV_BYTES);
    h->sequence = fc_get_u64(&r);
    h->state.epoch = fc_get_u64(&r);
    memcpy(h->state.migration, fc_get_bytes(&r, FC_MIGRATION_BYTES),
           FC_MIGRATION_BYTES);
    uint32_t state = fc_get_u32(&r), flags = fc_get_u32(&r);
    h->bitmap_sum = fc_get_u64(&r);
    memset(&h->state.reads, 0, sizeof(h->state.reads));
    if (version == VERSION)
        fc_readstats_decode(fc_get_bytes(&r, FC_READSTATS_BYTES),
                            &h->state.reads);
    h->state.state = (enum fc_shadow_state)state;
    h->state.clean = flags & FLAG_CLEAN;
    h->state.written = flags & FLAG_WRITTEN;
    h->id.cache = flags & FLAG_CACHE;

    size_t text = strnlen(h->id.vdev, FC_VDEV_BYTES);
    return h->blocks && h->sequence && h->sequence != UINT64_MAX &&
           state <= FC_SHADOW_OWNED && flags <= FLAGS_ALL &&
           text < FC_VDEV_BYTES &&
           all_zero((const uint8_t *)h->id.vdev + text, FC_VDEV_BYTES - text) &&
           h->blocks == fc_map_blocks(h->id.size_bytes, h->id.block_bytes) &&
           h->valid_blocks <= h->blocks &&
           all_zero(r.p, HEAD_SUM_AT - (size_t)(r.p - p));
}

/* The bitmap that follows a header into `valid`; false: not what it says. */
static bool bits_parse(const struct fc_map *m, const struct head *h,
                       struct fc_blockset *valid)
{
    const uint8_t *bits = m->image + HEAD_BYTES;
    size_t room = m->slot_bytes - HEAD_BYTES;
    size_t words = ((size_t)h->blocks + 63) / 64;

    if (XXH3_64bits(bits, room) != h->bitmap_sum)
        return false;
    for (size_t i = 0; i < words; i++)
        valid->words[i] = fc_le_load(bits + i * 8, 8);
    if ((h->blocks % 64 && valid->words[words - 1] >> (h->blocks % 64)) ||
        !all_zero(bits + words * 8, room - words * 8))
        return false;
    uint32_t count = 0;
    for (size_t i = 0; i < words; i++)
        count += (uint32_t)__builtin_popcountll(valid->words[i]);
    valid->count = count;
    return count == h->valid_blocks;
}

static bool same_id(const struct fc_map_id *a, const struct fc_map_id *b)
{
    return !memcmp(a->uuid, b->uuid, FC_UUID_BYTES) &&
           !memcmp(a->vdev, b->vdev, FC_VDEV_BYTES) &&
           a->size_bytes == b->size_bytes && a->block_bytes == b->block_bytes &&
           a->cache == b->cache;
}

/*
 * Reads slot `slot` and takes it if it is the newest that counts. 0, also when
 * it does not count; FC_EPERM for another disk's.
 */
static int slot_take(struct fc_map *m, unsigned slot, struct fc_blockset *spare)
{
    uint64_t at = (uint64_t)slot * m->slot_bytes;
    struct head h;

    /* a file shorter than that may still be another disk's map */
    if (m->file->size_bytes < at + HEAD_BYTES)
        return 0;
    if (fc_volume_read(m->file, m->image, HEAD_BYTES, at)) {
        fc_error("shadow map: reading slot %u: %s", slot, strerror(errno));
        return FC_EIO;
    }
    if (!head_parse(m->image, &h)) {
        if (!all_zero(m->image, HEAD_BYTES))
            fc_warn("shadow map: slot %u is damaged, passed over", slot);
        return 0;
    }
    if (!same_id(&h.id, &m->id)) {
        fc_error("shadow map: it is another disk's (%.15s, %llu bytes, blocks "
                 "of %u)",
                 h.id.vdev, (unsigned long long)h.id.size_bytes,
                 h.id.block_bytes);
        return FC_EPERM;
    }
    if (h.sequence <= m->sequence)
        return 0;
    if (m->file->size_bytes < at + m->slot_bytes ||
        fc_volume_read(m->file, m->image + HEAD_BYTES,
                       m->slot_bytes - HEAD_BYTES, at + HEAD_BYTES) ||
        !bits_parse(m, &h, spare)) {
        fc_warn("shadow map: slot %u is damaged, passed over", slot);
        return 0;
    }
    fc_blockset_copy(&m->valid, spare);
    m->state = h.state;
    m->sequence = h.sequence;
    m->slot = slot;
    return 0;
}

static int slots_read(struct fc_map *m)
{
    struct fc_blockset spare;
    int rc = fc_blockset_init(&spare, m->valid.blocks, false);

    for (unsigned slot = 0; !rc && slot < 2; slot++)
        rc = slot_take(m, slot, &spare);
    fc_blockset_dispose(&spare);
    return rc;
}

int fc_map_open(struct fc_volume *file, const struct fc_map_id *id,
                struct fc_map **m_r)
{
    uint32_t blocks = fc_map_blocks(id->size_bytes, id->block_bytes);

    if (!blocks || id->vdev[FC_VDEV_BYTES - 1] || !id->vdev[0])
        return FC_EINVAL;
    struct fc_map *m = calloc(1, sizeof(*m));
    if (!m)
        return FC_ENOMEM;
    m->id = *id;
    /* zeros after the name, whatever the caller left there */
    memset(m->id.vdev, 0, FC_VDEV_BYTES);
    memcpy(m->id.vdev, id->vdev, strnlen(id->vdev, FC_VDEV_BYTES));
    m->slot_bytes = (size_t)fc_map_slot_bytes(blocks);
    m->slot = 1;
    m->state.clean = true;
    m->state.state = id->cache ? FC_SHADOW_OWNED : FC_SHADOW_COPYING;
    m->image = calloc(1, m->slot_bytes);
    m->file = file;
    int rc = m->image ? fc_blockset_init(&m->valid, blocks, false) : FC_ENOMEM;
    if (!rc && file->is_device && file->size_bytes < 2 * m->slot_bytes) {
        fc_error("shadow map: the device holds %llu bytes, %zu are needed",
                 (unsigned long long)file->size_bytes, 2 * m->slot_bytes);
        rc = FC_EINVAL;
    }
    if (!rc)
        rc = slots_read(m);
    if (rc) {
        m->file = NULL;
        fc_map_close(m);
        return rc;
    }
    *m_r = m;
    return 0;
}

void fc_map_close(struct fc_map *m)
{
    if (!m)
        return;
    fc_volume_close(m->file);
    fc_blockset_dispose(&m->valid);
    free(m->image);
    free(m);
}

const struct fc_map_id *fc_map_id(const struct fc_map *m)
{
    return &m->id;
}

const struct fc_map_state *fc_map_state(const struct fc_map *m)
{
    return &m->state;
}

const struct fc_blockset *fc_map_valid(const struct fc_map *m)
{
    return &m->valid;
}

static void head_make(const struct fc_map *m, const struct fc_blockset *valid,
                      const struct fc_map_state *state, uint64_t sum)
{
    struct fc_writer w = fc_writer_of(m->image, HEAD_BYTES);

    memset(m->image, 0, HEAD_BYTES);
    fc_put_bytes(&w, MAGIC, MAGIC_BYTES);
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, m->id.block_bytes);
    fc_put_u64(&w, m->id.size_bytes);
    fc_put_u32(&w, valid->blocks);
    fc_put_u32(&w, valid->count);
    fc_put_bytes(&w, m->id.uuid, FC_UUID_BYTES);
    fc_put_bytes(&w, m->id.vdev, FC_VDEV_BYTES);
    fc_put_u64(&w, m->sequence + 1);
    fc_put_u64(&w, state->epoch);
    fc_put_bytes(&w, state->migration, FC_MIGRATION_BYTES);
    fc_put_u32(&w, state->state);
    fc_put_u32(&w, (state->clean ? FLAG_CLEAN : 0u) |
                       (state->written ? FLAG_WRITTEN : 0u) |
                       (m->id.cache ? FLAG_CACHE : 0u));
    fc_put_u64(&w, sum);
    uint8_t *reads = fc_put_room(&w, FC_READSTATS_BYTES);
    if (reads)
        fc_readstats_encode(&state->reads, reads);
    fc_le_store(m->image + HEAD_SUM_AT, XXH3_64bits(m->image, HEAD_SUM_AT), 8);
}

int fc_map_commit(struct fc_map *m, const struct fc_blockset *valid,
                  const struct fc_map_state *state)
{
    uint8_t *bits = m->image + HEAD_BYTES;
    size_t room = m->slot_bytes - HEAD_BYTES;
    size_t words = ((size_t)valid->blocks + 63) / 64;
    unsigned slot = !m->slot;

    for (size_t i = 0; i < words; i++)
        fc_le_store(bits + i * 8, valid->words[i], 8);
    memset(bits + words * 8, 0, room - words * 8);
    head_make(m, valid, state, XXH3_64bits(bits, room));
    int rc = fc_volume_write(m->file, m->image, m->slot_bytes,
                             (uint64_t)slot * m->slot_bytes);
    if (!rc)
        rc = fc_volume_sync(m->file);
    if (rc)
        return rc;
    m->sequence++;
    m->slot = slot;
    m->state = *state;
    fc_blockset_copy(&m->valid, valid);
    return 0;
}
