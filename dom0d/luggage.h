/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LUGGAGE_H
#define FC_LUGGAGE_H

#include <stddef.h>
#include <stdint.h>

struct fc_armed_db;
struct fc_predict;

/*
 * What a guest takes along when it migrates: its profile and what was learned
 * of it, in one MODEL frame (docs/formats/channel.md). Event loop thread only.
 */

/* The frame's body, to be freed by the caller. 0, FC_ETOOBIG or FC_ENOMEM. */
int fc_luggage_pack(const struct fc_predict *p, uint8_t **bytes_r,
                    size_t *len_r);

/*
 * Reads bytes that may be hostile, and keeps for the guest what they hold; all
 * or nothing. 0; FC_EFORMAT and what the readers of both say, FC_ENOMEM,
 * FC_EFULL or FC_EIO, with a sentence in `why`.
 */
int fc_luggage_unpack(struct fc_armed_db *db, const uint8_t *uuid,
                      const uint8_t *bytes, size_t len, uint64_t now_s,
                      char *why, size_t why_len);

#endif
