/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LINK_H
#define FC_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "frame.h"

/*
 * The two descriptors of a block channel: whole frames in and out. One thread
 * receives; any may send; any may stop it. The process ignores SIGPIPE (nbdkit
 * does).
 */
struct fc_link {
    int in, out, stop; /* stop: an eventfd, readable once stopped */
    pthread_mutex_t send_lock;
    uint8_t *body; /* FC_FRAME_MAX_BODY bytes: what fc_link_recv received */
    _Atomic uint64_t sent_bytes, received_bytes, sent_ms;
};

/* Takes over both descriptors (also on failure). 0, FC_ENOMEM or FC_ESYS. */
int fc_link_init(struct fc_link *l, int in, int out);
/* No thread may be in it. Idempotent on a zeroed or disposed link. */
void fc_link_dispose(struct fc_link *l);

/* Calls that wait, and all later ones, return FC_ECANCEL. Any thread. */
void fc_link_stop(struct fc_link *l);

/*
 * Sends a frame. `frame` has FC_FRAME_HEADER bytes of room (filled here), then
 * `len` bytes of body. 0; FC_ETIMEOUT when the peer took nothing for a minute;
 * FC_EIO with errno; FC_ECANCEL. After an error the link is of no use.
 */
int fc_link_send(struct fc_link *l, enum fc_frame_type type, uint8_t *frame,
                 size_t len);

/* Small bodies: the frames that have a struct, or none. As fc_link_send. */
int fc_link_send_flip(struct fc_link *l, enum fc_frame_type type,
                      const struct fc_frame_flip *flip);
int fc_link_send_value(struct fc_link *l, enum fc_frame_type type,
                       uint64_t value);
int fc_link_send_text(struct fc_link *l, enum fc_frame_type type,
                      uint16_t reason, const char *text);

struct fc_blockset;
/* The set in as many pieces as it takes. */
int fc_link_send_set(struct fc_link *l, enum fc_frame_type type,
                     const struct fc_blockset *set);

/*
 * Receives a frame; its body is in l->body until the next call. 0;
 * FC_ETIMEOUT when nothing came for `timeout_ms`, or no more of it for a
 * minute; FC_EEOF; FC_EFORMAT, FC_EVERSION, FC_ETOOBIG, FC_ECHECK; FC_EIO;
 * FC_ECANCEL.
 */
int fc_link_recv(struct fc_link *l, int timeout_ms,
                 struct fc_frame_head *head_r);

#endif
