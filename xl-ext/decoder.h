/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DECODER_H
#define FC_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "back.h"
#include "page.h"
#include "record.h"

/*
 * The receiving half of the stream, record by record and without threads, so
 * that a helper, a fuzzer and a bench can all drive it. One thread at a time.
 */
#define FC_ACK_BYTES 65536u /* taken in between two ACKs */

/* Where references are looked up: 0 with FC_PAGE_SIZE bytes that match the
 * hash, or a negative error. */
struct fc_page_source {
    int (*get)(void *user, struct fc_hash hash, void *page);
    void *user;
};

/* Every function returns 0 or a negative error, which ends the decoding. */
struct fc_decoder_ops {
    /* Exactly len bytes of the stream; FC_EEOF when it ends before them. */
    int (*read)(void *user, void *buf, size_t len);
    /* All bytes to libxc; may change iov. At most FC_DECODER_IOV entries. */
    int (*emit)(void *user, struct iovec *iov, int count);
    /* To the sender. NULL: there is no way back, so HELLO is left alone. */
    int (*frame)(void *user, const struct fc_back_frame *frame);
    /*
     * A valid HELLO came. Fills in where references are looked up and how many
     * pages are there (get NULL: nowhere). May be NULL.
     */
    void (*hello)(void *user, const struct fc_hello *hello,
                  struct fc_page_source *source, uint64_t *held_r);
    /* Returns once libxc has read all that was emitted. May be NULL. */
    int (*drained)(void *user);
    /* A CHECKPOINT record was passed on: returns when the stream may be read
     * again. May be NULL. */
    int (*checkpoint)(void *user);
};

#define FC_DECODER_IOV 1024

struct fc_decoder_counts {
    uint64_t taken;                 /* bytes of the stream read */
    uint64_t emitted;               /* bytes given to libxc */
    uint64_t zero, ref, data, none; /* pages out of PAGES records */
    uint64_t missing;               /* pages asked for again */
};

struct fc_decoder;

/* NULL when out of memory. `ops` must outlive it. */
struct fc_decoder *fc_decoder_new(const struct fc_decoder_ops *ops, void *user);
void fc_decoder_free(struct fc_decoder *d);

/*
 * Takes in the headers or one record. 1: more to come; 0: END was passed on,
 * nothing after it was touched; negative: over, fc_decoder_why() says why.
 */
int fc_decoder_step(struct fc_decoder *d);

/* Whether the sender has sent a record that only WELCOME allows. */
bool fc_decoder_agreed(const struct fc_decoder *d);
const char *fc_decoder_why(const struct fc_decoder *d);
const struct fc_decoder_counts *fc_decoder_counts(const struct fc_decoder *d);

#endif
