/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ranklist.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "ranklist_format.h"
#include "stretch.h"

/*
 * Two banks, so that readers of the last list are not disturbed while the next
 * one is made; a reader checks at the end that the writer did not come round.
 *
 * Ranking is a counting sort on the scale of fc_stretch(), an eightieth of an
 * octave a bucket: one pass counts, one puts each entry where its bucket
 * begins. Only as many as there is room for are written.
 */
#define STEPS_OCTAVE 80
#define BUCKETS (2 * FC_STRETCH_OCTAVES * STEPS_OCTAVE + 1)

struct fc_ranklist {
    uint8_t *map;
    size_t bytes;
    int fd;
    uint64_t bank; /* the one being made, or made last */
    uint32_t starts[BUCKETS];
};

const char *fc_rank_list_name(enum fc_rank_list list)
{
    static const char *const names[] = { "staging", "delta", "shadow" };
    return (unsigned)list < FC_RANK_LISTS ? names[list] : "?";
}

static struct fc_rank_header *header_of(const struct fc_ranklist *list)
{
    return (struct fc_rank_header *)(void *)list->map;
}

static struct fc_rank_bank *bank_of(const struct fc_ranklist *list)
{
    return (
        struct fc_rank_bank *)(void *)(list->map +
                                       fc_rank_bank_at(header_of(list)->room,
                                                       list->bank));
}

int fc_ranklist_create(const struct fc_ranklist_config *config,
                       struct fc_ranklist **list_r)
{
    for (unsigned l = 0; l < FC_RANK_LISTS; l++)
        if (config->room[l] > FC_RANK_MOST)
            return FC_EINVAL;
    struct fc_ranklist *list = calloc(1, sizeof(*list));
    if (!list)
        return FC_ENOMEM;
    list->bytes = (size_t)fc_rank_file_bytes(config->room);
    list->fd = fc_memfd_new("forecopy-ranks", list->bytes);
    list->map = MAP_FAILED;
    if (list->fd >= 0)
        list->map = mmap(NULL, list->bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                         list->fd, 0);
    if (list->map == MAP_FAILED) {
        fc_ranklist_destroy(list);
        return FC_ESYS;
    }
    struct fc_rank_header *h = header_of(list);
    memcpy(h->magic, FC_RANK_MAGIC, sizeof(h->magic));
    h->version = FC_RANK_VERSION;
    h->kind = config->kind;
    memcpy(h->room, config->room, sizeof(h->room));
    *list_r = list;
    return 0;
}

void fc_ranklist_destroy(struct fc_ranklist *list)
{
    if (!list)
        return;
    if (list->map != MAP_FAILED)
        munmap(list->map, list->bytes);
    fc_close(&list->fd);
    free(list);
}

int fc_ranklist_fd(const struct fc_ranklist *list)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", list->fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? FC_ESYS : fd;
}

void fc_ranklist_begin(struct fc_ranklist *list, uint64_t tick, uint64_t now_ms)
{
    list->bank = header_of(list)->published + 1;
    /* an exchange, so that nothing written below goes ahead of it */
    (void)__atomic_exchange_n(&header_of(list)->begun, list->bank,
                              __ATOMIC_SEQ_CST);
    struct fc_rank_bank *bank = bank_of(list);
    memset(bank, 0, sizeof(*bank));
    bank->tick = tick;
    bank->time_ms = now_ms;
}

void fc_ranklist_publish(struct fc_ranklist *list)
{
    __atomic_store_n(&header_of(list)->published, list->bank, __ATOMIC_RELEASE);
}

static unsigned bucket_of(float p, bool falling)
{
    float at = (fc_stretch(p) + FC_STRETCH_OCTAVES) * STEPS_OCTAVE;
    unsigned bucket = (unsigned)(at + 0.5f);
    bucket = bucket < BUCKETS ? bucket : BUCKETS - 1;
    return falling ? BUCKETS - 1 - bucket : bucket;
}

static bool is_in(const struct fc_rank_source *s, uint32_t i)
{
    float p = s->p[s->horizon][i];
    return p >= s->min_p && p <= s->max_p;
}

/* Median of an even risk of -ln(1-p) within ms, or what is left of it. */
uint32_t fc_rank_next_ms(const float *p, const uint32_t *horizon_ms,
                         unsigned horizons)
{
    const double half = 0.693147180559945;
    double before = 0, before_ms = 0, risk = 0;
    for (unsigned h = 0; h < horizons; h++) {
        double sum = -log1p(-(double)fc_stretch_clip(p[h]));
        double ms = (double)horizon_ms[h] - before_ms;
        if (ms <= 0)
            continue;
        sum = fmax(sum, before);
        risk = (sum - before) / ms;
        if (sum >= half)
            break;
        before = sum;
        before_ms = horizon_ms[h];
    }
    double at = risk > 0 ? before_ms + (half - before) / risk : HUGE_VAL;
    return at < FC_RANK_NEVER - 1.0 ? (uint32_t)(at + 0.5) : FC_RANK_NEVER;
}

static void put_entry(struct fc_rank_entry *e, const struct fc_rank_source *s,
                      uint32_t i)
{
    float p[8];
    unsigned horizons = s->horizons < 8 ? s->horizons : 8;
    for (unsigned h = 0; h < horizons; h++)
        p[h] = s->p[h][i];
    *e = (struct fc_rank_entry){
        .first = s->regions[i].first,
        .pages = s->regions[i].pages,
        .p = s->p[s->horizon][i],
        .next_ms = fc_rank_next_ms(p, s->horizon_ms, horizons),
    };
}

uint32_t fc_ranklist_fill(struct fc_ranklist *list, enum fc_rank_list which,
                          const struct fc_rank_source *s)
{
    const uint32_t *room = header_of(list)->room;
    struct fc_rank_bank *bank = bank_of(list);
    struct fc_rank_entry *entries =
        (struct fc_rank_entry *)(void *)(list->map +
                                         fc_rank_entries_at(room, list->bank,
                                                            which));
    bool falling = which != FC_RANK_STAGING;
    memset(list->starts, 0, sizeof(list->starts));
    for (uint32_t i = 0; i < s->n; i++)
        if (is_in(s, i))
            list->starts[bucket_of(s->p[s->horizon][i], falling)]++;
    uint32_t at = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        uint32_t here = list->starts[b];
        list->starts[b] = at;
        at += here;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (!is_in(s, i))
            continue;
        uint32_t to = list->starts[bucket_of(s->p[s->horizon][i], falling)]++;
        if (to < room[which])
            put_entry(&entries[to], s, i);
    }
    bank->lists[which].count = at < room[which] ? at : room[which];
    bank->lists[which].horizon_ms = s->horizon_ms[s->horizon];
    bank->lists[which].min_p = s->min_p;
    bank->lists[which].max_p = s->max_p;
    bank->lists[which].confidence = s->confidence;
    bank->lists[which].chosen_from = s->n;
    return bank->lists[which].count;
}
