/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flip_order.h"

#include <stdio.h>
#include <stdlib.h>

#define EACH (FLIP_EXTENT / FLIP_BLOCK)
#define DAY_US (86400ull * 1000000)

struct disk {
    uint32_t blocks, room; /* room: how many are copied ahead */
    uint32_t *reads;       /* [blocks] in the window */
    uint8_t *used;         /* [blocks] before the hand-over */
    uint8_t *there;        /* scratch [blocks] */
    uint32_t *best;        /* [blocks] those read, most first */
    uint32_t wanted;
};

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "bench_shadow: not enough memory\n");
        exit(1);
    }
    return p;
}

static const uint32_t *reads_of;

static int most_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (reads_of[x] != reads_of[y])
        return reads_of[x] > reads_of[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

static size_t window_end(const struct flip_load *l, const struct flip_terms *t)
{
    size_t i = l->flip;
    while (i < l->count && l->request[i].time_us < l->flip_us + t->window_us)
        i++;
    return i;
}

static void blocks_of(const struct disk *d, const struct flip_request *r,
                      uint32_t *first_r, uint32_t *end_r)
{
    uint64_t end = (r->offset + r->length + FLIP_BLOCK - 1) / FLIP_BLOCK;
    *first_r = (uint32_t)(r->offset / FLIP_BLOCK);
    *end_r = end < d->blocks ? (uint32_t)end : d->blocks;
}

static void disk_open(struct disk *d, const struct flip_load *l,
                      const struct flip_terms *t)
{
    uint32_t b, end;
    *d = (struct disk){ .blocks = (uint32_t)(l->size / FLIP_BLOCK),
                        .room = (uint32_t)(t->ahead_bytes / FLIP_BLOCK) };
    d->reads = must(calloc(d->blocks, sizeof(*d->reads)));
    d->used = must(calloc(d->blocks, 1));
    d->there = must(calloc(d->blocks, 1));
    d->best = must(calloc(d->blocks, sizeof(*d->best)));
    for (size_t i = 0; i < window_end(l, t); i++) {
        const struct flip_request *r = &l->request[i];
        for (blocks_of(d, r, &b, &end); b < end; b++)
            if (i < l->flip)
                d->used[b] = 1;
            else
                d->reads[b] += !r->write;
    }
    for (b = 0; b < d->blocks; b++)
        if (d->reads[b])
            d->best[d->wanted++] = b;
    reads_of = d->reads;
    qsort(d->best, d->wanted, sizeof(*d->best), most_first);
}

static void disk_close(struct disk *d)
{
    free(d->reads);
    free(d->used);
    free(d->there);
    free(d->best);
}

/* Whether any block of the same extent was used before. */
static bool extent_used(const struct disk *d, uint32_t b)
{
    for (uint32_t k = b / EACH * EACH; k < b / EACH * EACH + EACH; k++)
        if (k < d->blocks && d->used[k])
            return true;
    return false;
}

/* Plays the window against `there`, which fills. */
static double share(const struct disk *d, const struct flip_load *l,
                    const struct flip_terms *t)
{
    double local = 0, all = 0;
    uint32_t b, end;
    for (size_t i = l->flip; i < window_end(l, t); i++)
        for (blocks_of(d, &l->request[i], &b, &end); b < end; b++) {
            if (!l->request[i].write) {
                local += d->there[b];
                all += 1;
            }
            d->there[b] = 1;
        }
    for (b = 0; b < d->blocks; b++)
        d->there[b] = 0;
    return all > 0 ? 100 * local / all : 0;
}

static double of_order(const struct disk *d, const struct flip_load *l,
                       const struct flip_terms *t)
{
    for (uint32_t i = 0; i < l->ordered && i < d->room; i++)
        d->there[l->order[i]] = 1;
    return share(d, l, t);
}

/* The same extents in the same order, but of the blocks in them those used
 * before first. */
static double of_used(const struct disk *d, const struct flip_load *l,
                      const struct flip_terms *t)
{
    uint32_t left = d->room;
    for (unsigned turn = 0; turn < 2; turn++)
        for (uint32_t i = 0; i < l->ordered && left; i++)
            if (d->used[l->order[i]] != turn) {
                d->there[l->order[i]] = 1;
                left--;
            }
    return share(d, l, t);
}

/* known: 0 all that is read, 1 of extents used before, 2 blocks used before. */
static double of_oracle(const struct disk *d, const struct flip_load *l,
                        const struct flip_terms *t, unsigned known)
{
    uint32_t left = d->room;
    for (uint32_t i = 0; i < d->wanted && left; i++) {
        uint32_t b = d->best[i];
        if ((known == 1 && !extent_used(d, b)) || (known == 2 && !d->used[b]))
            continue;
        d->there[b] = 1;
        left--;
    }
    return share(d, l, t);
}

static double of_address(const struct disk *d, const struct flip_load *l,
                         const struct flip_terms *t)
{
    for (uint32_t b = 0; b < d->blocks && b < d->room; b++)
        d->there[b] = 1;
    return share(d, l, t);
}

void flip_order_print(const struct flip_load *l, const struct flip_terms *t)
{
    struct disk d;
    disk_open(&d, l, t);
    printf("%s, reckoned from what is there at the hand-over (%u blocks of "
           "%u, %u are read):\n"
           "  locally: on demand %.1f %%, by address %.1f %%, predicted %.1f "
           "%%, used blocks first %.1f %%;\n"
           "  an oracle's order %.1f %%, of extents used before %.1f %%, of "
           "blocks used before %.1f %%\n",
           l->name, d.room < d.blocks ? d.room : d.blocks, d.blocks, d.wanted,
           share(&d, l, t), of_address(&d, l, t), of_order(&d, l, t),
           of_used(&d, l, t), of_oracle(&d, l, t, 0), of_oracle(&d, l, t, 1),
           of_oracle(&d, l, t, 2));
    disk_close(&d);
}

static const struct {
    uint64_t past_us;
    uint32_t extent;
} made[FLIP_ORDER_MADE] = {
    { FLIP_PAST_US, FLIP_EXTENT },
    { FLIP_PAST_US, FLIP_EXTENT / 4 },
    { DAY_US, FLIP_EXTENT },
    { DAY_US, FLIP_EXTENT / 4 },
};

void flip_order_compare(struct flip_load *l, const struct flip_terms *t,
                        struct flip_order_sums *sums)
{
    struct disk d;
    disk_open(&d, l, t);
    sums->windows++;
    sums->demand += share(&d, l, t);
    sums->address += of_address(&d, l, t);
    sums->oracle += of_oracle(&d, l, t, 0);
    sums->known += of_oracle(&d, l, t, 1);
    for (unsigned i = 0; i < FLIP_ORDER_MADE; i++) {
        if (made[i].past_us > FLIP_PAST_US && l->flip_us <= FLIP_PAST_US)
            continue; /* there is no longer past */
        flip_load_predict(l, made[i].past_us, made[i].extent);
        sums->from[i]++;
        sums->share[i] += of_order(&d, l, t);
        sums->used_first[i] += of_used(&d, l, t);
    }
    disk_close(&d);
}

void flip_order_done(const char *name, const struct flip_order_sums *s)
{
    double n = s->windows;
    printf("%s, reckoned, mean of %u windows: on demand %.1f %%, by address "
           "%.1f %%, an oracle's order %.1f %%, of extents used before "
           "%.1f %%\n",
           name, s->windows, s->demand / n, s->address / n, s->oracle / n,
           s->known / n);
    for (unsigned i = 0; i < FLIP_ORDER_MADE; i++)
        if (s->from[i])
            printf("  predicted from %.0f h, extents of %u KiB: %.1f %%, used "
                   "blocks first %.1f %% (%u windows)\n",
                   (double)made[i].past_us / 3.6e9, made[i].extent >> 10,
                   s->share[i] / s->from[i], s->used_first[i] / s->from[i],
                   s->from[i]);
    fflush(stdout);
}
