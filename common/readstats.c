/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "readstats.h"

#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "wire.h"

#define FIRST_BIT 10u /* 1024 ns */
#define NUMBERS (FC_READSTATS_BYTES / 8)

static const char *const tier_names[FC_TIERS] = { "other", "critical",
                                                  "predictive", "background" };

const char *fc_tier_name(unsigned tier)
{
    return tier < FC_TIERS ? tier_names[tier] : "";
}

unsigned fc_latency_bucket(uint64_t ns)
{
    if (ns >> FIRST_BIT == 0)
        return 0;
    unsigned bit = 63 - (unsigned)__builtin_clzll(ns);
    unsigned b = 1 + (bit - FIRST_BIT) * 4 + (unsigned)(ns >> (bit - 2) & 3);
    return b < FC_LATENCY_BUCKETS ? b : FC_LATENCY_BUCKETS - 1;
}

uint64_t fc_latency_end_ns(unsigned bucket)
{
    uint64_t base = 1ull << (FIRST_BIT + (bucket + 3) / 4 - 1);
    return bucket ? base + base / 4 * ((bucket - 1) % 4 + 1)
                  : 1ull << FIRST_BIT;
}

uint64_t fc_readstats_quantile_ns(const struct fc_readstats *s, double share)
{
    uint64_t all = 0, seen = 0;
    for (unsigned i = 0; i < FC_LATENCY_BUCKETS; i++)
        all += s->latency[i];
    for (unsigned i = 0; i < FC_LATENCY_BUCKETS; i++) {
        seen += s->latency[i];
        if (seen && (double)seen >= share * (double)all)
            return fc_latency_end_ns(i);
    }
    return 0;
}

uint64_t fc_readstats_hits(const struct fc_readstats *s)
{
    uint64_t hits = 0;
    for (unsigned i = 0; i < FC_TIERS; i++)
        hits += s->hits[i];
    return hits;
}

/* All numbers in the order of the format. */
static void list(struct fc_readstats *s, uint64_t *number[NUMBERS])
{
    unsigned n = 0;
    number[n++] = &s->reads;
    number[n++] = &s->read_ns;
    number[n++] = &s->miss_ns;
    number[n++] = &s->misses;
    number[n++] = &s->prefetched;
    number[n++] = &s->prefetch_used;
    for (unsigned i = 0; i < FC_TIERS; i++)
        number[n++] = &s->hits[i];
    for (unsigned i = 0; i < FC_LATENCY_BUCKETS; i++)
        number[n++] = &s->latency[i];
}

void fc_readstats_add(struct fc_readstats *to, const struct fc_readstats *s)
{
    struct fc_readstats from = *s;
    uint64_t *a[NUMBERS], *b[NUMBERS];
    list(to, a);
    list(&from, b);
    for (unsigned i = 0; i < NUMBERS; i++)
        *a[i] += *b[i];
}

void fc_readstats_encode(const struct fc_readstats *s,
                         uint8_t out[FC_READSTATS_BYTES])
{
    struct fc_readstats from = *s;
    uint64_t *number[NUMBERS];
    list(&from, number);
    for (unsigned i = 0; i < NUMBERS; i++)
        fc_le_store(out + 8 * i, *number[i], 8);
}

void fc_readstats_decode(const uint8_t in[FC_READSTATS_BYTES],
                         struct fc_readstats *s)
{
    uint64_t *number[NUMBERS];
    list(s, number);
    for (unsigned i = 0; i < NUMBERS; i++)
        *number[i] = fc_le_load(in + 8 * i, 8);
}

/* ---- JSON ---- */

static void put(struct json_object *o, const char *key, uint64_t v)
{
    json_object_object_add(
        o, key, json_object_new_int64(v > INT64_MAX ? INT64_MAX : (int64_t)v));
}

static uint64_t get(struct json_object *o, const char *key)
{
    int64_t v = fc_json_int(o, key, 0);
    return v > 0 ? (uint64_t)v : 0;
}

static void put_hits(struct json_object *o, const struct fc_readstats *s)
{
    for (unsigned i = 0; i < FC_TIERS; i++) {
        char key[24];
        snprintf(key, sizeof(key), "hits_%s", fc_tier_name(i));
        put(o, key, s->hits[i]);
    }
    put(o, "misses", s->misses);
}

struct json_object *fc_readstats_json(const struct fc_readstats *s)
{
    struct json_object *o = json_object_new_object();
    struct json_object *latency = json_object_new_array();
    unsigned n = FC_LATENCY_BUCKETS;
    put(o, "reads", s->reads);
    put(o, "read_ns", s->read_ns);
    put(o, "miss_ns", s->miss_ns);
    put(o, "prefetched", s->prefetched);
    put(o, "prefetch_used", s->prefetch_used);
    put_hits(o, s);
    while (n && !s->latency[n - 1])
        n--;
    for (unsigned i = 0; i < n; i++)
        json_object_array_add(latency,
                              json_object_new_int64((int64_t)s->latency[i]));
    json_object_object_add(o, "latency", latency);
    return o;
}

void fc_readstats_of_json(struct json_object *o, struct fc_readstats *s)
{
    struct json_object *latency = NULL;
    memset(s, 0, sizeof(*s));
    s->reads = get(o, "reads");
    s->read_ns = get(o, "read_ns");
    s->miss_ns = get(o, "miss_ns");
    s->misses = get(o, "misses");
    s->prefetched = get(o, "prefetched");
    s->prefetch_used = get(o, "prefetch_used");
    for (unsigned i = 0; i < FC_TIERS; i++) {
        char key[24];
        snprintf(key, sizeof(key), "hits_%s", fc_tier_name(i));
        s->hits[i] = get(o, key);
    }
    json_object_object_get_ex(o, "latency", &latency);
    size_t n = json_object_is_type(latency, json_type_array)
                   ? json_object_array_length(latency)
                   : 0;
    for (size_t i = 0; i < n && i < FC_LATENCY_BUCKETS; i++) {
        int64_t v =
            json_object_get_int64(json_object_array_get_idx(latency, i));
        s->latency[i] = v > 0 ? (uint64_t)v : 0;
    }
}

void fc_readstats_show(const struct fc_readstats *s, struct json_object *o)
{
    double hits = (double)fc_readstats_hits(s), all = hits + (double)s->misses;
    json_object_object_add(
        o, "hit_percent",
        json_object_new_double(all > 0 ? 100 * hits / all : 0));
    put_hits(o, s);
    put(o, "read_p50_us", fc_readstats_quantile_ns(s, 0.5) / 1000);
    put(o, "read_p99_us", fc_readstats_quantile_ns(s, 0.99) / 1000);
}
