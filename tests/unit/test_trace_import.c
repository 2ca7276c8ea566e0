/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <zstd.h>

#include "err.h"
#include "trace_kit.h"
#include "wire.h"

static void put_event(struct fc_writer *w, uint64_t ns, uint64_t sector,
                      uint32_t bytes, uint32_t action, uint32_t device,
                      uint16_t more)
{
    static const uint8_t zeros[300];
    fc_put_u32(w, 0x65617407);
    fc_put_u32(w, 0);
    fc_put_u64(w, ns);
    fc_put_u64(w, sector);
    fc_put_u32(w, bytes);
    fc_put_u32(w, action);
    fc_put_u32(w, 0);
    fc_put_u32(w, device);
    fc_put_u32(w, 0);
    fc_put_u16(w, 0);
    fc_put_u16(w, more);
    fc_put_bytes(w, zeros, more);
}

/* Would break: disks' traces from blktrace cannot be evaluated, or count each
 * request once for each stage it passes. */
static void imports_blktrace(void **state)
{
    (void)state;
    uint8_t raw[1024];
    struct fc_trace *t;
    struct fc_trace_problem problem;
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    put_event(&w, 500, 0, 0, 0x04000000, 0, 12);         /* a note */
    put_event(&w, 1000, 8, 4096, 0x00010001, 7, 0);      /* queued, read */
    put_event(&w, 2000, 8, 4096, 0x00010007, 7, 0);      /* issued */
    put_event(&w, 3001000, 16, 512, 0x00020001, 7, 300); /* queued, write */
    put_event(&w, 4000000, 99, 512, 0x00020001, 9, 0);   /* another disk */
    put_event(&w, 5001000, 24, 512, 0x20020001, 7, 0);   /* discard */
    assert_false(w.bad);
    assert_int_equal(
        fc_trace_open_fd(file_of(raw, fc_writer_used(&w)), &t, &problem), 0);
    assert_string_equal(fc_trace_format(t), "blktrace");
    expect(t, FC_TRACE_READ, 0, 8, 8);
    expect(t, FC_TRACE_WRITE, 3000, 16, 1);
    expect(t, FC_TRACE_DISCARD, 5000, 24, 1);
    expect_end(t);
    assert_int_equal(read_all(file_of(raw, fc_writer_used(&w) - 1), NULL, NULL),
                     FC_EFORMAT);
    raw[0] = 6;
    assert_int_equal(read_all(file_of(raw, fc_writer_used(&w)), NULL, NULL),
                     FC_EVERSION);
}

/* Would break: as above, of VMware's traces. */
static void imports_vscsi(void **state)
{
    (void)state;
    for (unsigned version = 1; version <= 2; version++) {
        static const uint8_t cmd[] = { 0x28, 0x12, 0x8a, 0x42 };
        uint8_t raw[256] = { 0 };
        unsigned size = version == 1 ? 32 : 40;
        for (unsigned i = 0; i < 4; i++) {
            uint8_t *r = raw + i * size;
            fc_le_store(r + (version == 1 ? 12 : 0), cmd[i], 2);
            fc_le_store(r + (version == 1 ? 14 : 2), version << 8, 2);
            fc_le_store(r + (version == 1 ? 4 : 8), 1024, 4);
            fc_le_store(r + 16, 100 + i, 8);
            fc_le_store(r + 24, 5000 + 10 * i, 8);
        }
        struct fc_trace *t;
        struct fc_trace_problem problem;
        assert_int_equal(fc_trace_open_fd(file_of(raw, 4 * size), &t, &problem),
                         0);
        expect(t, FC_TRACE_READ, 0, 100, 2);
        expect(t, FC_TRACE_WRITE, 20, 102, 2);
        expect(t, FC_TRACE_DISCARD, 30, 103, 2);
        expect_end(t);
    }
}

/* Would break: CSV is read wrongly, or a hostile line gets through. */
static void imports_csv(void **state)
{
    (void)state;
#define HEADER "time_us,op,offset_bytes,length_bytes\n"
    static const char good[] = HEADER "0,R,4096,1024\r\n"
                                      "1500,W,1000,100\n1499,D,512,0";
    static const char *const bad[] = {
        HEADER "1,R,0\n",
        HEADER "1,X,0,512\n",
        HEADER "1,R,-5,512\n",
        HEADER "99999999999999999999999,R,0,512\n",
        HEADER "1,R,18446744073709551615,512\n",
        HEADER "1,R,0,512,9\n",
        HEADER "5000000,R,0,512\n1,R,0,512\n",
        HEADER "\n",
        HEADER "1",
        HEADER "1,",
        "time_us,op,offset_bytes,length_bytes,more\n",
    };
    struct fc_trace *t;
    struct fc_trace_problem problem;
    uint8_t packed[512];
    size_t len = ZSTD_compress(packed, sizeof(packed), good, strlen(good), 1);
    for (int compressed = 0; compressed < 2; compressed++) {
        int fd =
            compressed ? file_of(packed, len) : file_of(good, strlen(good));
        assert_int_equal(fc_trace_open_fd(fd, &t, &problem), 0);
        expect(t, FC_TRACE_READ, 0, 8, 2);
        expect(t, FC_TRACE_WRITE, 1500, 1, 2);
        expect(t, FC_TRACE_DISCARD, 1500, 1, 1);
        expect_end(t);
    }
    assert_true(read_all(file_of(packed, len - 3), NULL, NULL) < 0);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(read_all(file_of(bad[i], strlen(bad[i])), NULL, NULL),
                         FC_EFORMAT);
}

