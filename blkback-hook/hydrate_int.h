/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HYDRATE_INT_H
#define FC_HYDRATE_INT_H

/* What hydrate.c (tiers, order, threads) and hydrate_aio.c (libaio) share. */
#include "bucket.h"
#include "hydrate.h"
#include "shadow_int.h"

/* One request's size, where a block is not larger by itself. */
#define RUN_BYTES (256u << 10)

/* Neighbourhoods waiting; the oldest gives way. */
#define CRITICAL_MAX 256u

#define WAIT_FOR_KICK UINT64_MAX

struct job {
    uint32_t first, count;
    enum fetch_kind kind;
    uint32_t order_at; /* FETCH_ORDER: where in the order it begins */
};

struct hydrate {
    struct fc_shadow *s;
    unsigned depth;
    int aio_fd; /* -1: threads that read */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    struct job critical[CRITICAL_MAX];
    uint32_t critical_first, critical_count;
    uint32_t *order;
    uint32_t order_count, order_next;
    uint32_t background_next;
    struct fc_bucket bucket;
    uint64_t missed_ms, down_until_ms;
    unsigned credit;
    uint64_t used_seen; /* prefetch_used when the credit was last reckoned */
    unsigned threads;
    pthread_t thread[FC_HYDRATE_DEPTH_MAX];
};

/* Blocks of one request. */
static inline uint32_t run_blocks(const struct hydrate *h)
{
    uint32_t n = RUN_BYTES >> h->s->block_shift;

    return n ? n : 1;
}

/*
 * The next job, with h->lock held: 0, or the milliseconds to wait for one
 * (WAIT_FOR_KICK: until something changes).
 */
uint64_t hydrate_pick(struct hydrate *h, struct job *job_r);

/* Waits for a change, or so long; h->lock is held. */
void hydrate_wait(struct hydrate *h, uint64_t ms);

/* The primary refused a job or is out of reach: it comes again later. */
void hydrate_failed(struct hydrate *h, const struct job *job);

/* Reads an entered fetch by the primary's `read` and ends it. 0 or why not. */
int hydrate_read(struct fc_shadow *s, struct fetch *f, uint8_t *buf);

/* A thread that serves all jobs through libaio; `user` is the hydrate. */
void *hydrate_aio_main(void *user);

#endif
