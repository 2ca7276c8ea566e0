/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pagetab.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"

/*
 * State of a page
 *
 *   PRESENT  it was read once and there was a page
 *   FRESH    not seen written since it was last read
 *   ZERO     it was all zero when last read
 *   STAGED   the destination acknowledged the hash in `staged`
 *   BUSY     the worker reads it, or it is on its way to the destination
 *   LOST     evicted by the destination while BUSY: the acknowledgement that
 *            may still come is void
 *
 * FRESH is set when the page is handed to the worker, so before it is copied,
 * and cleared when the log shows it written. Only pages whose bit is clear are
 * handed out. A write after the copy sets the bit, the next look at the log
 * clears FRESH; a write between the last look and the copy does so as well,
 * needlessly. So FRESH may be missing where it could stand, and never stands
 * where it must not, but for the time until the next look. What counts as
 * valid is a matter of estimates; the migration itself compares hashes.
 *
 * A page that was staged and then written costs its transfer in vain. Each
 * such time doubles the quiet time it has to show before the next attempt, up
 * to 2^BACKOFF_MAX times; a page that stays quiet four times as long as it had
 * to gets one doubling back.
 *
 * Memory: 22 bytes a page in chunks of 512 pages, which exist only where the
 * guest has shown a page or written one, and two bits for each pfn.
 */
#define CHUNK_PAGES 512u
#define BACKOFF_MAX 7
#define CLOCK_MS 100u

enum {
    PRESENT = 1,
    FRESH = 2,
    ZERO = 4,
    STAGED = 8,
    BUSY = 16,
    LOST = 32,
};

struct fc_page_chunk {
    struct fc_hash staged[CHUNK_PAGES];
    uint32_t written[CHUNK_PAGES]; /* when last seen so, in CLOCK_MS; 0 never */
    uint8_t flags[CHUNK_PAGES];
    uint8_t backoff[CHUNK_PAGES];
};

static uint64_t words_of(uint64_t pfns)
{
    return pfns / 64 + (pfns % 64 != 0);
}

static bool bit(const uint64_t *bits, uint64_t n)
{
    return bits[n / 64] >> n % 64 & 1;
}

int fc_pagetab_init(struct fc_pagetab *t, uint64_t pfns, uint64_t now_ms)
{
    memset(t, 0, sizeof(*t));
    t->pfns = pfns;
    t->start_ms = now_ms;
    t->nchunks = pfns / CHUNK_PAGES + (pfns % CHUNK_PAGES != 0);
    t->chunks = calloc(t->nchunks + 1, sizeof(*t->chunks));
    t->log = calloc(words_of(pfns) + 1, sizeof(*t->log));
    t->absent = calloc(words_of(pfns) + 1, sizeof(*t->absent));
    if (t->chunks && t->log && t->absent)
        return 0;
    fc_pagetab_dispose(t);
    return FC_ENOMEM;
}

void fc_pagetab_dispose(struct fc_pagetab *t)
{
    for (uint64_t i = 0; t->chunks && i < t->nchunks; i++)
        free(t->chunks[i]);
    free(t->chunks);
    free(t->log);
    free(t->absent);
    memset(t, 0, sizeof(*t));
}

size_t fc_pagetab_bytes(const struct fc_pagetab *t)
{
    return t->nchunks * sizeof(*t->chunks) +
           t->chunks_held * sizeof(struct fc_page_chunk) +
           2 * words_of(t->pfns) * sizeof(*t->log);
}

static struct fc_page_chunk *chunk_of(const struct fc_pagetab *t, uint64_t pfn)
{
    return pfn < t->pfns ? t->chunks[pfn / CHUNK_PAGES] : NULL;
}

static struct fc_page_chunk *make_chunk(struct fc_pagetab *t, uint64_t pfn)
{
    struct fc_page_chunk **c = &t->chunks[pfn / CHUNK_PAGES];
    if (!*c) {
        *c = calloc(1, sizeof(**c));
        t->chunks_held += *c != NULL;
    }
    return *c;
}

/* All changes of flags pass here, so that the totals stay true. */
static void set_flags(struct fc_pagetab *t, uint8_t *flags, unsigned to)
{
    unsigned was = *flags;
    t->present += !!(to & PRESENT) - !!(was & PRESENT);
    t->zero += ((to & (ZERO | FRESH)) == (ZERO | FRESH)) -
               ((was & (ZERO | FRESH)) == (ZERO | FRESH));
    t->staged += !!(to & STAGED) - !!(was & STAGED);
    t->valid += ((to & (STAGED | FRESH)) == (STAGED | FRESH)) -
                ((was & (STAGED | FRESH)) == (STAGED | FRESH));
    *flags = (uint8_t)to;
}

