/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <xxhash.h>
#include <zstd.h>

#include "err.h"
#include "golden.h"
#include "trace_kit.h"
#include "wire.h"

static const struct fc_trace_head memory_head = {
    .kind = FC_TRACE_MEMORY,
    .unit_shift = 12,
    .tick_us = 50000,
    .units = 4096,
    .start_s = 1700000000,
};
static const struct fc_trace_head block_head = {
    .kind = FC_TRACE_BLOCK,
    .unit_shift = 9,
};

static int scratch(void)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    int fd = dup(fileno(f));
    fclose(f);
    return fd;
}

static int put(struct fc_trace_writer *w, enum fc_trace_type type,
               uint64_t time_us, uint32_t n, const struct fc_trace_run *run)
{
    return fc_trace_put(
        w, &(struct fc_trace_record){
               .type = type, .time_us = time_us, .run_count = n, .run = run });
}

/* A small trace of memory with every type of record, whole. */
static int memory_file(void)
{
    const struct fc_trace_run present[] = { { 0, 4096 } };
    const struct fc_trace_run first[] = { { 0, 1 }, { 2, 3 }, { 4095, 1 } };
    const struct fc_trace_run second[] = { { 100, 300 } };
    const struct fc_trace_record rates = {
        .type = FC_TRACE_RATES,
        .time_us = 50000,
        .rates = { 1500, 1, 1ull << 40, 3, 4 },
    };
    struct fc_trace_writer *w;
    int fd = scratch();
    assert_int_equal(fc_trace_writer_new(fd, &memory_head, &w), 0);
    assert_int_equal(put(w, FC_TRACE_PRESENT, 0, 1, present), 0);
    assert_int_equal(put(w, FC_TRACE_TICK, 0, 3, first), 0);
    assert_int_equal(fc_trace_flush(w), 0);
    assert_int_equal(fc_trace_put(w, &rates), 0);
    assert_int_equal(put(w, FC_TRACE_TICK, 50000, 1, second), 0);
    assert_int_equal(put(w, FC_TRACE_TICK, 100001, 0, NULL), 0);
    assert_int_equal(fc_trace_finish(w), 0);
    fc_trace_writer_free(w);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* Would break: what was recorded is not what is trained on. */
static void gives_back_what_was_put(void **state)
{
    (void)state;
    struct fc_trace *t;
    struct fc_trace_record r;
    struct fc_trace_problem problem;
    assert_int_equal(fc_trace_open_fd(memory_file(), &t, &problem), 0);
    assert_memory_equal(fc_trace_head(t), &memory_head, sizeof(memory_head));
    assert_string_equal(fc_trace_format(t), "forecopy");
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.type, FC_TRACE_PRESENT);
    assert_int_equal(r.run[0].count, 4096);
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.type, FC_TRACE_TICK);
    assert_int_equal(r.run_count, 3);
    assert_int_equal(r.run[1].first, 2);
    assert_int_equal(r.run[1].count, 3);
    assert_int_equal(r.run[2].first, 4095);
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.type, FC_TRACE_RATES);
    assert_int_equal(r.rates.cpu_permille, 1500);
    assert_int_equal(r.rates.net_tx, 1ull << 40);
    assert_int_equal(r.rates.vbd_wr, 4);
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.time_us, 50000);
    assert_int_equal(r.run[0].first, 100);
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.time_us, 100001);
    assert_int_equal(r.run_count, 0);
    assert_int_equal(fc_trace_next(t, &r, &problem), 0);
    assert_int_equal(fc_trace_next(t, &r, &problem), 0);
    assert_true(fc_trace_whole(t));
    fc_trace_close(t);
}

/* Would break: a disk's requests come back elsewhere or in another order. */
static void gives_back_requests(void **state)
{
    (void)state;
    struct fc_trace_writer *w;
    struct fc_trace *t;
    struct fc_trace_problem problem;
    const struct fc_trace_run run[] = { { 1000, 8 }, { 1008, 8 }, { 0, 1 } };
    int fd = scratch();
    assert_int_equal(fc_trace_writer_new(fd, &block_head, &w), 0);
    assert_int_equal(put(w, FC_TRACE_READ, 5, 1, &run[0]), 0);
    assert_int_equal(put(w, FC_TRACE_WRITE, 5, 1, &run[1]), 0);
    assert_int_equal(put(w, FC_TRACE_DISCARD, 1ull << 40, 1, &run[2]), 0);
    assert_int_equal(put(w, FC_TRACE_TICK, 1ull << 40, 1, run), FC_EINVAL);
    assert_int_equal(put(w, FC_TRACE_READ, 1ull << 40, 2, run), FC_EINVAL);
    assert_int_equal(fc_trace_finish(w), 0);
    fc_trace_writer_free(w);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fc_trace_open_fd(fd, &t, &problem), 0);
    expect(t, FC_TRACE_READ, 5, 1000, 8);
    expect(t, FC_TRACE_WRITE, 5, 1008, 8);
    expect(t, FC_TRACE_DISCARD, 1ull << 40, 0, 1);
    expect_end(t);
}

