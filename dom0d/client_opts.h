/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CLIENT_OPTS_H
#define FC_CLIENT_OPTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * The command line of forecopy(8). One table of subcommands drives parsing,
 * help and the dump that is held against the manual page. Strings point into
 * argv. Uses getopt's globals: one thread.
 */
enum fc_client_verb {
    FC_VERB_ARM,
    FC_VERB_DISARM,
    FC_VERB_STATUS,
    FC_VERB_STAT,
    FC_VERB_LOG,
    FC_VERB_SET,
    FC_VERB_GET,
    FC_VERB_RANK,
    FC_VERB_HEATMAP,
    FC_VERB_WHEN,
    FC_VERB_RECORD,
    FC_VERB_DISKS,
    FC_VERB_SHADOW,
    FC_VERB_UNSHADOW,
    FC_VERB_LEASE,
    FC_VERB_RECEIVE,
    FC_VERB_PREPARE,
    FC_VERB_DISK_RECEIVE,
    FC_VERB_DISK_PREPARE,
    FC_VERB_VERSION,
    FC_VERB_DOCTOR,
};

#define FC_CLIENT_OPERANDS 3

struct fc_client_args {
    enum fc_client_verb verb;
    const char *operand[FC_CLIENT_OPERANDS]; /* NULL: not given */
    bool json, batch, force, overwrite;
    int64_t rate_bytes; /* -1: not given; so the other numbers */
    int64_t channels, iterations, lines, hours, seconds, interval_ms;
    double delay_s;
    /* NULL: not given */
    const char *command, *level, *uuid, *name, *list, *output, *template_,
        *host;
    const char *disk; /* "": the only one; NULL: not given */
};

/*
 * Parses the whole command line. Returns -1 with `*args` filled, or the exit
 * status when all is done or wrong: help and dumps were printed on `out` (0),
 * a fault was named on `err` (2).
 */
int fc_client_args_parse(int argc, char **argv, struct fc_client_args *args,
                         FILE *out, FILE *err);

/* A number of bytes with an optional k, M, G or T (of 1024); -1: none. */
int64_t fc_client_bytes_parse(const char *text);

#endif
