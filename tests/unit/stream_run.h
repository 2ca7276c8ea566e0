/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_STREAM_RUN_H
#define FC_TEST_STREAM_RUN_H

/*
 * For tests of whole migrations: sender and receiver with all their threads,
 * between the models of stream_guest.h, over a line that damages, stalls and
 * cuts. Include after cmocka.h.
 */
#include <stdio.h>
#include <sys/socket.h>

#include "batch.h"
#include "receiver.h"
#include "stream_guest.h"

/* ---- a line between them that can damage and cut ---- */

struct line {
    int from, to;
    uint64_t rng;
    /* bytes inside a PAGES record; 0: none. Until the guest is stopped: what
     * is damaged later cannot be asked for again. */
    uint64_t damage_one_in;
    _Atomic bool careful;
    uint64_t cut_after, stall_after; /* bytes; 0: never */
    _Atomic uint64_t passed;
    _Atomic bool stall; /* passes nothing on, keeps everything open */
    unsigned piece_us;  /* after each piece */
};

/* Flips a byte of page contents now and then: not of tables or headers, which
 * a transport keeps whole or not at all. */
static inline void damage(struct line *l, uint8_t *p, size_t n)
{
    for (size_t i = 0; !l->careful && i < n; i++) {
        l->rng = l->rng * 6364136223846793005ull + 1442695040888963407ull;
        if ((l->rng >> 33) % l->damage_one_in == 0)
            p[i] ^= 0x10;
    }
}

static inline int line_record(struct line *l, uint8_t *buf)
{
    int rc = fc_read_exact(l->from, buf, FC_RECORD_HEADER);
    if (rc < 0)
        return rc;
    struct fc_record r = fc_record_head_parse(buf);
    size_t len = (size_t)fc_record_padded(r.length);
    assert_true(len <= FC_ENCODER_ROOM);
    rc = fc_read_exact(l->from, buf + FC_RECORD_HEADER, len);
    if (rc < 0)
        return rc;
    if (r.type == FC_REC_PAGES) {
        struct fc_batch b;
        const char *why;
        uint8_t *body = buf + FC_RECORD_HEADER;
        assert_int_equal(fc_batch_parse(body, r.length, &b, &why), 0);
        /* from the first chunk's payload on */
        for (size_t at = 0; at < b.chunk_bytes;) {
            uint8_t *c = body + (b.chunk_data - body) + at;
            size_t stored = fc_le_load(c, 4) & 0x7fffffff;
            damage(l, c + 4, stored);
            at += 4 + stored;
        }
    }
    rc = fc_write_all(l->to, buf, FC_RECORD_HEADER + len);
    return rc < 0 ? rc : r.type == FC_REC_END ? 1 : 0;
}

/* A piece as it comes. */
static inline int line_piece(struct line *l, uint8_t *buf)
{
    ssize_t n = read(l->from, buf, 32768);
    if (n <= 0)
        return n == 0 ? FC_EEOF : FC_EIO;
    l->passed += (uint64_t)n;
    return fc_write_all(l->to, buf, (size_t)n);
}

static inline void *line_main(void *user)
{
    struct line *l = user;
    uint8_t *buf = malloc(FC_ENCODER_ROOM + 64);
    int rc = fc_read_exact(l->from, buf, FC_STREAM_HEADERS);
    if (rc == 0)
        rc = fc_write_all(l->to, buf, FC_STREAM_HEADERS);
    l->passed = FC_STREAM_HEADERS;
    while (rc == 0) {
        rc = l->damage_one_in ? line_record(l, buf) : line_piece(l, buf);
        if (l->cut_after && l->passed > l->cut_after)
            break;
        if (l->stall_after && l->passed > l->stall_after) {
            l->stall = true;
            l->stall_after = 0;
        }
        while (l->stall)
            usleep(1000);
        if (l->piece_us)
            usleep(l->piece_us);
    }
    free(buf);
    close(l->to);
    close(l->from);
    return NULL;
}

/* ---- a whole migration ---- */

