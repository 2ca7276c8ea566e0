/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uplink.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "wire.h"

/*
 * Channels that go down are started anew after 1, 2, 4 ... 30 s; one that came
 * up starts over with 1 s. Only channels whose WELCOME names the current epoch
 * carry PUTs: they all lead to one store.
 *
 * Rate of the link: a PUT notes how much had been acknowledged when it was
 * sent, and when; its acknowledgement says how much was acknowledged since, and
 * so at what rate. When little was sent that is an underestimate, so the
 * largest sample counts, fading by FADE with each new one.
 */
#define BACKOFF_MIN_MS 1000u
#define BACKOFF_MAX_MS 30000u
#define CLOSE_S 2
#define PUTS_MAX 64u
#define FADE 0.98

struct put {
    bool used;
    uint64_t seq, bytes;
    void *tag;
    struct fc_peerlink *link;
    uint64_t acked_bytes, acked_ns; /* when it was sent */
};

struct slot {
    struct fc_uplink *uplink;
    struct fc_peerlink link;
    struct event *retry;
    uint32_t backoff_ms;
};

struct fc_uplink {
    struct fc_peerlink_config config;
    const struct fc_uplink_events *events;
    void *user;
    unsigned nslots, next_slot;
    struct slot slots[FC_UPLINK_CHANNELS];
    struct put puts[PUTS_MAX];
    uint64_t next_seq, in_flight_bytes, sent_bytes;

    uint64_t acked_bytes, acked_ns;
    double link_bps;
    uint32_t link_samples;

    uint64_t epoch, budget_bytes;
    uint8_t token[FC_TOKEN_BYTES];
    char trouble[400];

    struct event *closing; /* set once fc_uplink_close() was called */
    void (*closed)(void *user);
    void *closed_user;
};

static void lose_puts(struct fc_uplink *u, const struct fc_peerlink *l)
{
    for (unsigned i = 0; i < PUTS_MAX; i++) {
        struct put *p = &u->puts[i];
        if (!p->used || (l && p->link != l))
            continue;
        p->used = false;
        u->in_flight_bytes -= p->bytes;
        u->events->lost(u->user, p->tag);
    }
}

static void destroy(struct fc_uplink *u)
{
    for (unsigned i = 0; i < u->nslots; i++) {
        fc_peerlink_stop(&u->slots[i].link);
        if (u->slots[i].retry)
            event_free(u->slots[i].retry);
    }
    if (u->closing)
        event_free(u->closing);
    free(u->config.command);
    void (*closed)(void *) = u->closed;
    void *closed_user = u->closed_user;
    free(u);
    if (closed)
        closed(closed_user);
}

void fc_uplink_free(struct fc_uplink *u)
{
    if (!u)
        return;
    lose_puts(u, NULL);
    destroy(u);
}

static unsigned open_channels(const struct fc_uplink *u)
{
    unsigned n = 0;
    for (unsigned i = 0; i < u->nslots; i++)
        n += u->slots[i].link.state == FC_PEERLINK_UP;
    return n;
}

static void on_up(void *user, struct fc_peerlink *l,
                  const struct fc_channel_welcome *welcome)
{
    struct slot *slot = user;
    struct fc_uplink *u = slot->uplink;
    bool fresh = welcome->epoch != u->epoch;
    if (u->closing)
        return;
    slot->backoff_ms = BACKOFF_MIN_MS;
    u->trouble[0] = '\0';
    u->epoch = welcome->epoch;
    u->budget_bytes = welcome->budget_bytes;
    memcpy(u->token, welcome->token, sizeof(u->token));
    fc_info("%s: channel %u to the destination is open (epoch %016llx, %llu "
            "pages held)",
            u->config.hello.name, l->number, (unsigned long long)welcome->epoch,
            (unsigned long long)welcome->pages_held);
    if (fresh) {
        /* Channels to the store that was are of no use; they start over. */
        for (unsigned i = 0; i < u->nslots; i++) {
            struct slot *other = &u->slots[i];
            if (other == slot || other->link.state != FC_PEERLINK_UP)
                continue;
            const struct timeval soon = { 1, 0 };
            lose_puts(u, &other->link);
            fc_peerlink_stop(&other->link);
            evtimer_add(other->retry, &soon);
        }
    }
    u->events->up(u->user, welcome, fresh);
}

