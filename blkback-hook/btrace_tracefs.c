/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tracing by the kernel's own event block_bio_queue: an instance of tracefs
 * with a filter on the devices, and each processor's buffer read raw. Dearer
 * than BPF, as each request is written down and read. An instance carries the
 * number of the process that made it; those of processes that are gone are
 * removed first.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "btrace.h"
#include "err.h"
#include "io.h"

#define ROOT "/sys/kernel/tracing"
#define PREFIX "forecopy-"
#define EVENT "events/block/block_bio_queue/"
#define BUFFER_KB "4096" /* of each processor */
#define TEXT_MOST 16384u
#define PAGE_MOST 65536u
#define PATH_MOST 192u

struct tracefs {
    struct fc_btrace *t;
    const struct fc_btrace_config *config;
    char dir[PATH_MOST];
    struct fc_btrace_layout layout;
    int *fd; /* [cpus]; -1: not there */
    long cpus;
    uint64_t lost;
    uint8_t page[PAGE_MOST];
};

static int fail(char why[FC_BTRACE_WHY], const char *doing)
{
    snprintf(why, FC_BTRACE_WHY, "%.100s: %s", doing, strerror(errno));
    return FC_ESYS;
}

static int read_text(const char *dir, const char *name, char text[TEXT_MOST])
{
    char path[2 * PATH_MOST];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FC_ESYS;
    size_t used = 0;
    ssize_t n;
    while (used < TEXT_MOST - 1 &&
           (n = read(fd, text + used, TEXT_MOST - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = 0;
    fc_close(&fd);
    return used ? 0 : FC_ESYS;
}

static int write_text(const struct tracefs *f, const char *name,
                      const char *text)
{
    char path[2 * PATH_MOST];
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);
    if (fd < 0)
        return FC_ESYS;
    ssize_t n = write(fd, text, strlen(text));
    int error = errno;
    fc_close(&fd);
    errno = error;
    return n == (ssize_t)strlen(text) ? 0 : FC_ESYS;
}

/* A host without systemd has it not mounted. */
static int mount_once(char why[FC_BTRACE_WHY])
{
    if (access(ROOT "/instances", F_OK) == 0)
        return 0;
    if (mount("tracefs", ROOT, "tracefs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL))
        return fail(why, "tracefs cannot be mounted");
    return access(ROOT "/instances", F_OK) ? fail(why, ROOT "/instances") : 0;
}

static void remove_left_over(void)
{
    DIR *d = opendir(ROOT "/instances");
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char path[512];
        long pid = strncmp(e->d_name, PREFIX, strlen(PREFIX))
                       ? 0
                       : strtol(e->d_name + strlen(PREFIX), NULL, 10);
        if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        snprintf(path, sizeof(path), ROOT "/instances/%s", e->d_name);
        rmdir(path);
    }
    if (d)
        closedir(d);
}

/* The event names disks, not partitions. */
static int set_filter(const struct tracefs *f)
{
    char text[FC_BLOCKBATCH_DEVICES * 24], *at = text;
    const struct fc_btrace_config *c = f->config;
    for (uint32_t i = 0; i < c->targets; i++)
        at += snprintf(at, 24, "%sdev == %u", i ? " || " : "",
                       c->target[i].disk_major << 20 | c->target[i].disk_minor);
    return write_text(f, EVENT "filter", text);
}

static int find_layout(struct tracefs *f, char why[FC_BTRACE_WHY])
{
    char event[TEXT_MOST], page[TEXT_MOST];
    if (read_text(f->dir, EVENT "format", event) ||
        read_text(ROOT, "events/header_page", page))
        return fail(why, "the event's format cannot be read");
    if (fc_btrace_layout_parse(event, page, &f->layout)) {
        snprintf(why, FC_BTRACE_WHY, "the event's format is not understood");
        return FC_EFORMAT;
    }
    return 0;
}

static int open_buffers(struct tracefs *f, char why[FC_BTRACE_WHY])
{
    bool any = false;
    f->cpus = sysconf(_SC_NPROCESSORS_CONF);
    f->fd = f->cpus > 0 ? calloc((size_t)f->cpus, sizeof(*f->fd)) : NULL;
    if (!f->fd)
        return FC_ENOMEM;
    for (long i = 0; i < f->cpus; i++) {
        char path[2 * PATH_MOST];
        snprintf(path, sizeof(path), "%s/per_cpu/cpu%ld/trace_pipe_raw", f->dir,
                 i);
        f->fd[i] = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        any = any || f->fd[i] >= 0;
    }
    return any ? 0 : fail(why, "no buffer can be opened");
}

static void tracefs_close(void *state)
{
    struct tracefs *f = state;
    if (f->dir[0])
        write_text(f, EVENT "enable", "0");
    for (long i = 0; f->fd && i < f->cpus; i++)
        fc_close(&f->fd[i]);
    if (f->dir[0])
        rmdir(f->dir);
    free(f->fd);
    free(f);
}

static int start(struct tracefs *f, char why[FC_BTRACE_WHY])
{
    int rc = mount_once(why);
    if (rc)
        return rc;
    remove_left_over();
    snprintf(f->dir, sizeof(f->dir), ROOT "/instances/" PREFIX "%ld",
             (long)getpid());
    if (mkdir(f->dir, 0700)) {
        f->dir[0] = 0;
        return fail(why, "no instance of tracefs");
    }
    if ((rc = find_layout(f, why)))
        return rc;
    if (write_text(f, "buffer_size_kb", BUFFER_KB))
        return fail(why, "no buffer");
    if (write_text(f, "trace_clock", "mono") || set_filter(f))
        return fail(why, "the filter is refused");
    if ((rc = open_buffers(f, why)))
        return rc;
    return write_text(f, EVENT "enable", "1")
               ? fail(why, "the event cannot be switched on")
               : 0;
}

static int tracefs_open(struct fc_btrace *t, const struct fc_btrace_config *c,
                        void **state_r, char why[FC_BTRACE_WHY])
{
    struct tracefs *f = calloc(1, sizeof(*f));
    if (!f)
        return FC_ENOMEM;
    f->t = t;
    f->config = c;
    int rc = start(f, why);
    if (rc) {
        tracefs_close(f);
        return rc;
    }
    *state_r = f;
    return 0;
}

static uint64_t number_after(const char *text, const char *label)
{
    const char *at = strstr(text, label);
    return at ? strtoull(at + strlen(label), NULL, 10) : 0;
}

static void count_lost(struct tracefs *f)
{
    uint64_t lost = 0;
    for (long i = 0; i < f->cpus; i++) {
        char name[64], text[TEXT_MOST];
        snprintf(name, sizeof(name), "per_cpu/cpu%ld/stats", i);
        if (f->fd[i] < 0 || read_text(f->dir, name, text))
            continue;
        lost += number_after(text, "\noverrun: ") +
                number_after(text, "\ndropped events: ");
    }
    f->lost = lost > f->lost ? lost : f->lost;
}

static int tracefs_collect(void *state, bool counts)
{
    struct tracefs *f = state;
    for (long i = 0; i < f->cpus; i++) {
        ssize_t n = 0;
        while (f->fd[i] >= 0 &&
               (n = read(f->fd[i], f->page, sizeof(f->page))) > 0)
            fc_btrace_page_parse(f->t, f->config, &f->layout, f->page,
                                 (size_t)n);
        if (f->fd[i] >= 0 && n < 0 && errno != EAGAIN && errno != EINTR)
            return FC_ESYS;
    }
    if (counts)
        count_lost(f);
    return 0;
}

static uint64_t tracefs_lost(void *state)
{
    return ((struct tracefs *)state)->lost;
}

const struct fc_btrace_means_ops fc_btrace_tracefs = {
    .means = FC_BLOCKBATCH_TRACEFS,
    .open = tracefs_open,
    .collect = tracefs_collect,
    .lost = tracefs_lost,
    .close = tracefs_close,
};
