/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "err.h"
#include "trace_int.h"
#include "wire.h"

#define KNOW_BYTES 128u
#define SECTOR 512u

/* vscsi last: it has no magic of its own, only plausible numbers. */
static const struct fc_trace_ops *const formats[] = {
    &fc_trace_native,   &fc_trace_drec,   &fc_trace_csv,
    &fc_trace_blktrace, &fc_trace_vscsi1, &fc_trace_vscsi2,
};

int fc_trace_fail(const struct fc_trace *trace,
                  struct fc_trace_problem *problem, int rc, const char *fmt,
                  ...)
{
    int n = snprintf(problem->text, sizeof(problem->text), "at byte %llu: ",
                     (unsigned long long)fc_trace_input_offset(trace->in));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(problem->text + n, sizeof(problem->text) - (size_t)n, fmt, ap);
    va_end(ap);
    return rc;
}

int fc_trace_fail_input(const struct fc_trace *trace,
                        struct fc_trace_problem *problem, int rc,
                        const char *what)
{
    if (rc == FC_EIO)
        return fc_trace_fail(trace, problem, rc, "cannot read: %s",
                             strerror(errno));
    if (rc == FC_EEOF || rc == 0)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "the file ends inside %s", what);
    return fc_trace_fail(trace, problem, rc, "malformed %s", what);
}

int fc_trace_add_run(struct fc_trace *trace, uint64_t first, uint64_t count)
{
    uint64_t units = trace->head.units ? trace->head.units : FC_TRACE_MAX_UNITS;
    if (count == 0 || first >= units || count > units - first)
        return FC_EFORMAT;
    if (trace->runs == trace->run_room) {
        uint32_t room = trace->run_room ? 2 * trace->run_room : 64;
        struct fc_trace_run *run = realloc(trace->run, room * sizeof(*run));
        if (!run)
            return FC_ENOMEM;
        trace->run = run;
        trace->run_room = room;
    }
    trace->run[trace->runs++] = (struct fc_trace_run){ first, count };
    return 0;
}

static int by_first(const void *a, const void *b)
{
    const struct fc_trace_run *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

void fc_trace_tidy_runs(struct fc_trace *trace)
{
    struct fc_trace_run *run = trace->run;
    bool ascending = true;
    for (uint32_t i = 1; i < trace->runs && ascending; i++)
        ascending = run[i - 1].first + run[i - 1].count < run[i].first;
    if (ascending)
        return;
    qsort(run, trace->runs, sizeof(*run), by_first);
    uint32_t n = 0;
    for (uint32_t i = 1; i < trace->runs; i++) {
        uint64_t end = run[n].first + run[n].count;
        if (run[i].first > end) {
            run[++n] = run[i];
        } else if (run[i].first + run[i].count > end) {
            run[n].count = run[i].first + run[i].count - run[n].first;
        }
    }
    trace->runs = n + 1;
}

int fc_trace_set_time(struct fc_trace *trace, uint64_t time_us,
                      struct fc_trace_problem *problem)
{
    if (time_us >= FC_TRACE_MAX_TIME_US)
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "a time of %llu us is out of range",
                             (unsigned long long)time_us);
    if (time_us + FC_TRACE_BACKWARDS_US < trace->time_us)
        return fc_trace_fail(
            trace, problem, FC_EFORMAT, "time falls from %llu to %llu us",
            (unsigned long long)trace->time_us, (unsigned long long)time_us);
    if (time_us > trace->time_us)
        trace->time_us = time_us;
    return 0;
}

int fc_trace_request(struct fc_trace *trace, struct fc_trace_record *record,
                     enum fc_trace_type type, uint64_t offset_bytes,
                     uint64_t length_bytes, struct fc_trace_problem *problem)
{
    uint64_t cap = FC_TRACE_MAX_UNITS * SECTOR;
    trace->runs = 0;
    if (offset_bytes >= cap || length_bytes > cap - offset_bytes)
        return fc_trace_fail(
            trace, problem, FC_EFORMAT, "a request of %llu bytes at %llu",
            (unsigned long long)length_bytes, (unsigned long long)offset_bytes);
    uint64_t first = offset_bytes / SECTOR;
    uint64_t end = (offset_bytes + length_bytes + SECTOR - 1) / SECTOR;
    int rc = fc_trace_add_run(trace, first, end > first ? end - first : 1);
    if (rc)
        return fc_trace_fail(trace, problem, rc, "a request at the end: %s",
                             fc_strerror(rc));
    *record = (struct fc_trace_record){
        .type = type,
        .time_us = trace->time_us,
        .run = trace->run,
        .run_count = 1,
    };
    return 1;
}