struct run {
    /* set before */
    uint64_t seed;
    struct fc_session session;
    bool with_back, with_store, busy_guest, restless_guest;
    unsigned lose_one_in; /* references; 0: none */
    uint32_t guest_type;
    struct line line;
    unsigned restore_slow_us, restore_fail_after;
    bool refuse_suspend;
    int peek_rc;
    size_t mute_after;             /* bytes of frames, then silence; 0: never */
    void (*meddle)(struct run *r); /* once, while it runs */
    uint64_t passed_at_stall;
    int queued_at_stall;
    /* known after */
    struct guest guest;
    struct libxc_save save;
    struct libxc_restore restore;
    struct fc_precopy *precopy;
    int saved, finished, received;
    char why[400], receiver_why[400];
    struct fc_decoder_counts counts;
    struct bytes events; /* what the front end got, a line each */
    int status[2], term[2], ear[2];
};

static _Atomic uint64_t lookups;

static inline int lookup(void *user, struct fc_hash hash, void *page)
{
    struct run *r = user;
    uint64_t n = ++lookups;
    if (r->lose_one_in && (n * 2654435761u >> 7) % r->lose_one_in == 0)
        return FC_ENOENT;
    for (uint64_t i = 1; i < 100; i++) {
        kit_page(page, i);
        if (fc_hash_equal(fc_page_hash(page), hash))
            return 0;
    }
    return FC_ENOENT;
}

static inline void on_hello(void *user, const struct fc_hello *hello,
                            struct fc_page_source *source, uint64_t *held_r)
{
    struct run *r = user;
    assert_int_equal(hello->epoch, r->session.epoch);
    assert_memory_equal(hello->uuid, r->session.uuid, FC_UUID_BYTES);
    if (r->with_store)
        *source = (struct fc_page_source){ lookup, r };
    *held_r = 99;
}

/* Frames on their way back, until nothing is said any more. */
static inline void *ear_main(void *user)
{
    struct run *r = user;
    uint8_t buf[4096];
    size_t passed = 0;
    ssize_t n;
    while ((n = read(r->ear[0], buf, sizeof(buf))) > 0) {
        if (passed < r->mute_after)
            fc_write_all(r->ear[1], buf, (size_t)n);
        passed += (size_t)n;
    }
    return NULL;
}

static inline void *meddle_main(void *user)
{
    struct run *r = user;
    r->meddle(r);
    return NULL;
}

