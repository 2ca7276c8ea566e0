/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Traces, ours and imported: what can be read can be written and read again,
 * and says the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Copies the records that are left of `trace`, at most so many. */
static void copy(struct fc_trace *trace, int fd, unsigned left)
{
    struct fc_trace_writer *writer;
    struct fc_trace_record record;
    struct fc_trace_problem problem;
    if (fc_trace_writer_new(fd, fc_trace_head(trace), &writer))
        abort();
    while (left-- && fc_trace_next(trace, &record, &problem) == 1)
        if (fc_trace_put(writer, &record))
            abort();
    if (fc_trace_finish(writer))
        abort();
    fc_trace_writer_free(writer);
}

static void check(int fd, unsigned left)
{
    struct fc_trace *trace;
    struct fc_trace_record record;
    struct fc_trace_problem problem;
    int rc;
    lseek(fd, 0, SEEK_SET);
    if (fc_trace_open_fd(dup(fd), &trace, &problem))
        abort();
    while (left-- && (rc = fc_trace_next(trace, &record, &problem)) != 0)
        if (rc < 0)
            abort();
    fc_trace_close(trace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_trace *trace;
    struct fc_trace_problem problem;
    int fd = fc_memfd_new("fuzz", size), out = -1;
    if (fd < 0)
        return 0;
    if (pwrite(fd, data, size, 0) != (ssize_t)size ||
        fc_trace_open_fd(dup(fd), &trace, &problem))
        goto out;
    FILE *file = tmpfile();
    if (file) {
        out = dup(fileno(file));
        fclose(file);
        copy(trace, out, 5000);
        check(out, 5000);
    }
    fc_trace_close(trace);
out:
    fc_close(&out);
    fc_close(&fd);
    return 0;
}
