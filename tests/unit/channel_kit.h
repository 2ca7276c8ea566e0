/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_CHANNEL_KIT_H
#define FC_TEST_CHANNEL_KIT_H

/*
 * A disk, its source engine and a real shadow, joined by a relay that passes
 * frames on one by one, counts them and can cut the channel at a chosen one. A
 * keeper thread connects anew after each cut, as the daemons do.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "err.h"
#include "feed.h"
#include "io.h"
#include "map.h"
#include "shadow.h"
#include "sink.h"
#include "source.h"
#include "volume.h"
#include "wire.h"

#define KIT_BLOCK 4096u
#define KIT_BLOCKS 160u
#define KIT_SIZE (KIT_BLOCK * KIT_BLOCKS - 1024u) /* the last one is short */
#define KIT_PATIENCE_MS 60000

/* Until the condition holds; fails the test, saying which, if it never does. */
#define kit_await(condition)                                                   \
    do {                                                                       \
        uint64_t await_end = fc_now_ms() + KIT_PATIENCE_MS;                    \
        while (!(condition)) {                                                 \
            if (fc_now_ms() > await_end)                                       \
                fail_msg("waited in vain for " #condition);                    \
            usleep(500);                                                       \
        }                                                                      \
    } while (0)

/* Where a channel is cut: at the count-th frame of that type in that direction
 * (type 0: of any), before it is passed on or after. count 0: never. */
struct kit_cut {
    int way; /* 0 to the shadow, 1 to the source */
    unsigned type, count;
    bool after;
};

struct kit {
    char dir[64];
    struct fc_source *source;
    struct fc_feed *feed;
    struct fc_shadow *shadow;
    struct fc_sink *sink;
    uint8_t model[KIT_SIZE]; /* what the guest wrote */
    unsigned seed;

    /* the keeper, and the relay of the present channel */
    pthread_t keeper;
    bool keeping;
    _Atomic bool stop;
    _Atomic unsigned connects, cuts;
    pthread_mutex_t lock;
    struct kit_cut next; /* taken by the next channel */
    struct kit_cut cut;
    int left[2], right[2]; /* ends of the relay: source's, shadow's */
    _Atomic unsigned seen[2][32];
    uint64_t offsets[4096]; /* of DATA, in order */
    _Atomic unsigned noffsets;
    uint64_t data_wire; /* bytes of DATA that passed */
};

static const uint8_t kit_uuid[FC_UUID_BYTES] = { 7, 1, [15] = 9 };

struct kit_way {
    struct kit *k;
    int way, from, to;
};

static inline bool kit_pass(struct kit_way *w, uint8_t *frame)
{
    struct kit *k = w->k;
    if (fc_read_exact(w->from, frame, FC_FRAME_HEADER))
        return false;
    uint32_t len = (uint32_t)fc_le_load(frame + 8, 4);
    if (len && fc_read_exact(w->from, frame + FC_FRAME_HEADER, len))
        return false;
    unsigned type = frame[5] % 32;
    k->seen[w->way][type]++;
    bool cut = k->cut.count && k->cut.way == w->way &&
               (!k->cut.type || k->cut.type == type) && --k->cut.count == 0;
    if (cut && !k->cut.after)
        return false;
    if (type == FC_FRAME_DATA && k->noffsets < 4096) {
        k->offsets[k->noffsets++] = fc_le_load(frame + FC_FRAME_HEADER + 16, 8);
        k->data_wire += len;
    }
    return !fc_write_all(w->to, frame, FC_FRAME_HEADER + len) && !cut;
}

static inline void *kit_relay(void *arg)
{
    struct kit_way *w = arg;
    uint8_t *frame = malloc(FC_FRAME_HEADER + FC_FRAME_MAX_BODY);
    while (frame && kit_pass(w, frame))
        ;
    shutdown(w->from, SHUT_RDWR);
    shutdown(w->to, SHUT_RDWR);
    free(frame);
    return NULL;
}

static inline void *kit_keep(void *arg)
{
    struct kit *k = arg;
    while (!k->stop) {
        pthread_t relays[2];
        pthread_mutex_lock(&k->lock);
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, k->left);
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, k->right);
        k->cut = k->next;
        k->next = (struct kit_cut){ .count = 0 };
        struct kit_way ways[2] = { { k, 0, k->left[1], k->right[1] },
                                   { k, 1, k->right[1], k->left[1] } };
        pthread_create(&relays[0], NULL, kit_relay, &ways[0]);
        pthread_create(&relays[1], NULL, kit_relay, &ways[1]);
        fc_sink_channel(k->sink, k->right[0], k->right[0]);
        fc_feed_channel(k->feed, k->left[0], k->left[0]);
        k->connects++;
        pthread_mutex_unlock(&k->lock);
        pthread_join(relays[0], NULL);
        pthread_join(relays[1], NULL);
        pthread_mutex_lock(&k->lock);
        fc_close(&k->left[1]);
        fc_close(&k->right[1]);
        k->cuts++;
        pthread_mutex_unlock(&k->lock);
    }
    return NULL;
}

