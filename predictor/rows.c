/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rows.h"

#include <math.h>
#include <string.h>

#include "approx.h"

/*
 * A region's rates are those of the tick in which it was last touched; they
 * are decayed to now when a row is made, so that quiet regions cost nothing.
 *
 * A row begins as numbers (chances, times) in the order of the table; one loop
 * over all of them then takes the logarithms, which is where the time goes.
 */
#define BURST_TICKS 20u /* quiet for longer: the next touch is an onset */
#define STREAM_TICKS 8u /* a stream moved on within that or is over */
#define STREAM_REACH 8u /* regions ahead of a disk's stream */
#define DAY_SLOTS (86400000u / FC_WEEK_SLOT_MS)
#define MEAN_STEP 0.2f
#define DUE_OCTAVES 4.0f

/* Which of the rates' half-lives other numbers share. */
enum { RATE_200MS = 1, RATE_1S = 2, RATE_4S = 3, RATE_64S = 5 };

void fc_decay_init(struct fc_decay *d, float half_life_scale)
{
    for (unsigned k = 0; k < 8; k++) {
        float ms = k < FC_REGION_RATES ? (float)fc_feature_table[k].half_life_ms
                                       : 1e9f;
        d->octaves[k] = 50.0f / (ms * half_life_scale);
    }
    for (unsigned t = 0; t < FC_DECAY_TICKS; t++)
        for (unsigned k = 0; k < 8; k++)
            d->left[t][k] = exp2f(-(float)t * d->octaves[k]);
}

void fc_decay_left(const struct fc_decay *d, uint32_t ticks, float left[8])
{
    if (ticks < FC_DECAY_TICKS) {
        memcpy(left, d->left[ticks], 8 * sizeof(*left));
        return;
    }
    for (unsigned k = 0; k < 8; k++)
        left[k] = fc_approx_exp2(-(float)ticks * d->octaves[k]);
}

/* Brings a region's rates to `now`. */
static void settle(struct fc_region *r, const struct fc_decay *d, uint32_t now)
{
    float left[8];
    fc_decay_left(d, now - r->updated, left);
    for (unsigned k = 0; k < FC_REGION_RATES; k++)
        r->rate[k] *= left[k];
    r->fill[0] *= left[RATE_200MS];
    r->fill[1] *= left[RATE_4S];
    r->other[0] *= left[RATE_1S];
    r->other[1] *= left[RATE_64S];
    r->updated = now;
}

static void learn_gap(struct fc_region *r, uint32_t gap, uint32_t now)
{
    float log = fc_approx_log2((float)gap);
    fc_gaps_ended(r, gap);
    r->gap_last = (uint16_t)(gap < UINT16_MAX ? gap : UINT16_MAX);
    r->gap_mean =
        r->touches == 1 ? log : r->gap_mean + MEAN_STEP * (log - r->gap_mean);
    if (gap <= BURST_TICKS)
        return;
    log = fc_approx_log2((float)(now - r->onset));
    r->period = r->period > 0 ? r->period + MEAN_STEP * (log - r->period) : log;
    r->onset = now;
}

static void learn_shares(struct fc_region *r, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        int is = r->now >> i & 1 ? 255 : 0, was = r->share[i];
        /* a quarter of the way, at least 1 */
        r->share[i] = (uint8_t)(was + (is - was + (is > was ? 3 : -3)) / 4);
    }
}

static uint32_t slot_of(const struct fc_rows *rows, uint32_t tick,
                        uint32_t slot_ms)
{
    uint64_t ms = (uint64_t)tick * rows->tick_ms + rows->wall_ms;
    return (uint32_t)(ms / slot_ms);
}

static uint32_t week_slot(const struct fc_rows *rows, uint32_t tick)
{
    return slot_of(rows, tick, FC_WEEK_SLOT_MS);
}

/* Bits of slots between the last touch and now are as old as the ring is
 * long: cleared. */
static void mark(uint64_t *bits, uint32_t slots, uint32_t last, uint32_t now)
{
    uint32_t since = now - last < slots ? now - last : slots;
    for (uint32_t i = 0; i < since; i++) {
        uint32_t at = (now - i) % slots;
        bits[at / 64] &= ~(1ull << at % 64);
    }
    uint32_t at = now % slots;
    bits[at / 64] |= 1ull << at % 64;
}

static void mark_week(const struct fc_rows *rows, struct fc_week *w,
                      uint32_t last, uint32_t now)
{
    mark(w->bits, FC_WEEK_SLOTS, week_slot(rows, last), week_slot(rows, now));
    mark(w->day, FC_DAY_SLOTS, slot_of(rows, last, FC_DAY_SLOT_MS),
         slot_of(rows, now, FC_DAY_SLOT_MS));
}