/* Would break: a tick of a large guest does not fit, or the writer lets
 * through what its own reader refuses. */
static void large_and_wrong_records(void **state)
{
    (void)state;
    enum { RUNS = 3 * FC_TRACE_MAX_RUNS + 5 };
    struct fc_trace_head head = memory_head;
    struct fc_trace_run *run = calloc(RUNS, sizeof(*run));
    struct fc_trace_writer *w;
    uint64_t units = 0;
    bool whole = false;
    int fd = scratch();
    assert_non_null(run);
    head.units = FC_TRACE_MAX_UNITS;
    for (uint64_t i = 0; i < RUNS; i++)
        run[i] = (struct fc_trace_run){ i * 1000003, 1 + i % 7 };
    assert_int_equal(fc_trace_writer_new(fd, &head, &w), 0);
    assert_int_equal(put(w, FC_TRACE_TICK, 7, RUNS, run), 0);
    assert_int_equal(put(w, FC_TRACE_TICK, 6, 0, NULL), FC_EINVAL);
    assert_int_equal(put(w, FC_TRACE_READ, 8, 1, run), FC_EINVAL);
    run[1].first = run[0].first + run[0].count;
    assert_int_equal(put(w, FC_TRACE_TICK, 8, 2, run), FC_EINVAL);
    run[0] = (struct fc_trace_run){ FC_TRACE_MAX_UNITS - 1, 2 };
    assert_int_equal(put(w, FC_TRACE_TICK, 8, 1, run), FC_EINVAL);
    assert_int_equal(fc_trace_finish(w), 0);
    fc_trace_writer_free(w);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(read_all(fd, &units, &whole), 4);
    assert_true(whole);
    uint64_t want = 0;
    for (uint64_t i = 0; i < RUNS; i++)
        want += 1 + i % 7;
    assert_int_equal(units, want);
    head.tick_us = 0;
    assert_int_equal(fc_trace_writer_new(1, &head, &w), FC_EINVAL);
    free(run);
}

/* Would break: a recorder's crash costs the whole recording. */
static void cut_off_is_good_up_to_there(void **state)
{
    (void)state;
    uint8_t raw[1024];
    bool whole;
    int fd = memory_file();
    ssize_t len = read(fd, raw, sizeof(raw));
    close(fd);
    assert_in_range(len, 100, sizeof(raw) - 1);
    for (ssize_t cut = 64; cut <= len; cut++) {
        uint64_t units = 0;
        int n = read_all(file_of(raw, (size_t)cut), &units, &whole);
        assert_true(n == 0 || n == 2 || n == 5);
        assert_int_equal(units, n == 0 ? 0 : n == 2 ? 4101 : 4401);
        assert_int_equal(whole, cut == len);
    }
    assert_int_equal(read_all(file_of(raw, 63), NULL, NULL), FC_EFORMAT);
    raw[len] = 0;
    assert_int_equal(read_all(file_of(raw, (size_t)len + 1), NULL, NULL),
                     FC_EFORMAT);
}

/* Would break: a damaged file is taken for a trace. */
static void damage_is_refused(void **state)
{
    (void)state;
    uint8_t good[1024], raw[1024];
    int fd = memory_file();
    ssize_t len = read(fd, good, sizeof(good));
    close(fd);
    for (ssize_t at = 0; at < len; at++) {
        memcpy(raw, good, (size_t)len);
        raw[at] ^= 0x10;
        bool whole = true;
        uint64_t units = 0;
        int n = read_all(file_of(raw, (size_t)len), &units, &whole);
        /* a bit of zstd's own that changes nothing may pass */
        assert_true(n < 0 || (n < 5 && !whole) || (n == 5 && units == 4401));
    }
    memcpy(raw, good, (size_t)len);
    raw[8] = 2;
    assert_int_equal(read_all(file_of(raw, (size_t)len), NULL, NULL),
                     FC_EVERSION);
}