/* Cuts the channel there is; the next one is cut as told. */
static inline void kit_recut(struct kit *k, struct kit_cut next)
{
    unsigned before = k->connects;
    pthread_mutex_lock(&k->lock);
    k->next = next;
    shutdown(k->left[1], SHUT_RDWR);
    shutdown(k->right[1], SHUT_RDWR);
    pthread_mutex_unlock(&k->lock);
    kit_await(k->connects > before);
}

static inline void kit_start(struct kit *k)
{
    k->stop = false;
    k->keeping = true;
    assert_int_equal(pthread_create(&k->keeper, NULL, kit_keep, k), 0);
    kit_await(k->connects > 0);
}

static inline void kit_halt(struct kit *k)
{
    if (!k->keeping)
        return;
    k->stop = true;
    pthread_mutex_lock(&k->lock);
    shutdown(k->left[1], SHUT_RDWR);
    shutdown(k->right[1], SHUT_RDWR);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->keeper, NULL);
    k->keeping = false;
    k->connects = 0;
}

static inline struct fc_volume *kit_volume(struct kit *k, const char *name,
                                           uint64_t size)
{
    char path[128];
    struct fc_volume *v;
    snprintf(path, sizeof(path), "%s/%s", k->dir, name);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)size), 0);
    fclose(f);
    assert_int_equal(fc_volume_open(path, 0, &v), 0);
    return v;
}

static inline void kit_open_source(struct kit *k)
{
    struct fc_feed_config config = { .name = "xvda",
                                     .block_bytes = KIT_BLOCK,
                                     .size = KIT_SIZE };
    memcpy(config.uuid, kit_uuid, sizeof(kit_uuid));
    assert_int_equal(fc_source_open(kit_volume(k, "source", KIT_SIZE),
                                    KIT_BLOCK, &k->source),
                     0);
    assert_int_equal(fc_feed_open(&config, k->source, &k->feed), 0);
}

static inline void kit_open_shadow(struct kit *k)
{
    struct fc_sink_config config = { .name = "xvda",
                                     .block_bytes = KIT_BLOCK,
                                     .size = KIT_SIZE };
    struct fc_map_id id = { .vdev = "xvda",
                            .size_bytes = KIT_SIZE,
                            .block_bytes = KIT_BLOCK };
    struct fc_map *map;
    memcpy(config.uuid, kit_uuid, sizeof(kit_uuid));
    memcpy(id.uuid, kit_uuid, sizeof(kit_uuid));
    assert_int_equal(fc_map_open(kit_volume(k, "map", 0), &id, &map), 0);
    assert_int_equal(fc_sink_open(&config, &k->sink), 0);
    struct fc_shadow_config sc = { .volume = kit_volume(k, "shadow", KIT_SIZE),
                                   .map = map,
                                   .primary = &fc_sink_primary,
                                   .primary_user = k->sink };
    assert_int_equal(fc_shadow_open(&sc, &k->shadow), 0);
    fc_sink_attach(k->sink, k->shadow);
    assert_int_equal(fc_shadow_start(k->shadow), 0);
}

static inline void kit_close_source(struct kit *k)
{
    if (!k->source)
        return;
    fc_source_cancel(k->source);
    fc_feed_close(k->feed);
    fc_source_close(k->source);
    k->source = NULL;
}

static inline void kit_close_shadow(struct kit *k)
{
    fc_shadow_cancel(k->shadow);
    fc_sink_stop(k->sink);
    assert_int_equal(fc_shadow_close(k->shadow), 0);
    fc_sink_close(k->sink);
}

