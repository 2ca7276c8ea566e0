/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pfnmap.h"

#include <stdlib.h>

/*
 * A radix tree of four levels of eight bits. Guests' pfns come in dense runs,
 * so that an entry costs its own 12 bytes and little more, and neither a hash
 * nor a growth that copies everything is needed. Lone pfns cost a leaf and up
 * to two inner nodes each; the owner sees that in `bytes` before it happens
 * and makes room. Nodes without entries are freed at once.
 */
#define FANOUT 256u
#define LEVELS 4
#define MALLOC_BYTES 16u /* what the allocator adds to a block */

struct inner {
    void *child[FANOUT];
    uint32_t used;
};

struct leaf {
    struct fc_pfnmap_entry entry[FANOUT];
    uint32_t used;
    uint8_t present[FANOUT / 8];
};

static unsigned digit(uint32_t pfn, int level)
{
    return pfn >> (8 * (LEVELS - 1 - level)) & (FANOUT - 1);
}

static uint64_t node_bytes(int level)
{
    return (level == LEVELS - 1 ? sizeof(struct leaf) : sizeof(struct inner)) +
           MALLOC_BYTES;
}

static int is_present(const struct leaf *leaf, unsigned i)
{
    return leaf->present[i / 8] >> (i % 8) & 1;
}

void fc_pfnmap_init(struct fc_pfnmap *map)
{
    *map = (struct fc_pfnmap){ .oldest = FC_PFNMAP_NONE,
                               .newest = FC_PFNMAP_NONE };
}

static void free_node(void *node, int level)
{
    if (!node)
        return;
    if (level < LEVELS - 1) {
        struct inner *inner = node;
        for (unsigned i = 0; i < FANOUT; i++)
            free_node(inner->child[i], level + 1);
    }
    free(node);
}

void fc_pfnmap_dispose(struct fc_pfnmap *map)
{
    free_node(map->root, 0);
    fc_pfnmap_init(map);
}

struct fc_pfnmap_entry *fc_pfnmap_find(const struct fc_pfnmap *map,
                                       uint32_t pfn)
{
    void *node = map->root;
    for (int level = 0; node && level < LEVELS - 1; level++)
        node = ((struct inner *)node)->child[digit(pfn, level)];
    struct leaf *leaf = node;
    unsigned i = digit(pfn, LEVELS - 1);
    return leaf && is_present(leaf, i) ? &leaf->entry[i] : NULL;
}

uint64_t fc_pfnmap_cost(const struct fc_pfnmap *map, uint32_t pfn)
{
    uint64_t cost = 0;
    const void *node = map->root;
    for (int level = 0; level < LEVELS; level++) {
        if (!node)
            cost += node_bytes(level);
        else if (level < LEVELS - 1)
            node = ((const struct inner *)node)->child[digit(pfn, level)];
    }
    return cost;
}

struct fc_pfnmap_entry *fc_pfnmap_reserve(struct fc_pfnmap *map, uint32_t pfn)
{
    void **at = &map->root;
    struct inner *parent = NULL;
    for (int level = 0; level < LEVELS; level++) {
        if (!*at) {
            *at = calloc(1, node_bytes(level) - MALLOC_BYTES);
            if (!*at)
                return NULL;
            map->bytes += node_bytes(level);
            if (parent)
                parent->used++;
        }
        if (level < LEVELS - 1) {
            parent = *at;
            at = &parent->child[digit(pfn, level)];
        }
    }
    struct leaf *leaf = *at;
    unsigned i = digit(pfn, LEVELS - 1);
    leaf->present[i / 8] |= (uint8_t)(1u << (i % 8));
    leaf->used++;
    leaf->entry[i] = (struct fc_pfnmap_entry){ FC_PFNMAP_NONE, FC_PFNMAP_NONE,
                                               FC_PFNMAP_NONE };
    return &leaf->entry[i];
}

void fc_pfnmap_link(struct fc_pfnmap *map, uint32_t pfn,
                    struct fc_pfnmap_entry *entry)
{
    entry->older = map->newest;
    entry->newer = FC_PFNMAP_NONE;
    if (map->newest != FC_PFNMAP_NONE)
        fc_pfnmap_find(map, map->newest)->newer = pfn;
    else
        map->oldest = pfn;
    map->newest = pfn;
    map->linked++;
}

void fc_pfnmap_unlink(struct fc_pfnmap *map, struct fc_pfnmap_entry *entry)
{
    if (entry->older != FC_PFNMAP_NONE)
        fc_pfnmap_find(map, entry->older)->newer = entry->newer;
    else
        map->oldest = entry->newer;
    if (entry->newer != FC_PFNMAP_NONE)
        fc_pfnmap_find(map, entry->newer)->older = entry->older;
    else
        map->newest = entry->older;
    map->linked--;
}

void fc_pfnmap_remove(struct fc_pfnmap *map, uint32_t pfn)
{
    void **slot[LEVELS];
    slot[0] = &map->root;
    for (int level = 0; level < LEVELS - 1; level++) {
        if (!*slot[level])
            return;
        struct inner *inner = *slot[level];
        slot[level + 1] = &inner->child[digit(pfn, level)];
    }
    struct leaf *leaf = *slot[LEVELS - 1];
    unsigned i = digit(pfn, LEVELS - 1);
    if (!leaf || !is_present(leaf, i))
        return;
    leaf->present[i / 8] &= (uint8_t) ~(1u << (i % 8));
    uint32_t left = --leaf->used;
    for (int level = LEVELS - 1; !left && level >= 0; level--) {
        free(*slot[level]);
        *slot[level] = NULL;
        map->bytes -= node_bytes(level);
        if (level > 0)
            left = --((struct inner *)*slot[level - 1])->used;
    }
}
