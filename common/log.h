/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LOG_H
#define FC_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Levels as in syslog(3), the four that are used. */
enum fc_level {
    FC_LOG_ERROR = 3,
    FC_LOG_WARN = 4,
    FC_LOG_INFO = 6,
    FC_LOG_DEBUG = 7,
};

/*
 * Where finished lines go besides the ring. `line` has no newline and no
 * control characters (they are shown as '?'). Called with the log's lock held:
 * a sink must not log.
 */
typedef void fc_log_sink(void *user, enum fc_level level, const char *line);

/*
 * Sets up the process's one log; call once from main before threads start.
 * With no sink set, lines go to stderr as "PROG: text".
 * Lines above `level` are kept in the ring but not handed to the sink.
 */
void fc_log_init(const char *prog, enum fc_level level);
void fc_log_set_sink(fc_log_sink *sink, void *user);
void fc_log_set_level(enum fc_level level);

/* "error", "warning", "info", "debug" to level; negative when unknown. */
int fc_log_level_parse(const char *name);
const char *fc_log_level_name(enum fc_level level);

/* Any thread. Lines longer than 1000 bytes are cut. */
void fc_log(enum fc_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void fc_vlog(enum fc_level level, const char *fmt, va_list ap);

#define fc_error(...) fc_log(FC_LOG_ERROR, __VA_ARGS__)
#define fc_warn(...) fc_log(FC_LOG_WARN, __VA_ARGS__)
#define fc_info(...) fc_log(FC_LOG_INFO, __VA_ARGS__)
#define fc_debug(...) fc_log(FC_LOG_DEBUG, __VA_ARGS__)

/*
 * Calls `each` for the last `lines` lines of the in-memory ring (1024 lines)
 * at or below `level`, oldest first. Each line: "2026-01-31 12:00:00.123
 * warning text". Any thread; `each` must not log.
 */
void fc_log_dump(unsigned lines, enum fc_level level,
                 void (*each)(void *user, const char *line), void *user);

#endif
