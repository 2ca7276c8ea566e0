/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_UPLINK_H
#define FC_UPLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel.h"
#include "peerlink.h"

/*
 * All channels of one armed guest to its destination: keeps them open, spreads
 * PUTs over them, matches acknowledgements, measures the link. Event loop
 * thread only.
 */
#define FC_UPLINK_CHANNELS 16u
/* In flight over all channels: what a cut can lose. */
#define FC_UPLINK_WINDOW_BYTES (1u << 20)

struct fc_uplink;

/* `tag` is the PUT's as the owner gave it. No callback is made from within a
 * call of the owner's. */
struct fc_uplink_events {
    /* A channel is open; with another epoch than before nothing that was
     * acknowledged stands. */
    void (*up)(void *user, const struct fc_channel_welcome *welcome,
               bool new_epoch);
    /* Stored but for `count` refused pages. The tag is the owner's again. */
    void (*stored)(void *user, void *tag, const uint64_t *refused,
                   uint32_t count);
    /* The PUT's channel was cut: nobody knows whether it arrived. */
    void (*lost)(void *user, void *tag);
    void (*evicted)(void *user, const uint64_t *pfns, uint32_t count);
    /* There may be room for a PUT. */
    void (*ready)(void *user);
};

struct fc_uplink_args {
    struct event_base *base;
    struct fc_children *children;
    const char *command; /* copied */
    const char *name;    /* of the guest; copied */
    uint8_t uuid[FC_UUID_BYTES];
    uint64_t guest_pages;
    unsigned channels; /* 1 .. FC_UPLINK_CHANNELS */
    uint32_t timeout_s;
};

/* Starts connecting. 0, FC_EINVAL or FC_ENOMEM. */
int fc_uplink_new(const struct fc_uplink_args *args,
                  const struct fc_uplink_events *events, void *user,
                  struct fc_uplink **uplink_r);

/*
 * Says BYE on each open channel, ends them when it is written (2 s at most),
 * and frees the uplink; `lost` is called for what is in flight, nothing after
 * that. `closed` (may be NULL) is called at the very end.
 */
void fc_uplink_close(struct fc_uplink *u, enum fc_channel_bye reason,
                     const char *text, void (*closed)(void *user), void *user);

/* Frees at once, without BYE; `lost` is called as above. */
void fc_uplink_free(struct fc_uplink *u);

bool fc_uplink_may_put(const struct fc_uplink *u);

/*
 * Sends a PUT. `memory` is freed in any case; the batch lies in it at
 * `batch`, with at least FC_UPLINK_HEADROOM bytes before. 0, or FC_EPEER (no
 * channel is open): `tag` then stays the caller's.
 */
#define FC_UPLINK_HEADROOM (FC_CHANNEL_HEADER + 8u)
int fc_uplink_put(struct fc_uplink *u, uint8_t *memory, uint8_t *batch,
                  size_t batch_bytes, void *tag);

/* Tells the destination to let pages go. Nothing when no channel is open. */
void fc_uplink_drop(struct fc_uplink *u, const uint64_t *pfns, uint32_t count);

/* Sends what is known of the guest along (docs/formats/channel.md), on the
 * first open channel. Nothing when none is. */
void fc_uplink_model(struct fc_uplink *u, const void *bytes, size_t len);

struct fc_uplink_status {
    unsigned channels; /* open */
    unsigned puts;     /* in flight */
    uint64_t in_flight_bytes;
    uint64_t sent_bytes; /* PUT frames, ever */
    double link_bps;     /* measured; 0: not yet */
    uint32_t link_samples;
    uint64_t epoch; /* 0: never connected */
    uint8_t token[FC_TOKEN_BYTES];
    uint64_t budget_bytes; /* of the destination's store */
    const char *trouble;   /* why no channel is open; "" */
};
void fc_uplink_status(const struct fc_uplink *u, struct fc_uplink_status *s);

#endif