static void heat_block(struct fc_block *b, const struct fc_decay *d,
                       uint32_t number, uint32_t now, float gained)
{
    if (b->now_tick != now) {
        float left[8];
        fc_decay_left(d, now - b->now_tick, left);
        b->heat *= left[RATE_1S];
        b->now_tick = now;
        b->now = 0;
    }
    b->heat += gained;
    b->now |= 1u << number % FC_BLOCK_REGIONS;
}

void fc_rows_touch(const struct fc_rows *rows, struct fc_regions *rs,
                   uint32_t slot, uint32_t ticks)
{
    const struct fc_decay *d = rows->decay;
    uint32_t now = rows->now;
    struct fc_region *r = &rs->all[slot];
    float left[8];
    unsigned pages = 1u << rs->shift;
    uint32_t gap = now - rs->last[slot];
    settle(r, d, now);
    fc_decay_left(d, ticks, left);
    for (unsigned k = 0; k < FC_REGION_RATES; k++)
        r->rate[k] += 1.0f - left[k];
    unsigned now_pages = r->now & ((1u << pages) - 1);
    float fill = (float)__builtin_popcount(now_pages) / (float)pages;
    r->fill[0] += (1.0f - left[RATE_200MS]) * fill;
    r->fill[1] += (1.0f - left[RATE_4S]) * fill;
    gap = gap > ticks ? gap - (ticks - 1) : 1;
    if (r->touches)
        learn_gap(r, gap, now);
    else
        r->onset = now;
    if (pages > 1)
        learn_shares(r, pages);
    if (rs->week)
        mark_week(rows, &rs->week[slot], rs->last[slot], now);
    r->touches++;
    rs->last[slot] = now;
    heat_block(fc_regions_block(rs, r->number), d, r->number, now,
               1.0f - left[RATE_1S]);
}

void fc_rows_other(const struct fc_rows *rows, struct fc_regions *rs,
                   uint32_t slot, uint32_t ticks)
{
    struct fc_region *r = &rs->all[slot];
    float left[8];
    settle(r, rows->decay, rows->now);
    fc_decay_left(rows->decay, ticks, left);
    r->other[0] += 1.0f - left[RATE_1S];
    r->other[1] += 1.0f - left[RATE_64S];
}

/* Slot of the region `d` below, whose block is `b`. */
FC_APPROX_INLINE uint32_t slot_below(const struct fc_rows *rows,
                                     const struct fc_block *b, uint32_t number,
                                     uint32_t d)
{
    uint32_t at = number % FC_BLOCK_REGIONS;
    return at >= d ? b->slot[at - d]
                   : fc_regions_find(rows->regions, number - d);
}

FC_APPROX_INLINE uint32_t slot_above(const struct fc_rows *rows,
                                     const struct fc_block *b, uint32_t number)
{
    uint32_t at = number % FC_BLOCK_REGIONS;
    return at + 1 < FC_BLOCK_REGIONS
               ? b->slot[at + 1]
               : fc_regions_find(rows->regions, number + 1);
}

/* 1 s rate of the region in `slot`, now; 0 when there is none. */
FC_APPROX_INLINE float neighbour(const struct fc_rows *rows, uint32_t slot)
{
    if (slot == FC_REGION_NONE)
        return 0;
    const struct fc_region *r = &rows->regions->all[slot];
    uint32_t ticks = rows->now - r->updated;
    float left =
        ticks < FC_DECAY_TICKS ? rows->decay->left[ticks][RATE_1S] : 0.0f;
    return r->rate[RATE_1S] * left;
}

/* How likely a stream from below comes over the region next: there is one when
 * a region below was touched of late, and this one not since. */
FC_APPROX_INLINE float stream(const struct fc_rows *rows,
                              const struct fc_block *b, uint32_t number,
                              uint32_t quiet)
{
    const struct fc_regions *rs = rows->regions;
    uint32_t reach = rows->disk ? STREAM_REACH : 2;
    if (!quiet)
        return 0;
    for (uint32_t d = 1; d <= reach && d <= number; d++) {
        uint32_t slot = slot_below(rows, b, number, d);
        if (slot == FC_REGION_NONE)
            continue;
        uint32_t ago = rows->now - rs->last[slot];
        if (ago > STREAM_TICKS || !rs->all[slot].touches)
            continue;
        return ago < quiet ? 1.0f / (float)((1 + d) * (1 + ago)) : 0.0f;
    }
    return 0;
}

/* Share of the slots around the same time `days` ago that saw a touch; 0.5
 * when the region is not that old. */
