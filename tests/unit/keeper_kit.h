/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_KEEPER_KIT_H
#define FC_TEST_KEEPER_KIT_H

/*
 * For tests of the keeper: a keeper that runs, the daemon's end of it, and a
 * source's end of its channels. Include after cmocka.h.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "batch.h"
#include "channel.h"
#include "err.h"
#include "io.h"
#include "keeper.h"
#include "keeper_msg.h"
#include "store.h"
#include "wire.h"

#define WAIT_MS 10000
#define MIB (1ull << 20)

static const uint8_t guest[FC_UUID_BYTES] = { 1, 2, 3 };
static uint8_t body[FC_CHANNEL_MAX_BODY];
static uint8_t pages[FC_BATCH_PAGES][FC_PAGE_SIZE];

struct fixture {
    int sock, store_fd;
    pid_t pid;
    struct fc_store_view view;
    struct fc_keeper_status status; /* the newest */
    uint64_t closed[64];
    unsigned nclosed;
    char log[8192];
    uint8_t model[FC_CHANNEL_MAX_MODEL];
    uint32_t model_have;
    int gone;
};

static inline void start(struct fixture *f, uint64_t budget, uint64_t linger_ms,
                         uint64_t idle_ms)
{
    struct fc_keeper_args args = { .budget_bytes = budget,
                                   .linger_ms = linger_ms,
                                   .idle_ms = idle_ms,
                                   .uid = 65534,
                                   .gid = 65534 };
    memset(f, 0, sizeof(*f));
    memcpy(args.uuid, guest, sizeof(guest));
    memset(args.token, 0x5a, sizeof(args.token));
    f->store_fd = fc_store_file_new("test", budget);
    assert_true(f->store_fd >= 0);
    args.store_fd = f->store_fd;
    f->sock = fc_keeper_spawn(&args, &f->pid);
    assert_true(f->sock >= 0);
    assert_int_equal(fc_store_view_open(f->store_fd, &f->view), 0);
}

/* Takes events until one of that type has come; 0 when the keeper is gone. */
static inline int event(struct fixture *f, enum fc_keeper_event_type type)
{
    uint64_t end = fc_now_ms() + WAIT_MS;
    while (!f->gone && fc_now_ms() < end) {
        struct fc_keeper_event e;
        int rc = fc_keeper_event_read(f->sock, &e);
        if (rc == 0) {
            fc_wait_readable(f->sock, 100);
            continue;
        }
        if (rc == FC_EEOF) {
            f->gone = 1;
            break;
        }
        assert_int_equal(rc, 1);
        if (e.type == FC_KEEPER_STATUS)
            f->status = e.status;
        if (e.type == FC_KEEPER_CLOSED)
            f->closed[f->nclosed++ % 64] = e.closed.id;
        if (e.type == FC_KEEPER_LOG &&
            strlen(f->log) + sizeof(e.log.text) + 2 < sizeof(f->log))
            strcat(strcat(f->log, e.log.text), "\n");
        if (e.type == FC_KEEPER_MODEL) {
            assert_int_equal(e.model.at, f->model_have);
            memcpy(f->model + e.model.at, e.model.bytes, e.model.len);
            f->model_have += e.model.len;
        }
        if (e.type == type)
            return 1;
    }
    assert_true(f->gone);
    return 0;
}

/* Takes events until the condition holds. */
#define until(f, condition)                                                    \
    do {                                                                       \
        while (!(condition))                                                   \
            if (!event(f, FC_KEEPER_STATUS))                                   \
                break;                                                         \
        assert_true(condition);                                                \
    } while (0)

/* The keeper must be over, or be about to be; its exit status. */
static inline int finish(struct fixture *f)
{
    int status;
    while (event(f, FC_KEEPER_STATUS))
        ;
    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    assert_true(WIFEXITED(status));
    close(f->sock);
    close(f->store_fd);
    fc_store_view_dispose(&f->view);
    return WEXITSTATUS(status);
}

static inline int stop(struct fixture *f)
{
    assert_int_equal(fc_keeper_shutdown(f->sock), 0);
    return finish(f);
}

/* Source's end of a channel. */
static inline int attach(struct fixture *f, uint64_t id)
{
    int pair[2];
    struct timeval limit = { .tv_sec = WAIT_MS / 1000 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                     0);
    assert_int_equal(fc_keeper_give_channel(f->sock, id, pair[1], pair[1]), 0);
    close(pair[1]);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return pair[0];
}

static inline void send_frame(int s, enum fc_channel_type type,
                              const void *bytes, ssize_t len)
{
    uint8_t head[FC_CHANNEL_HEADER];
    assert_true(len >= 0);
    fc_channel_head_make(head, type, bytes, (uint32_t)len);
    assert_int_equal(fc_write_all(s, head, sizeof(head)), 0);
    assert_int_equal(fc_write_all(s, bytes, (size_t)len), 0);
}

