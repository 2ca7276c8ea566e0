/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_STREAM_GUEST_H
#define FC_TEST_STREAM_GUEST_H

/*
 * For tests of whole migrations: a guest with a dirty log that writes at random
 * moments, and models of libxc that save it and restore it. Include after
 * cmocka.h.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "io.h"
#include "precopy.h"
#include "stream_kit.h"

#define PAGES 700u
#define BATCH 64u

/* ---- a guest ---- */

struct guest {
    pthread_mutex_t lock;    /* stands for the hypervisor's */
    uint64_t numbers[PAGES]; /* the contents of each page */
    bool present[PAGES];
    uint64_t log[(PAGES + 63) / 64];
    bool stopped, closed;
    bool restless; /* writes whenever the log is looked at */
    bool cleaning; /* libxc is at the log: a peek now would be EBUSY */
    unsigned peeks, overlaps;
    int peek_rc;
    uint64_t shown[(PAGES + 63) / 64];
    uint64_t rng;
};

static inline uint64_t guest_rng(struct guest *g)
{
    g->rng ^= g->rng << 13;
    g->rng ^= g->rng >> 7;
    g->rng ^= g->rng << 17;
    return g->rng;
}

static inline void guest_init(struct guest *g, uint64_t seed)
{
    *g = (struct guest){ .rng = seed * 2654435761u + 1 };
    pthread_mutex_init(&g->lock, NULL);
    for (unsigned i = 0; i < PAGES; i++) {
        g->present[i] = guest_rng(g) % 16 != 0;
        g->numbers[i] = guest_rng(g) % 3 ? guest_rng(g) % 200 : 0;
    }
}

/* Some writes, some balloon work. */
static inline void guest_run(struct guest *g, unsigned writes)
{
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < writes && !g->stopped; i++) {
        unsigned pfn = (unsigned)(guest_rng(g) % (i % 4 ? 40 : PAGES));
        if (guest_rng(g) % 64 == 0)
            g->present[pfn] = !g->present[pfn];
        g->numbers[pfn] = guest_rng(g) % 250;
        g->log[pfn / 64] |= (uint64_t)1 << (pfn % 64);
    }
    pthread_mutex_unlock(&g->lock);
}

static inline void *guest_main(void *user)
{
    struct guest *g = user;
    for (;;) {
        pthread_mutex_lock(&g->lock);
        bool closed = g->closed;
        pthread_mutex_unlock(&g->lock);
        if (closed)
            return NULL;
        guest_run(g, 20);
        usleep(300);
    }
}

static inline uint64_t guest_pages(void *user)
{
    (void)user;
    return PAGES;
}

static inline int guest_read(void *user, const uint64_t *pfns, unsigned count,
                             uint8_t *pages, bool *has)
{
    struct guest *g = user;
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < count; i++) {
        has[i] = pfns[i] < PAGES && g->present[pfns[i]];
        if (has[i])
            kit_page(pages + (size_t)i * FC_PAGE_SIZE, g->numbers[pfns[i]]);
    }
    pthread_mutex_unlock(&g->lock);
    return 0;
}

static inline int guest_peek(void *user, const uint64_t **bitmap_r,
                             uint64_t *bits_r, uint64_t *dirty_r)
{
    struct guest *g = user;
    if (g->restless)
        guest_run(g, 200);
    pthread_mutex_lock(&g->lock);
    g->peeks++;
    g->overlaps += g->cleaning;
    memcpy(g->shown, g->log, sizeof(g->shown));
    int rc = g->peek_rc;
    pthread_mutex_unlock(&g->lock);
    usleep(100);
    *bitmap_r = g->shown;
    *bits_r = PAGES;
    *dirty_r = 0;
    for (unsigned i = 0; i < PAGES; i++)
        *dirty_r += g->shown[i / 64] >> (i % 64) & 1;
    return rc;
}

static const struct fc_guest_ops guest_ops = {
    .pages = guest_pages,
    .read = guest_read,
    .peek = guest_peek,
};

/* ---- libxc, saving ---- */

struct libxc_save {
    struct guest *guest;
    _Atomic bool *stopped;      /* told when the guest is */
    struct fc_precopy *precopy; /* NULL: writes straight away */
    int fd;
    unsigned suspends;
    bool refuse_suspend;
    int policy_calls;
};

static inline int write_stream(struct libxc_save *x, const struct bytes *b)
{
    return fc_write_all(x->fd, b->p, b->len);
}

static inline void clean_log(struct guest *g, uint64_t *bitmap)
{
    pthread_mutex_lock(&g->lock);
    g->cleaning = true;
    pthread_mutex_unlock(&g->lock);
    usleep(200);
    pthread_mutex_lock(&g->lock);
    memcpy(bitmap, g->log, sizeof(g->log));
    memset(g->log, 0, sizeof(g->log));
    g->cleaning = false;
    pthread_mutex_unlock(&g->lock);
}

