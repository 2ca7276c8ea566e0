/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A recording would miss pages or invent some, or a bad disk would stop the
 * daemon. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "io.h"
#include "recorder.h"

#define PFNS 200u
#define NONE UINT64_MAX

static const struct fc_trace_head head = {
    .kind = FC_TRACE_MEMORY,
    .unit_shift = 12,
    .tick_us = 250000,
    .units = PFNS,
    .start_s = 1234567890,
};

static int new_file(void)
{
    int fd = memfd_create("trace", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    return fd;
}

static struct fc_recorder *record_to(int fd)
{
    struct fc_recorder *r = NULL;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(fc_recorder_new(copy, &head, &r), 0);
    return r;
}

static struct fc_recorder_state end_of(struct fc_recorder *r)
{
    struct fc_recorder_state s;
    for (fc_recorder_state(r, &s); !s.done; fc_recorder_state(r, &s))
        usleep(1000);
    return s;
}

static void next(struct fc_trace *trace, struct fc_trace_record *record)
{
    struct fc_trace_problem problem;
    assert_int_equal(fc_trace_next(trace, record, &problem), 1);
}

static void test_whole_trace(void **state)
{
    uint64_t bits[4] = { 0 }, pages;
    struct fc_trace_problem problem;
    struct fc_trace_rates rates = { 1500, 1, 2, 3, 4 };
    struct fc_trace_record t;
    struct fc_trace *trace;
    (void)state;
    int fd = new_file();
    struct fc_recorder *r = record_to(fd);

    bits[0] = 7; /* 0-2, less 1 */
    bits[0] |= 1ull << 63;
    bits[1] = 1;           /* 63-64 */
    bits[3] = 0xfull << 6; /* 198-199, and two beyond the end */
    assert_int_equal(fc_recorder_rates(r, 250000, &rates), 0);
    assert_int_equal(fc_recorder_tick(r, 250000, bits, PFNS, 1, &pages), 0);
    assert_int_equal(pages, 6);
    memset(bits, 0, sizeof(bits));
    assert_int_equal(fc_recorder_tick(r, 500000, bits, PFNS, NONE, &pages), 0);
    assert_int_equal(pages, 0);
    fc_recorder_end(r);
    struct fc_recorder_state s = end_of(r);
    assert_int_equal(s.rc, 0);
    assert_int_equal(s.bytes, lseek(fd, 0, SEEK_END));
    fc_recorder_free(r);

    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fc_trace_open_fd(fd, &trace, &problem), 0);
    assert_memory_equal(&fc_trace_head(trace)->units, &head.units, 8);
    assert_int_equal(fc_trace_head(trace)->start_s, 1234567890);
    next(trace, &t);
    assert_int_equal(t.type, FC_TRACE_RATES);
    assert_int_equal(t.rates.cpu_permille, 1500);
    assert_int_equal(t.rates.vbd_wr, 4);
    next(trace, &t);
    assert_int_equal(t.type, FC_TRACE_TICK);
    assert_int_equal(t.time_us, 250000);
    const struct fc_trace_run want[] = {
        { 0, 1 }, { 2, 1 }, { 63, 2 }, { 198, 2 }
    };
    assert_int_equal(t.run_count, 4);
    assert_memory_equal(t.run, want, sizeof(want));
    next(trace, &t);
    assert_int_equal(t.time_us, 500000);
    assert_int_equal(t.run_count, 0);
    assert_int_equal(fc_trace_next(trace, &t, &problem), 0);
    assert_true(fc_trace_whole(trace));
    fc_trace_close(trace);
}

/* A full disk is told as such, and what comes after is refused. */
static void test_full_file(void **state)
{
    uint64_t bits[4] = { 1 }, pages;
    (void)state;
    int fd = new_file();
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
    struct fc_recorder *r = record_to(fd);
    struct fc_recorder_state s = end_of(r);
    assert_int_equal(s.rc, FC_EIO);
    assert_int_equal(s.error, EPERM);
    assert_int_equal(s.bytes, 0);
    assert_int_equal(fc_recorder_tick(r, 1, bits, PFNS, NONE, &pages), FC_EIO);
    fc_recorder_free(r);
    close(fd);
}

/* More than may wait must not be taken, whatever the guest does. */
static void test_bounded(void **state)
{
    struct fc_recorder *r = NULL;
    const uint64_t words = FC_RECORDER_QUEUE / 16 / 32 + 1; /* 32 runs each */
    uint64_t *bits = malloc(words * 8), pages;
    struct fc_trace_head large = head;
    struct fc_trace_summary summary;
    struct fc_trace_problem problem;
    char path[32];
    (void)state;
    assert_non_null(bits);
    memset(bits, 0x55, words * 8);
    large.units = words * 64;
    int fd = new_file();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_int_equal(fc_recorder_new(fcntl(fd, F_DUPFD_CLOEXEC, 0), &large, &r),
                     0);
    assert_int_equal(fc_recorder_tick(r, 1, bits, words * 64, NONE, &pages),
                     FC_EFULL);
    assert_int_equal(fc_recorder_tick(r, 2, bits, 640, NONE, &pages), 0);
    fc_recorder_end(r);
    assert_int_equal(end_of(r).rc, 0);
    fc_recorder_free(r);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fc_trace_scan(path, &summary, &problem), 0);
    assert_true(summary.whole);
    assert_int_equal(summary.ticks, 1);
    assert_int_equal(summary.touched, 320);
    free(bits);
    close(fd);
}

/* A pipe could block, and a file with something in it would be spoilt. */
static void test_refused(void **state)
{
    struct fc_recorder *r = NULL;
    int ends[2];
    (void)state;
    assert_int_equal(fc_recorder_new(-1, &head, &r), FC_EINVAL);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fc_recorder_new(ends[1], &head, &r), FC_EINVAL);
    close(ends[0]);
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(fc_recorder_new(fd, &head, &r), FC_EINVAL);
    fd = new_file();
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(fc_recorder_new(fd, &head, &r), FC_EINVAL);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was taken over */
    fd = new_file();
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(readable >= 0);
    assert_int_equal(fc_recorder_new(readable, &head, &r), FC_EINVAL);
    close(fd);
    assert_null(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_trace),
        cmocka_unit_test(test_full_file),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
