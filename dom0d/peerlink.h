/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PEERLINK_H
#define FC_PEERLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "channel.h"
#include "child.h"

struct bufferevent;
struct event;
struct event_base;

/*
 * One channel of the source: a child process that talks to the destination,
 * and the frames to and from it (docs/formats/channel.md). Event loop thread.
 */
struct fc_peerlink;

/* `down` may be called from within fc_peerlink_start(), not from any other
 * call of ours; all others come from the event loop. */
struct fc_peerlink_events {
    void (*up)(void *user, struct fc_peerlink *l,
               const struct fc_channel_welcome *welcome);
    void (*stored)(void *user, struct fc_peerlink *l, uint64_t seq,
                   const uint64_t *refused, uint32_t count);
    void (*evicted)(void *user, struct fc_peerlink *l, const uint64_t *pfns,
                    uint32_t count);
    /* The channel is over; `why` is text for people. */
    void (*down)(void *user, struct fc_peerlink *l, const char *why);
    /* What was queued has been written. */
    void (*drained)(void *user, struct fc_peerlink *l);
};

struct fc_peerlink_config {
    struct event_base *base;
    struct fc_children *children;
    char *command; /* for sh -c */
    struct fc_channel_hello hello;
    uint32_t timeout_s; /* of silence that ends it */
};

enum fc_peerlink_state {
    FC_PEERLINK_DOWN,
    FC_PEERLINK_CONNECTING,
    FC_PEERLINK_UP,
};

struct fc_peerlink {
    const struct fc_peerlink_config *config;
    const struct fc_peerlink_events *events;
    void *user;
    uint16_t number;
    enum fc_peerlink_state state;
    pid_t pid;
    struct bufferevent *frames, *errors;
    struct event *beat;
    uint64_t heard_ms;
    char last_error[200]; /* last line of the command's standard error */
    char farewell[FC_CHANNEL_MAX_TEXT + 1]; /* BYE or ERROR of the peer */
};

void fc_peerlink_init(struct fc_peerlink *l,
                      const struct fc_peerlink_config *config, uint16_t number,
                      const struct fc_peerlink_events *events, void *user);

/* Runs the command and says HELLO. Only when down. */
void fc_peerlink_start(struct fc_peerlink *l);

/* Queues a frame with this body (copied). 0, FC_EPEER (not up) or FC_ENOMEM. */
int fc_peerlink_send(struct fc_peerlink *l, enum fc_channel_type type,
                     const void *body, size_t len);

/* Queues a whole frame, header included, that it frees. Likewise. */
int fc_peerlink_send_owned(struct fc_peerlink *l, uint8_t *memory,
                           const uint8_t *frame, size_t len);

/* Ends the command; no callback is made. */
void fc_peerlink_stop(struct fc_peerlink *l);

#endif
