/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <event2/event.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "uplink.h"
#include "wire.h"

/*
 * The other end of a channel is this program again, as `test_uplink peer MODE`:
 * a destination that stores nothing and can misbehave.
 */
static uint8_t body[FC_CHANNEL_MAX_BODY];

static void peer_says(enum fc_channel_type type, const void *bytes, size_t len)
{
    uint8_t head[FC_CHANNEL_HEADER];
    fc_channel_head_make(head, type, bytes, (uint32_t)len);
    if (fc_write_all(1, head, sizeof(head)) || fc_write_all(1, bytes, len))
        exit(3);
}

static void peer_welcomes(uint64_t epoch)
{
    uint8_t out[64];
    struct fc_channel_welcome w = { .version = 1,
                                    .epoch = epoch,
                                    .budget_bytes = 1 << 20 };
    memset(w.token, 7, sizeof(w.token));
    ssize_t n = fc_channel_welcome_make(&w, out, sizeof(out));
    peer_says(FC_CHANNEL_WELCOME, out, (size_t)n);
}

static void peer_stores(uint64_t seq, const uint64_t *refused, uint32_t count)
{
    uint8_t out[256];
    ssize_t n =
        fc_channel_stored_make(seq, 3, refused, count, out, sizeof(out));
    peer_says(FC_CHANNEL_STORED, out, (size_t)n);
}

static void peer_evicts(uint64_t pfn)
{
    uint8_t out[64];
    ssize_t n = fc_channel_pfns_make(&pfn, 1, out, sizeof(out));
    peer_says(FC_CHANNEL_EVICTED, out, (size_t)n);
}

static int peer_put(const char *mode, uint64_t seq)
{
    uint64_t refused = 11;
    if (!strcmp(mode, "cut"))
        return 1;
    if (!strcmp(mode, "garbage")) {
        if (fc_write_all(1, "this is no frame at all", 23))
            return 3;
        return 0;
    }
    if (!strcmp(mode, "check")) {
        uint8_t head[FC_CHANNEL_HEADER] = { 0 };
        fc_channel_head_make(head, FC_CHANNEL_PONG, "12345678", 8);
        return fc_write_all(1, head, sizeof(head)) ||
                       fc_write_all(1, "12345679", 8)
                   ? 3
                   : 0;
    }
    if (!strcmp(mode, "evict"))
        peer_evicts(77);
    peer_stores(seq, &refused, !strcmp(mode, "refuse"));
    if (!strcmp(mode, "twice"))
        peer_stores(seq, NULL, 0);
    return 0;
}

static int peer(const char *mode)
{
    if (!strcmp(mode, "fail")) {
        fprintf(stderr, "Permission denied (publickey).\n");
        return 255;
    }
    if (!strcmp(mode, "silent"))
        return (int)sleep(60);
    for (;;) {
        uint8_t raw[FC_CHANNEL_HEADER];
        struct fc_channel_head head;
        if (fc_read_exact(0, raw, sizeof(raw)) ||
            fc_channel_head_parse(raw, &head) ||
            fc_read_exact(0, body, head.length) ||
            fc_channel_check(&head, body))
            return 2;
        int rc = 0;
        if (head.type == FC_CHANNEL_HELLO)
            peer_welcomes(!strcmp(mode, "newepoch") ? (uint64_t)getpid() : 5);
        else if (head.type == FC_CHANNEL_PUT)
            rc = peer_put(mode, fc_le_load(body, 8));
        else if (head.type == FC_CHANNEL_BYE)
            return 0;
        if (rc)
            return rc;
    }
}

static struct event_base *base;
static struct fc_children *children;
static struct fc_uplink *uplink;
static struct {
    unsigned ups, epochs, stored, lost, evicted, ready, closed;
    uint32_t refused;
    uint64_t refused_pfn, evicted_pfn;
    void *tag;
} got;
static char self[512];

static void on_up(void *user, const struct fc_channel_welcome *w, bool fresh)
{
    (void)user;
    assert_int_equal(w->token[3], 7);
    got.ups++;
    got.epochs += fresh;
}

