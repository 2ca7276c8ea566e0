/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "log.h"

#define TAP_CTL_MS 15000 /* each call; libxl gives a script 40 s in all */
#define SAID_MAX 256     /* bytes of its answer */

extern char **environ;

/*
 * Its output goes to a file, since a tapdisk that it starts may keep the
 * descriptor for its whole life; descriptors above 2 are not passed on, a
 * hotplug script's lock is among them.
 */
static int start(char *const argv[], int out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    int r = posix_spawn_file_actions_init(&actions);

    if (r == 0) {
        r = posix_spawn_file_actions_adddup2(&actions, out, 1);
        if (r == 0)
            r = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        if (r == 0)
            r = posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    errno = r;
    return r == ENOENT ? FC_ENOENT : r ? FC_ESYS : 0;
}

static int finish(pid_t pid)
{
    int status = 0, rc = 0, r;
    int fd = pidfd_open(pid, 0);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    uint64_t deadline_ms = fc_now_ms() + TAP_CTL_MS;

    do {
        uint64_t now = fc_now_ms();
        r = fd < 0 || now >= deadline_ms
                ? 0
                : poll(&p, 1, (int)(deadline_ms - now));
    } while (r < 0 && errno == EINTR);
    if (r != 1) {
        kill(pid, SIGKILL);
        rc = FC_ETIMEOUT;
    }
    fc_close(&fd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status)))
        rc = FC_EPEER;
    return rc;
}

/* Runs tap-ctl; `said` (may be NULL) gets what it printed. */
static int tap_ctl(char *const argv[], char said[SAID_MAX])
{
    pid_t pid;
    int out = memfd_create("tap-ctl", MFD_CLOEXEC);
    int rc = out < 0 ? FC_ESYS : start(argv, out, &pid);

    if (rc == 0)
        rc = finish(pid);
    if (rc == 0 && said) {
        ssize_t n = pread(out, said, SAID_MAX - 1, 0);
        said[n > 0 ? n : 0] = '\0';
        said[strcspn(said, "\n")] = '\0';
    }
    int saved = errno;
    fc_close(&out);
    if (rc == FC_ESYS)
        fc_error("tap-ctl %s: %s", argv[1], strerror(saved));
    else if (rc)
        fc_error("tap-ctl %s: %s", argv[1],
                 rc == FC_ENOENT ? "is not installed" : fc_strerror(rc));
    return rc;
}

/* "VERB -p PID -m MINOR [EXTRA...]" */
static int tell(const char *verb, const struct fc_tapdisk *tap,
                const char *extra1, const char *extra2, const char *extra3)
{
    char pid[24], minor[24];
    char *argv[] = {
        "tap-ctl",      (char *)verb,   "-p",           pid,  "-m", minor,
        (char *)extra1, (char *)extra2, (char *)extra3, NULL,
    };

    snprintf(pid, sizeof(pid), "%ld", tap->pid);
    snprintf(minor, sizeof(minor), "%ld", tap->minor);
    return tap_ctl(argv, NULL);
}

bool fc_tapdisk_image_ok(const char *image)
{
    static const char *const types[] = { "aio:/", "vhd:/", "nbd:/" };

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (!strncmp(image, types[i], strlen(types[i])))
            return true;
    fc_error("\"%s\" is no image for tapdisk: aio:, vhd: or nbd:, and a path "
             "from the root",
             image);
    return false;
}

/* The whole number that a text ends in; -1: none. */
static long last_number(const char *text)
{
    const char *p = text + strlen(text);
    char *end;

    while (p > text && p[-1] >= '0' && p[-1] <= '9')
        p--;
    errno = 0;
    long n = strtol(p, &end, 10);
    return end == p || errno || n > 0x7fffffff ? -1 : n;
}

static int release(long minor)
{
    char number[24];
    char *argv[] = { "tap-ctl", "free", "-m", number, NULL };

    snprintf(number, sizeof(number), "%ld", minor);
    return tap_ctl(argv, NULL);
}

static int new_minor(long *minor)
{
    char said[SAID_MAX] = "";
    char *argv[] = { "tap-ctl", "allocate", NULL };
    int rc = tap_ctl(argv, said);

    /* a path, whose shape depends on the version: .../tapdisk-7, tapdev7 */
    *minor = rc ? -1 : last_number(said);
    if (rc == 0 && *minor < 0) {
        fc_error("tap-ctl allocate: \"%s\" names no minor", said);
        rc = FC_EFORMAT;
    }
    return rc;
}

static int new_process(long *pid)
{
    char said[SAID_MAX] = "";
    char *argv[] = { "tap-ctl", "spawn", NULL };
    int rc = tap_ctl(argv, said);

    *pid = rc ? -1 : last_number(said);
    if (rc == 0 && *pid <= 1) {
        fc_error("tap-ctl spawn: \"%s\" is no process", said);
        rc = FC_EFORMAT;
    }
    return rc;
}

int fc_tapdisk_attach(const char *image, bool read_only,
                      struct fc_tapdisk *tap_r)
{
    struct fc_tapdisk tap;

    if (!fc_tapdisk_image_ok(image))
        return FC_EINVAL;
    int rc = new_minor(&tap.minor);
    if (rc)
        return rc;
    rc = new_process(&tap.pid);
    if (rc)
        goto out_minor;
    rc = tell("attach", &tap, NULL, NULL, NULL);
    if (rc) {
        /* a tapdisk with nothing attached has no other way to end */
        kill((pid_t)tap.pid, SIGTERM);
        goto out_minor;
    }
    rc = tell("open", &tap, "-a", image, read_only ? "-R" : NULL);
    if (rc) {
        tell("detach", &tap, NULL, NULL, NULL); /* ends it, too */
        goto out_minor;
    }
    *tap_r = tap;
    return 0;
out_minor:
    release(tap.minor);
    return rc;
}

void fc_tapdisk_path(const struct fc_tapdisk *tap,
                     char path[FC_TAPDISK_PATH_MAX])
{
    snprintf(path, FC_TAPDISK_PATH_MAX, "/run/blktap-control/nbd%ld.%ld",
             tap->pid, tap->minor);
}

int fc_tapdisk_swap(const struct fc_tapdisk *tap, const char *image)
{
    if (!fc_tapdisk_image_ok(image))
        return FC_EINVAL;
    int rc = tell("pause", tap, NULL, NULL, NULL);
    if (rc == 0) {
        rc = tell("unpause", tap, "-a", image, NULL);
        if (rc == 0)
            return 0;
    }
    /* a pause that was given up may have come about */
    if (tell("unpause", tap, NULL, NULL, NULL))
        fc_error("tapdisk %ld stays paused; its guest waits", tap->pid);
    return rc;
}

int fc_tapdisk_detach(const struct fc_tapdisk *tap)
{
    return tell("destroy", tap, NULL, NULL, NULL);
}
