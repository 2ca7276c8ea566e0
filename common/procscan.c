/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "procscan.h"

/* libxl starts HELPER MODE io_fd other_fd domid ...; the first five words of
 * any helper's command line fit by far. */
#define CMDLINE_BYTES 4096
#define MODE_WORD 1
#define DOMID_WORD 4

typedef bool match_fn(const char *proc_root, pid_t pid, const void *what);

/* Reads PROC_ROOT/PID/NAME, ends it with a NUL. Returns its length or -1. */
static ssize_t read_proc(const char *proc_root, pid_t pid, const char *name,
                         char *buf, size_t size)
{
    char path[512];
    int n =
        snprintf(path, sizeof(path), "%s/%ld/%s", proc_root, (long)pid, name);
    if (n < 0 || (size_t)n >= sizeof(path))
        return -1;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;

    size_t used = 0;
    while (used < size - 1) {
        ssize_t r = read(fd, buf + used, size - 1 - used);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        used += (size_t)r;
    }
    buf[used] = '\0';
    fc_close(&fd);
    return (ssize_t)used;
}

/* Word `index` of NUL-separated words, or NULL. */
static const char *word_at(const char *words, size_t len, unsigned index)
{
    const char *p = words, *end = words + len;

    while (index-- && p < end)
        p += strlen(p) + 1;
    return p < end ? p : NULL;
}

static pid_t scan(const char *proc_root, match_fn *match, const void *what)
{
    DIR *dir = opendir(proc_root);
    if (!dir)
        return FC_ESYS;

    pid_t found = 0;
    struct dirent *entry;
    while (!found && (entry = readdir(dir))) {
        char *end;
        errno = 0;
        long pid = strtol(entry->d_name, &end, 10);
        if (end == entry->d_name || *end || errno || pid <= 0 ||
            pid > INT32_MAX)
            continue;
        if (match(proc_root, (pid_t)pid, what))
            found = (pid_t)pid;
    }
    closedir(dir);
    return found;
}

struct helper {
    const char *mode;
    uint32_t domid;
};

static bool is_helper(const char *proc_root, pid_t pid, const void *what)
{
    const struct helper *helper = what;
    char words[CMDLINE_BYTES], domid[16];
    ssize_t len = read_proc(proc_root, pid, "cmdline", words, sizeof(words));
    if (len <= 0)
        return false;

    const char *mode = word_at(words, (size_t)len, MODE_WORD);
    const char *domain = word_at(words, (size_t)len, DOMID_WORD);
    snprintf(domid, sizeof(domid), "%u", helper->domid);
    return mode && domain && !strcmp(mode, helper->mode) &&
           !strcmp(domain, domid);
}

pid_t fc_procscan_saver(const char *proc_root, uint32_t domid)
{
    struct helper helper = { "--save-domain", domid };
    return scan(proc_root, is_helper, &helper);
}

pid_t fc_procscan_restorer(const char *proc_root, uint32_t domid)
{
    struct helper helper = { "--restore-domain", domid };
    return scan(proc_root, is_helper, &helper);
}

static bool is_program(const char *words, const char *name)
{
    const char *base = strrchr(words, '/');
    return !strcmp(base ? base + 1 : words, name);
}

struct program {
    const char *name, *word;
};

static bool has_word(const char *proc_root, pid_t pid, const void *what)
{
    const struct program *program = what;
    char words[CMDLINE_BYTES];
    ssize_t len = read_proc(proc_root, pid, "cmdline", words, sizeof(words));
    if (len <= 0 || !is_program(words, program->name))
        return false;
    const char *word;
    for (unsigned i = 1; (word = word_at(words, (size_t)len, i)); i++)
        if (!strcmp(word, program->word))
            return true;
    return false;
}

pid_t fc_procscan_program(const char *proc_root, const char *name,
                          const char *word)
{
    struct program program = { name, word };
    return scan(proc_root, has_word, &program);
}

struct child {
    pid_t parent;
    const char *name;
};

static bool is_child(const char *proc_root, pid_t pid, const void *what)
{
    const struct child *child = what;
    char stat[512], words[CMDLINE_BYTES];
    if (read_proc(proc_root, pid, "stat", stat, sizeof(stat)) <= 0)
        return false;

    /* "PID (NAME) STATE PPID": the name may hold anything, so from its end */
    const char *p = strrchr(stat, ')');
    long parent;
    if (!p || sscanf(p + 1, " %*c %ld", &parent) != 1 ||
        parent != child->parent)
        return false;

    if (read_proc(proc_root, pid, "cmdline", words, sizeof(words)) <= 0)
        return false;
    return is_program(words, child->name);
}

pid_t fc_procscan_child(const char *proc_root, pid_t parent, const char *name)
{
    struct child child = { parent, name };
    return scan(proc_root, is_child, &child);
}
