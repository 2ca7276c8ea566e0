/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_ARGS_H
#define FC_FRONTEND_ARGS_H

#include <stdbool.h>
#include <stdio.h>

/*
 * The front end's command line: which command it is, what of it is ours and
 * what is xl's. Strings point into argv. Vectors and strings that functions
 * return are allocated and the caller's (free(3)); NULL means out of memory.
 * fc_front_args_parse() uses getopt's globals: one thread.
 */
enum fc_front_command {
    FC_FRONT_OTHER,      /* xl's own affair */
    FC_FRONT_RECEIVE,    /* migrate-receive */
    FC_FRONT_PREDICTIVE, /* migrate with --predictive */
};

/* xl's options before the command word. */
struct fc_front_globals {
    int command;     /* index of the command word in argv; 0: none */
    int verbose;     /* how many -v */
    bool use_cr;     /* -t */
    bool timestamps; /* -T */
};

#define FC_FRONT_MAX_PASSED 64

struct fc_front_args {
    struct fc_front_globals globals;
    int argc;
    char **argv;

    /* ours; -1 or NULL: not given */
    long max_downtime_ms;
    long deadline_s;
    int abort_at_deadline;
    int fail_when_plain;
    bool no_stage, dry_run, json, help, dump_options;
    bool with_disks, complete_disks, lazy_disks, overwrite_disk;
    const char *report;

    /* xl's */
    const char *ssh; /* -s; "" means that host is a whole command */
    bool no_daemon;  /* -e or -F */
    bool debug, pause;
    bool config;                             /* -C */
    const char *passed[FC_FRONT_MAX_PASSED]; /* all but -s, in order */
    int npassed;
    const char *domain, *host;
};

/* Tells the command without touching anything. Follows xl in taking an
 * unambiguous abbreviation of a command for it. */
enum fc_front_command fc_front_args_classify(int argc, char *const *argv,
                                             struct fc_front_globals *globals);

/*
 * Parses a command that was classified as FC_FRONT_PREDICTIVE. 0, or
 * FC_EINVAL after a line on `err`.
 */
int fc_front_args_parse(int argc, char **argv, struct fc_front_args *args,
                        FILE *err);

/* Our part of the help text; the names of our options, one a line. */
void fc_front_args_usage(FILE *out);
void fc_front_args_dump(FILE *out);

/* `text` as one word of sh(1). */
char *fc_front_quote(const char *text);

/*
 * The command that xl would run itself for these options: see main_migrate in
 * Xen's tools/xl. `stderr_tty`: whether standard error is a terminal.
 */
char *fc_front_rune(const struct fc_front_args *args, bool stderr_tty);

/* The command line of the same plain migration. */
const char **fc_front_plain_argv(const struct fc_front_args *args);

/* The command line of a session: `rune` run by `transport`, whose end of the
 * back channel is `back_fd`. The rune's memory goes with the vector: free it
 * after use through `*rune_r`. */
const char **fc_front_session_argv(const struct fc_front_args *args,
                                   const char *transport, int back_fd,
                                   const char *rune, char **rune_r);

/* "exec SSHCMD HOST forecopy WORDS", with `name` (may be NULL) after --name,
 * quoted for both shells. */
char *fc_front_remote(const struct fc_front_args *args, const char *words,
                      const char *name);

#endif