static void on_stored(void *user, void *tag, const uint64_t *refused,
                      uint32_t count)
{
    (void)user;
    got.stored++;
    got.tag = tag;
    got.refused += count;
    got.refused_pfn = count ? refused[0] : 0;
}

static void on_lost(void *user, void *tag)
{
    (void)user;
    got.lost++;
    got.tag = tag;
}

static void on_evicted(void *user, const uint64_t *pfns, uint32_t count)
{
    (void)user;
    got.evicted += count;
    got.evicted_pfn = pfns[0];
}

static void on_ready(void *user)
{
    (void)user;
    got.ready++;
}

static void on_closed(void *user)
{
    (void)user;
    got.closed++;
}

static const struct fc_uplink_events events = {
    on_up, on_stored, on_lost, on_evicted, on_ready,
};

static int setup(void **state)
{
    (void)state;
    memset(&got, 0, sizeof(got));
    uplink = NULL;
    base = event_base_new();
    return fc_children_new(base, &children);
}

static int teardown(void **state)
{
    (void)state;
    fc_uplink_free(uplink);
    fc_children_free(children);
    event_base_free(base);
    return 0;
}

static void connect_to(const char *mode, unsigned channels, uint32_t timeout_s)
{
    char command[600];
    struct fc_uplink_args args = { .base = base,
                                   .children = children,
                                   .command = command,
                                   .name = "vm",
                                   .guest_pages = 1000,
                                   .channels = channels,
                                   .timeout_s = timeout_s };
    snprintf(command, sizeof(command), "exec %s peer %s", self, mode);
    assert_int_equal(fc_uplink_new(&args, &events, NULL, &uplink), 0);
}

static void spin(void)
{
    const struct timeval tv = { 0, 10000 };
    event_base_loopexit(base, &tv);
    event_base_dispatch(base);
}

#define WAIT(condition)                                                        \
    do {                                                                       \
        uint64_t end = fc_now_ms() + 20000;                                    \
        while (!(condition) && fc_now_ms() < end)                              \
            spin();                                                            \
        assert_true(condition);                                                \
    } while (0)

static int put(void *tag)
{
    uint8_t *memory = malloc(64 + 100);
    memset(memory, 0x55, 164);
    return fc_uplink_put(uplink, memory, memory + 64, 100, tag);
}

static struct fc_uplink_status status(void)
{
    struct fc_uplink_status s;
    fc_uplink_status(uplink, &s);
    return s;
}

/* The plain case, over several channels. */
static void test_plain(void **state)
{
    int tags[6];
    (void)state;
    connect_to("good", 3, 10);
    assert_false(fc_uplink_may_put(uplink));
    assert_int_equal(put(&tags[0]), FC_EPEER);
    WAIT(got.ups == 3);
    assert_int_equal(got.epochs, 1);
    assert_int_equal(status().channels, 3);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(put(&tags[i]), 0);
    assert_int_equal(status().puts, 6);
    WAIT(got.stored == 6);
    assert_int_equal(status().puts, 0);
    assert_int_equal(status().in_flight_bytes, 0);
    assert_int_equal(status().epoch, 5);
    assert_true(status().link_bps > 0);
    assert_int_equal(status().link_samples, 6);
    fc_uplink_close(uplink, FC_BYE_MIGRATED, "done", on_closed, NULL);
    uplink = NULL;
    WAIT(got.closed == 1);
    assert_int_equal(got.lost, 0);
}

/* Pages that the destination does not keep must not count as staged. */
static void test_refused_and_evicted(void **state)
{
    int tag;
    (void)state;
    connect_to("refuse", 1, 10);
    WAIT(got.ups == 1);
    put(&tag);
    WAIT(got.stored == 1);
    assert_int_equal(got.refused, 1);
    assert_int_equal(got.refused_pfn, 11);
    fc_uplink_free(uplink);
    connect_to("evict", 1, 10);
    WAIT(got.ups == 2);
    put(&tag);
    WAIT(got.evicted == 1);
    assert_int_equal(got.evicted_pfn, 77);
}

