/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "blockset.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "wire.h"

enum { KIND_RUNS = 0, KIND_BITMAP = 1 };

#define RUN_BYTES 8

static size_t word_count(uint32_t blocks)
{
    return ((size_t)blocks + 63) / 64;
}

/* The bits of the last word that stand for blocks. */
static uint64_t tail_mask(uint32_t blocks)
{
    return blocks % 64 ? (1ull << (blocks % 64)) - 1 : ~0ull;
}

int fc_blockset_init(struct fc_blockset *s, uint32_t blocks, bool all)
{
    memset(s, 0, sizeof(*s));
    if (!blocks || blocks > FC_BLOCKSET_MAX)
        return FC_EINVAL;
    s->words = calloc(word_count(blocks), sizeof(uint64_t));
    if (!s->words)
        return FC_ENOMEM;
    s->blocks = blocks;
    if (all)
        fc_blockset_fill(s, true);
    return 0;
}

void fc_blockset_dispose(struct fc_blockset *s)
{
    free(s->words);
    memset(s, 0, sizeof(*s));
}

bool fc_blockset_test(const struct fc_blockset *s, uint32_t block)
{
    return s->words[block / 64] >> (block % 64) & 1;
}

bool fc_blockset_set(struct fc_blockset *s, uint32_t block)
{
    uint64_t bit = 1ull << (block % 64);

    if (s->words[block / 64] & bit)
        return false;
    s->words[block / 64] |= bit;
    s->count++;
    return true;
}

void fc_blockset_fill(struct fc_blockset *s, bool all)
{
    size_t n = word_count(s->blocks);

    memset(s->words, all ? 0xff : 0, n * sizeof(uint64_t));
    s->words[n - 1] &= tail_mask(s->blocks);
    s->count = all ? s->blocks : 0;
}

void fc_blockset_set_range(struct fc_blockset *s, uint32_t first,
                           uint32_t count, bool on)
{
    uint32_t end = first + count;

    while (first < end) {
        uint32_t bit = first % 64;
        uint32_t n = end - first < 64 - bit ? end - first : 64 - bit;
        uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << bit;
        uint64_t *w = &s->words[first / 64];
        uint32_t before = (uint32_t)__builtin_popcountll(*w);

        *w = on ? *w | mask : *w & ~mask;
        s->count += (uint32_t)__builtin_popcountll(*w) - before;
        first += n;
    }
}

uint32_t fc_blockset_count_range(const struct fc_blockset *s, uint32_t first,
                                 uint32_t count)
{
    uint32_t end = first + count, held = 0;

    while (first < end) {
        uint32_t bit = first % 64;
        uint32_t n = end - first < 64 - bit ? end - first : 64 - bit;
        uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << bit;

        held += (uint32_t)__builtin_popcountll(s->words[first / 64] & mask);
        first += n;
    }
    return held;
}

void fc_blockset_copy(struct fc_blockset *to, const struct fc_blockset *from)
{
    memcpy(to->words, from->words, word_count(from->blocks) * sizeof(uint64_t));
    to->count = from->count;
}

/* The first bit at or after `from` in the words, each turned by `flip`. */
static uint32_t next_bit(const struct fc_blockset *s, uint32_t from,
                         uint64_t flip)
{
    if (from >= s->blocks)
        return s->blocks;
    size_t i = from / 64, n = word_count(s->blocks);
    uint64_t w = (s->words[i] ^ flip) & (~0ull << (from % 64));

    while (!w && ++i < n)
        w = s->words[i] ^ flip;
    if (!w)
        return s->blocks;
    uint64_t at = (uint64_t)i * 64 + (uint64_t)__builtin_ctzll(w);
    return at < s->blocks ? (uint32_t)at : s->blocks;
}

uint32_t fc_blockset_next(const struct fc_blockset *s, uint32_t from)
{
    return next_bit(s, from, 0);
}

uint32_t fc_blockset_next_clear(const struct fc_blockset *s, uint32_t from)
{
    return next_bit(s, from, ~0ull);
}

static void put_head(uint8_t *head, uint32_t first, uint32_t count, int kind,
                     uint32_t body)
{
    struct fc_writer w = fc_writer_of(head, FC_BLOCKSET_HEAD_BYTES);

    fc_put_u32(&w, first);
    fc_put_u32(&w, count);
    fc_put_u32(&w, (uint32_t)kind);
    fc_put_u32(&w, body);
}

