/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_STREAM_PIPE_H
#define FC_BENCH_STREAM_PIPE_H

#include "stream_input.h"

/*
 * The stream through pipelines of processes: ours, a sender and a receiver as
 * the helpers are (this program again, in a role), and lz4's. What comes out is
 * compared with what went in.
 */
struct stream_side {
    double seconds, cpu_seconds;
    uint64_t wire_bytes;
    uint64_t rss_bytes; /* of both processes */
};

/* st NULL: nothing is staged. */
struct stream_side stream_pipe_ours(const struct stream_input *in,
                                    const struct stream_staged *st);
/* `lz4 -1 | lz4 -d` */
struct stream_side stream_pipe_lz4(const struct stream_input *in);
/* What `lz4 -1` makes of it, in bytes. */
uint64_t stream_pipe_lz4_bytes(const struct stream_input *in);

/* Words on the command line of a process in a role. */
#define STREAM_ROLE_ARGS 6
/* Plays it; returns the exit status. */
int stream_pipe_role(char **argv);

#endif
