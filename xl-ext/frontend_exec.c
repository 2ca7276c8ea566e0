/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "frontend_exec.h"
#include "io.h"

extern char **environ;

#define SYSFS_VERSION "/sys/hypervisor/version"

/*
 * Debian's /usr/sbin/xl is a link to a script that runs the program of its own
 * name from the running Xen's directory, so that it cannot be called under the
 * name it was moved to. Our package links the script here, once more as "xl".
 */
#define DEBIAN_WRAPPER "/usr/lib/forecopy/xl"

/* How long a program that overstayed has to end on SIGTERM. */
#define GRACE_MS 500
#define REAP_POLL_US 10000

static int read_number(const char *dir, const char *name, unsigned *value_r)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return FC_ENOENT;
    int fields = fscanf(f, "%u", value_r);
    fclose(f);
    return fields == 1 ? 0 : FC_ENOENT;
}

int fc_front_xen_version(const char *dir, char *version_r, size_t size)
{
    unsigned major, minor;
    if (read_number(dir, "major", &major) || read_number(dir, "minor", &minor))
        return FC_ENOENT;
    snprintf(version_r, size, "%u.%u", major, minor);
    return 0;
}

void fc_front_xl_path(char path[PATH_MAX])
{
    const char *forced = getenv("FORECOPY_XL");
    char version[32];

    if (forced && *forced) {
        snprintf(path, PATH_MAX, "%s", forced);
        return;
    }
    if (!fc_front_xen_version(SYSFS_VERSION, version, sizeof(version))) {
        snprintf(path, PATH_MAX, "/usr/lib/xen-%s/bin/xl", version);
        if (!access(path, X_OK))
            return;
    }
    snprintf(path, PATH_MAX, "%s", DEBIAN_WRAPPER);
}

int fc_front_helper_path(char path[PATH_MAX])
{
    const char *forced = getenv("LIBXL_SAVE_HELPER");
    char version[32];

    if (!forced || !*forced)
        forced = getenv("FORECOPY_HELPER");
    if (forced && *forced) {
        snprintf(path, PATH_MAX, "%s", forced);
        return 0;
    }
    if (fc_front_xen_version(SYSFS_VERSION, version, sizeof(version)))
        return FC_ENOENT;
    snprintf(path, PATH_MAX, "/usr/lib/xen-%s/bin/forecopy-save-helper",
             version);
    return access(path, X_OK) ? FC_ENOENT : 0;
}

int fc_front_exec_xl(const char *const *argv)
{
    char path[PATH_MAX];
    fc_front_xl_path(path);
    execv(path, (char *const *)argv);

    int status = errno == ENOENT ? 127 : 126;
    fprintf(stderr, "forecopy: cannot run Xen's xl (%s): %s\n", path,
            strerror(errno));
    return status;
}

static int spawn_captured(const char *const *argv, int out, pid_t *pid_r)
{
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions))
        return FC_ESYS;

    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null",
                                     O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDERR_FILENO);
    int r = posix_spawnp(pid_r, argv[0], &actions, NULL, (char *const *)argv,
                         environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r) {
        errno = r;
        return FC_ESYS;
    }
    return 0;
}

/* Reads until the end or the deadline. Whether the end came. */
static bool drain(int fd, uint64_t deadline_ms, char *out, size_t size)
{
    size_t used = 0;
    for (;;) {
        uint64_t now = fc_now_ms();
        if (now >= deadline_ms ||
            fc_wait_readable(fd, (int)(deadline_ms - now)) != 1)
            return false;
        char piece[4096];
        ssize_t r = read(fd, piece, sizeof(piece));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return true;
        size_t room = out ? size - 1 - used : 0;
        size_t take = (size_t)r < room ? (size_t)r : room;
        if (take) {
            memcpy(out + used, piece, take);
            used += take;
            out[used] = '\0';
        }
    }
}

/* Waits until the deadline. 1 when it ended, 0 when not, FC_ESYS. */
static int reap(pid_t pid, uint64_t deadline_ms, int *status_r)
{
    for (;;) {
        pid_t got = waitpid(pid, status_r, WNOHANG);
        if (got == pid)
            return 1;
        if (got < 0 && errno != EINTR)
            return FC_ESYS;
        if (fc_now_ms() >= deadline_ms)
            return 0;
        usleep(REAP_POLL_US);
    }
}

static int finish(pid_t pid, bool ended, uint64_t deadline_ms)
{
    int status, r = 0;
    if (ended)
        r = reap(pid, deadline_ms, &status);
    if (!r) {
        kill(pid, SIGTERM);
        r = reap(pid, fc_now_ms() + GRACE_MS, &status);
        if (!r) {
            kill(pid, SIGKILL);
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        }
        return FC_ETIMEOUT;
    }
    if (r < 0)
        return FC_ESYS;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int fc_front_capture(const char *const *argv, int timeout_ms, char *out,
                     size_t size)
{
    int pipe_fds[2], rc;
    pid_t pid;
    uint64_t deadline_ms = fc_now_ms() + (uint64_t)timeout_ms;
    struct sigaction child = { .sa_handler = SIG_DFL }, before;

    if (out)
        out[0] = '\0';
    if (pipe2(pipe_fds, O_CLOEXEC))
        return FC_ESYS;
    /* were SIGCHLD ignored, the status would be lost */
    sigaction(SIGCHLD, &child, &before);
    rc = spawn_captured(argv, pipe_fds[1], &pid);
    fc_close(&pipe_fds[1]);
    if (!rc) {
        bool ended = drain(pipe_fds[0], deadline_ms, out, size);
        rc = finish(pid, ended, deadline_ms);
    }
    fc_close(&pipe_fds[0]);
    sigaction(SIGCHLD, &before, NULL);
    return rc;
}

bool fc_front_self_test(const char *helper)
{
    const char *argv[] = { helper, "--self-test", NULL };
    return fc_front_capture(argv, FC_FRONT_SELF_TEST_MS, NULL, 0) == 0;
}