static void on_down(void *user, struct fc_peerlink *l, const char *why)
{
    struct slot *slot = user;
    struct fc_uplink *u = slot->uplink;
    if (u->closing) {
        if (!open_channels(u))
            event_active(u->closing, EV_TIMEOUT, 1);
        return;
    }
    /* The same trouble is told once, not every half minute. */
    fc_log(strcmp(u->trouble, why) ? FC_LOG_WARN : FC_LOG_DEBUG,
           "%s: channel %u to the destination is down: %s; trying again in "
           "%u s",
           u->config.hello.name, l->number, why, slot->backoff_ms / 1000);
    snprintf(u->trouble, sizeof(u->trouble), "%s", why);
    const struct timeval delay = { slot->backoff_ms / 1000, 0 };
    slot->backoff_ms *= 2;
    if (slot->backoff_ms > BACKOFF_MAX_MS)
        slot->backoff_ms = BACKOFF_MAX_MS;
    evtimer_add(slot->retry, &delay);
    lose_puts(u, l);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    struct slot *slot = arg;
    (void)fd;
    (void)what;
    fc_peerlink_start(&slot->link);
}

static void measure(struct fc_uplink *u, const struct put *p)
{
    uint64_t now = fc_now_ns();
    u->acked_bytes += p->bytes;
    uint64_t ns = now - p->acked_ns;
    double bps =
        (double)(u->acked_bytes - p->acked_bytes) * 1e9 / (double)(ns ? ns : 1);
    u->acked_ns = now;
    u->link_bps *= FADE;
    if (bps > u->link_bps)
        u->link_bps = bps;
    if (u->link_samples < UINT32_MAX)
        u->link_samples++;
}

static void on_stored(void *user, struct fc_peerlink *l, uint64_t seq,
                      const uint64_t *refused, uint32_t count)
{
    struct slot *slot = user;
    struct fc_uplink *u = slot->uplink;
    if (u->closing)
        return;
    for (unsigned i = 0; i < PUTS_MAX; i++) {
        struct put *p = &u->puts[i];
        if (!p->used || p->seq != seq || p->link != l)
            continue;
        p->used = false;
        u->in_flight_bytes -= p->bytes;
        measure(u, p);
        u->events->stored(u->user, p->tag, refused, count);
        u->events->ready(u->user);
        return;
    }
    fc_warn("%s: the destination acknowledged what was not sent; ignored",
            u->config.hello.name);
}

static void on_evicted(void *user, struct fc_peerlink *l, const uint64_t *pfns,
                       uint32_t count)
{
    struct slot *slot = user;
    struct fc_uplink *u = slot->uplink;
    (void)l;
    if (!u->closing)
        u->events->evicted(u->user, pfns, count);
}

static void on_drained(void *user, struct fc_peerlink *l)
{
    struct slot *slot = user;
    struct fc_uplink *u = slot->uplink;
    if (!u->closing) {
        u->events->ready(u->user);
        return;
    }
    fc_peerlink_stop(l);
    if (!open_channels(u))
        event_active(u->closing, EV_TIMEOUT, 1);
}

static const struct fc_peerlink_events link_events = {
    .up = on_up,
    .stored = on_stored,
    .evicted = on_evicted,
    .down = on_down,
    .drained = on_drained,
};

int fc_uplink_new(const struct fc_uplink_args *args,
                  const struct fc_uplink_events *events, void *user,
                  struct fc_uplink **uplink_r)
{
    const struct timeval now = { 0, 0 };
    if (!args->channels || args->channels > FC_UPLINK_CHANNELS)
        return FC_EINVAL;
    struct fc_uplink *u = calloc(1, sizeof(*u));
    if (!u)
        return FC_ENOMEM;
    u->events = events;
    u->user = user;
    u->next_seq = 1;
    u->config.base = args->base;
    u->config.children = args->children;
    u->config.timeout_s = args->timeout_s;
    u->config.command = strdup(args->command);
    u->config.hello.highest = u->config.hello.lowest = FC_CHANNEL_VERSION;
    u->config.hello.guest_pages = args->guest_pages;
    memcpy(u->config.hello.uuid, args->uuid, FC_UUID_BYTES);
    snprintf(u->config.hello.name, sizeof(u->config.hello.name), "%s",
             args->name);
    int rc = u->config.command ? 0 : FC_ENOMEM;
    for (unsigned i = 0; !rc && i < args->channels; i++) {
        struct slot *slot = &u->slots[i];
        slot->uplink = u;
        slot->backoff_ms = BACKOFF_MIN_MS;
        u->nslots++;
        fc_peerlink_init(&slot->link, &u->config, (uint16_t)i, &link_events,
                         slot);
        slot->retry = evtimer_new(args->base, on_retry, slot);
        if (!slot->retry || evtimer_add(slot->retry, &now) < 0)
            rc = FC_ENOMEM;
    }
    if (rc)
        destroy(u);
    else
        *uplink_r = u;
    return rc;
}

static void on_closing(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    destroy(arg);
}

