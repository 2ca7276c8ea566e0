/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FEED_INT_H
#define FC_FEED_INT_H

/*
 * Inside of the feed. A channel has two threads: the reader takes frames in and
 * sends nothing, so it never stops reading because the way out is full; the
 * writer sends everything, and at its end waits for the reader and closes the
 * link. They meet under `lock`; `changed` is broadcast at every change that
 * somebody may wait for. The link is used without the lock.
 */

#include <pthread.h>

#include "blockset.h"
#include "bucket.h"
#include "feed.h"
#include "link.h"

#define FC_FEED_WANTS 256u /* open WANTs, as the format says */
#define FC_FEED_HINTS                                                          \
    256u                     /* WANTs without answer; more push the oldest out \
                              */
#define FC_FEED_FLYING 4096u /* DATA frames not acknowledged */

/* A DATA that was sent and not acknowledged. */
struct fc_flying {
    uint32_t first, count; /* blocks to mark again if the channel is cut */
    uint32_t bytes;        /* on the wire */
    uint64_t sent_ns;
};

enum fc_ask_stage { FC_ASK_NONE, FC_ASK_QUEUED, FC_ASK_SENT, FC_ASK_ANSWERED };

/* The one flip request there is at a time. */
struct fc_ask {
    enum fc_ask_stage stage;
    enum fc_frame_type type; /* FENCE, LEASE or RETURN */
    struct fc_frame_flip flip, answer;
};

struct fc_feed {
    struct fc_feed_config config; /* not epoch: below */
    struct fc_source *source;
    uint32_t blocks;

    pthread_mutex_t
        control;          /* one of fence, lease, unfence, freeze at a time */
    pthread_mutex_t swap; /* one change of channel at a time */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;

    enum fc_feed_state state;
    uint64_t epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    bool closing, ever; /* ever: there was a channel */
    bool frozen;        /* by fc_feed_freeze, and HELD has not come yet */
    bool urgent;        /* a fence waits for all to be sent */
    bool healing;       /* no copying until the shadow took `heal` */
    bool checking;      /* CHECK is out */
    bool complete;
    bool returned; /* LEASED, but the shadow has given the disk back */
    uint64_t checked_ms;
    struct fc_ask ask;
    struct fc_ask heal; /* a RETURN that nobody waits for; goes first */

    /* the channel */
    struct fc_link link;
    bool thread;   /* writer is to be joined */
    bool linked;   /* link is open */
    bool up;       /* WELCOME and HELD came: frames may be sent */
    bool broken;   /* its threads are ending */
    bool bye;      /* BYE is to be sent */
    bool welcomed; /* WELCOME came */
    bool pong;     /* a PING is to be answered, with pong_value */
    uint64_t pong_value;
    pthread_t writer;
    struct fc_blockset held;
    uint32_t held_next;
    uint64_t old_sent, old_received; /* of the channels before */

    /* what is under way; seq of flying[i] is acked + 1 + i, as a ring */
    struct fc_flying flying[FC_FEED_FLYING];
    uint64_t seq, acked;
    uint64_t window, flying_bytes, best_ns;
    uint64_t wanted_ms; /* when the last WANT came that somebody waits for */

    struct fc_frame_want wants[FC_FEED_WANTS], hints[FC_FEED_HINTS];
    uint32_t nwants, nhints;

    /* the order */
    uint32_t *order;
    size_t order_len, order_at;
    uint32_t cursor;  /* in the order of addresses */
    uint64_t pass_ms; /* when the cursor last began at the front */
    struct fc_bucket bucket;

    uint64_t data_bytes, zero_bytes, answered;
    char error[160];
};

/* Thread bodies. */
void *fc_feed_reader(void *feed);
void *fc_feed_writer(void *feed);

/* Says why the channel is over, once, and wakes everybody. */
void fc_feed_fail(struct fc_feed *f, int rc, const char *what);

/* With the lock held: waits for a change, at most `ms`. */
void fc_feed_wait(struct fc_feed *f, uint64_t ms);

/* With the lock held: a RETURN of what the shadow has now, that nobody waits
 * for; copying stops until it was taken. */
void fc_feed_heal(struct fc_feed *f,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch);

#endif
