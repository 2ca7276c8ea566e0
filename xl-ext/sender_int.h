/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SENDER_INT_H
#define FC_SENDER_INT_H

/* Shared by sender.c (life, encoder thread), sender_out.c (queue, window,
 * writer thread) and sender_back.c (frames, back thread). */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "back.h"
#include "sender.h"

#define FC_SENDER_BUFFERS 4 /* one filled, one written, two waiting */
#define FC_SENDER_WHY 384

enum fc_sender_answer {
    FC_ANSWER_NONE = 0,
    FC_ANSWER_WELCOME,
    FC_ANSWER_REFUSED, /* with a reason in `refusal` */
};

struct fc_sender_buffer {
    uint8_t *bytes; /* FC_ENCODER_ROOM */
    size_t used;
    struct fc_sender_buffer *next;
};

struct fc_sender {
    struct fc_sender_config config;
    struct fc_encoder *encoder;
    int wake_fd; /* eventfd: the encoder thread has something to look at */
    int stop_fd; /* eventfd: the back thread is to end */
    bool out_was_blocking;
    pthread_t encoder_thread, writer_thread, back_thread;
    unsigned threads; /* started, in this order */

    pthread_mutex_t lock; /* for all below */
    pthread_cond_t changed;
    int failed; /* the first error, or 0 */
    char why[FC_SENDER_WHY];
    bool idle;     /* the encoder thread waits for input */
    bool ended;    /* END was put */
    bool no_more;  /* the encoder thread puts nothing any more */
    bool complete; /* and all of it was written: nothing can fail now */
    bool make_final;
    uint64_t sync_wanted, sync_put, sync_answered;
    enum fc_stream_mode mode;

    /* output */
    struct fc_sender_buffer buffers[FC_SENDER_BUFFERS];
    struct fc_sender_buffer *spare, *queue, **queue_end;
    struct fc_sender_buffer *filling; /* the encoder thread's own */
    bool writing;
    uint64_t put_ms; /* when something was put last */
    uint64_t written, acked;
    uint64_t busy_since_ns, busy_ns, busy_bytes;
    uint64_t rate_data, rate_cheap; /* pages, at the last sample */
    double link_bps;                /* bytes per second; 0: not known */

    /* from the receiver */
    enum fc_sender_answer answer;
    bool store_found;
    bool done; /* DONE came: silence is right */
    char refusal[FC_SENDER_WHY];
    uint64_t heard_ms;    /* any frame */
    uint64_t progress_ms; /* a frame that shows that the receiver works */
    uint64_t *wanted;     /* ring of pfns */
    uint32_t wanted_cap, wanted_first, wanted_held;
    uint64_t pulled_total;

    /* peeking; its own lock, because a peek takes a while */
    pthread_mutex_t peek_lock;
    bool skip_allowed, peek_broken;
    uint64_t peeked_ns, peek_every_ns;
    const uint64_t *dirty;
    uint64_t dirty_bits;
};

/* With the lock held. */
void fc_sender_fail_locked(struct fc_sender *s, int rc, const char *why);
/* Waits for a change, at most `ms`. */
void fc_sender_wait_locked(struct fc_sender *s, unsigned ms);
void fc_sender_wake(struct fc_sender *s);

/* sender_out.c */
int fc_sender_out_init(struct fc_sender *s);
void fc_sender_out_dispose(struct fc_sender *s);
uint8_t *fc_sender_room(void *user, size_t len);
int fc_sender_put(void *user, size_t len);
void *fc_sender_writer(void *user);
/* Lock held: the window's and the link rate's books on an acknowledgement. */
int fc_sender_acked_locked(struct fc_sender *s, uint64_t acked);
uint64_t fc_sender_link_bps_locked(const struct fc_sender *s);

/* sender_back.c */
void *fc_sender_back(void *user);
/* Lock held: takes up to `max` wanted pfns out. */
unsigned fc_sender_wanted_locked(struct fc_sender *s, uint64_t *pfns,
                                 unsigned max);

#endif
