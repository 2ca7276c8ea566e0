/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FEED_H
#define FC_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "source.h"

/*
 * The source's end of the block channel: copies what the source has marked, in
 * an order given from outside, answers what the shadow asks for, and hands the
 * disk over.
 *
 * RUNNING   the guest writes here; blocks are copied.
 * FENCED    its requests are held, the shadow knows what it does not have.
 * LEASING   the shadow was asked to own the disk and has not answered: it may.
 * LEASED    it does. This end serves the volume, which stands still.
 *
 * From FENCED the way back is always open. From LEASING and LEASED only the
 * shadow can open it, by taking a RETURN. Any thread may call anything; fence,
 * lease and unfence wait for each other.
 */
struct fc_feed;

enum fc_feed_state {
    FC_FEED_RUNNING = 0,
    FC_FEED_FENCED = 1,
    FC_FEED_LEASING = 2,
    FC_FEED_LEASED = 3,
};

/* The disk as HELLO names it. */
struct fc_feed_config {
    uint8_t uuid[FC_UUID_BYTES];
    char name[FC_FRAME_MAX_NAME + 1];
    uint32_t block_bytes;
    uint64_t size, epoch;
};

/* The source outlives it. 0, FC_ENOMEM or FC_EINVAL. */
int fc_feed_open(const struct fc_feed_config *config, struct fc_source *source,
                 struct fc_feed **f_r);
/* Every wait ends with FC_ECANCEL, now and later, and so does the channel. */
void fc_feed_cancel(struct fc_feed *f);
/* Ends the channel and its threads, and every wait. NULL is fine. */
void fc_feed_close(struct fc_feed *f);

/*
 * Takes over both descriptors as the channel, in place of the one there was;
 * returns when that one's threads have ended. 0, FC_ESYS or FC_ENOMEM.
 */
int fc_feed_channel(struct fc_feed *f, int in, int out);

/*
 * Block numbers in the order to copy, copied; blocks outside the disk are
 * passed over, those not named follow in the order of their addresses.
 * 0 or FC_ENOMEM.
 */
int fc_feed_order(struct fc_feed *f, const uint32_t *blocks, size_t count);
void fc_feed_rate(struct fc_feed *f, uint64_t bytes_ps); /* 0: no limit */

/*
 * RUNNING -> FENCED. Holds the guest's requests, with `complete` sends all that
 * is marked, then fences the shadow; each step within what is left of
 * timeout_ms. 0 (also when that was done before); FC_ETIMEOUT, FC_EPEER (the
 * shadow refused, or lacks blocks of a complete one), FC_EPERM (another
 * migration is at it), FC_EINVAL (epoch not above ours): then all runs on as if
 * nothing had been.
 */
int fc_feed_fence(struct fc_feed *f,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch,
                  bool complete, int timeout_ms);

/*
 * FENCED -> LEASED. 0 (also when that was done before); FC_ETIMEOUT (ask
 * again, or unfence: it may own the disk); FC_EPEER (refused: FENCED as
 * before); FC_EPERM (not fenced).
 */
int fc_feed_lease(struct fc_feed *f, int timeout_ms);

/*
 * -> RUNNING. From LEASING and LEASED the shadow has to take it: FC_ETIMEOUT
 * when it did not answer, FC_EPEER when it refused (its guest wrote): the state
 * stays. 0 otherwise.
 */
int fc_feed_unfence(struct fc_feed *f, int timeout_ms);

/*
 * RUNNING -> LEASED, for an engine that was started anew after the lease. Only
 * before its first channel: FC_EPERM. What the shadow lacks is what it says.
 */
int fc_feed_freeze(struct fc_feed *f,
                   const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch);

/* BYE on the channel, if there is one, and its end. */
void fc_feed_finish(struct fc_feed *f);

struct fc_feed_status {
    enum fc_feed_state state;
    bool channel;  /* open, and the shadow said what it has */
    bool complete; /* the shadow has all, durably, and owns it */
    uint64_t epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    uint64_t sent_bytes, received_bytes; /* on the wire, all channels */
    uint64_t data_bytes;                 /* plain, of what was sent */
    uint64_t zero_bytes;                 /* of these, known or found zero */
    uint64_t unacked_blocks;
    uint64_t answered; /* WANTs */
    char error[160];   /* of the last channel that failed; or empty */
};

void fc_feed_status(struct fc_feed *f, struct fc_feed_status *status_r);

#endif
