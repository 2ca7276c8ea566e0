/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRACE_INPUT_H
#define FC_TRACE_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

/*
 * A file as a stream of bytes, decompressed on the way when it begins with
 * zstd's magic. The window that a compressed file may ask for is bounded, so
 * memory is. One thread.
 */
struct fc_trace_input;

/* Takes `fd` over, also when it fails. 0, FC_ENOMEM, FC_EIO. */
int fc_trace_input_new(int fd, struct fc_trace_input **in_r);
void fc_trace_input_free(struct fc_trace_input *in);

/* Bytes ahead, without moving on: up to `want` (at most 4096) of them. */
const uint8_t *fc_trace_input_peek(struct fc_trace_input *in, size_t want,
                                   size_t *len_r);

/* Bytes consumed so far, for messages. */
uint64_t fc_trace_input_offset(const struct fc_trace_input *in);

/* Exactly `len` bytes: 1; 0 when the stream ended before the first of them;
 * FC_EEOF when it ended among them; FC_EIO, FC_EFORMAT (bad zstd). */
int fc_trace_input_read(struct fc_trace_input *in, void *buf, size_t len);

/* One LEB128 number; returns as fc_trace_input_read, FC_EFORMAT when it has
 * more than 64 bits. */
int fc_trace_input_number(struct fc_trace_input *in, uint64_t *number_r);

/* One line without its end ("\n" or "\r\n"), terminated. 1, 0 at the end;
 * FC_ETOOBIG when `room` is too small; FC_EFORMAT on a NUL. */
int fc_trace_input_line(struct fc_trace_input *in, char *line, size_t room);

#endif