static uint32_t clock_of(const struct fc_pagetab *t, uint64_t now_ms)
{
    return (uint32_t)((now_ms - t->start_ms) / CLOCK_MS);
}

static void note_written(struct fc_pagetab *t, struct fc_page_chunk *c,
                         unsigned i, uint32_t clock)
{
    unsigned flags = c->flags[i];
    if ((flags & (STAGED | FRESH)) == (STAGED | FRESH) &&
        c->backoff[i] < BACKOFF_MAX)
        c->backoff[i]++;
    set_flags(t, &c->flags[i], flags & ~(unsigned)FRESH);
    c->written[i] = clock;
}

int fc_pagetab_seen(struct fc_pagetab *t, const uint64_t *bits, bool cleaned,
                    uint64_t now_ms)
{
    int rc = 0;
    uint64_t words = words_of(t->pfns);
    uint32_t clock = clock_of(t, now_ms);

    for (uint64_t w = 0; w < words; w++) {
        uint64_t seen = bits[w];
        if (w == words - 1 && t->pfns % 64)
            seen &= (1ull << t->pfns % 64) - 1;
        /* A CLEAN ends the quiet time of all it shows, a PEEK of the new. */
        uint64_t left = cleaned ? seen : seen & ~t->log[w];
        t->log[w] = cleaned ? 0 : seen;
        t->absent[w] &= ~left;
        if (!left)
            continue;
        struct fc_page_chunk *c = make_chunk(t, w * 64);
        if (!c) {
            rc = FC_ENOMEM;
            continue;
        }
        for (; left; left &= left - 1) {
            unsigned i = (unsigned)(w * 64 % CHUNK_PAGES) +
                         (unsigned)__builtin_ctzll(left);
            note_written(t, c, i, clock);
        }
    }
    if (rc)
        fc_pagetab_blind(t);
    return rc;
}

static void clear_everywhere(struct fc_pagetab *t, unsigned gone)
{
    for (uint64_t n = 0; n < t->nchunks; n++) {
        struct fc_page_chunk *c = t->chunks[n];
        for (unsigned i = 0; c && i < CHUNK_PAGES; i++)
            set_flags(t, &c->flags[i], c->flags[i] & ~gone);
    }
}

void fc_pagetab_blind(struct fc_pagetab *t)
{
    clear_everywhere(t, FRESH);
    memset(t->log, 0, words_of(t->pfns) * sizeof(*t->log));
    memset(t->absent, 0, words_of(t->pfns) * sizeof(*t->absent));
}

void fc_pagetab_unstage_all(struct fc_pagetab *t)
{
    for (uint64_t n = 0; n < t->nchunks; n++) {
        struct fc_page_chunk *c = t->chunks[n];
        for (unsigned i = 0; c && i < CHUNK_PAGES; i++) {
            unsigned flags = c->flags[i];
            /* To be read again, unless it is zero and known to be. */
            if (flags & STAGED)
                set_flags(t, &c->flags[i], flags & ~(unsigned)(STAGED | FRESH));
            if (flags & BUSY)
                set_flags(t, &c->flags[i], c->flags[i] | LOST);
        }
    }
}

bool fc_pagetab_candidate(const struct fc_pagetab *t, uint64_t pfn,
                          uint64_t now_ms, uint64_t quiet_ms, bool only_staged)
{
    if (pfn >= t->pfns || bit(t->log, pfn) || bit(t->absent, pfn))
        return false;

    const struct fc_page_chunk *c = chunk_of(t, pfn);
    if (!c)
        return !only_staged && now_ms - t->start_ms >= quiet_ms;
    unsigned i = pfn % CHUNK_PAGES, flags = c->flags[i];
    if (flags & (BUSY | FRESH) || (only_staged && !(flags & STAGED)))
        return false;
    uint64_t since_ms = t->start_ms + (uint64_t)c->written[i] * CLOCK_MS;
    return now_ms - since_ms >= quiet_ms << c->backoff[i];
}

struct fc_hash fc_pagetab_begin(struct fc_pagetab *t, uint64_t pfn)
{
    struct fc_hash none = { 0, 0 };
    struct fc_page_chunk *c = pfn < t->pfns ? make_chunk(t, pfn) : NULL;
    if (!c)
        return none;
    unsigned i = pfn % CHUNK_PAGES;
    set_flags(t, &c->flags[i],
              (c->flags[i] | FRESH | BUSY) & ~(unsigned)(ZERO | LOST));
    return c->flags[i] & STAGED ? c->staged[i] : none;
}

