/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_STREAM_CODEC_H
#define FC_BENCH_STREAM_CODEC_H

#include "stream_input.h"

/*
 * Encoder and decoder alone, from memory to memory, on one core. Gives bytes of
 * libxc's stream per second of the thread's CPU time, each way. `scratch` takes
 * the encoded stream. st NULL: nothing is staged.
 */
void stream_codec_run(const struct stream_input *in,
                      const struct stream_staged *st, uint8_t *scratch,
                      size_t scratch_len, double *encode_r, double *decode_r);

#endif
