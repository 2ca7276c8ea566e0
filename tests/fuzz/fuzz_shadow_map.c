/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shadow maps: any two slots are read within bounds, and what counts can be
 * committed and read again. The input: a byte (1, 2: that slot's checksums are
 * put right), the first 112 bytes of each slot, then the bitmap of both.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "err.h"
#include "log.h"
#include "map.h"
#include "wire.h"

#define HEAD 4096u
#define FIELDS 112u
#define BLOCKS_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory {
    uint8_t *bytes;
    uint64_t size;
};

static int memory_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct memory *m = user;

    if (offset > m->size || len > m->size - offset)
        abort();
    memcpy(buf, m->bytes + offset, len);
    return 0;
}

static int memory_write(void *user, const void *buf, size_t len,
                        uint64_t offset)
{
    struct memory *m = user;

    if (offset > m->size || len > m->size - offset)
        abort();
    memcpy(m->bytes + offset, buf, len);
    return 0;
}

static int memory_sync(void *user)
{
    (void)user;
    return 0;
}

static void memory_close(void *user)
{
    (void)user;
}

static const struct fc_volume_ops ops = {
    .read = memory_read,
    .write = memory_write,
    .sync = memory_sync,
    .close = memory_close,
};

static void no_log(void *user, enum fc_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static struct fc_map *open_map(struct memory *m, const struct fc_map_id *id)
{
    struct fc_volume *file;
    struct fc_map *map;

    if (fc_volume_new(&ops, m, m->size, &file))
        abort();
    if (fc_map_open(file, id, &map)) {
        fc_volume_close(file);
        return NULL;
    }
    return map;
}

/* The id that slot 0 claims, so that it is not refused for that. */
static void claimed(const uint8_t *head, struct fc_map_id *id)
{
    id->block_bytes = (uint32_t)fc_le_load(head + 12, 4);
    id->size_bytes = fc_le_load(head + 16, 8);
    memcpy(id->uuid, head + 32, FC_UUID_BYTES);
    memcpy(id->vdev, head + 48, FC_VDEV_BYTES);
    id->cache = fc_le_load(head + 100, 4) & 4;
}

static void slot_make(uint8_t *slot, uint64_t slot_bytes, const uint8_t *fields,
                      const uint8_t *bits, size_t bits_len, int fix)
{
    uint64_t room = slot_bytes - HEAD;

    memcpy(slot, fields, FIELDS);
    memcpy(slot + HEAD, bits, bits_len < room ? bits_len : room);
    if (!fix)
        return;
    fc_le_store(slot + 104, XXH3_64bits(slot + HEAD, room), 8);
    fc_le_store(slot + HEAD - 8, XXH3_64bits(slot, HEAD - 8), 8);
}

static void read_twice(struct memory *m, const struct fc_map_id *id)
{
    struct fc_map *map = open_map(m, id);

    if (!map)
        return;
    struct fc_map_state state = *fc_map_state(map);
    struct fc_blockset valid;
    if (fc_blockset_init(&valid, fc_map_valid(map)->blocks, false))
        abort();
    fc_blockset_copy(&valid, fc_map_valid(map));
    if (fc_map_commit(map, &valid, &state))
        abort();
    fc_map_close(map);
    map = open_map(m, id);
    if (!map || fc_map_valid(map)->count != valid.count ||
        memcmp(&state.migration, fc_map_state(map)->migration,
               FC_MIGRATION_BYTES))
        abort();
    fc_map_close(map);
    fc_blockset_dispose(&valid);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_map_id id;

    fc_log_set_sink(no_log, NULL);
    if (size < 1 + 2 * FIELDS)
        return 0;
    claimed(data + 1, &id);
    uint32_t blocks = fc_map_blocks(id.size_bytes, id.block_bytes);
    if (!blocks || blocks > BLOCKS_MAX)
        return 0;
    uint64_t slot = fc_map_slot_bytes(blocks);
    struct memory m = { calloc(2, slot), 2 * slot };
    if (!m.bytes)
        abort();
    for (unsigned i = 0; i < 2; i++)
        slot_make(m.bytes + i * slot, slot, data + 1 + i * FIELDS,
                  data + 1 + 2 * FIELDS, size - 1 - 2 * FIELDS,
                  data[0] >> i & 1);
    read_twice(&m, &id);
    free(m.bytes);
    return 0;
}
