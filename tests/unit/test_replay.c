/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "engine.h"
#include "err.h"
#include "replay.h"

/* An engine that notes what it is fed. */
struct fc_engine {
    uint32_t ticks;
    uint64_t written, read; /* bit i: page i, in this tick */
    uint32_t elapsed_ms;
    struct fc_rates rates;
    int fail;
};

int fc_engine_write(struct fc_engine *e, uint64_t first, uint64_t count)
{
    for (uint64_t p = first; p < first + count && p < 64; p++)
        e->written |= 1ull << p;
    return e->fail;
}

int fc_engine_read(struct fc_engine *e, uint64_t first, uint64_t count)
{
    for (uint64_t p = first; p < first + count && p < 64; p++)
        e->read |= 1ull << p;
    return e->fail;
}

int fc_engine_tick(struct fc_engine *e, uint32_t elapsed_ms,
                   const struct fc_rates *rates)
{
    e->ticks++;
    e->elapsed_ms = elapsed_ms;
    e->rates = *rates;
    return 0;
}

static char path[] = "/tmp/fc-replay-XXXXXX";

static struct fc_trace_writer *start(const struct fc_trace_head *head,
                                     int *fd_r)
{
    struct fc_trace_writer *w;
    strcpy(path, "/tmp/fc-replay-XXXXXX");
    *fd_r = mkstemp(path);
    assert_true(*fd_r >= 0);
    assert_int_equal(fc_trace_writer_new(*fd_r, head, &w), 0);
    return w;
}

static void finish(struct fc_trace_writer *w, int fd)
{
    assert_int_equal(fc_trace_finish(w), 0);
    fc_trace_writer_free(w);
    close(fd);
}

static void put(struct fc_trace_writer *w, enum fc_trace_type type,
                uint64_t time_us, uint32_t n, const struct fc_trace_run *run)
{
    const struct fc_trace_record r = {
        .type = type, .time_us = time_us, .run_count = n, .run = run
    };
    assert_int_equal(fc_trace_put(w, &r), 0);
}

static struct fc_replay *replay(const struct fc_replay_options *o)
{
    struct fc_replay *r;
    struct fc_trace_problem problem;
    if (fc_replay_open(path, o, &r, &problem))
        fail_msg("%s", problem.text);
    return r;
}

/* Would break: training and evaluation see labels of the wrong time, so every
 * figure is wrong. Checked against a search through the whole trace. */
static void labels_are_what_comes_later(void **state)
{
    (void)state;
    enum { TICKS = 300, PAGES = 64 };
    static uint64_t dirty[TICKS];
    const struct fc_trace_head head = { FC_TRACE_MEMORY, 12, 50000, PAGES, 0 };
    const struct fc_replay_options o = { .horizon_ticks = { 1, 7, 20, 50 } };
    struct fc_engine engine = { 0 };
    struct fc_trace_problem problem;
    int fd;
    struct fc_trace_writer *w = start(&head, &fd);
    uint64_t x = 88172645463325252ull;
    for (unsigned t = 0; t < TICKS; t++) {
        struct fc_trace_run run[PAGES];
        uint32_t n = 0;
        for (unsigned p = 0; p < PAGES; p += 2) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            if (x % 97 < p)
                continue;
            if (x >> 40 & 15)
                continue;
            run[n++] = (struct fc_trace_run){ p, 1 };
            dirty[t] |= 1ull << p;
        }
        put(w, FC_TRACE_TICK, t * 50000 + t % 7, n, run);
    }
    finish(w, fd);
    struct fc_replay *r = replay(&o);
    assert_int_equal(fc_replay_info(r)->ticks, TICKS);
    assert_int_equal(fc_replay_info(r)->pages, PAGES);
    assert_int_equal(fc_replay_info(r)->horizon_ms[1], 350);
    for (unsigned t = 0; t < TICKS; t++) {
        engine.written = 0;
        assert_int_equal(fc_replay_step(r, &engine, &problem), 1);
        assert_int_equal(engine.written, dirty[t]);
        assert_int_equal(engine.elapsed_ms, 50);
        for (unsigned h = 0; h < FC_REPLAY_HORIZONS; h++) {
            uint32_t ahead = o.horizon_ticks[h];
            uint64_t later = 0;
            for (unsigned k = t + 1; k <= t + ahead && k < TICKS; k++)
                later |= dirty[k];
            assert_int_equal(fc_replay_labelled(r, h), t + ahead < TICKS);
            for (unsigned p = 0; p < PAGES; p++)
                assert_int_equal(fc_replay_touched(r, h, p, 1), later >> p & 1);
            for (unsigned u = 0; u < PAGES; u += 16) {
                struct fc_region_ref ref = { .first = u, .pages = 16 };
                uint8_t touched;
                fc_replay_labels(r, h, 1, &ref, &touched);
                assert_int_equal(touched, (later >> u & 0xffff) != 0);
            }
        }
    }
    assert_int_equal(fc_replay_step(r, &engine, &problem), 0);
    assert_int_equal(engine.ticks, TICKS);
    fc_replay_close(r);
    unlink(path);
}

