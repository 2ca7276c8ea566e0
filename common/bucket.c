/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bucket.h"

/* Tokens are thousandths of a byte, so that bytes per second times
 * milliseconds is exact at any rate. */
#define TOKENS_PER_BYTE 1000

void fc_bucket_init(struct fc_bucket *b, uint64_t rate_bps,
                    uint64_t burst_bytes, uint64_t now_ms)
{
    *b = (struct fc_bucket){ .rate_bps = rate_bps,
                             .burst_bytes = burst_bytes,
                             .tokens = (int64_t)burst_bytes * TOKENS_PER_BYTE,
                             .last_ms = now_ms };
}

static void earn(struct fc_bucket *b, uint64_t now_ms)
{
    if (now_ms <= b->last_ms)
        return;
    uint64_t ms = now_ms - b->last_ms;
    int64_t full = (int64_t)b->burst_bytes * TOKENS_PER_BYTE;
    b->last_ms = now_ms;
    if (!b->rate_bps)
        return;
    if (ms > (uint64_t)(full - b->tokens) / b->rate_bps)
        b->tokens = full;
    else
        b->tokens += (int64_t)(b->rate_bps * ms);
}

void fc_bucket_set_rate(struct fc_bucket *b, uint64_t rate_bps,
                        uint64_t now_ms)
{
    earn(b, now_ms);
    b->rate_bps = rate_bps;
}

uint64_t fc_bucket_wait_ms(struct fc_bucket *b, uint64_t now_ms)
{
    earn(b, now_ms);
    if (!b->rate_bps || b->tokens > 0)
        return 0;
    return (uint64_t)-b->tokens / b->rate_bps + 1;
}

void fc_bucket_take(struct fc_bucket *b, uint64_t bytes, uint64_t now_ms)
{
    earn(b, now_ms);
    if (b->rate_bps)
        b->tokens -= (int64_t)bytes * TOKENS_PER_BYTE;
}
