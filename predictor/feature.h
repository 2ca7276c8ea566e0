/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FEATURE_H
#define FC_FEATURE_H

#include <stdint.h>

/*
 * What the learned scorers are told about a region, one float each, about
 * -1 to 1. This is the one table: name of the constant, name for people,
 * half-life in ms at a tick of 50 ms (0: has none).
 *
 * A memory engine of another tick keeps the half-lives in ms. A disk engine
 * keeps them in ticks: its tick is chosen to fit the horizons.
 *
 * "Touched" means written (memory) or read (disk). A chance or share p is
 * given as log2((p + e) / (1 - p + e)) / 12 with e = 2^-12, a time of t ticks
 * as log2(1 + t) / 16.
 */
#define FC_FEATURE_LIST(X)                                                     \
    /* shares: of ticks with a touch, by half-life, and over the whole life */ \
    X(RATE_0, "rate-50ms", 50)                                                 \
    X(RATE_1, "rate-200ms", 200)                                               \
    X(RATE_2, "rate-1s", 1000)                                                 \
    X(RATE_3, "rate-4s", 4000)                                                 \
    X(RATE_4, "rate-16s", 16000)                                               \
    X(RATE_5, "rate-64s", 64000)                                               \
    X(RATE_6, "rate-256s", 256000)                                             \
    X(FREQUENCY, "frequency", 0)                                               \
    /* of the region's pages touched a tick; of a disk, whose regions have one \
     * page: of the last six hours that saw a touch in the five minutes that   \
     * come next; whether the day before did, or what is beside it */          \
    X(FILL_0, "fill-200ms", 200)                                               \
    X(FILL_1, "fill-4s", 4000)                                                 \
    /* of a disk's ticks with a write; of memory 0 */                          \
    X(OTHER_0, "other-1s", 1000)                                               \
    X(OTHER_1, "other-64s", 64000)                                             \
    /* the neighbours' 1 s rates; the share of the 2 MiB around that is        \
     * touched a tick, of the last second; of a disk, a stream's approach */   \
    X(LEFT, "left", 1000)                                                      \
    X(RIGHT, "right", 1000)                                                    \
    X(AROUND, "around", 1000)                                                  \
    X(STREAM, "stream", 0)                                                     \
    /* what the region's own gaps say of the first three horizons */           \
    X(HAZARD_0, "hazard-short", 0)                                             \
    X(HAZARD_1, "hazard-mid", 0)                                               \
    X(HAZARD_2, "hazard-long", 0)                                              \
    /* touched within the mid horizon from this time of day, a day ago; a week \
     * ago (disks) */                                                          \
    X(YESTERDAY, "yesterday", 0)                                               \
    X(LAST_WEEK, "last-week", 0)                                               \
    /* times: since the last touch; the gap before that; since the region was  \
     * first seen; since the burst of touches began */                         \
    X(GAP, "gap", 0)                                                           \
    X(GAP_LAST, "gap-last", 0)                                                 \
    X(AGE, "age", 0)                                                           \
    X(ONSET, "onset", 0)                                                       \
    /* usual gap; usual time between two onsets; how near the next touch, the  \
     * next onset is by that */                                                \
    X(GAP_MEAN, "gap-mean", 0)                                                 \
    X(PERIOD, "period", 0)                                                     \
    X(GAP_DUE, "gap-due", 0)                                                   \
    X(PERIOD_DUE, "period-due", 0)                                             \
    /* guest-wide: rate of touches now, and against the last minute's */       \
    X(GUEST_RATE, "guest-rate", 200)                                           \
    X(GUEST_TREND, "guest-trend", 64000)                                       \
    X(CPU, "cpu", 0)                                                           \
    X(NET, "net", 0)                                                           \
    X(VBD_READ, "vbd-read", 0)                                                 \
    X(VBD_WRITE, "vbd-write", 0)                                               \
    /* the guest's cycle: phase, weighted with how clear it is; what the rate  \
     * was a cycle ago, a mid horizon ahead of now, against now */             \
    X(CYCLE_SIN, "cycle-sin", 0)                                               \
    X(CYCLE_COS, "cycle-cos", 0)                                               \
    X(CYCLE_AHEAD, "cycle-ahead", 0)                                           \
    /* the guest's own hints: how near an event is; whether one goes on */     \
    X(HINT_SOON, "hint-soon", 0)                                               \
    X(HINT_BUSY, "hint-busy", 0)

#define FC_FEATURE_ENUM(id, name, half_life_ms) FC_FEATURE_##id,
enum fc_feature_id { FC_FEATURE_LIST(FC_FEATURE_ENUM) FC_FEATURE_COUNT };
#undef FC_FEATURE_ENUM

/* Floats from one region's features to the next's; a multiple of 8. */
#define FC_FEATURE_STRIDE 40u
_Static_assert(FC_FEATURE_COUNT == FC_FEATURE_STRIDE, "no gap in the rows");

struct fc_feature {
    const char *name;
    uint32_t half_life_ms;
};

extern const struct fc_feature fc_feature_table[FC_FEATURE_COUNT];

/*
 * Identity of the table (names, order, half-lives) and of the way the numbers
 * are made: a model trained for one table is of no use with another. XXH3-64.
 */
uint64_t fc_feature_hash(void);

#endif
