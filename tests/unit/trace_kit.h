/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRACE_KIT_H
#define FC_TRACE_KIT_H

/* Reading traces in tests: include after cmocka.h. */
#include <unistd.h>

#include "io.h"
#include "trace.h"

static inline int file_of(const void *bytes, size_t len)
{
    int fd = fc_memfd_new("trace", len);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, 0), len);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* Reads to the end; the number of records, or the error. */
static inline int read_all(int fd, uint64_t *units_r, bool *whole_r)
{
    struct fc_trace *t;
    struct fc_trace_record r;
    struct fc_trace_problem problem = { "" };
    int rc = fc_trace_open_fd(fd, &t, &problem), n = 0;
    if (rc == 0) {
        while ((rc = fc_trace_next(t, &r, &problem)) == 1) {
            n++;
            for (uint32_t i = 0; units_r && i < r.run_count; i++)
                *units_r += r.run[i].count;
        }
        if (whole_r)
            *whole_r = fc_trace_whole(t);
        fc_trace_close(t);
    }
    if (rc)
        assert_true(problem.text[0] != '\0');
    return rc ? rc : n;
}

static inline void expect(struct fc_trace *t, enum fc_trace_type type,
                          uint64_t time_us, uint64_t first, uint64_t count)
{
    struct fc_trace_record r;
    struct fc_trace_problem problem;
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.type, type);
    assert_int_equal(r.time_us, time_us);
    assert_int_equal(r.run_count, 1);
    assert_int_equal(r.run[0].first, first);
    assert_int_equal(r.run[0].count, count);
}

static inline void expect_end(struct fc_trace *t)
{
    struct fc_trace_record r;
    struct fc_trace_problem problem;
    assert_int_equal(fc_trace_next(t, &r, &problem), 0);
    assert_true(fc_trace_whole(t));
    fc_trace_close(t);
}

#endif
