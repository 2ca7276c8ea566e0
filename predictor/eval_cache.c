/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "eval_cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

/*
 * Who goes is found by looking at all that are held: a trace has thousands of
 * extents, not millions.
 *
 * By prediction, the extent of the lowest chance goes, of those within a factor
 * of STEP the one used longest ago. An extent used since the last tick has no
 * new chance yet; it has at least that of those which had just been used at
 * the tick before, as they were judged then.
 *
 * The guard looks at what a cache by least recent use and one by prediction
 * alone, both simulated, have served of late, and makes its own like the one
 * that served more: what that one does not hold goes first, what it holds is
 * fetched. To simulate one takes the numbers of its extents, not their bytes.
 */
#define LEAST_HELD 8u
#define AHEAD_PART 20u /* of what is held may be fetched ahead in a tick */
#define GAIN                                                                   \
    1.5f /* a fetched one is likelier by so much than the one to go            \
          */
#define STEP_OCTAVES 0.5f
#define OF_LATE 0.999f /* what an access leaves of what was before */
#define NOT_HELD UINT32_MAX

struct policy {
    uint32_t *held;  /* [n], indexes */
    uint32_t *place; /* [seen]: in `held`, or NOT_HELD */
    uint64_t *stamp; /* [seen]: of the last use, or when it was fetched */
    uint32_t n;
    uint64_t hits;
    float of_late; /* hits, the older the less */
};

struct fc_eval_cache {
    uint32_t part, seen, room;
    uint64_t now, accesses;
    uint64_t *times; /* [seen], used */
    float *p;
    uint8_t *fresh; /* used since the tick */
    float fresh_p;
    uint32_t *order; /* scratch [seen] */
    uint64_t swept;  /* address that the sequential one has come to */
    struct policy of[FC_EVAL_POLICIES];
};

const char *fc_eval_policy_name(enum fc_eval_policy policy)
{
    static const char *const names[FC_EVAL_POLICIES] = {
        "lru", "lfu", "sequential", "predicted", "guarded"
    };
    return names[policy];
}

int fc_eval_cache_new(uint32_t part, struct fc_eval_cache **cache_r)
{
    struct fc_eval_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return FC_ENOMEM;
    c->part = part;
    *cache_r = c;
    return 0;
}

void fc_eval_cache_free(struct fc_eval_cache *c)
{
    if (!c)
        return;
    for (unsigned k = 0; k < FC_EVAL_POLICIES; k++) {
        free(c->of[k].held);
        free(c->of[k].place);
        free(c->of[k].stamp);
    }
    free(c->times);
    free(c->p);
    free(c->fresh);
    free(c->order);
    free(c);
}

/* false: no memory; the old array stays. */
static bool resize(void *array, size_t item, uint32_t room)
{
    void *old, *fresh;
    memcpy(&old, array, sizeof(old));
    fresh = realloc(old, item * room);
    if (fresh)
        memcpy(array, &fresh, sizeof(fresh));
    return fresh != NULL;
}

static int grow(struct fc_eval_cache *c)
{
    uint32_t room = c->room ? 2 * c->room : 1024;
    bool ok = resize(&c->times, sizeof(*c->times), room) &&
              resize(&c->p, sizeof(*c->p), room) &&
              resize(&c->fresh, sizeof(*c->fresh), room) &&
              resize(&c->order, sizeof(*c->order), room);
    for (unsigned k = 0; k < FC_EVAL_POLICIES && ok; k++) {
        struct policy *o = &c->of[k];
        ok = resize(&o->held, sizeof(*o->held), room) &&
             resize(&o->place, sizeof(*o->place), room) &&
             resize(&o->stamp, sizeof(*o->stamp), room);
    }
    c->room = ok ? room : c->room;
    return ok ? 0 : FC_ENOMEM;
}

static uint32_t capacity(const struct fc_eval_cache *c)
{
    uint32_t n = c->seen / c->part;
    return n > LEAST_HELD ? n : LEAST_HELD;
}

static float chance(const struct fc_eval_cache *c, uint32_t index)
{
    float p = c->p[index];
    return c->fresh[index] && p < c->fresh_p ? c->fresh_p : p;
}

/* Whom the guarded one follows. */
static unsigned leader(const struct fc_eval_cache *c)
{
    return c->of[FC_EVAL_LRU].of_late > c->of[FC_EVAL_PREDICTED].of_late
               ? FC_EVAL_LRU
               : FC_EVAL_PREDICTED;
}

/* What is lowest goes, then what was used longest ago. */
static double worth(const struct fc_eval_cache *c, unsigned policy,
                    uint32_t index)
{
    if (policy == FC_EVAL_LFU)
        return (double)c->times[index];
    if (policy == FC_EVAL_GUARDED) {
        unsigned lead = leader(c);
        return c->of[lead].place[index] == NOT_HELD ? -HUGE_VAL
                                                    : worth(c, lead, index);
    }
    if (policy == FC_EVAL_PREDICTED)
        return floor((double)(log2f(chance(c, index) + 1e-6f) / STEP_OCTAVES));
    return 0;
}

static uint32_t last_of(const struct fc_eval_cache *c, unsigned policy)
{
    const struct policy *o = &c->of[policy];
    uint32_t found = o->held[0];
    double least = worth(c, policy, found);
    for (uint32_t i = 1; i < o->n; i++) {
        uint32_t index = o->held[i];
        double w = worth(c, policy, index);
        if (w < least || (w == least && o->stamp[index] < o->stamp[found])) {
            least = w;
            found = index;
        }
    }
    return found;
}

