/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <xxhash.h>

#include "blockbatch.h"
#include "err.h"
#include "golden.h"
#include "wire.h"

static const struct fc_blockbatch_start start = {
    .extent_bytes = 1 << 20,
    .interval_ms = 1000,
    .means = FC_BLOCKBATCH_BPF,
    .requests = true,
    .devices = 2,
    .device = { { 254, 3, 4096 * 10 + 1 }, { 7, 0, 2048 } },
};

static const struct fc_blockbatch_count counts[] = {
    { 0, 3, 0, 12288, 0 },
    { 20, 1, 2, 512, 8192 }, /* the last, of one sector */
};

static const struct fc_blockbatch_request requests[] = {
    { 1000, 0, 8, FC_BLOCKBATCH_READ },
    { 1000, 40953, 8, FC_BLOCKBATCH_WRITE },
    { 1500, 2048, 4096, FC_BLOCKBATCH_DISCARD },
};

static uint8_t frame[FC_BLOCKBATCH_FRAME];

struct stream {
    uint8_t bytes[4096];
    size_t len;
};

static void append(struct stream *s, size_t len)
{
    assert_true(len > 0 && s->len + len <= sizeof(s->bytes));
    memcpy(s->bytes + s->len, frame, len);
    s->len += len;
}

static void make(struct stream *s)
{
    s->len = 0;
    append(s, fc_blockbatch_put_start(frame, &start));
    append(s, fc_blockbatch_put_requests(frame, 0, 0, 3, requests));
    append(s, fc_blockbatch_put_counts(frame, 0, 2000, 5, false, 2, counts));
    append(s, fc_blockbatch_put_counts(frame, 1, 2000, 5, false, 0, NULL));
    append(s, fc_blockbatch_put_end(frame, 6, 9));
}

/* Would break: counts or requests come out as something else than was put in,
 * or a stream in pieces is misread. */
static void says_what_was_put_in(void **state)
{
    (void)state;
    struct stream s;
    struct fc_blockbatch_reader r = { .lost = 0 };
    struct fc_blockbatch_frame f;
    unsigned seen = 0;
    make(&s);
    for (size_t at = 0, have = 0; at < s.len;) {
        long n = fc_blockbatch_next(&r, s.bytes + at, have - at, &f);
        assert_true(n >= 0);
        if (n == 0) {
            assert_true(++have <= s.len);
            continue;
        }
        at += (size_t)n;
        seen++;
        for (uint32_t i = 0; f.type == FC_BLOCKBATCH_COUNT && i < f.n; i++) {
            struct fc_blockbatch_count c;
            fc_blockbatch_count_at(&f, i, &c);
            assert_memory_equal(&c, &counts[i], sizeof(c));
            assert_int_equal(f.time_us, 2000);
        }
        for (uint32_t i = 0; f.type == FC_BLOCKBATCH_REQUEST && i < f.n; i++) {
            struct fc_blockbatch_request q;
            fc_blockbatch_request_at(&f, i, &q);
            assert_int_equal(q.time_us, requests[i].time_us);
            assert_int_equal(q.sector, requests[i].sector);
            assert_int_equal(q.sectors, requests[i].sectors);
            assert_int_equal(q.op, requests[i].op);
        }
    }
    assert_int_equal(seen, 5);
    assert_true(r.ended);
    assert_int_equal(r.lost, 6);
    assert_int_equal(r.requests, 9);
    assert_int_equal(r.start.device[0].minor, 3);
}

/* A damaged field of the frame at `at`, its checksum made right again. */
static long damaged(struct stream *s, unsigned which, size_t offset,
                    uint64_t value, unsigned bytes)
{
    struct fc_blockbatch_reader r = { .lost = 0 };
    struct fc_blockbatch_frame f;
    size_t at = 0;
    for (unsigned i = 0; i < which; i++) {
        long n = fc_blockbatch_next(&r, s->bytes + at, s->len - at, &f);
        assert_true(n > 0);
        at += (size_t)n;
    }
    uint8_t *p = s->bytes + at;
    fc_le_store(p + offset, value, bytes);
    uint64_t len = fc_le_load(p + 8, 4);
    if (len < sizeof(s->bytes))
        fc_le_store(p + 12, (uint32_t)XXH3_64bits(p + 16, len), 4);
    long n = fc_blockbatch_next(&r, p, s->len - at, &f);
    assert_true(n >= 0 || r.problem[0]);
    return n;
}