/* A cut loses what is in flight, says so, and is mended. */
static void test_cut(void **state)
{
    int tag;
    (void)state;
    connect_to("cut", 1, 10);
    WAIT(got.ups == 1);
    assert_int_equal(put(&tag), 0);
    WAIT(got.lost == 1);
    assert_ptr_equal(got.tag, &tag);
    assert_int_equal(status().channels, 0);
    assert_string_not_equal(status().trouble, "");
    WAIT(got.ups == 2);              /* 1 s later */
    assert_int_equal(got.epochs, 1); /* the store is the same */
    assert_int_equal(got.stored, 0);
}

/* A destination that lost its store: nothing stands. */
static void test_new_epoch(void **state)
{
    (void)state;
    connect_to("newepoch", 1, 10);
    WAIT(got.epochs == 1);
    uint64_t epoch = status().epoch;
    char command[100];
    snprintf(command, sizeof(command), "kill -9 %llu",
             (unsigned long long)epoch); /* it is the peer's pid */
    assert_int_equal(system(command), 0);
    WAIT(got.epochs == 2);
    assert_true(status().epoch != epoch);
}

/* Bytes that are no frames, or damaged ones, end the channel and no more. */
static void test_garbage(void **state)
{
    static const char *const modes[] = { "garbage", "check" };
    static const char *const whys[] = { "no frame", "checksum" };
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        int tag;
        memset(&got, 0, sizeof(got));
        connect_to(modes[i], 1, 10);
        WAIT(got.ups == 1);
        put(&tag);
        WAIT(got.lost == 1);
        assert_non_null(strstr(status().trouble, whys[i]));
        fc_uplink_free(uplink);
        uplink = NULL;
    }
}

/* An acknowledgement of nothing must not acknowledge something. */
static void test_twice(void **state)
{
    int tags[2];
    (void)state;
    connect_to("twice", 1, 10);
    WAIT(got.ups == 1);
    put(&tags[0]);
    WAIT(got.stored == 1);
    put(&tags[1]);
    WAIT(got.stored == 2);
    for (int i = 0; i < 5; i++)
        spin();
    assert_int_equal(got.stored, 2);
    assert_int_equal(got.lost, 0);
}

/* People must be told what ssh said. */
static void test_reason(void **state)
{
    (void)state;
    connect_to("fail", 1, 10);
    WAIT(status().trouble[0]);
    assert_non_null(strstr(status().trouble, "Permission denied"));
    assert_int_equal(got.ups, 0);
}

/* A command that hangs must not hang us, nor outlive us. */
static void test_silent(void **state)
{
    (void)state;
    connect_to("silent", 1, 1);
    WAIT(status().trouble[0]);
    assert_non_null(strstr(status().trouble, "no answer to HELLO"));
    fc_uplink_close(uplink, FC_BYE_DISARMED, "", on_closed, NULL);
    uplink = NULL;
    WAIT(got.closed == 1);
}

/* What waits for nobody is bounded. */
static void test_window(void **state)
{
    int tag;
    unsigned n = 0;
    (void)state;
    connect_to("good", 1, 10);
    WAIT(got.ups == 1);
    while (fc_uplink_may_put(uplink) && n < 100) {
        uint8_t *memory = malloc(64 + 300000);
        memset(memory, 0, 300064);
        assert_int_equal(
            fc_uplink_put(uplink, memory, memory + 64, 300000, &tag), 0);
        n++;
    }
    assert_int_equal(n, 4); /* of 300 kB: the fourth goes past 1 MiB */
    WAIT(got.stored == n);
    assert_true(fc_uplink_may_put(uplink));
    uint64_t pfns[5000] = { 1 };
    fc_uplink_drop(uplink, pfns, 5000);
    put(&tag);
    WAIT(got.stored == n + 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plain),   TEST(test_refused_and_evicted),
        TEST(test_cut),     TEST(test_new_epoch),
        TEST(test_garbage), TEST(test_twice),
        TEST(test_reason),  TEST(test_silent),
        TEST(test_window),
    };
    if (argc == 3 && !strcmp(argv[1], "peer"))
        return peer(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return 1;
    self[n] = '\0';
    return cmocka_run_group_tests(tests, NULL, NULL);
}
