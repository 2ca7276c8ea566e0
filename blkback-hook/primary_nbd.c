/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "primary_nbd.h"

#include <libnbd.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "err.h"
#include "log.h"

#define CONNECTIONS 4 /* where the server keeps several in step */
#define RETRY_S 1

struct fc_primary_nbd {
    const char *uri;
    uint64_t size;
    unsigned count; /* connections */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    struct nbd_handle *idle[CONNECTIONS];
    unsigned nidle, busy;
    bool up, closing, started;
    void (*on_up)(void *user);
    void *on_up_user;
    pthread_t thread;
};

static struct nbd_handle *connect_one(struct fc_primary_nbd *p)
{
    struct nbd_handle *h = nbd_create();
    if (h && nbd_connect_uri(h, p->uri) == 0)
        return h;
    nbd_close(h);
    return NULL;
}

/* Whether all connections are there; those made stay idle. */
static bool connect_all(struct fc_primary_nbd *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        struct nbd_handle *h = connect_one(p);
        if (!h)
            return false;
        if ((uint64_t)nbd_get_size(h) != p->size) {
            fc_error("primary %s has changed its size", p->uri);
            nbd_close(h);
            return false;
        }
        pthread_mutex_lock(&p->lock);
        p->idle[p->nidle++] = h;
        pthread_mutex_unlock(&p->lock);
    }
    return true;
}

/* With the lock held and nobody at work. */
static void drop_all(struct fc_primary_nbd *p)
{
    while (p->nidle)
        nbd_close(p->idle[--p->nidle]);
}

int fc_primary_nbd_open(const char *uri, struct fc_primary_nbd **p_r)
{
    struct fc_primary_nbd *p = calloc(1, sizeof(*p));
    if (!p)
        return FC_ENOMEM;
    p->uri = uri;
    struct nbd_handle *first = connect_one(p);
    if (!first) {
        fc_error("primary %s: %s", uri, nbd_get_error());
        free(p);
        return FC_EPEER;
    }
    p->size = (uint64_t)nbd_get_size(first);
    p->count = nbd_can_multi_conn(first) > 0 ? CONNECTIONS : 1;
    nbd_close(first);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->up = connect_all(p);
    if (p->up)
        *p_r = p;
    else
        fc_primary_nbd_close(p);
    return p->up ? 0 : FC_EPEER;
}

uint64_t fc_primary_nbd_size(const struct fc_primary_nbd *p)
{
    return p->size;
}

bool fc_primary_nbd_reachable(struct fc_primary_nbd *p)
{
    pthread_mutex_lock(&p->lock);
    bool up = p->up;
    pthread_mutex_unlock(&p->lock);
    return up;
}

/* Connects anew whenever a request has found the server gone. */
static void *reconnect(void *arg)
{
    struct fc_primary_nbd *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        if (p->up || p->busy) {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        drop_all(p);
        pthread_mutex_unlock(&p->lock);
        bool up = connect_all(p);
        if (up)
            fc_info("primary %s can be reached again", p->uri);
        pthread_mutex_lock(&p->lock);
        p->up = up && !p->closing;
        pthread_cond_broadcast(&p->changed);
        if (p->up) {
            pthread_mutex_unlock(&p->lock);
            p->on_up(p->on_up_user);
            pthread_mutex_lock(&p->lock);
        } else if (!p->closing) {
            struct timespec end;
            clock_gettime(CLOCK_REALTIME, &end);
            end.tv_sec += RETRY_S;
            pthread_cond_timedwait(&p->changed, &p->lock, &end);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int fc_primary_nbd_start(struct fc_primary_nbd *p, void (*up)(void *user),
                         void *user)
{
    p->on_up = up;
    p->on_up_user = user;
    if (pthread_create(&p->thread, NULL, reconnect, p))
        return FC_ESYS;
    p->started = true;
    return 0;
}

static void cancel(void *user)
{
    struct fc_primary_nbd *p = user;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    p->up = false;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

void fc_primary_nbd_close(struct fc_primary_nbd *p)
{
    if (!p)
        return;
    cancel(p);
    if (p->started)
        pthread_join(p->thread, NULL);
    drop_all(p);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* A connection of one's own, or NULL while the server is gone. */
static struct nbd_handle *take(struct fc_primary_nbd *p)
{
    struct nbd_handle *h = NULL;
    pthread_mutex_lock(&p->lock);
    while (p->up && !p->nidle)
        pthread_cond_wait(&p->changed, &p->lock);
    if (p->up) {
        h = p->idle[--p->nidle];
        p->busy++;
    }
    pthread_mutex_unlock(&p->lock);
    return h;
}

/* Gives it back; `r` is what libnbd returned. FC_EPEER when it is dead, else
 * the server's refusal. */
static int give(struct fc_primary_nbd *p, struct nbd_handle *h, int r)
{
    int rc = 0;
    if (r < 0) {
        rc = nbd_aio_is_dead(h) || nbd_aio_is_closed(h) ? FC_EPEER : FC_EIO;
        fc_warn("primary %s: %s", p->uri, nbd_get_error());
    }
    pthread_mutex_lock(&p->lock);
    p->busy--;
    if (rc == FC_EPEER)
        p->up = false;
    p->idle[p->nidle++] = h;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static int p_read(void *user, uint64_t offset, void *buf, size_t len)
{
    struct nbd_handle *h = take(user);
    return h ? give(user, h, nbd_pread(h, buf, len, offset, 0)) : FC_EPEER;
}

static int p_write(void *user, uint64_t offset, const void *buf, size_t len)
{
    struct nbd_handle *h = take(user);
    return h ? give(user, h, nbd_pwrite(h, buf, len, offset, 0)) : FC_EPEER;
}

/* The largest request that servers have to take is not told by all. */
#define SPAN_MAX (32u << 20)

static int p_zero(void *user, uint64_t offset, uint64_t len)
{
    struct nbd_handle *h = take(user);
    int r = 0;
    if (!h)
        return FC_EPEER;
    while (!r && len) {
        uint64_t n = len < SPAN_MAX ? len : SPAN_MAX;
        r = nbd_zero(h, n, offset, 0);
        offset += n;
        len -= n;
    }
    return give(user, h, r);
}

static int p_trim(void *user, uint64_t offset, uint64_t len)
{
    struct nbd_handle *h = take(user);
    int r = 0;
    if (!h)
        return FC_EPEER;
    while (!r && len && nbd_can_trim(h) > 0) {
        uint64_t n = len < SPAN_MAX ? len : SPAN_MAX;
        r = nbd_trim(h, n, offset, 0);
        offset += n;
        len -= n;
    }
    return give(user, h, r);
}

static int p_flush(void *user)
{
    struct nbd_handle *h = take(user);
    if (!h)
        return FC_EPEER;
    return give(user, h, nbd_can_flush(h) > 0 ? nbd_flush(h, 0) : 0);
}

const struct fc_primary_ops fc_primary_nbd_ops = {
    .read = p_read,
    .write = p_write,
    .zero = p_zero,
    .trim = p_trim,
    .flush = p_flush,
    .cancel = cancel,
};