static inline int kit_setup(void **state)
{
    struct kit *k = calloc(1, sizeof(*k));
    assert_non_null(k);
    signal(SIGPIPE, SIG_IGN);
    strcpy(k->dir, "/tmp/forecopy-channel-XXXXXX");
    assert_non_null(mkdtemp(k->dir));
    pthread_mutex_init(&k->lock, NULL);
    k->seed = 1;
    kit_open_source(k);
    kit_open_shadow(k);
    *state = k;
    return 0;
}

static inline int kit_teardown(void **state)
{
    struct kit *k = *state;
    char path[128];
    kit_halt(k);
    kit_close_source(k);
    kit_close_shadow(k);
    static const char *const names[] = { "source", "shadow", "map" };
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", k->dir, names[i]);
        unlink(path);
    }
    rmdir(k->dir);
    pthread_mutex_destroy(&k->lock);
    free(k);
    return 0;
}

/* ---- the guest ------------------------------------------------------------
 */

/* One random request of the guest, of any alignment. Only one thread. */
static inline int kit_guest(struct kit *k)
{
    uint8_t buf[3 * KIT_BLOCK];
    uint32_t len = 1 + (uint32_t)rand_r(&k->seed) % sizeof(buf);
    uint32_t offset = (uint32_t)rand_r(&k->seed) % KIT_SIZE;
    unsigned kind = (unsigned)rand_r(&k->seed) % 8;
    if (len > KIT_SIZE - offset)
        len = KIT_SIZE - offset;
    for (uint32_t i = 0; i < len; i++)
        buf[i] = kind < 3 ? (uint8_t)rand_r(&k->seed) : (uint8_t)(kind - 3);
    int rc = kind == 3 ? fc_source_zero(k->source, offset, len, true, false)
                       : fc_source_write(k->source, offset, buf, len, false);
    if (!rc)
        memcpy(k->model + offset, buf, len);
    return rc;
}

/* Every byte of the disk, so that nothing is zero and LZ4 finds nothing. */
static inline void kit_fill(struct kit *k)
{
    for (uint32_t i = 0; i < KIT_SIZE; i++)
        k->model[i] = (uint8_t)rand_r(&k->seed);
    assert_int_equal(
        fc_source_write(k->source, 0, k->model, KIT_SIZE, false), 0);
}

static inline void kit_writes(struct kit *k, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(kit_guest(k), 0);
}

/* What the guest would read at the destination, byte for byte. */
static inline void kit_compare(struct kit *k)
{
    static uint8_t buf[KIT_SIZE];
    for (uint32_t at = 0; at < KIT_SIZE; at += 3 * KIT_BLOCK) {
        uint32_t len =
            KIT_SIZE - at < 3 * KIT_BLOCK ? KIT_SIZE - at : 3 * KIT_BLOCK;
        assert_int_equal(fc_shadow_read(k->shadow, at, buf + at, len), 0);
    }
    for (uint32_t i = 0; i < KIT_SIZE; i++)
        if (buf[i] != k->model[i])
            fail_msg("byte %u (block %u) is %02x, not %02x", i, i / KIT_BLOCK,
                     buf[i], k->model[i]);
}

/* The shadow's volume itself, past the engine: what stays when it is gone. */
static inline void kit_compare_volume(struct kit *k)
{
    static uint8_t buf[KIT_SIZE];
    struct fc_volume *v = kit_volume(k, "shadow", KIT_SIZE);
    assert_int_equal(fc_volume_read(v, buf, KIT_SIZE, 0), 0);
    assert_memory_equal(buf, k->model, KIT_SIZE);
    fc_volume_close(v);
}

static inline bool kit_drained(struct kit *k)
{
    struct fc_feed_status s;
    fc_feed_status(k->feed, &s);
    return s.channel && !s.unacked_blocks && !fc_source_remaining(k->source);
}

static inline bool kit_complete(struct kit *k)
{
    struct fc_feed_status s;
    fc_feed_status(k->feed, &s);
    return s.complete;
}

static const uint8_t kit_migration[FC_MIGRATION_BYTES] = { 1, 2, [15] = 3 };
static const uint8_t kit_other[FC_MIGRATION_BYTES] = { 4, 5, [15] = 6 };

/* Whether one is greater than what either engine has seen. */
static inline uint64_t kit_epoch(struct kit *k)
{
    struct fc_feed_status s;
    struct fc_shadow_status d;
    fc_feed_status(k->feed, &s);
    fc_shadow_status(k->shadow, &d);
    return (s.epoch > d.epoch ? s.epoch : d.epoch) + 1;
}

#endif