static float days_ago(const struct fc_rows *rows, uint32_t slot, uint32_t days)
{
    const struct fc_regions *rs = rows->regions;
    if (!rs->week)
        return 0.5f;
    uint32_t now = week_slot(rows, rows->now);
    uint32_t end = week_slot(rows, rows->now + rows->horizon[1]);
    uint32_t last = week_slot(rows, rs->last[slot]);
    uint32_t born = week_slot(rows, rs->all[slot].born);
    uint32_t back = days * DAY_SLOTS;
    float hits = 0, slots = 0;
    if (now - born < back)
        return 0.5f;
    for (uint32_t s = now; s <= end && s < now + DAY_SLOTS; s++) {
        uint32_t at = s - back;
        if ((int32_t)(at - last) <= 0 &&
            rs->week[slot].bits[at % FC_WEEK_SLOTS / 64] >> at % 64 & 1)
            hits += 1.0f;
        slots += 1.0f;
    }
    return hits / slots;
}

#define HOUR (3600000u / FC_DAY_SLOT_MS)
#define DAY (24u * HOUR)
#define HOURS 6u

/* What recurs to the minute. The share of the last hours that saw a touch in
 * the slot that comes next; whether the day before did, and what is beside it
 * for half. 0 when the region is not that old. */
static void by_the_clock(const struct fc_rows *rows, uint32_t slot,
                         float *hourly_r, float *daily_r)
{
    const struct fc_regions *rs = rows->regions;
    uint32_t next = slot_of(rows, rows->now + rows->horizon[0], FC_DAY_SLOT_MS);
    uint32_t last = slot_of(rows, rs->last[slot], FC_DAY_SLOT_MS);
    const uint64_t *day = rs->week[slot].day;
#define SEEN(s)                                                                \
    ((int32_t)((s)-last) <= 0 && day[(s) % FC_DAY_SLOTS / 64] >> (s) % 64 & 1)
    float hours = 0;
    for (uint32_t h = 1; h <= HOURS; h++)
        hours += SEEN(next - h * HOUR) ? 1.0f / HOURS : 0;
    *hourly_r = hours;
    *daily_r = SEEN(next - DAY)                               ? 0.9f
               : SEEN(next - DAY - 1) || SEEN(next - DAY + 1) ? 0.5f
                                                              : 0;
#undef SEEN
}

/* 1 when `since` is 2^DUE_OCTAVES the usual time, -1 the other way. */
FC_APPROX_INLINE float due(float log_since, float usual)
{
    float x = (log_since - usual) / DUE_OCTAVES;
    x = x < 1.0f ? x : 1.0f;
    return x > -1.0f ? x : -1.0f;
}

/* Chances, then times, in the table's order, and padding. */
#define SHARES FC_FEATURE_GAP
#define TIMES 24u /* from here on only times */
#define LOGS 32u
_Static_assert(SHARES <= TIMES && FC_FEATURE_GAP_MEAN <= LOGS, "as assumed");

FC_APPROX_INLINE void fill_logs(const struct fc_rows *rows, uint32_t slot,
                                uint32_t quiet, float *v)
{
    const struct fc_regions *rs = rows->regions;
    const struct fc_region *r = &rs->all[slot];
    const struct fc_block *b = fc_regions_block(rs, r->number);
    float left[8], life = (float)(rows->now - r->born + 1);
    fc_decay_left(rows->decay, rows->now - r->updated, left);
    for (unsigned k = 0; k < FC_REGION_RATES; k++)
        v[k] = r->rate[k] * left[k];
    v[FC_FEATURE_FREQUENCY] = ((float)r->touches + 0.2f) / (life + 4.0f);
    v[FC_FEATURE_FILL_0] = r->fill[0] * left[RATE_200MS];
    v[FC_FEATURE_FILL_1] = r->fill[1] * left[RATE_4S];
    if (rs->week)
        by_the_clock(rows, slot, &v[FC_FEATURE_FILL_0], &v[FC_FEATURE_FILL_1]);
    v[FC_FEATURE_OTHER_0] = r->other[0] * left[RATE_1S];
    v[FC_FEATURE_OTHER_1] = r->other[1] * left[RATE_64S];
    v[FC_FEATURE_LEFT] = neighbour(rows, slot_below(rows, b, r->number, 1));
    v[FC_FEATURE_RIGHT] = neighbour(rows, slot_above(rows, b, r->number));
    uint32_t since = rows->now - b->now_tick;
    float heat = since < FC_DECAY_TICKS
                     ? b->heat * rows->decay->left[since][RATE_1S]
                     : 0.0f;
    v[FC_FEATURE_AROUND] = heat / FC_BLOCK_REGIONS;
    v[FC_FEATURE_STREAM] = stream(rows, b, r->number, quiet);
    v[FC_FEATURE_YESTERDAY] = days_ago(rows, slot, 1);
    v[FC_FEATURE_LAST_WEEK] = days_ago(rows, slot, 7);
    v[FC_FEATURE_GAP] = (float)quiet;
    v[FC_FEATURE_GAP_LAST] = (float)r->gap_last;
    v[FC_FEATURE_AGE] = life - 1.0f;
    v[FC_FEATURE_ONSET] = (float)(rows->now - r->onset);
}