/* Whether the chunk says nothing any more that its absence would not. */
static bool chunk_is_blank(const struct fc_page_chunk *c)
{
    for (unsigned i = 0; i < CHUNK_PAGES; i++)
        if (c->flags[i] || c->written[i])
            return false;
    return true;
}

static void note_absent(struct fc_pagetab *t, struct fc_page_chunk *c,
                        uint64_t pfn)
{
    unsigned i = pfn % CHUNK_PAGES;
    t->absent[pfn / 64] |= 1ull << pfn % 64;
    set_flags(t, &c->flags[i], 0);
    c->written[i] = 0;
    c->backoff[i] = 0;
}

void fc_pagetab_trim(struct fc_pagetab *t, uint64_t pfn)
{
    struct fc_page_chunk *c = chunk_of(t, pfn);
    if (!c || !chunk_is_blank(c))
        return;
    t->chunks[pfn / CHUNK_PAGES] = NULL;
    t->chunks_held--;
    free(c);
}

int fc_pagetab_read(struct fc_pagetab *t, uint64_t pfn,
                    enum fc_page_found found, uint64_t now_ms)
{
    struct fc_page_chunk *c = chunk_of(t, pfn);
    if (!c)
        return FC_ENOMEM;
    unsigned i = pfn % CHUNK_PAGES;
    unsigned flags = c->flags[i];

    switch (found) {
    case FC_PAGE_ABSENT:
        note_absent(t, c, pfn);
        return 0;
    case FC_PAGE_ZERO:
        flags = (flags & ~(unsigned)(STAGED | BUSY | LOST)) | PRESENT | ZERO;
        break;
    case FC_PAGE_SAME:
        /* Evicted while it was read: stays to be sent. */
        if (flags & LOST)
            flags &= ~(unsigned)(STAGED | FRESH);
        flags = (flags & ~(unsigned)(BUSY | LOST)) | PRESENT;
        break;
    case FC_PAGE_DATA:
        /* The store puts it in the place of what it held. */
        flags = (flags & ~(unsigned)STAGED) | PRESENT;
        break;
    }
    set_flags(t, &c->flags[i], flags);
    if (c->backoff[i]) {
        uint64_t quiet = clock_of(t, now_ms) - c->written[i];
        if (quiet * CLOCK_MS >= (1000ull << c->backoff[i]) * 4)
            c->backoff[i]--;
    }
    return 0;
}

void fc_pagetab_staged(struct fc_pagetab *t, uint64_t pfn, struct fc_hash hash)
{
    struct fc_page_chunk *c = chunk_of(t, pfn);
    unsigned i = pfn % CHUNK_PAGES;
    if (!c || !(c->flags[i] & BUSY))
        return;
    if (c->flags[i] & LOST) {
        fc_pagetab_failed(t, pfn);
        return;
    }
    c->staged[i] = hash;
    set_flags(t, &c->flags[i], (c->flags[i] | STAGED) & ~(unsigned)BUSY);
}

void fc_pagetab_failed(struct fc_pagetab *t, uint64_t pfn)
{
    struct fc_page_chunk *c = chunk_of(t, pfn);
    unsigned i = pfn % CHUNK_PAGES;
    if (c && c->flags[i] & BUSY)
        set_flags(t, &c->flags[i],
                  c->flags[i] & ~(unsigned)(BUSY | FRESH | LOST));
}

void fc_pagetab_evicted(struct fc_pagetab *t, uint64_t pfn)
{
    struct fc_page_chunk *c = chunk_of(t, pfn);
    unsigned i = pfn % CHUNK_PAGES;
    if (!c)
        return;
    if (c->flags[i] & BUSY)
        set_flags(t, &c->flags[i], c->flags[i] | LOST);
    else if (c->flags[i] & STAGED)
        set_flags(t, &c->flags[i], c->flags[i] & ~(unsigned)(STAGED | FRESH));
}

bool fc_pagetab_is_stale(const struct fc_pagetab *t, uint64_t pfn)
{
    const struct fc_page_chunk *c = chunk_of(t, pfn);
    return c &&
           (c->flags[pfn % CHUNK_PAGES] & (STAGED | FRESH | BUSY)) == STAGED;
}

void fc_pagetab_each_staged(const struct fc_pagetab *t,
                            void (*each)(void *user, struct fc_hash hash),
                            void *user)
{
    for (uint64_t n = 0; n < t->nchunks; n++) {
        const struct fc_page_chunk *c = t->chunks[n];
        for (unsigned i = 0; c && i < CHUNK_PAGES; i++)
            if (c->flags[i] & STAGED)
                each(user, c->staged[i]);
    }
}
