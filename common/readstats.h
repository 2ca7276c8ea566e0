/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_READSTATS_H
#define FC_READSTATS_H

#include <json-c/json.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How a disk's reads were served by a shadow or a cache: what an engine counts
 * and keeps in its map, what the daemon shows and keeps. Plain numbers; who has
 * them looks after threads.
 */

/* Who brought a block that was read here. */
enum fc_tier {
    FC_TIER_OTHER = 0,      /* the guest wrote it, or had asked for it before */
    FC_TIER_CRITICAL = 1,   /* beside one that was missed */
    FC_TIER_PREDICTIVE = 2, /* named by the predicted order */
    FC_TIER_BACKGROUND = 3, /* by address, while nothing else was to do */
    FC_TIERS = 4,
};
const char *fc_tier_name(unsigned tier); /* "other", "critical", ... */

/*
 * Times of reads: bucket 0 below 1024 ns, then four to each power of two, the
 * last without an end (some 15 s and more).
 */
#define FC_LATENCY_BUCKETS 96u
unsigned fc_latency_bucket(uint64_t ns);
/* Where the bucket ends. */
uint64_t fc_latency_end_ns(unsigned bucket);

struct fc_readstats {
    uint64_t reads, read_ns, miss_ns; /* requests; time in those that missed */
    uint64_t hits[FC_TIERS], misses;  /* blocks of them: here, or fetched */
    uint64_t prefetched, prefetch_used;
    uint64_t latency[FC_LATENCY_BUCKETS];
};

/* The time that this share (0 to 1) of reads stayed below; 0: there are none.
 * The end of the bucket, so at most a quarter too much. */
uint64_t fc_readstats_quantile_ns(const struct fc_readstats *s, double share);
uint64_t fc_readstats_hits(const struct fc_readstats *s); /* of all tiers */
void fc_readstats_add(struct fc_readstats *to, const struct fc_readstats *s);

/* As docs/formats/shadow-map.md has them. */
#define FC_READSTATS_BYTES (8u * (6u + FC_TIERS + FC_LATENCY_BUCKETS))
void fc_readstats_encode(const struct fc_readstats *s,
                         uint8_t out[FC_READSTATS_BYTES]);
void fc_readstats_decode(const uint8_t in[FC_READSTATS_BYTES],
                         struct fc_readstats *s_r);

/* The member `metrics` of an engine's status, and back (what is missing or
 * negative is 0). The object is the caller's. */
struct json_object *fc_readstats_json(const struct fc_readstats *s);
void fc_readstats_of_json(struct json_object *o, struct fc_readstats *s_r);
/* What people are shown: hit_percent, hits by tier, misses, p50 and p99. */
void fc_readstats_show(const struct fc_readstats *s, struct json_object *o);

#endif