/* v becomes logarithms, x features. */
FC_APPROX_INLINE void take_logs(float *v, float *x)
{
    const float e = 0x1p-12f;
    float odds[TIMES];
    memcpy(odds, v, sizeof(odds));
    for (unsigned k = 0; k < TIMES; k += 8) {
        fc_float8 *o = (fc_float8 *)&odds[k];
        *o = (*o + e) / (1.0f - *o + e);
    }
    for (unsigned k = 0; k < LOGS; k += 8)
        *(fc_float8 *)&v[k] += 1.0f;
    memcpy(v, odds, SHARES * sizeof(*v));
    for (unsigned k = 0; k < LOGS; k += 8)
        fc_approx_log2_8((fc_float8 *)&v[k]);
    for (unsigned k = 0; k < SHARES; k++)
        x[k] = v[k] * (1.0f / 12.0f);
    for (unsigned k = SHARES; k < FC_FEATURE_GAP_MEAN; k++)
        x[k] = v[k] * (1.0f / 16.0f);
}

/* p of EWMA and frequency at the four horizons; LRU and readahead. */
FC_APPROX_INLINE void simple_scores(const struct fc_rows *rows, const float *v,
                                    const float *ticks, uint32_t i,
                                    fc_rows_p p[FC_SCORER_LR])
{
    fc_float8 rate, over;
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        rate[z] = v[rows->ewma[z]];
        rate[z + FC_HORIZONS] = v[FC_FEATURE_FREQUENCY];
        over[z] = over[z + FC_HORIZONS] = ticks[z];
    }
    rate = 1.0f - 0.99999f * rate;
    fc_approx_log2_8(&rate);
    rate *= over;
    fc_approx_exp2_8(&rate);
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        float ahead = v[FC_FEATURE_STREAM];
        float lru = ticks[z] / (ticks[z] + 1.0f + v[FC_FEATURE_GAP]);
        p[FC_SCORER_LRU][z][i] = lru;
        p[FC_SCORER_EWMA][z][i] = 1.0f - rate[z];
        p[FC_SCORER_FREQUENCY][z][i] = 1.0f - rate[z + FC_HORIZONS];
        p[FC_SCORER_READAHEAD][z][i] = ahead > 0.3f * lru ? ahead : 0.3f * lru;
    }
}

FC_APPROX_INLINE void make_any(const struct fc_rows *rows, uint32_t n,
                               const uint32_t *slot, float *x,
                               fc_rows_p p[FC_SCORER_LR])
{
    float ticks[FC_HORIZONS];
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        ticks[z] = (float)rows->horizon[z];
    for (uint32_t i = 0; i < n; i++, x += FC_FEATURE_STRIDE) {
        const struct fc_region *r = &rows->regions->all[slot[i]];
        const char *soon =
            (const char *)&rows->regions->all[slot[i + 4 < n ? i + 4 : i]];
        __builtin_prefetch(soon);
        __builtin_prefetch(soon + sizeof(*r) - 1);
        float v[LOGS] = { 0 }, hazard[FC_HORIZONS];
        uint32_t quiet = rows->now - rows->regions->last[slot[i]];
        fc_gaps_p(rows->gaps, r, quiet, ticks, hazard);
        fill_logs(rows, slot[i], quiet, v);
        memcpy(v + FC_FEATURE_HAZARD_0, hazard, 3 * sizeof(*v));
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            p[FC_SCORER_MARKOV][z][i] = hazard[z];
        simple_scores(rows, v, ticks, i, p);
        memcpy(x, rows->guest, sizeof(rows->guest));
        take_logs(v, x);
        x[FC_FEATURE_GAP_MEAN] = r->gap_mean * (1.0f / 16.0f);
        x[FC_FEATURE_PERIOD] = r->period * (1.0f / 16.0f);
        x[FC_FEATURE_GAP_DUE] =
            r->touches > 1 ? due(v[FC_FEATURE_GAP], r->gap_mean) : 0;
        x[FC_FEATURE_PERIOD_DUE] =
            r->period > 0 ? due(v[FC_FEATURE_ONSET], r->period) : 0;
    }
}

#ifdef FC_APPROX_AVX2
FC_APPROX_AVX2
static void make_avx2(const struct fc_rows *rows, uint32_t n,
                      const uint32_t *slot, float *x, fc_rows_p p[FC_SCORER_LR])
{
    make_any(rows, n, slot, x, p);
}
#endif

void fc_rows_make(const struct fc_rows *rows, uint32_t n, const uint32_t *slot,
                  float *x, fc_rows_p p[FC_SCORER_LR])
{
#ifdef FC_APPROX_AVX2
    if (fc_approx_avx2()) {
        make_avx2(rows, n, slot, x, p);
        return;
    }
#endif
    make_any(rows, n, slot, x, p);
}
