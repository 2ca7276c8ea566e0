/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BUCKET_H
#define FC_BUCKET_H

#include <stdint.h>

/*
 * Token bucket for a rate in bytes per second; a rate of 0 means no limit.
 * The clock is the caller's (milliseconds, monotonic), so that tests own it.
 * Not thread-safe.
 */
struct fc_bucket {
    uint64_t rate_bps, burst_bytes;
    int64_t tokens; /* thousandths of a byte; below zero: a debt */
    uint64_t last_ms;
};

void fc_bucket_init(struct fc_bucket *b, uint64_t rate_bps,
                    uint64_t burst_bytes, uint64_t now_ms);

/* Changes the rate, keeping what was earned up to now. */
void fc_bucket_set_rate(struct fc_bucket *b, uint64_t rate_bps,
                        uint64_t now_ms);

/* Milliseconds until something may be sent; 0: now. */
uint64_t fc_bucket_wait_ms(struct fc_bucket *b, uint64_t now_ms);

/* Pays for `bytes` sent. */
void fc_bucket_take(struct fc_bucket *b, uint64_t bytes, uint64_t now_ms);

#endif
