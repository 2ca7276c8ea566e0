/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hydration from a primary on this host's own block layer (shared storage): one
 * thread keeps up to `depth` reads under way by libaio. Each has a buffer that
 * O_DIRECT takes as it is. A read that libaio would not do whole is done again
 * by the primary's `read`.
 */
#include "hydrate_int.h"

#include <libaio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "log.h"

/* No device asks for more. */
#define DIRECT_ALIGN 4096u

/* Between two looks at what else there is to do, while reads are under way. */
#define REAP_NS 20000000

struct slot {
    struct iocb iocb; /* first: libaio hands its address back */
    struct fetch fetch;
    struct job job; /* what it is part of */
    uint8_t *buf;
    struct slot *next_free;
};

struct aio {
    struct hydrate *h;
    io_context_t context;
    struct slot *slots, *free;
    uint8_t *bufs;
    unsigned under_way;
    struct job job; /* the one being split; count 0: none */
};

static int aio_init(struct aio *a)
{
    size_t bytes = (size_t)run_blocks(a->h) << a->h->s->block_shift;
    unsigned depth = a->h->depth;

    a->slots = calloc(depth, sizeof(*a->slots));
    if (!a->slots ||
        posix_memalign((void **)&a->bufs, DIRECT_ALIGN, bytes * depth))
        return FC_ENOMEM;
    for (unsigned i = 0; i < depth; i++) {
        a->slots[i].buf = a->bufs + bytes * i;
        a->slots[i].next_free = a->free;
        a->free = &a->slots[i];
    }
    int r = io_setup((int)depth, &a->context);
    if (r) {
        fc_error("hydration: io_setup: %s", strerror(-r));
        return FC_ESYS;
    }
    return 0;
}

/* The read of a slot is over: `res` as libaio gives it. */
static void slot_end(struct aio *a, struct slot *slot, long res)
{
    struct fc_shadow *s = a->h->s;
    struct fetch *f = &slot->fetch;
    bool fresh;

    if (res == (long)shadow_block_bytes(s, f->first, f->count)) {
        shadow_answer(s, 0);
        shadow_fetch_end(s, f, slot->buf, &fresh);
    } else if (hydrate_read(s, f, slot->buf)) {
        hydrate_failed(a->h, &slot->job);
    }
    slot->next_free = a->free;
    a->free = slot;
}

/* Sends the next part of the job out; there is a free slot. */
static void job_step(struct aio *a)
{
    struct fc_shadow *s = a->h->s;
    struct slot *slot = a->free;
    uint32_t most = run_blocks(a->h), n;

    slot->fetch.kind = a->job.kind;
    slot->job = a->job;
    if (most > a->job.count)
        most = a->job.count;
    int kind =
        shadow_run_take(s, a->job.first, most, TAKE_FILL, &slot->fetch, &n);
    a->job.first += n;
    a->job.count -= n;
    if (kind != RUN_FETCH)
        return;
    struct iocb *iocb = &slot->iocb;
    uint64_t at = (uint64_t)slot->fetch.first << s->block_shift;
    io_prep_pread(iocb, a->h->aio_fd, slot->buf,
                  shadow_block_bytes(s, slot->fetch.first, n), (long long)at);
    a->free = slot->next_free;
    if (io_submit(a->context, 1, &iocb) == 1)
        a->under_way++;
    else
        slot_end(a, slot, -1);
}

/* Sends out what there is room for; waits only with nothing under way. */
static bool fill(struct aio *a)
{
    struct hydrate *h = a->h;

    pthread_mutex_lock(&h->lock);
    while (!h->stop && a->free) {
        uint64_t wait = a->job.count ? 0 : hydrate_pick(h, &a->job);
        if (wait) {
            a->job.count = 0;
            if (a->under_way)
                break;
            hydrate_wait(h, wait);
            continue;
        }
        pthread_mutex_unlock(&h->lock);
        job_step(a);
        pthread_mutex_lock(&h->lock);
    }
    bool go_on = !h->stop;
    pthread_mutex_unlock(&h->lock);
    return go_on;
}

static void reap(struct aio *a)
{
    struct timespec timeout = { .tv_nsec = REAP_NS };
    struct io_event events[FC_HYDRATE_DEPTH_MAX];
    int n = io_getevents(a->context, 1, (long)a->under_way, events, &timeout);

    for (int i = 0; i < n; i++) {
        a->under_way--;
        slot_end(a, (struct slot *)events[i].obj, (long)events[i].res);
    }
}

void *hydrate_aio_main(void *user)
{
    struct aio a = { .h = user };

    if (!aio_init(&a)) {
        while (fill(&a) || a.under_way)
            if (a.under_way)
                reap(&a);
        io_destroy(a.context);
    }
    free(a.slots);
    free(a.bufs);
    return NULL;
}
