/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SENDER_H
#define FC_SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "encoder.h"
#include "guest_ops.h"
#include "session.h"

/*
 * The encoder with its threads: between libxc, which writes into a pipe, and
 * the file descriptor that libxl gave for the stream.
 */
struct fc_sender_config {
    int in_fd;  /* pipe from libxc, its reading end; becomes the sender's */
    int out_fd; /* the stream; stays the caller's, non-blocking meanwhile */
    const struct fc_session *session; /* NULL: pass everything */
    const struct fc_hashset *staged;  /* NULL: none */
    const struct fc_guest_ops *guest; /* NULL: no skipping, no pulling */
    void *guest_user;
    /* Called once by a thread of the sender when the mode is known. `why` is
     * empty or says why it is plain. May be NULL. */
    void (*mode)(void *user, enum fc_stream_mode mode, const char *why);
    void *user;
};

struct fc_sender_stats {
    enum fc_stream_mode mode;
    uint64_t raw_bytes, encoded_bytes, written, acked;
    uint64_t pages_seen, zero, ref, data, none, skipped, pulled;
    uint32_t data_cost_bytes; /* of a page that must go as DATA, of late */
    uint64_t link_bps;     /* bytes per second; 0: not known, never the limit */
    uint64_t memory_bytes; /* of its buffers */
};

struct fc_sender;

/* Starts the threads. 0, FC_ENOMEM or FC_ESYS; in_fd is closed in any case. */
int fc_sender_start(const struct fc_sender_config *config,
                    struct fc_sender **sender_r);

/*
 * All of these are for libxc's thread, in its callbacks, except where said.
 * Each returns 0 or the error that ended the stream.
 */

/* Waits until all that libxc wrote so far has been encoded. */
int fc_sender_settle(struct fc_sender *s);
/* Waits until the receiver has restored all of it and misses no page. At once
 * when the stream is plain. */
int fc_sender_sync(struct fc_sender *s);

/*
 * Pages that the dirty log says come again may be dropped (true: libxc has
 * just cleaned the log) or not (false: libxc is about to clean it). When
 * false was returned from, no peek is running.
 */
void fc_sender_skip(struct fc_sender *s, bool allowed);
/* Dirty pages now. Only while skipping is off and the sender has settled. */
int fc_sender_peek(struct fc_sender *s, uint64_t *dirty_r);
/* The guest is about to stop: no skipping and no references from now on. */
int fc_sender_final(struct fc_sender *s);

/* Any thread: ends the stream; libxc's next write fails. The first reason
 * counts. */
void fc_sender_break(struct fc_sender *s, int rc, const char *why);

/*
 * After libxc has returned and the writing end of the pipe was closed: waits
 * for what is left to be written (ok) or drops it, and ends the threads.
 * Returns 0 when END was written. The sender can still be asked for stats and
 * the reason.
 */
int fc_sender_finish(struct fc_sender *s, bool ok);
void fc_sender_free(struct fc_sender *s);

/* Any thread. */
enum fc_stream_mode fc_sender_mode(struct fc_sender *s);
void fc_sender_stats_get(struct fc_sender *s, struct fc_sender_stats *stats_r);
/* Why the stream ended, or ""; valid after fc_sender_finish(). */
const char *fc_sender_why(const struct fc_sender *s);

#endif
