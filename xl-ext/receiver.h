/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RECEIVER_H
#define FC_RECEIVER_H

#include <stdbool.h>

#include "decoder.h"

/*
 * The decoder with its threads: between the file descriptor that libxl gave
 * for the stream and libxc, which reads from a pipe.
 */
struct fc_receiver_config {
    int in_fd;   /* the stream; stays the caller's; never read past END */
    int out_fd;  /* pipe to libxc, its writing end; becomes the receiver's */
    int back_fd; /* frames to the sender; stays the caller's; -1: none */
    /* As in fc_decoder_ops; called by a thread of the receiver; may be NULL. */
    void (*hello)(void *user, const struct fc_hello *hello,
                  struct fc_page_source *source, uint64_t *held_r);
    /* Called when CHECKPOINT was passed on: returns when libxc has come back
     * from its callback. May be NULL. */
    int (*checkpoint)(void *user);
    void *user;
};

struct fc_receiver;

/* Starts the threads. 0, FC_ENOMEM or FC_ESYS; out_fd is closed in any case. */
int fc_receiver_start(const struct fc_receiver_config *config,
                      struct fc_receiver **receiver_r);

/*
 * After libxc has returned: `ok` says whether it got its END. Ends the threads
 * and tells the sender when it was not ok. 0 when END was passed on. The
 * receiver can still be asked why and for its counts.
 */
int fc_receiver_finish(struct fc_receiver *r, bool ok);
void fc_receiver_free(struct fc_receiver *r);

/* After fc_receiver_finish(). "" when nothing went wrong. */
const char *fc_receiver_why(const struct fc_receiver *r);
const struct fc_decoder_counts *fc_receiver_counts(const struct fc_receiver *r);
/* Whether the sender took up what was agreed on. */
bool fc_receiver_agreed(const struct fc_receiver *r);

#endif