/* The next frame's type, its body in `body`; 0 at the end. */
static inline int recv_frame(int s, struct fc_channel_head *head)
{
    uint8_t raw[FC_CHANNEL_HEADER];
    if (fc_wait_readable(s, WAIT_MS) != 1)
        return -1;
    if (fc_read_exact(s, raw, sizeof(raw)))
        return 0;
    assert_int_equal(fc_channel_head_parse(raw, head), 0);
    if (fc_read_exact(s, body, head->length))
        return 0;
    assert_int_equal(fc_channel_check(head, body), 0);
    return (int)head->type;
}

static inline void say_hello(int s, const uint8_t *uuid, uint16_t number)
{
    struct fc_channel_hello hello = { .highest = 4,
                                      .lowest = 1,
                                      .channel = number,
                                      .guest_pages = 1000,
                                      .name = "guest" };
    uint8_t raw[300];
    memcpy(hello.uuid, uuid, FC_UUID_BYTES);
    send_frame(s, FC_CHANNEL_HELLO, raw,
               fc_channel_hello_make(&hello, raw, sizeof(raw)));
}

static inline struct fc_channel_welcome greet(int s, uint16_t number)
{
    struct fc_channel_welcome welcome = { 0 };
    struct fc_channel_head head;
    say_hello(s, guest, number);
    assert_int_equal(recv_frame(s, &head), FC_CHANNEL_WELCOME);
    assert_int_equal(fc_channel_welcome_parse(body, head.length, &welcome), 0);
    assert_int_equal(welcome.version, 1);
    assert_int_equal(welcome.token[7], 0x5a);
    return welcome;
}

static inline void fill(uint8_t *page, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
    for (unsigned i = 0; i < FC_PAGE_SIZE; i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        fc_le_store(page + i, x, 8);
    }
}

static inline struct fc_hash hash_of(uint64_t seed)
{
    uint8_t page[FC_PAGE_SIZE];
    fill(page, seed);
    return fc_page_hash(page);
}

/* A PUT of `count` pages from pfn on, whose contents have the pfn as seed.
 * Page `bad`, if any, is sent under a wrong hash. */
static inline void put(int s, uint64_t seq, uint64_t pfn, unsigned count,
                       int bad)
{
    static struct fc_batch_item items[FC_BATCH_PAGES];
    static uint8_t raw[8 + FC_BATCH_MAX_BYTES];
    for (unsigned i = 0; i < count; i++) {
        fill(pages[i], pfn + i);
        items[i] = (struct fc_batch_item){ .entry = pfn + i,
                                           .page = pages[i],
                                           .hash = fc_page_hash(pages[i]),
                                           .kind = FC_BATCH_DATA };
    }
    if (bad >= 0)
        items[bad].hash.hi ^= 1;
    fc_le_store(raw, seq, 8);
    ssize_t len = fc_batch_encode(items, count, raw + 8, sizeof(raw) - 8);
    assert_true(len > 0);
    send_frame(s, FC_CHANNEL_PUT, raw, 8 + len);
}

/* Reads the STORED; counts EVICTED that come before it. */
static inline uint32_t stored(int s, uint64_t seq, uint32_t count,
                              unsigned *evicted)
{
    static uint64_t refused[FC_CHANNEL_MAX_PFNS];
    struct fc_channel_head head;
    uint64_t got_seq;
    uint32_t got, nrefused;
    int type;
    while ((type = recv_frame(s, &head)) == FC_CHANNEL_EVICTED)
        if (evicted)
            *evicted += head.length / 8;
    assert_int_equal(type, FC_CHANNEL_STORED);
    assert_int_equal(fc_channel_stored_parse(body, head.length, &got_seq, &got,
                                             refused, &nrefused),
                     0);
    assert_int_equal(got_seq, seq);
    assert_int_equal(got, count);
    return nrefused;
}

static inline int held(const struct fixture *f, uint64_t seed)
{
    uint8_t page[FC_PAGE_SIZE];
    return !fc_store_view_get(&f->view, hash_of(seed), page);
}

static inline void expect_text(int s, enum fc_channel_type type,
                               uint16_t reason, const char *part)
{
    struct fc_channel_head head;
    char text[FC_CHANNEL_MAX_TEXT + 1];
    uint16_t got = 0;
    assert_int_equal(recv_frame(s, &head), type);
    assert_int_equal(fc_channel_text_parse(type, body, head.length, &got, text),
                     0);
    assert_int_equal(got, reason);
    assert_non_null(strstr(text, part));
    assert_int_equal(recv_frame(s, &head), 0);
}

static inline void bye(int s, uint16_t reason)
{
    uint8_t raw[64];
    send_frame(s, FC_CHANNEL_BYE, raw,
               fc_channel_text_make(FC_CHANNEL_BYE, reason, "x", raw, 64));
}

#endif