/* Would break: the engine's clock is wrong where the recorder was late, or
 * its rates are another tick's. */
static void tells_time_and_rates(void **state)
{
    (void)state;
    const struct fc_trace_head head = { FC_TRACE_MEMORY, 12, 50000, 0,
                                        1000000 };
    static const struct {
        uint32_t at_us, want_ms;
    } ticks[] = {
        { 0, 50 },       { 44000, 50 },  { 100000, 50 },
        { 610000, 500 }, { 611000, 50 },
    };
    const struct fc_trace_run run = { 9, 1 };
    const struct fc_trace_record rates = {
        .type = FC_TRACE_RATES,
        .time_us = 44000,
        .rates = { .cpu_permille = 1500, .vbd_wr = 7 },
    };
    struct fc_engine engine = { 0 };
    struct fc_trace_problem problem;
    int fd;
    struct fc_trace_writer *w = start(&head, &fd);
    for (unsigned i = 0; i < 5; i++) {
        put(w, FC_TRACE_TICK, ticks[i].at_us, 1, &run);
        if (i == 1)
            assert_int_equal(fc_trace_put(w, &rates), 0);
    }
    finish(w, fd);
    struct fc_replay *r = replay(NULL);
    assert_int_equal(fc_replay_info(r)->pages, 10);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(fc_replay_step(r, &engine, &problem), 1);
        assert_int_equal(engine.elapsed_ms, ticks[i].want_ms);
        assert_true(engine.rates.cpu == (i > 1 ? 1.5f : 0));
        assert_true(engine.rates.vbd_wr == (i > 1 ? 7 : 0));
        assert_int_equal(engine.rates.wall_s, 1000000);
        assert_int_equal(fc_replay_fed(r).writes, 1);
        assert_int_equal(fc_replay_fed(r).write[0].first, 9);
    }
    fc_replay_close(r);
    unlink(path);
}

/* Would break: a disk's requests fall into the wrong extents or ticks, or
 * writes count as reads. */