void fc_uplink_close(struct fc_uplink *u, enum fc_channel_bye reason,
                     const char *text, void (*closed)(void *user), void *user)
{
    uint8_t body[2 + FC_CHANNEL_MAX_TEXT];
    const struct timeval limit = { CLOSE_S, 0 }, now = { 0, 0 };

    lose_puts(u, NULL);
    u->closed = closed;
    u->closed_user = user;
    u->closing = evtimer_new(u->config.base, on_closing, u);
    if (!u->closing) {
        destroy(u);
        return;
    }
    ssize_t n =
        fc_channel_text_make(FC_CHANNEL_BYE, reason, text, body, sizeof(body));
    unsigned saying = 0;
    for (unsigned i = 0; i < u->nslots; i++) {
        struct slot *slot = &u->slots[i];
        evtimer_del(slot->retry);
        if (n > 0 && slot->link.state == FC_PEERLINK_UP &&
            !fc_peerlink_send(&slot->link, FC_CHANNEL_BYE, body, (size_t)n))
            saying++;
        else
            fc_peerlink_stop(&slot->link);
    }
    evtimer_add(u->closing, saying ? &limit : &now);
}

/* The next open channel, in turn. */
static struct fc_peerlink *pick(struct fc_uplink *u)
{
    for (unsigned i = 0; i < u->nslots; i++) {
        u->next_slot = (u->next_slot + 1) % u->nslots;
        if (u->slots[u->next_slot].link.state == FC_PEERLINK_UP)
            return &u->slots[u->next_slot].link;
    }
    return NULL;
}

static struct put *free_put(struct fc_uplink *u)
{
    for (unsigned i = 0; i < PUTS_MAX; i++)
        if (!u->puts[i].used)
            return &u->puts[i];
    return NULL;
}

bool fc_uplink_may_put(const struct fc_uplink *u)
{
    unsigned used = 0;
    for (unsigned i = 0; i < PUTS_MAX; i++)
        used += u->puts[i].used;
    return open_channels(u) && used < PUTS_MAX &&
           u->in_flight_bytes < FC_UPLINK_WINDOW_BYTES;
}

int fc_uplink_put(struct fc_uplink *u, uint8_t *memory, uint8_t *batch,
                  size_t batch_bytes, void *tag)
{
    struct fc_peerlink *l = pick(u);
    struct put *p = free_put(u);
    if (!l || !p) {
        free(memory);
        return FC_EPEER;
    }
    uint64_t seq = u->next_seq++;
    uint8_t *body = batch - 8, *frame = body - FC_CHANNEL_HEADER;
    size_t len = 8 + batch_bytes;
    fc_le_store(body, seq, 8);
    fc_channel_head_make(frame, FC_CHANNEL_PUT, body, (uint32_t)len);
    len += FC_CHANNEL_HEADER;
    if (fc_peerlink_send_owned(l, memory, frame, len))
        return FC_EPEER;
    if (!u->in_flight_bytes) /* idle until now: that time says nothing */
        u->acked_ns = fc_now_ns();
    *p = (struct put){ true, seq, len, tag, l, u->acked_bytes, u->acked_ns };
    u->in_flight_bytes += len;
    u->sent_bytes += len;
    return 0;
}

void fc_uplink_drop(struct fc_uplink *u, const uint64_t *pfns, uint32_t count)
{
    uint8_t body[8 * FC_CHANNEL_MAX_PFNS];
    struct fc_peerlink *l = pick(u);
    while (l && count) {
        uint32_t now =
            count < FC_CHANNEL_MAX_PFNS ? count : FC_CHANNEL_MAX_PFNS;
        ssize_t n = fc_channel_pfns_make(pfns, now, body, sizeof(body));
        if (n < 0 || fc_peerlink_send(l, FC_CHANNEL_DROP, body, (size_t)n))
            return;
        pfns += now;
        count -= now;
    }
}

void fc_uplink_model(struct fc_uplink *u, const void *bytes, size_t len)
{
    for (unsigned i = 0; i < u->nslots && len <= FC_CHANNEL_MAX_MODEL; i++) {
        struct fc_peerlink *l = &u->slots[i].link;
        if (l->state != FC_PEERLINK_UP)
            continue;
        (void)fc_peerlink_send(l, FC_CHANNEL_MODEL, bytes, len);
        return;
    }
}

void fc_uplink_status(const struct fc_uplink *u, struct fc_uplink_status *s)
{
    memset(s, 0, sizeof(*s));
    s->channels = open_channels(u);
    for (unsigned i = 0; i < PUTS_MAX; i++)
        s->puts += u->puts[i].used;
    s->in_flight_bytes = u->in_flight_bytes;
    s->sent_bytes = u->sent_bytes;
    s->link_bps = u->link_bps;
    s->link_samples = u->link_samples;
    s->epoch = u->epoch;
    memcpy(s->token, u->token, sizeof(s->token));
    s->budget_bytes = u->budget_bytes;
    s->trouble = u->trouble;
}
