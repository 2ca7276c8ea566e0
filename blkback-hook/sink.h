/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SINK_H
#define FC_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "primary.h"
#include "shadow.h"

/*
 * The shadow's end of the block channel: stores what comes, fences, takes and
 * gives back the disk, and is the shadow's primary: a read that the shadow
 * cannot serve becomes a WANT.
 *
 * Order of life: fc_sink_open, fc_shadow_open with fc_sink_primary and the
 * sink, fc_sink_attach, channels, fc_shadow_cancel, fc_sink_stop,
 * fc_shadow_close, fc_sink_close. Any thread may call anything.
 */
struct fc_sink;

extern const struct fc_primary_ops fc_sink_primary; /* user: the sink */

/* The disk that HELLO has to name. */
struct fc_sink_config {
    uint8_t uuid[FC_UUID_BYTES];
    char name[FC_FRAME_MAX_NAME + 1];
    uint32_t block_bytes;
    uint64_t size;
};

/* 0, FC_ENOMEM or FC_EINVAL (a disk that the format cannot name). */
int fc_sink_open(const struct fc_sink_config *config, struct fc_sink **k_r);
/* The shadow to fill; once, before the first channel. */
void fc_sink_attach(struct fc_sink *k, struct fc_shadow *shadow);
/* Ends the channel and its thread for good; reads fail with FC_EPEER. */
void fc_sink_stop(struct fc_sink *k);
/* After the shadow was closed. NULL is fine. */
void fc_sink_close(struct fc_sink *k);

/*
 * Takes over both descriptors as the channel, in place of the one there was;
 * returns when that one's thread has ended. 0, FC_ESYS or FC_ENOMEM.
 */
int fc_sink_channel(struct fc_sink *k, int in, int out);

struct fc_sink_status {
    bool channel;                        /* open, and HELLO was right */
    uint64_t sent_bytes, received_bytes; /* on the wire, all channels */
    uint64_t stored_bytes;               /* plain, handed to the shadow */
    uint64_t wants;                      /* reads asked of the source */
    uint32_t waiting;                    /* of these, not answered yet */
    char error[160]; /* of the last channel that failed; or empty */
};

void fc_sink_status(struct fc_sink *k, struct fc_sink_status *status_r);

#endif
