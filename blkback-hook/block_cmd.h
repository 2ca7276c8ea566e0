/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLOCK_CMD_H
#define FC_BLOCK_CMD_H

#include <getopt.h>

/*
 * The subcommands of forecopy-block. Each gets the command line from its own
 * name on, and returns the program's exit status: 0, 1 failed (the reason is
 * logged), FC_BLOCK_USAGE wrong usage. One thread; called once in a process.
 */
#define FC_BLOCK_USAGE 2

struct fc_block_command {
    const char *name, *arguments, *summary;
    int (*run)(int argc, char **argv);
    const struct option *options; /* besides -h; may be NULL */
};

extern const struct option fc_dm_create_options[], fc_dm_swap_options[],
    fc_dm_suspend_options[], fc_dm_remove_options[], fc_dm_show_options[];
int fc_dm_create_command(int argc, char **argv);
int fc_dm_swap_command(int argc, char **argv);
int fc_dm_suspend_command(int argc, char **argv);
int fc_dm_resume_command(int argc, char **argv);
int fc_dm_remove_command(int argc, char **argv);
int fc_dm_show_command(int argc, char **argv);

extern const struct option fc_nbd_attach_options[], fc_nbd_reattach_options[];
int fc_nbd_attach_command(int argc, char **argv);
int fc_nbd_reattach_command(int argc, char **argv);
int fc_nbd_detach_command(int argc, char **argv);

extern const struct option fc_tap_attach_options[];
int fc_tap_attach_command(int argc, char **argv);
int fc_tap_swap_command(int argc, char **argv);
int fc_tap_detach_command(int argc, char **argv);

/*
 * What they share. fc_block_parse() takes options that are in `options` (may
 * be NULL) and -h; each goes to `take` with its `val`, which says whether the
 * value will do. Returns -1 with optind at the first operand when there are
 * `least` to `most` of them, else the exit status.
 */
int fc_block_parse(int argc, char **argv, const struct option *options,
                   int least, int most, int (*take)(int val, const char *text));

/* A decimal number within [least, most]; -1: it is not. */
long long fc_block_number(const char *text, long long least, long long most);

/* Loads a kernel module; failing is not an error here, what needs it says so.
 */
void fc_block_modprobe(const char *module);

#endif
