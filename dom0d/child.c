/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "child.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"

struct child {
    pid_t pid;
    fc_child_ended *ended; /* NULL: forgotten */
    void *user;
    struct event *kill; /* set while SIGTERM is given time */
    struct child *next;
};

struct fc_children {
    struct event_base *base;
    struct event *signal;
    struct child *first;
};

#define KILL_AFTER_S 3

static void child_free(struct child *child)
{
    if (child->kill)
        event_free(child->kill);
    free(child);
}

/* The ended child, unlinked, or NULL. */
static struct child *reap_one(struct fc_children *c, int *status_r)
{
    for (struct child **at = &c->first; *at; at = &(*at)->next) {
        struct child *child = *at;
        pid_t r = waitpid(child->pid, status_r, WNOHANG);
        if (r == 0 || (r < 0 && errno == EINTR))
            continue;
        if (r < 0)
            *status_r = 0; /* somebody else waited for it */
        *at = child->next;
        return child;
    }
    return NULL;
}

/* Callbacks may start, watch and forget children: begin anew after each. */
static void on_sigchld(evutil_socket_t sig, short what, void *arg)
{
    struct fc_children *c = arg;
    struct child *child;
    int status;
    (void)sig;
    (void)what;
    while ((child = reap_one(c, &status))) {
        if (child->ended)
            child->ended(child->user, child->pid, status);
        child_free(child);
    }
}

int fc_children_new(struct event_base *base, struct fc_children **children_r)
{
    struct fc_children *c = calloc(1, sizeof(*c));
    if (!c)
        return FC_ENOMEM;
    c->base = base;
    c->signal = evsignal_new(base, SIGCHLD, on_sigchld, c);
    if (!c->signal || event_add(c->signal, NULL) < 0) {
        fc_children_free(c);
        return FC_ESYS;
    }
    *children_r = c;
    return 0;
}

void fc_children_free(struct fc_children *c)
{
    if (!c)
        return;
    for (struct child *child = c->first, *next; child; child = next) {
        next = child->next;
        child_free(child);
    }
    if (c->signal)
        event_free(c->signal);
    free(c);
}

int fc_children_watch(struct fc_children *c, pid_t pid, fc_child_ended *ended,
                      void *user)
{
    struct child *child = calloc(1, sizeof(*child));
    if (!child)
        return FC_ENOMEM;
    *child = (struct child){
        .pid = pid, .ended = ended, .user = user, .next = c->first
    };
    c->first = child;
    /* It may have ended before it was watched. */
    event_active(c->signal, EV_SIGNAL, 1);
    return 0;
}

static int set_up(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr,
                  int in, int out, int err)
{
    const int fds[3] = { in, out, err };
    int r = 0;
    for (int i = 0; i < 3 && !r; i++) {
        if (fds[i] < 0)
            r = posix_spawn_file_actions_addopen(files, i, "/dev/null", O_RDWR,
                                                 0);
        else
            r = posix_spawn_file_actions_adddup2(files, fds[i], i);
    }
    if (!r)
        r = posix_spawn_file_actions_addclosefrom_np(files, 3);

    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    if (!r)
        r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP |
                                               POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETSIGDEF);
    if (!r)
        r = posix_spawnattr_setpgroup(attr, 0);
    if (!r)
        r = posix_spawnattr_setsigmask(attr, &none);
    if (!r)
        r = posix_spawnattr_setsigdefault(attr, &all);
    return r;
}

pid_t fc_children_run(struct fc_children *c, const char *const *argv, int in,
                      int out, int err, fc_child_ended *ended, void *user)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t pid = -1;

    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    int r = set_up(&files, &attr, in, out, err);
    if (!r)
        r = posix_spawnp(&pid, argv[0], &files, &attr,
                         (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (r) {
        errno = r;
        return FC_ESYS;
    }
    if (fc_children_watch(c, pid, ended, user)) {
        kill(-pid, SIGKILL);
        waitpid(pid, NULL, 0);
        errno = ENOMEM;
        return FC_ESYS;
    }
    return pid;
}

void fc_children_forget(struct fc_children *c, pid_t pid)
{
    for (struct child *child = c->first; child; child = child->next)
        if (child->pid == pid)
            child->ended = NULL;
}

/* While it is in the list it was not waited for: its number is its own. */
static void on_kill(evutil_socket_t fd, short what, void *arg)
{
    struct child *child = arg;
    (void)fd;
    (void)what;
    kill(-child->pid, SIGKILL);
}

void fc_children_end(struct fc_children *c, pid_t pid)
{
    const struct timeval delay = { KILL_AFTER_S, 0 };
    struct child *child = c->first;
    while (child && child->pid != pid)
        child = child->next;
    if (!child || child->kill)
        return;
    kill(-pid, SIGTERM);
    child->kill = evtimer_new(c->base, on_kill, child);
    if (!child->kill || evtimer_add(child->kill, &delay) < 0)
        kill(-pid, SIGKILL);
}