static void drop(struct policy *o, uint32_t index)
{
    uint32_t at = o->place[index], moved = o->held[--o->n];
    o->held[at] = moved;
    o->place[moved] = at;
    o->place[index] = NOT_HELD;
}

static void hold(struct fc_eval_cache *c, unsigned policy, uint32_t index)
{
    struct policy *o = &c->of[policy];
    if (o->n >= capacity(c))
        drop(o, last_of(c, policy));
    o->place[index] = o->n;
    o->held[o->n++] = index;
    o->stamp[index] = c->now;
}

static int add(struct fc_eval_cache *c, uint32_t index)
{
    int rc = index >= c->room ? grow(c) : 0;
    if (rc)
        return rc;
    c->seen = index + 1;
    c->times[index] = 0;
    c->p[index] = 0;
    c->fresh[index] = 0;
    for (unsigned k = 0; k < FC_EVAL_POLICIES; k++) {
        c->of[k].place[index] = NOT_HELD;
        c->of[k].stamp[index] = 0;
    }
    return 0;
}

int fc_eval_cache_access(struct fc_eval_cache *c, uint32_t index, bool count)
{
    int rc = index >= c->seen ? add(c, index) : 0;
    if (rc)
        return rc;
    c->now++;
    c->accesses += count;
    c->times[index]++;
    c->fresh[index] = 1;
    for (unsigned k = 0; k < FC_EVAL_POLICIES; k++) {
        struct policy *o = &c->of[k];
        bool hit = o->place[index] != NOT_HELD;
        o->hits += count && hit;
        o->of_late = o->of_late * OF_LATE + (hit ? 1.0f : 0);
        o->stamp[index] = c->now;
        if (!hit)
            hold(c, k, index);
    }
    return 0;
}

static uint32_t ahead(const struct fc_eval_cache *c)
{
    return capacity(c) / AHEAD_PART + 1;
}

static const uint64_t *by_address_of;
static const float *by_chance_of;

static int by_address(const void *a, const void *b)
{
    uint64_t x = by_address_of[*(const uint32_t *)a];
    uint64_t y = by_address_of[*(const uint32_t *)b];
    return x < y ? -1 : x > y;
}

static int by_chance(const void *a, const void *b)
{
    float x = by_chance_of[*(const uint32_t *)a];
    float y = by_chance_of[*(const uint32_t *)b];
    return x > y ? -1 : x < y;
}

/* Goes over the disk round and round. */
static void fetch_in_order(struct fc_eval_cache *c, const uint64_t *address)
{
    const struct policy *o = &c->of[FC_EVAL_SEQUENTIAL];
    uint32_t left = ahead(c), at = 0;
    by_address_of = address;
    qsort(c->order, c->seen, sizeof(*c->order), by_address);
    while (at < c->seen && address[c->order[at]] <= c->swept)
        at++;
    for (uint32_t looked = 0; looked < c->seen && left; looked++, at++) {
        uint32_t index = c->order[at % c->seen];
        c->swept = address[index];
        if (o->place[index] != NOT_HELD)
            continue;
        hold(c, FC_EVAL_SEQUENTIAL, index);
        left--;
    }
}

/* Fetches an extent as used when it was. */
static void fetch(struct fc_eval_cache *c, unsigned policy, uint32_t index)
{
    struct policy *o = &c->of[policy];
    uint64_t used = o->stamp[index];
    hold(c, policy, index);
    o->stamp[index] = used;
}

static void fetch_likely(struct fc_eval_cache *c)
{
    const struct policy *o = &c->of[FC_EVAL_PREDICTED];
    uint32_t left = ahead(c);
    by_chance_of = c->p;
    qsort(c->order, c->seen, sizeof(*c->order), by_chance);
    for (uint32_t i = 0; i < c->seen && left; i++) {
        uint32_t index = c->order[i];
        if (o->place[index] != NOT_HELD)
            continue;
        if (o->n >= capacity(c) &&
            c->p[index] < GAIN * chance(c, last_of(c, FC_EVAL_PREDICTED)))
            break;
        fetch(c, FC_EVAL_PREDICTED, index);
        left--;
    }
}

/* What the leader holds, the likeliest first (`order` is so). */
static void fetch_as_leader(struct fc_eval_cache *c)
{
    const struct policy *o = &c->of[FC_EVAL_GUARDED], *lead = &c->of[leader(c)];
    uint32_t left = ahead(c);
    for (uint32_t i = 0; i < c->seen && left; i++) {
        uint32_t index = c->order[i];
        if (o->place[index] != NOT_HELD || lead->place[index] == NOT_HELD)
            continue;
        fetch(c, FC_EVAL_GUARDED, index);
        left--;
    }
}

int fc_eval_cache_tick(struct fc_eval_cache *c, uint32_t n, const float *p,
                       const uint64_t *address)
{
    double sum = 0;
    uint32_t fresh = 0;
    n = n < c->seen ? n : c->seen;
    for (uint32_t i = 0; i < n; i++) {
        sum += c->fresh[i] ? (double)p[i] : 0;
        fresh += c->fresh[i];
        c->fresh[i] = 0;
        c->p[i] = p[i];
    }
    if (fresh)
        c->fresh_p = (float)(sum / fresh);
    for (uint32_t i = 0; i < c->seen; i++)
        c->order[i] = i;
    if (!c->seen)
        return 0;
    fetch_in_order(c, address);
    fetch_likely(c);
    fetch_as_leader(c);
    return 0;
}

double fc_eval_cache_hits(const struct fc_eval_cache *c,
                          enum fc_eval_policy policy)
{
    return c->accesses ? (double)c->of[policy].hits / (double)c->accesses : 0;
}
