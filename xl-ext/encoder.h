/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ENCODER_H
#define FC_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hashset.h"
#include "record.h"

/*
 * The sending half of the stream, record by record and without threads, so
 * that a helper, a fuzzer and a bench can all drive it. One thread at a time.
 */

/* Room that is asked for is never more than this. */
#define FC_ENCODER_ROOM (4300000u + 64u)

/* What WELCOME, or its absence, made of the proposal. */
enum fc_stream_mode {
    FC_STREAM_UNDECIDED = 0,
    FC_STREAM_IS_PLAIN,
    FC_STREAM_PREDICTIVE,
};

struct fc_encoder_ops {
    /* Exactly len bytes of libxc's stream; FC_EEOF when it ends before. */
    int (*read)(void *user, void *buf, size_t len);
    /* A buffer of at least len bytes; NULL: the output is broken. */
    uint8_t *(*room)(void *user, size_t len);
    /* The first len bytes of the last room are output. 0 or an error. */
    int (*put)(void *user, size_t len);
    /*
     * HELLO was put and the first page data is at hand: waits for the answer.
     * 0 with the mode and whether references may be used, or an error that
     * ends the stream. Not called when nothing was proposed.
     */
    int (*welcome)(void *user, enum fc_stream_mode *mode_r, bool *refs_r);
    /*
     * Which pages are certain to come again: a bitmap by pfn, valid until the
     * next call. Returns its length in bits; 0: nothing may be skipped now.
     * May be NULL.
     */
    uint64_t (*dirty_again)(void *user, const uint64_t **bitmap_r);
};

struct fc_encoder_config {
    /* Propose with this HELLO when the guest is HVM or PVH; NULL: pass. */
    const struct fc_hello *hello;
    /* Contents that the receiver holds; NULL: none. Must stay mapped. */
    const struct fc_hashset *staged;
};

/* Counters; readable from any thread, each by itself exact. */
struct fc_encoder_counts {
    _Atomic uint64_t raw_bytes;     /* of libxc's stream */
    _Atomic uint64_t encoded_bytes; /* put */
    _Atomic uint64_t zero, ref, data, none, skipped, pulled; /* pages */
    _Atomic uint64_t pages_seen; /* entries of PAGE_DATA */
    /* Of late: bytes of PAGES per page that had to go as DATA. */
    _Atomic uint32_t data_cost_bytes;
};

struct fc_encoder;

/* NULL when out of memory. `ops` and config->staged must outlive it. */
struct fc_encoder *fc_encoder_new(const struct fc_encoder_ops *ops, void *user,
                                  const struct fc_encoder_config *config);
void fc_encoder_free(struct fc_encoder *e);

/*
 * Takes in the headers or one record of libxc's. 1: more to come; 0: END was
 * put; negative: over, fc_encoder_why() says why.
 */
int fc_encoder_step(struct fc_encoder *e);

/* Between steps. From now on contents are sent, not named, and nothing is
 * skipped: the guest no longer runs. */
void fc_encoder_final(struct fc_encoder *e);

/* Between steps, predictive mode only. */
int fc_encoder_sync(struct fc_encoder *e, uint64_t id);
int fc_encoder_ping(struct fc_encoder *e);

/*
 * The answer to MISSING: `count` (at most FC_BACK_MAX_MISSING) pages with
 * their contents of now. Where has[i] is false the guest has no page there;
 * the entry then says so, as libxc's own for a ballooned page does.
 */
int fc_encoder_pulled(struct fc_encoder *e, const uint64_t *pfns,
                      unsigned count, const uint8_t *pages, const bool *has);

enum fc_stream_mode fc_encoder_mode(const struct fc_encoder *e);
const char *fc_encoder_why(const struct fc_encoder *e);
const struct fc_encoder_counts *fc_encoder_counts(const struct fc_encoder *e);

#endif
