/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Imports block traces in CSV: time_us,op,offset_bytes,length_bytes. */
#include <string.h>

#include "err.h"
#include "trace_int.h"

#define LINE_BYTES 128

static const char header[] = "time_us,op,offset_bytes,length_bytes";

static bool csv_is(const uint8_t *start, size_t len)
{
    return len >= strlen(header) && !memcmp(start, header, strlen(header));
}

static int csv_open(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    char line[LINE_BYTES];
    int rc = fc_trace_input_line(trace->in, line, sizeof(line));
    if (rc != 1 || strcmp(line, header))
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "the first line is not \"%s\"", header);
    trace->head.kind = FC_TRACE_BLOCK;
    trace->head.unit_shift = 9;
    return 0;
}

/* Digits up to `stop`; moves *text past it. False when there are none, too
 * many, or something else. */
static bool field(const char **text, char stop, uint64_t *value_r)
{
    const char *p = *text;
    uint64_t v = 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (v >= UINT64_MAX / 10 - 1)
            return false;
        v = 10 * v + (uint64_t)(*p - '0');
    }
    if (p == *text || *p != stop)
        return false;
    *text = stop ? p + 1 : p;
    *value_r = v;
    return true;
}

static int csv_next(struct fc_trace *trace, struct fc_trace_record *record,
                    struct fc_trace_problem *problem)
{
    char line[LINE_BYTES];
    uint64_t time_us, offset, length;
    int rc = fc_trace_input_line(trace->in, line, sizeof(line));
    if (rc == 0)
        trace->whole = true;
    if (rc == 0)
        return 0;
    if (rc < 0)
        return fc_trace_fail_input(trace, problem, rc, "a line");
    const char *p = line;
    bool ok = field(&p, ',', &time_us);
    char op = ok ? *p : '\0';
    enum fc_trace_type type = op == 'R'   ? FC_TRACE_READ
                              : op == 'W' ? FC_TRACE_WRITE
                                          : FC_TRACE_DISCARD;
    ok = ok && op && strchr("RWD", op) && p[1] == ',';
    p += 2;
    if (!ok || !field(&p, ',', &offset) || !field(&p, '\0', &length))
        return fc_trace_fail(trace, problem, FC_EFORMAT,
                             "the line before is not a request");
    rc = fc_trace_set_time(trace, time_us, problem);
    if (rc)
        return rc;
    return fc_trace_request(trace, record, type, offset, length, problem);
}

static void csv_close(struct fc_trace *trace)
{
    (void)trace;
}

const struct fc_trace_ops fc_trace_csv = {
    .name = "csv",
    .is = csv_is,
    .open = csv_open,
    .next = csv_next,
    .close = csv_close,
};