static void put_number(struct fc_writer *w, uint64_t v)
{
    for (; v >= 128; v >>= 7)
        fc_put_u8(w, (uint8_t)(v | 128));
    fc_put_u8(w, (uint8_t)v);
}

static void put_numbers(struct fc_writer *w, unsigned n, ...)
{
    va_list ap;
    va_start(ap, n);
    while (n--)
        put_number(w, va_arg(ap, unsigned));
    va_end(ap);
}

/* Would break: recordings of processes are read wrongly. */
static void imports_drec(void **state)
{
    (void)state;
    uint8_t raw[256];
    struct fc_trace *t;
    struct fc_trace_record r;
    struct fc_trace_problem problem;
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    fc_put_bytes(&w, "DREC1\n", 6);
    fc_put_u32(&w, 50);
    put_numbers(&w, 5, 3, 0, 1, 77, 0);               /* a block */
    put_numbers(&w, 4, 2, 1, 0, 64);                  /* 64 pages present */
    put_numbers(&w, 9, 1, 10, 1, 9, 2, 20, 2, 23, 1); /* 10+2, 0+1 */
    size_t good = fc_writer_used(&w);
    put_numbers(&w, 7, 1, 20, 1, 9, 1, 3, 1); /* run at -2 */
    assert_int_equal(fc_trace_open_fd(file_of(raw, good), &t, &problem), 0);
    assert_string_equal(fc_trace_format(t), "drec1");
    assert_int_equal(fc_trace_head(t)->tick_us, 50000);
    expect(t, FC_TRACE_PRESENT, 0, 0, 64);
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.time_us, 10);
    assert_int_equal(r.run_count, 2);
    assert_int_equal(r.run[0].first, 0);
    assert_int_equal(r.run[1].first, 10);
    assert_int_equal(r.run[1].count, 2);
    expect_end(t);
    assert_int_equal(read_all(file_of(raw, fc_writer_used(&w)), NULL, NULL),
                     FC_EFORMAT);
    assert_int_equal(read_all(file_of(raw, good - 1), NULL, NULL), FC_EFORMAT);
}

/* Would break: the emulator's own memory is taken for the guest's. */
static void finds_a_virtual_machine(void **state)
{
    (void)state;
    static uint8_t raw[8192];
    struct fc_trace *t;
    struct fc_trace_problem problem;
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    fc_put_bytes(&w, "DREC1\n", 6);
    fc_put_u32(&w, 50);
    for (unsigned i = 0; i < 50; i++) /* the emulator's, here and there */
        put_numbers(&w, 5, 3, i, 1, 10 + 2 * i, 0);
    for (unsigned i = 0; i < 130; i++) /* memory, blocks falling */
        put_numbers(&w, 5, 3, 50 + i, 1, 5000 - i, 0);
    /* pages 5 (the emulator's) and the last block's second */
    put_numbers(&w, 9, 1, 0, 1, 9, 2, 10, 1, 2 * (179 * 512 + 1 - 6), 1);
    /* across two blocks: 178, the second, and 179, the first */
    put_numbers(&w, 7, 1, 50, 1, 9, 1, 2 * (179 * 512 - 1), 2);
    assert_false(w.bad);
    assert_int_equal(
        fc_trace_open_fd(file_of(raw, fc_writer_used(&w)), &t, &problem), 0);
    expect(t, FC_TRACE_TICK, 0, 1, 1);
    struct fc_trace_record r;
    assert_int_equal(fc_trace_next(t, &r, &problem), 1);
    assert_int_equal(r.run_count, 2);
    assert_int_equal(r.run[0].first, 0);
    assert_int_equal(r.run[1].first, 2 * 512 - 1);
    expect_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imports_blktrace),
        cmocka_unit_test(imports_vscsi),
        cmocka_unit_test(imports_csv),
        cmocka_unit_test(imports_drec),
        cmocka_unit_test(finds_a_virtual_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
