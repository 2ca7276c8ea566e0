/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LUGGAGE_H
#define FC_LUGGAGE_H

#include <stddef.h>
#include <stdint.h>

#include "profile.h"

struct fc_armed_db;
struct fc_predict;

/*
 * What a guest takes along when it migrates: its profile and what was learned
 * of it, in one MODEL frame (docs/formats/channel.md). Event loop thread only.
 */

/* The frame's body, to be freed by the caller. 0, FC_ETOOBIG or FC_ENOMEM. */
int fc_luggage_pack(const struct fc_predict *p, uint8_t **bytes_r,
                    size_t *len_r);

struct fc_luggage {
    struct fc_profile profile;
    const uint8_t *learned; /* in the bytes that were parsed; whole, by its
                             * own reader */
    size_t learned_len;     /* 0: nothing was */
};

/* Reads bytes that may be hostile. 0; FC_EFORMAT and what the readers of both
 * parts say, or FC_ENOMEM, with a sentence in `why`. Any thread. */
int fc_luggage_parse(const uint8_t *bytes, size_t len, struct fc_luggage *l,
                     char *why, size_t why_len);

/*
 * Reads bytes that may be hostile, and keeps for the guest what they hold; all
 * or nothing. 0; as fc_luggage_parse(), or FC_EFULL or FC_EIO, with a sentence
 * in `why`.
 */
int fc_luggage_unpack(struct fc_armed_db *db, const uint8_t *uuid,
                      const uint8_t *bytes, size_t len, uint64_t now_s,
                      char *why, size_t why_len);

#endif
