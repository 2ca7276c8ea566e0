/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>
#include <time.h>

#define RING_LINES 1024
#define LINE_BYTES 1024
#define TEXT_BYTES 1000

struct line {
    struct timeval at;
    enum fc_level level;
    char text[LINE_BYTES];
};

/* The process's log is the one piece of global state, as syslog's is. */
static struct {
    pthread_mutex_t lock;
    const char *prog;
    enum fc_level level;
    fc_log_sink *sink;
    void *user;
    unsigned long written;
    struct line ring[RING_LINES];
} the_log = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .prog = "forecopy",
    .level = FC_LOG_INFO,
};

static const struct {
    enum fc_level level;
    const char *name;
} names[] = {
    { FC_LOG_ERROR, "error" },
    { FC_LOG_WARN, "warning" },
    { FC_LOG_INFO, "info" },
    { FC_LOG_DEBUG, "debug" },
};

void fc_log_init(const char *prog, enum fc_level level)
{
    the_log.prog = prog;
    the_log.level = level;
}

void fc_log_set_sink(fc_log_sink *sink, void *user)
{
    pthread_mutex_lock(&the_log.lock);
    the_log.sink = sink;
    the_log.user = user;
    pthread_mutex_unlock(&the_log.lock);
}

void fc_log_set_level(enum fc_level level)
{
    pthread_mutex_lock(&the_log.lock);
    the_log.level = level;
    pthread_mutex_unlock(&the_log.lock);
}

int fc_log_level_parse(const char *name)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcasecmp(name, names[i].name))
            return names[i].level;
    return -1;
}

const char *fc_log_level_name(enum fc_level level)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].level == level)
            return names[i].name;
    return "unknown";
}

/* Text may quote what a guest or another host sent. */
static void scrub(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
}

void fc_vlog(enum fc_level level, const char *fmt, va_list ap)
{
    pthread_mutex_lock(&the_log.lock);
    struct line *l = &the_log.ring[the_log.written++ % RING_LINES];
    gettimeofday(&l->at, NULL);
    l->level = level;
    vsnprintf(l->text, TEXT_BYTES, fmt, ap);
    scrub(l->text);
    if (level <= the_log.level) {
        if (the_log.sink)
            the_log.sink(the_log.user, level, l->text);
        else
            fprintf(stderr, "%s: %s\n", the_log.prog, l->text);
    }
    pthread_mutex_unlock(&the_log.lock);
}

void fc_log(enum fc_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fc_vlog(level, fmt, ap);
    va_end(ap);
}

void fc_log_dump(unsigned lines, enum fc_level level,
                 void (*each)(void *user, const char *line), void *user)
{
    pthread_mutex_lock(&the_log.lock);
    unsigned long held =
        the_log.written < RING_LINES ? the_log.written : RING_LINES;
    unsigned long first = the_log.written - held, wanted = 0;
    for (unsigned long i = the_log.written; i > first && wanted < lines; i--)
        if (the_log.ring[(i - 1) % RING_LINES].level <= level && ++wanted)
            if (wanted == lines)
                first = i - 1;
    for (unsigned long i = first; i < the_log.written; i++) {
        const struct line *l = &the_log.ring[i % RING_LINES];
        if (l->level > level)
            continue;
        struct tm tm;
        char out[LINE_BYTES + 64], when[32];
        localtime_r(&l->at.tv_sec, &tm);
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
        snprintf(out, sizeof(out), "%s.%03ld %s %s", when,
                 (long)l->at.tv_usec / 1000, fc_log_level_name(l->level),
                 l->text);
        each(user, out);
    }
    pthread_mutex_unlock(&the_log.lock);
}