static inline int send_batch(struct libxc_save *x, const uint64_t *pfns,
                             unsigned n)
{
    struct bytes b = { 0 };
    uint64_t entries[BATCH], numbers[BATCH];
    pthread_mutex_lock(&x->guest->lock);
    for (unsigned i = 0; i < n; i++) {
        entries[i] = pfns[i] | (x->guest->present[pfns[i]] ? 0 : TYPE(0xf));
        numbers[i] = x->guest->numbers[pfns[i]];
    }
    pthread_mutex_unlock(&x->guest->lock);
    kit_page_data(&b, entries, numbers, n);
    int rc = write_stream(x, &b);
    bytes_free(&b);
    return rc;
}

static inline int send_dirty(struct libxc_save *x, const uint64_t *bitmap)
{
    uint64_t pfns[BATCH];
    unsigned n = 0;
    int rc = 0;
    for (unsigned i = 0; i < PAGES && rc == 0; i++) {
        if (!(bitmap[i / 64] >> (i % 64) & 1))
            continue;
        pfns[n++] = i;
        if (n == BATCH) {
            rc = send_batch(x, pfns, n);
            n = 0;
        }
    }
    return rc == 0 && n ? send_batch(x, pfns, n) : rc;
}

static inline long bits(const uint64_t *bitmap)
{
    long n = 0;
    for (unsigned i = 0; i < PAGES; i++)
        n += bitmap[i / 64] >> (i % 64) & 1;
    return n;
}

/* As libxc calls: before each round, and after it with -1. */
static inline int send_live(struct libxc_save *x)
{
    uint64_t bitmap[(PAGES + 63) / 64];
    memset(bitmap, 0xff, sizeof(bitmap));
    long dirty = PAGES;
    for (unsigned i = 0;;) {
        enum fc_policy_action a = fc_precopy_policy(x->precopy, i, dirty);
        x->policy_calls++;
        i++;
        if (dirty > 0 && a != FC_POLICY_ABORT && send_dirty(x, bitmap) < 0)
            return -1;
        if (a != FC_POLICY_CONTINUE)
            return a == FC_POLICY_STOP ? 0 : -1;
        a = fc_precopy_policy(x->precopy, i, -1);
        if (a != FC_POLICY_CONTINUE)
            return a == FC_POLICY_STOP ? 0 : -1;
        clean_log(x->guest, bitmap);
        dirty = bits(bitmap);
    }
}

static inline int save(struct libxc_save *x, uint32_t guest_type)
{
    struct bytes b = { 0 };
    uint64_t bitmap[(PAGES + 63) / 64];
    uint8_t body[64] = { 1 };
    kit_headers(&b, guest_type);
    kit_record(&b, 0x11, body, 40);
    kit_record(&b, 0x10, NULL, 0);
    int rc = write_stream(x, &b);
    if (rc == 0)
        rc = send_live(x);
    if (rc == 0)
        rc = fc_precopy_before_suspend(x->precopy);
    if (rc == 0 && x->refuse_suspend)
        rc = -1;
    if (rc == 0) {
        x->suspends++;
        *x->stopped = true;
        pthread_mutex_lock(&x->guest->lock);
        x->guest->stopped = true;
        pthread_mutex_unlock(&x->guest->lock);
        fc_precopy_suspended(x->precopy);
        clean_log(x->guest, bitmap);
        rc = send_dirty(x, bitmap);
    }
    b.len = 0;
    kit_record(&b, 0x09, body, 33);
    kit_record(&b, FC_REC_END, NULL, 0);
    if (rc == 0)
        rc = write_stream(x, &b);
    bytes_free(&b);
    return rc;
}

/* ---- libxc, restoring ---- */

struct libxc_restore {
    int fd;
    struct kit_memory memory;
    int rc;
    unsigned slow_us;
    unsigned fail_after; /* records; 0: never */
};

static inline void *restore_main(void *user)
{
    struct libxc_restore *x = user;
    uint8_t raw[FC_STREAM_HEADERS];
    uint8_t *body = malloc(FC_PAGE_DATA_MAX + 8);
    unsigned records = 0;
    x->rc = fc_read_exact(x->fd, raw, FC_STREAM_HEADERS);
    while (x->rc == 0) {
        x->rc = fc_read_exact(x->fd, raw, FC_RECORD_HEADER);
        struct fc_record r = fc_record_head_parse(raw);
        if (x->rc == 0 && r.length)
            x->rc =
                fc_read_exact(x->fd, body, (size_t)fc_record_padded(r.length));
        if (x->rc < 0 || r.type == FC_REC_END)
            break;
        if (r.type == FC_REC_PAGE_DATA)
            kit_memory_apply(&x->memory, body, r.length);
        if (x->fail_after && ++records == x->fail_after)
            x->rc = FC_EIO;
        if (x->slow_us)
            usleep(x->slow_us);
    }
    free(body);
    if (x->rc < 0)
        close(x->fd);
    return NULL;
}

#endif