static int know_format(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    size_t len;
    const uint8_t *start = fc_trace_input_peek(trace->in, KNOW_BYTES, &len);
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (formats[i]->is(start, len)) {
            trace->ops = formats[i];
            return trace->ops->open(trace, problem);
        }
    return fc_trace_fail(trace, problem, FC_EFORMAT,
                         "not a trace of a known format");
}

int fc_trace_open_fd(int fd, struct fc_trace **trace_r,
                     struct fc_trace_problem *problem)
{
    int rc = FC_ENOMEM;
    struct fc_trace *trace = calloc(1, sizeof(*trace));
    if (trace) {
        rc = fc_trace_input_new(fd, &trace->in);
    } else {
        close(fd);
    }
    if (rc) {
        snprintf(problem->text, sizeof(problem->text), "%s",
                 rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
        free(trace);
        return rc;
    }
    rc = know_format(trace, problem);
    if (rc) {
        fc_trace_close(trace);
        return rc;
    }
    *trace_r = trace;
    return 0;
}

int fc_trace_open(const char *path, struct fc_trace **trace_r,
                  struct fc_trace_problem *problem)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(problem->text, sizeof(problem->text), "%s", strerror(errno));
        return FC_EIO;
    }
    return fc_trace_open_fd(fd, trace_r, problem);
}

void fc_trace_close(struct fc_trace *trace)
{
    if (!trace)
        return;
    if (trace->ops)
        trace->ops->close(trace);
    fc_trace_input_free(trace->in);
    free(trace->run);
    free(trace);
}

const struct fc_trace_head *fc_trace_head(const struct fc_trace *trace)
{
    return &trace->head;
}

const char *fc_trace_format(const struct fc_trace *trace)
{
    return trace->ops->name;
}

bool fc_trace_whole(const struct fc_trace *trace)
{
    return trace->whole;
}

int fc_trace_next(struct fc_trace *trace, struct fc_trace_record *record,
                  struct fc_trace_problem *problem)
{
    return trace->ops->next(trace, record, problem);
}

static void scan_record(struct fc_trace_summary *s, XXH3_state_t *hash,
                        const struct fc_trace_record *r)
{
    uint8_t word[16];
    fc_le_store(word, r->type, 8);
    fc_le_store(word + 8, r->time_us, 8);
    XXH3_64bits_update(hash, word, sizeof(word));
    bool used = r->type != FC_TRACE_PRESENT;
    for (uint32_t i = 0; i < r->run_count; i++) {
        uint64_t end = r->run[i].first + r->run[i].count;
        fc_le_store(word, r->run[i].first, 8);
        fc_le_store(word + 8, r->run[i].count, 8);
        XXH3_64bits_update(hash, word, sizeof(word));
        s->touched += used ? r->run[i].count : 0;
        if (end > s->head.units)
            s->head.units = end;
    }
    s->ticks += r->type == FC_TRACE_TICK;
    s->requests += r->type >= FC_TRACE_READ;
    s->last_us = r->time_us;
}

int fc_trace_scan(const char *path, struct fc_trace_summary *summary_r,
                  struct fc_trace_problem *problem)
{
    struct fc_trace *trace = NULL;
    struct fc_trace_record record;
    XXH3_state_t *hash = XXH3_createState();
    int rc = FC_ENOMEM;
    memset(summary_r, 0, sizeof(*summary_r));
    if (!hash) {
        snprintf(problem->text, sizeof(problem->text), "%s", fc_strerror(rc));
        goto out;
    }
    XXH3_64bits_reset(hash);
    rc = fc_trace_open(path, &trace, problem);
    if (rc)
        goto out;
    summary_r->head = trace->head;
    while ((rc = fc_trace_next(trace, &record, problem)) == 1)
        scan_record(summary_r, hash, &record);
    summary_r->hash = XXH3_64bits_digest(hash);
    summary_r->whole = fc_trace_whole(trace);
out:
    XXH3_freeState(hash);
    fc_trace_close(trace);
    return rc;
}
