/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * forecopy-transport: stands between xl and the command that reaches the
 * destination. The stream goes from xl to the command untouched, as its
 * standard input; only what the command prints passes through here.
 *
 * Descriptors: the command has 0 (the stream), 1 (our pipe) and 2. We keep 1,
 * 2, the pipe and back_fd; whatever else came from xl is closed in both, or an
 * end of one of xl's pipes would stay open here after xl is gone.
 *
 * Signals: the front end has xl, and so us and the command, ignore those that a
 * terminal or `timeout` sends to the whole group: ended between the suspend
 * and the hand-over, the command would take the guest with it. We leave them
 * as they came. SIGALRM is how the front end ends an attempt that has not
 * touched the guest: the one signal that nobody sends by chance and on which
 * an ssh that is asking for a password sets the terminal right before it dies.
 *
 * Disks: with FORECOPY_DISK_MIGRATION the receiver's ready message waits until
 * forecopyd has handed the guest's disks over. When it cannot, xl must not
 * see that message but the end of what it reads, on which it resumes the guest
 * here; so our output is closed before the command's end is waited for, which
 * in turn waits for xl to close its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "transport.h"
#include "transport_flip.h"

#define MIN_FD 3
#define MAX_FD 1023
#define CANNOT_RUN 127
#define NOT_HANDED_OVER 1
#define MIGRATION_VARIABLE "FORECOPY_DISK_MIGRATION"
#define TIMEOUT_VARIABLE "FORECOPY_DISK_FLIP_MS"
#define WHY 320

static volatile sig_atomic_t child;

static int usage(void)
{
    fprintf(stderr, "usage: forecopy-transport --back-fd FD -- COMMAND...\n");
    return 2;
}

static void pass_signal(int sig)
{
    int saved = errno;
    if (child > 0)
        kill((pid_t)child, sig);
    errno = saved;
}

static void set_handlers(void)
{
    struct sigaction sa = { .sa_handler = pass_signal, .sa_flags = SA_RESTART };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGALRM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Closes all from MIN_FD on but `a` and `b`. */
static void close_others(int a, int b)
{
    int lo = a < b ? a : b, hi = a < b ? b : a;
    int from = MIN_FD;
    const int keep[2] = { lo, hi };
    for (int i = 0; i < 2; i++) {
        if (keep[i] < from)
            continue;
        if (keep[i] > from)
            close_range((unsigned)from, (unsigned)keep[i] - 1, 0);
        from = keep[i] + 1;
    }
    close_range((unsigned)from, ~0u, 0);
}

struct disks {
    const char *migration; /* NULL: none to hand over */
    int timeout_ms;
    char why[WHY];
};

static int flip(void *user)
{
    struct disks *d = user;
    return fc_flip(d->migration, d->timeout_ms, d->why, sizeof(d->why));
}

/* 0, or -1 after a line: a name that is damaged must not mean "no disks". */
static int disks_from_environment(struct disks *d)
{
    const char *timeout = getenv(TIMEOUT_VARIABLE);
    *d = (struct disks){ .migration = getenv(MIGRATION_VARIABLE),
                         .timeout_ms = FC_FLIP_MS };
    if (timeout && atoi(timeout) > 0)
        d->timeout_ms = atoi(timeout);
    if (!d->migration || fc_flip_migration_valid(d->migration))
        return 0;
    fprintf(stderr, "forecopy-transport: %s is not %u hex digits\n",
            MIGRATION_VARIABLE, FC_FLIP_MIGRATION_DIGITS);
    return -1;
}

static void run_command(char **argv, int out_fd, const sigset_t *mask)
{
    if (dup2(out_fd, STDOUT_FILENO) < 0)
        _exit(CANNOT_RUN);
    close_range(MIN_FD, ~0u, 0);
    unsetenv(MIGRATION_VARIABLE);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(argv[0], argv);
    fprintf(stderr, "forecopy-transport: %s: %s\n", argv[0], strerror(errno));
    _exit(CANNOT_RUN);
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return CANNOT_RUN;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int parse_back_fd(const char *text)
{
    char *end;
    long fd = strtol(text, &end, 10);
    if (end == text || *end || fd < MIN_FD || fd > MAX_FD ||
        fcntl((int)fd, F_GETFD) < 0)
        return -1;
    return (int)fd;
}

/* Whether the guest may have gone over. */
static bool relay(int from_fd, int back_fd, struct disks *d)
{
    int rc = fc_transport_relay(from_fd, STDOUT_FILENO, back_fd,
                                d->migration ? flip : NULL, d);
    if (!rc || rc == FC_EIO)
        return true;
    if (!d->why[0])
        snprintf(d->why, sizeof(d->why),
                 "what came from the destination is not what xl's receiver "
                 "says");
    fprintf(stderr,
            "forecopy: the disks were not handed over: %s; the guest stays "
            "here\n",
            d->why);
    return false;
}

static int transport(int back_fd, struct disks *d, char **argv)
{
    int fds[2];
    sigset_t all, before;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        perror("forecopy-transport: pipe");
        return CANNOT_RUN;
    }
    /* A signal that comes before there is a child waits for it. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    set_handlers();
    pid_t pid = fork();
    if (pid == 0)
        run_command(argv, fds[1], &before);
    if (pid < 0) {
        perror("forecopy-transport: fork");
        return CANNOT_RUN;
    }
    child = pid;
    close(fds[1]);
    close(STDIN_FILENO);
    close_others(fds[0], back_fd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    bool gone = relay(fds[0], back_fd, d);
    /* The command must see that nobody reads it any more. */
    close(fds[0]);
    close(back_fd);
    if (!gone)
        close(STDOUT_FILENO);
    int status = wait_for(pid);
    return gone || status ? status : NOT_HANDED_OVER;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "back-fd", required_argument, NULL, 'b' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "dump-options", no_argument, NULL, 'D' },
        { NULL, 0, NULL, 0 },
    };
    int back_fd = -1, c;
    while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        switch (c) {
        case 'b':
            back_fd = parse_back_fd(optarg);
            break;
        case 'V':
            printf("forecopy-transport %s\n", FC_VERSION);
            return 0;
        case 'D':
            for (const struct option *o = options; o->val != 'D'; o++)
                printf("--%s\n", o->name);
            puts("-h");
            return 0;
        case 'h':
            usage();
            return 0;
        default:
            return usage();
        }
    }
    if (back_fd < 0 || optind >= argc)
        return usage();
    struct disks disks;
    if (disks_from_environment(&disks))
        return 2;
    return transport(back_fd, &disks, argv + optind);
}