/* A frame with those records behind a header of 4096 pages. */
static int frame_of(const uint8_t *records, size_t len, uint32_t count)
{
    uint8_t raw[512] = "FCTRACE\n\1\0\1\14";
    fc_le_store(raw + 12, 50000, 4);
    fc_le_store(raw + 16, 4096, 8);
    fc_le_store(raw + 56, XXH3_64bits(raw, 56), 8);
    size_t packed = ZSTD_compress(raw + 88, sizeof(raw) - 88, records, len, 1);
    assert_false(ZSTD_isError(packed));
    fc_le_store(raw + 64, packed, 4);
    fc_le_store(raw + 68, len, 4);
    fc_le_store(raw + 72, count, 4);
    fc_le_store(raw + 80, XXH3_64bits(records, len), 8);
    return file_of(raw, 88 + packed);
}

/* Would break: records that lie reach beyond the guest or the frame. */
static void bad_records_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[16];
        uint8_t len;
        uint8_t count;
        int want;
    } cases[] = {
        { { 1, 0, 1, 5, 0 }, 5, 1, 1 },
        { { 1, 0, 2, 5, 0, 1, 3 }, 7, 1, 1 },
        { { 1, 0, 2, 5, 0, 0, 3 }, 7, 1, FC_EFORMAT },    /* no gap */
        { { 1, 0, 1, 5 }, 4, 1, FC_EFORMAT },             /* too short */
        { { 1, 0, 1, 5, 0, 9 }, 6, 1, FC_EFORMAT },       /* too long */
        { { 1, 0, 1, 5, 0 }, 5, 2, FC_EFORMAT },          /* too few */
        { { 1, 0, 1, 0xff, 0x1f, 0 }, 6, 1, 1 },          /* page 4095 */
        { { 1, 0, 1, 0xff, 0x1f, 1 }, 6, 1, FC_EFORMAT }, /* 4095, 4096 */
        { { 1, 0, 0x81, 0x80, 4 }, 5, 1, FC_EFORMAT },    /* 65537 runs */
        { { 0, 0, 0 }, 3, 1, FC_EFORMAT },
        { { 8, 0, 0 }, 3, 1, FC_EFORMAT },
        { { 5, 0, 0, 0 }, 4, 1, FC_EFORMAT }, /* a request */
        { { 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0 },
          12,
          1,
          FC_EFORMAT },
        { { 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0 },
          11,
          1,
          FC_EFORMAT },
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(
            read_all(frame_of(cases[i].bytes, cases[i].len, cases[i].count),
                     NULL, NULL),
            cases[i].want);
}

/* The file without zstd, whose output differs between its versions. */
static size_t unpacked(const uint8_t *raw, size_t len, uint8_t *out,
                       size_t room)
{
    struct fc_reader r = fc_reader_of(raw, len);
    struct fc_writer w = fc_writer_of(out, room);
    fc_put_bytes(&w, fc_get_bytes(&r, 64), 64);
    while (fc_reader_left(&r)) {
        uint32_t packed = fc_get_u32(&r);
        const uint8_t *head = fc_get_bytes(&r, 20);
        assert_non_null(head);
        uint32_t plain = (uint32_t)fc_le_load(head, 4);
        fc_put_bytes(&w, head, 20);
        uint8_t *to = fc_put_room(&w, plain);
        const uint8_t *from = fc_get_bytes(&r, packed);
        assert_true(to && from);
        if (plain)
            assert_int_equal(ZSTD_decompress(to, plain, from, packed), plain);
    }
    assert_false(w.bad);
    return fc_writer_used(&w);
}

/* Would break: the layout changes without its document and version. */
static void golden_file(void **state)
{
    (void)state;
    uint8_t raw[1024], plain[1024];
    int fd = memory_file();
    ssize_t len = read(fd, raw, sizeof(raw));
    close(fd);
    assert_golden("trace", plain,
                  unpacked(raw, (size_t)len, plain, sizeof(plain)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_put),
        cmocka_unit_test(gives_back_requests),
        cmocka_unit_test(large_and_wrong_records),
        cmocka_unit_test(cut_off_is_good_up_to_there),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(bad_records_are_refused),
        cmocka_unit_test(golden_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