static void disks_are_cut_into_extents(void **state)
{
    (void)state;
    const struct fc_trace_head head = { FC_TRACE_BLOCK, 9, 0, 0, 0 };
    const struct fc_replay_options o = { .tick_ms = 100, .extent_bytes = 4096 };
    const struct fc_replay_options any = { .tick_ms = 100,
                                           .extent_bytes = 4096,
                                           .any_access = true };
    const struct fc_trace_run run[] = { { 7, 2 }, { 16, 8 }, { 80, 1 } };
    struct fc_engine engine = { 0 };
    struct fc_trace_problem problem;
    int fd;
    struct fc_trace_writer *w = start(&head, &fd);
    put(w, FC_TRACE_READ, 0, 1, &run[0]);
    put(w, FC_TRACE_WRITE, 99999, 1, &run[1]);
    put(w, FC_TRACE_READ, 100000, 1, &run[1]);
    put(w, FC_TRACE_DISCARD, 100001, 1, &run[2]);
    put(w, FC_TRACE_READ, 150000, 1, &run[1]);
    put(w, FC_TRACE_WRITE, 450000, 1, &run[2]);
    put(w, FC_TRACE_READ, 450000, 1, &run[0]);
    put(w, FC_TRACE_READ, 450000, 1, &run[1]);
    finish(w, fd);
    struct fc_replay *r = replay(&o);
    static const uint8_t read[] = { 3, 4, 0, 0, 7 };
    static const uint16_t written[] = { 4, 0, 0, 0, 1 << 10 };
    assert_int_equal(fc_replay_info(r)->ticks, 5);
    assert_int_equal(fc_replay_info(r)->pages, 11);
    for (unsigned t = 0; t < 5; t++) {
        engine.read = engine.written = 0;
        assert_int_equal(fc_replay_step(r, &engine, &problem), 1);
        assert_int_equal(engine.read, read[t]);
        assert_int_equal(engine.written, written[t]);
        assert_int_equal(fc_replay_touched(r, 0, 2, 1), t == 0 || t == 3);
        assert_false(fc_replay_touched(r, 3, 10, 1));
        assert_false(fc_replay_touched(r, 0, 500, 1));
        assert_int_equal(fc_replay_requests(r, 0, 2), t == 0 ? 2 : t == 3);
        assert_int_equal(fc_replay_requests(r, 1, 2), t == 0 ? 3 : t < 4);
        assert_int_equal(fc_replay_requests(r, 1, 10), 0);
        assert_int_equal(fc_replay_requests(r, 0, 500), 0);
        assert_int_equal(fc_replay_requests_of_all(r, 1), t == 0  ? 5
                                                          : t < 4 ? 3
                                                                  : 0);
        if (t == 0)
            assert_true(engine.rates.vbd_rd == 10240);
    }
    assert_int_equal(fc_replay_step(r, &engine, &problem), 0);
    fc_replay_close(r);
    r = replay(&any);
    engine.read = engine.written = 0;
    assert_int_equal(fc_replay_step(r, &engine, &problem), 1);
    assert_int_equal(engine.read, 7);
    assert_int_equal(engine.written, 4);
    assert_true(fc_replay_touched(r, 3, 10, 1));
    fc_replay_close(r);
    unlink(path);
}

/* Would break: a file that lies takes the machine's memory, or an engine's
 * failure goes unnoticed. */
static void refuses(void **state)
{
    (void)state;
    const struct fc_trace_head head = { FC_TRACE_MEMORY, 12, 50000,
                                        FC_TRACE_MAX_UNITS, 0 };
    const struct fc_trace_head disk = { FC_TRACE_BLOCK, 9, 0, 0, 0 };
    const struct fc_trace_run run = { 0, 1 };
    const struct fc_replay_options odd = { .extent_bytes = 5000 };
    const struct fc_replay_options falling = { .horizon_ticks = { 5, 4, 6,
                                                                  7 } };
    struct fc_engine engine = { .fail = FC_ENOMEM };
    struct fc_trace_problem problem;
    struct fc_replay *r;
    int fd;
    struct fc_trace_writer *w = start(&head, &fd);
    put(w, FC_TRACE_TICK, 0, 1, &run);
    finish(w, fd);
    assert_int_equal(fc_replay_open(path, NULL, &r, &problem), FC_ELIMIT);
    unlink(path);
    assert_int_equal(fc_replay_open(path, NULL, &r, &problem), FC_EIO);
    w = start(&disk, &fd);
    finish(w, fd);
    assert_int_equal(fc_replay_open(path, NULL, &r, &problem), FC_EFORMAT);
    unlink(path);
    w = start(&disk, &fd);
    put(w, FC_TRACE_READ, 0, 1, &run);
    finish(w, fd);
    assert_int_equal(fc_replay_open(path, &odd, &r, &problem), FC_EINVAL);
    assert_int_equal(fc_replay_open(path, &falling, &r, &problem), FC_EINVAL);
    r = replay(NULL);
    assert_int_equal(fc_replay_step(r, &engine, &problem), FC_ENOMEM);
    fc_replay_close(r);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_what_comes_later),
        cmocka_unit_test(tells_time_and_rates),
        cmocka_unit_test(disks_are_cut_into_extents),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
