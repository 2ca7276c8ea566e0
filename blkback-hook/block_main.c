/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * forecopy-block: what has to be asked of the kernel, or of tapdisk, for a
 * guest's disk. A small program of its own, so that forecopyd and the hotplug
 * script do it the same way. See forecopy-block(8).
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "block_cmd.h"
#include "log.h"
#include "trace_cmd.h"

static const struct fc_block_command commands[] = {
    { "dm-create", "NAME DEVICE", "a guest's disk, linear over DEVICE",
      fc_dm_create_command, fc_dm_create_options },
    { "dm-swap", "[--timeout S] NAME linear DEVICE | NAME error",
      "put another table under it", fc_dm_swap_command, fc_dm_swap_options },
    { "dm-suspend", "[--timeout S] NAME", "drain it and hold what comes",
      fc_dm_suspend_command, fc_dm_suspend_options },
    { "dm-resume", "NAME", "let it run again", fc_dm_resume_command, NULL },
    { "dm-remove", "[--timeout S] NAME", "take it away", fc_dm_remove_command,
      fc_dm_remove_options },
    { "dm-show", "[--json] NAME", "its table and state", fc_dm_show_command,
      fc_dm_show_options },
    { "nbd-attach",
      "[--export NAME] [--size BYTES] [--block-size BYTES] [--timeout S] "
      "SOCKET",
      "an nbd device on an engine's socket; prints its name",
      fc_nbd_attach_command, fc_nbd_attach_options },
    { "nbd-reattach", "[--export NAME] [--timeout S] /dev/nbdN SOCKET",
      "give it a new connection after the engine was restarted",
      fc_nbd_reattach_command, fc_nbd_reattach_options },
    { "nbd-detach", "/dev/nbdN", "end its connection; what waits fails",
      fc_nbd_detach_command, NULL },
    { "trace",
      "[--method NAME] [--extent BYTES] [--interval MS] [--requests] "
      "DEVICE...",
      "what devices are asked for, in batches, until its input ends",
      fc_trace_command, fc_trace_options },
    { "tap-attach", "[--read-only] IMAGE",
      "a tapdisk with the image; prints its process, minor and socket",
      fc_tap_attach_command, fc_tap_attach_options },
    { "tap-swap", "PID MINOR IMAGE", "put another image under it",
      fc_tap_swap_command, NULL },
    { "tap-detach", "PID MINOR", "end it", fc_tap_detach_command, NULL },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

extern char **environ;

static void usage(FILE *to)
{
    fprintf(to, "usage: forecopy-block COMMAND ...\n");
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %s %s\n      %s\n", commands[i].name,
                commands[i].arguments, commands[i].summary);
}

static const struct fc_block_command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

/* For the test that holds the manual page against the program. */
static int dump_options(void)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        puts(commands[i].name);
        for (const struct option *o = commands[i].options; o && o->name; o++)
            printf("%s --%s\n", commands[i].name, o->name);
    }
    return 0;
}

int fc_block_parse(int argc, char **argv, const struct option *options,
                   int least, int most, int (*take)(int val, const char *text))
{
    enum { MOST = 15 };
    struct option all[MOST + 2] = { { "help", no_argument, NULL, 'h' } };
    int n = 1, c;

    for (; options && options->name && n <= MOST; options++)
        all[n++] = *options;
    while ((c = getopt_long(argc, argv, "h", all, NULL)) != -1) {
        if (c == 'h') {
            printf("usage: forecopy-block %s %s\n", argv[0],
                   find(argv[0])->arguments);
            return 0;
        }
        if (c == '?' || !take(c, optarg)) {
            if (c != '?')
                fc_error("%s: \"%s\" will not do", argv[0], optarg);
            return FC_BLOCK_USAGE;
        }
    }
    if (argc - optind < least || argc - optind > most) {
        fprintf(stderr, "usage: forecopy-block %s %s\n", argv[0],
                find(argv[0])->arguments);
        return FC_BLOCK_USAGE;
    }
    return -1;
}

long long fc_block_number(const char *text, long long least, long long most)
{
    char *end;

    if (!text || *text < '0' || *text > '9')
        return -1;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    return errno || *end || n < least || n > most ? -1 : n;
}

void fc_block_modprobe(const char *module)
{
    char *argv[] = { "modprobe", "-q", (char *)module, NULL };
    pid_t pid;

    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) == 0)
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    fc_log_init("forecopy-block", FC_LOG_INFO);
    if (!strcmp(name, "-h") || !strcmp(name, "--help")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(name, "--version")) {
        puts("forecopy-block " FC_VERSION);
        return 0;
    }
    if (!strcmp(name, "--dump-options"))
        return dump_options();
    const struct fc_block_command *command = find(name);
    if (!command) {
        usage(stderr);
        return FC_BLOCK_USAGE;
    }
    int status = command->run(argc - 1, argv + 1);
    if (fflush(stdout) && status == 0) {
        fc_error("cannot write: %s", strerror(errno));
        status = 1;
    }
    return status;
}
