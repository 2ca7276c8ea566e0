/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "log.h"

int fc_background_start(int *ready_r)
{
    int fds[2];
    char byte;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return FC_ESYS;
    pid_t pid = fork();
    if (pid < 0) {
        fc_close(&fds[0]);
        fc_close(&fds[1]);
        return FC_ESYS;
    }
    if (pid) {
        fc_close(&fds[1]);
        _exit(fc_read_exact(fds[0], &byte, 1) ? 1 : 0);
    }
    fc_close(&fds[0]);
    setsid();
    if (chdir("/") < 0)
        return FC_ESYS;
    *ready_r = fds[1];
    return 0;
}

void fc_background_ready(int *ready)
{
    if (*ready < 0)
        return;
    /* Whoever started us waits for this byte and reads nothing else. */
    (void)fc_write_all(*ready, "", 1);
    fc_close(ready);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd < 3; fd++)
        dup2(null, fd);
    fc_close(&null);
}

/* The journal takes "<6>" in front of a line for its priority. */
static void journal_sink(void *user, enum fc_level level, const char *line)
{
    (void)user;
    fprintf(stderr, "<%d>%s\n", (int)level, line);
}

static void syslog_sink(void *user, enum fc_level level, const char *line)
{
    (void)user;
    syslog((int)level, "%s", line);
}

/* Whether stderr is the stream that JOURNAL_STREAM names (sd-daemon's rule). */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
           !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void fc_background_log(bool foreground)
{
    if (stderr_is_journal()) {
        fc_log_set_sink(journal_sink, NULL);
    } else if (!foreground) {
        openlog("forecopyd", LOG_PID | LOG_CONS, LOG_DAEMON);
        fc_log_set_sink(syslog_sink, NULL);
    }
}

int fc_background_lock(const char *dir, const char *file)
{
    char path[512], pid[32];
    struct stat st;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return FC_ESYS;
    if (lstat(dir, &st) < 0)
        return FC_ESYS;
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        errno = EPERM;
        return FC_ESYS;
    }
    if ((st.st_mode & 07777) != 0700 && chmod(dir, 0700) < 0)
        return FC_ESYS;
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return FC_ESYS;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int rc = errno == EWOULDBLOCK ? FC_EBUSY : FC_ESYS;
        fc_close(&fd);
        return rc;
    }
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        fc_close(&fd);
        return FC_ESYS;
    }
    return fd;
}
