/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRACE_CMD_H
#define FC_TRACE_CMD_H

#include <getopt.h>

/*
 * `forecopy-block trace [OPTION...] DEVICE...`: batches of what the devices are
 * asked for on standard output (docs/formats/block-trace-batch.md) until
 * standard input ends or a signal to end comes. argv[0] is "trace". Returns
 * the exit status: 0, 1, or 2 for wrong usage.
 */
extern const struct option fc_trace_options[];
int fc_trace_command(int argc, char **argv);

#endif
