/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "task.h"

#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "io.h"

/*
 * Output goes to sealed memory files: they need no reading while the program
 * runs, and a program that says too much gets an error.
 */
struct fc_task {
    struct fc_children *children;
    pid_t pid;
    struct event *timeout;
    int out, err;
    bool timed_out;
    fc_task_done *done;
    void *user;
};

static void task_free(struct fc_task *t)
{
    if (t->timeout)
        event_free(t->timeout);
    fc_close(&t->out);
    fc_close(&t->err);
    free(t);
}

/* What was written, in memory of the caller's; "" without memory. */
static const char *text_of(int fd, char **memory_r)
{
    char *text = malloc(FC_TASK_OUTPUT + 1);
    *memory_r = text;
    if (!text)
        return "";
    ssize_t n = pread(fd, text, FC_TASK_OUTPUT, 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void on_ended(void *user, pid_t pid, int status)
{
    struct fc_task *t = user;
    char *out, *err;
    int rc = WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : FC_EPEER;
    (void)pid;
    if (t->timed_out)
        rc = FC_ETIMEOUT;
    const char *out_text = text_of(t->out, &out);
    const char *err_text = text_of(t->err, &err);
    fc_task_done *done = t->done;
    void *done_user = t->user;
    task_free(t);
    done(done_user, rc, status, out_text, err_text);
    free(out);
    free(err);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct fc_task *t = arg;
    (void)fd;
    (void)what;
    t->timed_out = true;
    fc_task_end(t);
}

static int start(struct fc_task *t, struct event_base *base,
                 const char *const *argv, const char *input,
                 unsigned timeout_ms)
{
    const struct timeval limit = { timeout_ms / 1000,
                                   timeout_ms % 1000 * 1000 };
    int in = -1;
    t->out = fc_memfd_new("forecopy-out", FC_TASK_OUTPUT);
    t->err = fc_memfd_new("forecopy-err", FC_TASK_OUTPUT);
    t->timeout = evtimer_new(base, on_timeout, t);
    if (t->out < 0 || t->err < 0)
        return FC_ESYS;
    if (!t->timeout || evtimer_add(t->timeout, &limit) < 0)
        return FC_ENOMEM;
    if (input) {
        in = fc_memfd_new("forecopy-in", strlen(input));
        if (in < 0 || pwrite(in, input, strlen(input), 0) < 0) {
            fc_close(&in);
            return FC_ESYS;
        }
    }
    t->pid =
        fc_children_run(t->children, argv, in, t->out, t->err, on_ended, t);
    fc_close(&in);
    return t->pid < 0 ? FC_ESYS : 0;
}

int fc_task_run(struct event_base *base, struct fc_children *children,
                const char *const *argv, const char *input, unsigned timeout_ms,
                fc_task_done *done, void *user, struct fc_task **task_r)
{
    struct fc_task *t = calloc(1, sizeof(*t));
    if (!t)
        return FC_ENOMEM;
    *t = (struct fc_task){
        .children = children, .out = -1, .err = -1, .done = done, .user = user
    };
    int rc = start(t, base, argv, input, timeout_ms);
    if (rc) {
        int saved = errno;
        task_free(t);
        errno = saved;
        return rc;
    }
    *task_r = t;
    return 0;
}

void fc_task_end(struct fc_task *t)
{
    fc_children_end(t->children, t->pid);
}

void fc_task_leave(struct fc_task *t)
{
    if (!t)
        return;
    fc_children_forget(t->children, t->pid);
    task_free(t);
}

void fc_task_last_line(const char *text, char *line, size_t cap)
{
    const char *end = text + strlen(text), *start;
    while (end > text && (end[-1] == '\n' || end[-1] == ' '))
        end--;
    for (start = end; start > text && start[-1] != '\n'; start--)
        ;
    size_t len = (size_t)(end - start);
    if (len >= cap)
        len = cap - 1;
    for (size_t i = 0; i < len; i++)
        line[i] =
            (unsigned char)start[i] < 0x20 || start[i] == 0x7f ? '?' : start[i];
    line[len] = '\0';
}