static inline void collect_events(struct run *r)
{
    char text[4097];
    ssize_t n;
    while ((n = recv(r->status[1], text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
        bytes_add(&r->events, text, (size_t)n);
        bytes_add(&r->events, "\n", 1);
    }
    bytes_add(&r->events, "", 1);
}

static inline void stage(struct fc_hashset *set)
{
    uint8_t page[FC_PAGE_SIZE];
    assert_int_equal(fc_hashset_new(set, 128), 0);
    for (uint64_t i = 1; i < 100; i++) {
        kit_page(page, i);
        assert_int_equal(fc_hashset_add(set, fc_page_hash(page)), 0);
    }
}

static inline void session_for_tests(struct fc_session *s)
{
    fc_session_defaults(s);
    s->uuid[3] = 42;
    s->epoch = 1234;
    s->max_downtime_ms = 60000;
    s->fixed_ms = 1;
    s->window_bytes = 65536;
    s->hello_ms = 2000;
    s->peer_timeout_s = 5;
    s->max_rounds = 3;
}

static inline void join_all(pthread_t *threads, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* ends: 0 the sender's, 1 the receiver's */
static inline void migrate(struct run *r)
{
    int to_line[2], from_line[2], back[2], far[2], in[2], out[2];
    struct fc_hashset staged;
    struct fc_receiver *receiver;
    pthread_t threads[4], ear;
    unsigned n = 0;

    guest_init(&r->guest, r->seed);
    r->guest.peek_rc = r->peek_rc;
    r->guest.restless = r->restless_guest;
    stage(&staged);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, to_line), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, from_line), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, back), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, far), 0);
    assert_int_equal(pipe(r->term), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, r->status), 0);
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);

    r->line.from = to_line[1];
    r->line.to = from_line[0];
    r->line.rng = r->seed;
    r->session.back_fd = back[0];
    r->session.status_fd = r->status[0];

    struct fc_receiver_config rc = { .in_fd = from_line[1],
                                     .out_fd = out[1],
                                     .back_fd = !r->with_back   ? -1
                                                : r->mute_after ? far[1]
                                                                : back[1],
                                     .hello = on_hello,
                                     .user = r };
    r->restore.fd = out[0];
    r->restore.slow_us = r->restore_slow_us;
    r->restore.fail_after = r->restore_fail_after;
    kit_memory_init(&r->restore.memory, PAGES);
    assert_int_equal(fc_receiver_start(&rc, &receiver), 0);
    pthread_create(&threads[n++], NULL, restore_main, &r->restore);
    pthread_create(&threads[n++], NULL, line_main, &r->line);

    r->ear[0] = far[0];
    r->ear[1] = back[1];
    if (r->mute_after)
        pthread_create(&ear, NULL, ear_main, r);

    struct fc_precopy_config pc = { .in_fd = in[0],
                                    .out_fd = to_line[0],
                                    .term_fd = r->term[0],
                                    .session = &r->session,
                                    .staged = r->with_store ? &staged : NULL,
                                    .guest = &guest_ops,
                                    .guest_user = &r->guest };
    assert_int_equal(fc_precopy_start(&pc, &r->precopy), 0);
    pthread_t guest_thread;
    if (r->busy_guest)
        pthread_create(&guest_thread, NULL, guest_main, &r->guest);
    if (r->meddle)
        pthread_create(&threads[n++], NULL, meddle_main, r);
    r->save = (struct libxc_save){ .guest = &r->guest,
                                   .stopped = &r->line.careful,
                                   .precopy = r->precopy,
                                   .fd = in[1],
                                   .refuse_suspend = r->refuse_suspend };
    r->saved = save(&r->save, r->guest_type ? r->guest_type : FC_DOMAIN_HVM);
    r->finished = fc_precopy_finish(r->precopy, r->saved == 0, &in[1]);
    close(to_line[0]);
    r->line.stall = false;
    pthread_mutex_lock(&r->guest.lock);
    r->guest.closed = true;
    pthread_mutex_unlock(&r->guest.lock);
    if (r->busy_guest)
        pthread_join(guest_thread, NULL);
    join_all(threads, n);
    r->received = fc_receiver_finish(receiver, r->restore.rc == 0);
    snprintf(r->why, sizeof(r->why), "%s", fc_precopy_why(r->precopy));
    snprintf(r->receiver_why, sizeof(r->receiver_why), "%s",
             fc_receiver_why(receiver));
    r->counts = *fc_receiver_counts(receiver);
    collect_events(r);

    fc_precopy_free(r->precopy);
    fc_receiver_free(receiver);
    fc_hashset_dispose(&staged);
    if (r->restore.rc == 0)
        close(out[0]);
    close(from_line[1]);
    close(far[1]);
    if (r->mute_after)
        pthread_join(ear, NULL);
    close(far[0]);
    close(back[0]);
    close(back[1]);
    close(r->term[0]);
    close(r->term[1]);
    close(r->status[0]);
    close(r->status[1]);
    pthread_mutex_destroy(&r->guest.lock);
}

static inline void run_free(struct run *r)
{
    kit_memory_free(&r->restore.memory);
    bytes_free(&r->events);
}

static inline void assert_event(const struct run *r, const char *part)
{
    if (!strstr((const char *)r->events.p, part))
        fail_msg("no '%s' in: ...%s", part,
                 (const char *)r->events.p +
                     (r->events.len > 700 ? r->events.len - 700 : 0));
}

/* The restored guest is the saved one. Pages without contents are not
 * compared: nobody can read them. */
static inline void assert_migrated(struct run *r)
{
    uint8_t page[FC_PAGE_SIZE];
    if (r->finished || r->received || r->restore.rc)
        fail_msg("seed %llu: sender %d (%s), receiver %d (%s), libxc %d",
                 (unsigned long long)r->seed, r->finished, r->why, r->received,
                 r->receiver_why, r->restore.rc);
    assert_int_equal(r->save.suspends, 1);
    assert_int_equal(r->guest.overlaps, 0);
    for (unsigned i = 0; i < PAGES; i++) {
        if (!r->guest.present[i])
            continue;
        kit_page(page, r->guest.numbers[i]);
        if (r->restore.memory.types[i] != 0 ||
            memcmp(page, r->restore.memory.bytes + (size_t)i * FC_PAGE_SIZE,
                   FC_PAGE_SIZE))
            fail_msg("seed %llu: page %u is not the guest's (type %u)",
                     (unsigned long long)r->seed, i,
                     r->restore.memory.types[i]);
    }
}

#endif
