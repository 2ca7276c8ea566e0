/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flip_link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io.h"

#define PIECE 4096u       /* bytes that travel together */
#define PIECES 128u       /* on the way at most */
#define LATE_NS 50000000u /* a thread that wakes late loses no capacity */
#define LOOK_MS 100u      /* how soon the end is noticed */

struct piece {
    uint64_t due_ns;
    size_t at, len; /* from `at` on it is still to be delivered */
    uint8_t bytes[PIECE];
};

/* One direction. */
struct way {
    int from, to;
    uint64_t free_ns; /* when the link has sent all it was given */
    unsigned head, count;
    struct piece piece[PIECES];
};

struct flip_link {
    pthread_t thread;
    atomic_bool end;
    uint64_t rate_bps, delay_us;
    struct way way[2];
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* false: the stream is over. */
static bool take(struct flip_link *l, struct way *w)
{
    struct piece *p = &w->piece[(w->head + w->count) % PIECES];
    ssize_t n = recv(w->from, p->bytes, PIECE, MSG_DONTWAIT);
    if (n <= 0)
        return n < 0;
    uint64_t now = fc_now_ns();
    if (w->free_ns + LATE_NS < now)
        w->free_ns = now - LATE_NS;
    w->free_ns += (uint64_t)n * 1000000000u / l->rate_bps;
    p->due_ns = w->free_ns + l->delay_us * 1000;
    p->len = (size_t)n;
    p->at = 0;
    w->count++;
    return true;
}

/* What is due goes on, as far as the receiver takes it. */
static bool give(struct way *w)
{
    while (w->count && w->piece[w->head].due_ns <= fc_now_ns()) {
        struct piece *p = &w->piece[w->head];
        ssize_t n = send(w->to, p->bytes + p->at, p->len - p->at,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->at += (size_t)n;
        if (p->at < p->len)
            return true;
        w->head = (w->head + 1) % PIECES;
        w->count--;
    }
    return true;
}

/* What the thread waits for in this direction, and at most how long. */
static void expect(const struct way *w, uint64_t now_ns, struct pollfd p[2],
                   uint64_t *wait_ns)
{
    uint64_t due = w->count ? w->piece[w->head].due_ns : UINT64_MAX;
    p[0] = (struct pollfd){ .fd = w->count < PIECES ? w->from : -1,
                            .events = POLLIN };
    p[1] =
        (struct pollfd){ .fd = due <= now_ns ? w->to : -1, .events = POLLOUT };
    if (due > now_ns && due - now_ns < *wait_ns)
        *wait_ns = due - now_ns;
}

static void *carry(void *arg)
{
    struct flip_link *l = arg;
    bool open = true;
    while (open && !l->end) {
        struct pollfd p[4];
        uint64_t now = fc_now_ns(), wait_ns = LOOK_MS * 1000000ull;
        for (unsigned i = 0; i < 2; i++)
            expect(&l->way[i], now, p + 2 * i, &wait_ns);
        struct timespec ts = { .tv_nsec = (long)wait_ns };
        if (ppoll(p, 4, &ts, NULL) < 0 && errno != EINTR)
            die("flip_link: ppoll");
        for (unsigned i = 0; i < 2; i++)
            open = open && (!p[2 * i].revents || take(l, &l->way[i])) &&
                   give(&l->way[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        shutdown(l->way[i].from, SHUT_RDWR);
    return NULL;
}

struct flip_link *flip_link_new(int a, int b, uint64_t rate_bps,
                                uint64_t delay_us)
{
    struct flip_link *l = calloc(1, sizeof(*l));
    if (!l)
        die("flip_link");
    l->rate_bps = rate_bps;
    l->delay_us = delay_us;
    l->way[0].from = l->way[1].to = a;
    l->way[0].to = l->way[1].from = b;
    if (pthread_create(&l->thread, NULL, carry, l))
        die("flip_link: thread");
    return l;
}

void flip_link_free(struct flip_link *l)
{
    l->end = true;
    pthread_join(l->thread, NULL);
    close(l->way[0].from);
    close(l->way[0].to);
    free(l);
}