/* Runs into `room` bytes; gives the bytes used and the block reached. */
static uint32_t put_runs(const struct fc_blockset *s, uint32_t first,
                         uint8_t *body, size_t room, uint32_t *next_r)
{
    struct fc_writer w = fc_writer_of(body, room);
    uint32_t at = first;

    for (;;) {
        uint32_t from = fc_blockset_next(s, at);
        if (from == s->blocks) {
            at = from;
            break;
        }
        if (room - fc_writer_used(&w) < RUN_BYTES)
            break;
        uint32_t to = fc_blockset_next_clear(s, from);
        fc_put_u32(&w, from - at);
        fc_put_u32(&w, to - from);
        at = to;
    }
    *next_r = at;
    return (uint32_t)fc_writer_used(&w);
}

/* The bitmap from `first` on, which need not be a multiple of eight. */
static uint32_t put_bitmap(const struct fc_blockset *s, uint32_t first,
                           uint8_t *body, size_t room, uint32_t *next_r)
{
    uint32_t left = s->blocks - first;
    uint32_t n = room < (left + 7) / 8 ? (uint32_t)room * 8 : left;

    memset(body, 0, (n + 7) / 8);
    for (uint32_t b = fc_blockset_next(s, first); b < first + n;
         b = fc_blockset_next(s, b + 1))
        body[(b - first) / 8] |= (uint8_t)(1u << (b - first) % 8);
    *next_r = first + n;
    return (n + 7) / 8;
}

int fc_blockset_encode(const struct fc_blockset *s, uint32_t first, void *buf,
                       size_t cap, size_t *len_r, uint32_t *next_r)
{
    if (cap < FC_BLOCKSET_PIECE_MIN || first >= s->blocks)
        return FC_EINVAL;
    uint8_t *body = (uint8_t *)buf + FC_BLOCKSET_HEAD_BYTES;
    size_t room = cap - FC_BLOCKSET_HEAD_BYTES;
    int kind = KIND_RUNS;
    uint32_t next;

    /* no more bytes of runs than the whole bitmap would take */
    size_t most = ((size_t)(s->blocks - first) + 7) / 8 + RUN_BYTES;
    uint32_t used = put_runs(s, first, body, room < most ? room : most, &next);
    uint64_t bits = (uint64_t)used * 8;
    if (next < s->blocks && next - first < bits) {
        kind = KIND_BITMAP;
        used = put_bitmap(s, first, body, room, &next);
    }
    put_head(buf, first, next - first, kind, used);
    *len_r = FC_BLOCKSET_HEAD_BYTES + used;
    *next_r = next;
    return 0;
}

/* Whether the runs stay within `count` blocks and are in their only form. */
static bool runs_ok(struct fc_reader r, uint32_t count)
{
    uint64_t at = 0;
    bool first = true;

    while (fc_reader_left(&r)) {
        uint32_t gap = fc_get_u32(&r), len = fc_get_u32(&r);
        if (r.bad || !len || (!gap && !first))
            return false;
        at += (uint64_t)gap + len;
        if (at > count)
            return false;
        first = false;
    }
    return true;
}

static void take_runs(struct fc_blockset *s, uint32_t first, uint32_t count,
                      struct fc_reader r)
{
    uint32_t at = first;

    fc_blockset_set_range(s, first, count, false);
    while (fc_reader_left(&r)) {
        at += fc_get_u32(&r);
        uint32_t len = fc_get_u32(&r);
        fc_blockset_set_range(s, at, len, true);
        at += len;
    }
}

static void take_bitmap(struct fc_blockset *s, uint32_t first, uint32_t count,
                        const uint8_t *bits)
{
    fc_blockset_set_range(s, first, count, false);
    for (uint32_t i = 0; i < count; i++)
        if (bits[i / 8] >> (i % 8) & 1)
            fc_blockset_set(s, first + i);
}

int fc_blockset_decode(struct fc_blockset *s, uint32_t first, const void *buf,
                       size_t len, uint32_t *next_r)
{
    struct fc_reader r = fc_reader_of(buf, len);
    uint32_t from = fc_get_u32(&r), count = fc_get_u32(&r);
    uint32_t kind = fc_get_u32(&r), body = fc_get_u32(&r);

    if (r.bad || body != fc_reader_left(&r) || from != first ||
        first >= s->blocks || !count || count > s->blocks - first)
        return FC_EFORMAT;
    if (kind == KIND_RUNS) {
        if (body % RUN_BYTES || !runs_ok(r, count))
            return FC_EFORMAT;
        take_runs(s, first, count, r);
    } else if (kind == KIND_BITMAP) {
        if (body != (count + 7) / 8 ||
            (count % 8 && r.p[body - 1] >> (count % 8)))
            return FC_EFORMAT;
        take_bitmap(s, first, count, r.p);
    } else {
        return FC_EFORMAT;
    }
    *next_r = first + count;
    return 0;
}