/* Would break: what breaks the format is taken for counts. */
static void refuses_what_breaks_a_rule(void **state)
{
    (void)state;
    static const struct {
        unsigned frame;
        size_t offset;
        uint64_t value;
        unsigned bytes;
        int rc;
    } damage[] = {
        { 0, 0, 0, 4, FC_EFORMAT },          { 0, 4, 2, 2, FC_EVERSION },
        { 0, 8, 1 << 21, 4, FC_ETOOBIG },    { 0, 6, 2, 2, FC_EFORMAT },
        { 0, 16, 3 << 16, 4, FC_EFORMAT },   { 0, 16, 1 << 15, 4, FC_EFORMAT },
        { 0, 20, 9, 4, FC_EFORMAT },         { 0, 24, 4, 1, FC_EFORMAT },
        { 0, 25, 2, 1, FC_EFORMAT },         { 0, 26, 0, 2, FC_EFORMAT },
        { 0, 26, 3, 2, FC_EFORMAT },         { 0, 28, 1, 4, FC_EFORMAT },
        { 0, 40, ~0ull, 8, FC_EFORMAT },     { 1, 6, 9, 2, FC_EFORMAT },
        { 1, 6, 1, 2, FC_EFORMAT },          { 1, 24, 2, 2, FC_EFORMAT },
        { 1, 26, 1, 2, FC_EFORMAT },         { 1, 28, 4, 4, FC_EFORMAT },
        { 1, 28, 0, 4, FC_EFORMAT },         { 1, 32 + 24, 999, 8, FC_EFORMAT },
        { 1, 32 + 8, 40960, 8, FC_EFORMAT }, { 1, 32 + 16, 0, 4, FC_EFORMAT },
        { 1, 32 + 20, 4, 4, FC_EFORMAT },    { 1, 32 + 20, 8, 4, FC_EFORMAT },
        { 2, 32, 2, 2, FC_EFORMAT },         { 2, 34, 2, 1, FC_EFORMAT },
        { 2, 36, 3, 4, FC_EFORMAT },         { 2, 40, 20, 8, FC_EFORMAT },
        { 2, 72, 21, 8, FC_EFORMAT },        { 2, 48, 0, 8, FC_EFORMAT },
        { 3, 24, 4, 8, FC_EFORMAT },         { 4, 16, 4, 8, FC_EFORMAT },
    };
    struct stream s;
    for (unsigned i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        make(&s);
        assert_int_equal(damaged(&s, damage[i].frame, damage[i].offset,
                                 damage[i].value, damage[i].bytes),
                         damage[i].rc);
    }
    make(&s);
    s.bytes[20] ^= 1;
    struct fc_blockbatch_reader r = { .lost = 0 };
    struct fc_blockbatch_frame f;
    assert_int_equal(fc_blockbatch_next(&r, s.bytes, s.len, &f), FC_ECHECK);
}

/* Would break: a maker out of bounds writes what no reader takes. */
static void makes_nothing_out_of_bounds(void **state)
{
    (void)state;
    struct fc_blockbatch_start s = start;
    s.interval_ms = 1;
    assert_int_equal(fc_blockbatch_put_start(frame, &s), 0);
    assert_int_equal(fc_blockbatch_put_counts(frame, 64, 0, 0, false, 0, NULL),
                     0);
    assert_int_equal(fc_blockbatch_put_requests(frame, 0, 0, 0, NULL), 0);
}

/* Would break: the layout changes without its document and version. */
static void golden(void **state)
{
    (void)state;
    struct stream s;
    make(&s);
    assert_golden("block-trace-batch", s.bytes, s.len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_was_put_in),
        cmocka_unit_test(refuses_what_breaks_a_rule),
        cmocka_unit_test(makes_nothing_out_of_bounds),
        cmocka_unit_test(golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
