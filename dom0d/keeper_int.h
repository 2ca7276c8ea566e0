/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_KEEPER_INT_H
#define FC_KEEPER_INT_H

#include <stdbool.h>

#include "batch.h"
#include "channel.h"
#include "keeper.h"
#include "store.h"

/* Inside the keeper: keeper.c is the process, keeper_chan.c one channel. */

/* An answer of every kind fits the output several times over; reading stops
 * below the reserve, so that an answer can always be queued. */
#define FC_KEEPER_OUT_BYTES 131072u
#define FC_KEEPER_OUT_RESERVE 65536u

#define FC_KEEPER_UNTOLD 64u

enum fc_keeper_chan_state {
    FC_CHAN_UNUSED = 0,
    FC_CHAN_HELLO, /* open, HELLO is awaited */
    FC_CHAN_OPEN,
    FC_CHAN_CLOSING, /* reads nothing; closes when its output is gone */
};

struct fc_keeper_chan {
    enum fc_keeper_chan_state state;
    int in, out;
    uint64_t id;     /* the daemon's */
    uint16_t number; /* the source's, after HELLO */
    uint8_t head_raw[FC_CHANNEL_HEADER];
    size_t head_have;
    struct fc_channel_head head;
    uint8_t *body;
    size_t body_have, body_cap;
    uint8_t *output;
    size_t out_at, out_len;
    uint64_t heard_ms;   /* when something last came, or the channel */
    uint64_t flowing_ms; /* when output last moved, or began to wait */
    uint64_t close_by_ms;
};

struct fc_keeper {
    struct fc_keeper_args args;
    struct fc_store *store;
    struct fc_keeper_chan chan[FC_KEEPER_CHANNELS];
    uint8_t *pages; /* FC_BATCH_PAGES of them */
    uint8_t *good;
    /* Evictions that the source was not told yet; never more than the pfns
     * that were mapped, whose records they outlive at a third of the size. */
    uint32_t *evicted;
    size_t evicted_count, evicted_cap;
    /* Channels let go that the daemon could not be told of yet. */
    uint64_t closed[FC_KEEPER_UNTOLD];
    unsigned closed_count;
    struct fc_keeper_status sent; /* the last status, and when */
    uint64_t sent_ms;
    /* The last MODEL, as far as the daemon was not given it yet. */
    uint8_t *model;
    uint32_t model_len, model_at;
    unsigned log_credit;
    uint64_t log_credit_ms;
    uint64_t received_bytes;
    uint64_t now_ms;   /* of this turn of the loop */
    uint64_t alone_ms; /* since when no channel is open */
    uint64_t end_by_ms;
    int last_error;
    bool ending; /* the store is given up: exit when the channels are closed */
    bool failed; /* no memory for what must not be lost: exit now */
    bool orphan; /* the daemon is gone */
};

/* The channel's way out: keeper.c sends it to the daemon. */
void fc_keeper_log(struct fc_keeper *k, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void fc_keeper_closed(struct fc_keeper *k, uint64_t id);

/* Passes a copy of a MODEL's body on, in place of one before. */
void fc_keeper_model(struct fc_keeper *k, const uint8_t *body, uint32_t len);

/* A reason to free the store came: BYE to all channels, then the end. */
void fc_keeper_end(struct fc_keeper *k, enum fc_channel_bye reason,
                   const char *text);

/* Notes a page that the store dropped; an fc_store_evicted. */
void fc_keeper_chan_evicted(void *keeper, uint64_t pfn);

/* Takes both descriptors over. 0 or FC_ENOMEM, then they are closed. */
int fc_keeper_chan_open(struct fc_keeper *k, struct fc_keeper_chan *c,
                        uint64_t id, int in, int out);

/* Whether the channel wants to read now, or has something to write. */
bool fc_keeper_chan_reads(const struct fc_keeper *k,
                          const struct fc_keeper_chan *c);
bool fc_keeper_chan_writes(const struct fc_keeper_chan *c);

/* One step each: at most one frame's worth of work. */
void fc_keeper_chan_read(struct fc_keeper *k, struct fc_keeper_chan *c);
void fc_keeper_chan_write(struct fc_keeper *k, struct fc_keeper_chan *c);
void fc_keeper_chan_timers(struct fc_keeper *k, struct fc_keeper_chan *c);

/* Queues a frame; the caller knows that there is room. */
void fc_keeper_chan_queue(struct fc_keeper_chan *c, enum fc_channel_type type,
                          const void *body, size_t len);
size_t fc_keeper_chan_room(const struct fc_keeper_chan *c);

/* Says BYE and closes once that is out. */
void fc_keeper_chan_bye(struct fc_keeper *k, struct fc_keeper_chan *c,
                        enum fc_channel_bye reason, const char *text);
void fc_keeper_chan_close(struct fc_keeper *k, struct fc_keeper_chan *c);

#endif
