/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_SHADOW_KIT_H
#define FC_TEST_SHADOW_KIT_H

/*
 * Shadows on volumes in memory that keep a log of every change and sync, over
 * a primary in memory that can be taken out of reach, or be made to wait.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "map.h"
#include "shadow.h"
#include "volume.h"

/* Noise that a thread owns. */
static inline uint64_t kit_rng(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- volumes in memory, and their common log ---- */

enum kit_kind { KIT_WRITE, KIT_ZERO, KIT_SYNC };

struct kit_entry {
    enum kit_kind kind;
    unsigned volume; /* 0 data, 1 map */
    uint64_t offset, len;
    uint8_t *data; /* KIT_WRITE */
};

struct kit_log {
    pthread_mutex_t lock;
    struct kit_entry *entries;
    size_t count, room;
    bool keep; /* false: entries are counted only */
};

struct kit_volume {
    struct kit_log *log;
    unsigned number;
    uint8_t *bytes;
    uint64_t size;
    bool fail; /* every write and sync fails; the log's lock */
};

static inline void kit_note(struct kit_volume *v, enum kit_kind kind,
                            const void *data, uint64_t offset, uint64_t len)
{
    struct kit_log *log = v->log;

    if (!log->keep) {
        log->count++;
        return;
    }
    if (log->count == log->room) {
        log->room = log->room ? log->room * 2 : 64;
        log->entries = realloc(log->entries, log->room * sizeof(*log->entries));
        assert_non_null(log->entries);
    }
    struct kit_entry *e = &log->entries[log->count++];
    *e = (struct kit_entry){ kind, v->number, offset, len, NULL };
    if (data) {
        e->data = malloc(len);
        assert_non_null(e->data);
        memcpy(e->data, data, len);
    }
}

static inline int kit_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct kit_volume *v = user;

    if (offset + len > v->size) {
        errno = ENXIO;
        return FC_EIO;
    }
    /* blocks are locked by the shadow, not here: a race shows under TSan */
    memcpy(buf, v->bytes + offset, len);
    return 0;
}

static inline int kit_change(struct kit_volume *v, enum kit_kind kind,
                             const void *data, uint64_t offset, uint64_t len)
{
    pthread_mutex_lock(&v->log->lock);
    bool fail = v->fail || offset + len > v->size;
    if (!fail)
        kit_note(v, kind, data, offset, len);
    pthread_mutex_unlock(&v->log->lock);
    if (fail)
        errno = ENXIO;
    return fail ? FC_EIO : 0;
}

static inline int kit_write(void *user, const void *buf, size_t len,
                            uint64_t offset)
{
    struct kit_volume *v = user;
    int rc = kit_change(v, KIT_WRITE, buf, offset, len);

    if (!rc)
        memcpy(v->bytes + offset, buf, len);
    return rc;
}

static inline int kit_zero(void *user, uint64_t offset, uint64_t len,
                           bool punch)
{
    struct kit_volume *v = user;
    int rc = kit_change(v, KIT_ZERO, NULL, offset, len);

    (void)punch;
    if (!rc)
        memset(v->bytes + offset, 0, len);
    return rc;
}

static inline int kit_trim(void *user, uint64_t offset, uint64_t len)
{
    return kit_zero(user, offset, len, true);
}

static inline int kit_sync(void *user)
{
    return kit_change(user, KIT_SYNC, NULL, 0, 0);
}

static inline void kit_close(void *user)
{
    (void)user; /* the test looks at the bytes afterwards */
}

static const struct fc_volume_ops kit_volume_ops = {
    .read = kit_read,
    .write = kit_write,
    .zero = kit_zero,
    .trim = kit_trim,
    .sync = kit_sync,
    .close = kit_close,
};

/* ---- the primary ---- */

struct kit_primary {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint8_t *bytes;
    uint64_t size;
    bool down, cancelled;
    bool gated;       /* reads wait until the gate opens */
    unsigned waiting; /* reads at the gate */
    unsigned reads, writes;
    uint32_t wanted[64]; /* what `want` was told: first, count, ... */
    unsigned wants;
};

static inline int kit_primary_read(void *user, uint64_t offset, void *buf,
                                   size_t len)
{
    struct kit_primary *p = user;

    pthread_mutex_lock(&p->lock);
    p->reads++;
    bool out = p->down || p->cancelled;
    if (!out) /* what it is before the gate: stale when that opens */
        memcpy(buf, p->bytes + offset, len);
    if (!out && p->gated) {
        p->waiting++;
        pthread_cond_broadcast(&p->changed);
        while (p->gated && !p->cancelled)
            pthread_cond_wait(&p->changed, &p->lock);
        p->waiting--;
    }
    out |= p->cancelled;
    pthread_mutex_unlock(&p->lock);
    return out ? FC_EPEER : 0;
}

static inline int kit_primary_put(struct kit_primary *p, uint64_t offset,
                                  const void *buf, uint64_t len)
{
    pthread_mutex_lock(&p->lock);
    bool out = p->down || p->cancelled;
    if (!out && buf)
        memcpy(p->bytes + offset, buf, len);
    else if (!out)
        memset(p->bytes + offset, 0, len);
    p->writes += !out;
    pthread_mutex_unlock(&p->lock);
    return out ? FC_EPEER : 0;
}

static inline int kit_primary_write(void *user, uint64_t offset,
                                    const void *buf, size_t len)
{
    return kit_primary_put(user, offset, buf, len);
}

static inline int kit_primary_zero(void *user, uint64_t offset, uint64_t len)
{
    return kit_primary_put(user, offset, NULL, len);
}

static inline int kit_primary_flush(void *user)
{
    struct kit_primary *p = user;

    pthread_mutex_lock(&p->lock);
    bool out = p->down || p->cancelled;
    pthread_mutex_unlock(&p->lock);
    return out ? FC_EPEER : 0;
}

static inline void kit_primary_want(void *user, uint32_t block, uint32_t count)
{
    struct kit_primary *p = user;

    pthread_mutex_lock(&p->lock);
    if (p->wants + 2 <= 64) {
        p->wanted[p->wants++] = block;
        p->wanted[p->wants++] = count;
    }
    pthread_mutex_unlock(&p->lock);
}

static inline void kit_primary_cancel(void *user)
{
    struct kit_primary *p = user;

    pthread_mutex_lock(&p->lock);
    p->cancelled = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static const struct fc_primary_ops kit_primary_ops = {
    .read = kit_primary_read,
    .write = kit_primary_write,
    .zero = kit_primary_zero,
    .trim = kit_primary_zero,
    .flush = kit_primary_flush,
    .cancel = kit_primary_cancel,
};

/* One that pushes by itself. */
static const struct fc_primary_ops kit_pushing_ops = {
    .read = kit_primary_read,
    .want = kit_primary_want,
    .cancel = kit_primary_cancel,
};

static inline void kit_primary_set(struct kit_primary *p, bool down, bool gated)
{
    pthread_mutex_lock(&p->lock);
    p->down = down;
    p->gated = gated;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static inline unsigned kit_primary_reads(struct kit_primary *p)
{
    pthread_mutex_lock(&p->lock);
    unsigned n = p->reads;
    pthread_mutex_unlock(&p->lock);
    return n;
}

/* Bounded waits: fails the test, with the reason, after 60 s. */
#define KIT_WAIT(what, condition)                                              \
    do {                                                                       \
        unsigned kit_waited = 0;                                               \
        while (!(condition)) {                                                 \
            if (kit_waited++ > 60000)                                          \
                fail_msg("waited a minute for %s", what);                      \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

static inline unsigned kit_primary_waiting(struct kit_primary *p)
{
    pthread_mutex_lock(&p->lock);
    unsigned n = p->waiting;
    pthread_mutex_unlock(&p->lock);
    return n;
}

/* ---- a whole disk ---- */

#define KIT_BLOCK 4096u
/* the last block is short, so that its edge is in every test */
#define KIT_BLOCKS 600u
#define KIT_SIZE ((uint64_t)(KIT_BLOCKS - 1) * KIT_BLOCK + 1536)

static const uint8_t kit_migration[FC_MIGRATION_BYTES] = "migration-one..";

struct kit {
    struct kit_log log;
    struct kit_volume data, map;
    struct kit_primary primary;
    struct fc_map_id id;
    struct fc_shadow *s;
};

/* What the primary has at the start: each sector its own number throughout. */
static inline void kit_sector(uint8_t *to, uint64_t sector, uint64_t version)
{
    for (unsigned i = 0; i < 512; i += 8) {
        uint64_t v = sector << 32 | version;
        memcpy(to + i, &v, 8);
    }
}

static inline void kit_fill(uint8_t *to, uint64_t offset, uint64_t len,
                            uint64_t version)
{
    for (uint64_t at = 0; at < len; at += 512)
        kit_sector(to + at, (offset + at) / 512, version);
}

static inline void kit_init_sized(struct kit *k, uint64_t size, uint32_t block,
                                  bool cache)
{
    memset(k, 0, sizeof(*k));
    pthread_mutex_init(&k->log.lock, NULL);
    pthread_mutex_init(&k->primary.lock, NULL);
    pthread_cond_init(&k->primary.changed, NULL);
    k->id.size_bytes = size;
    k->id.block_bytes = block;
    k->id.cache = cache;
    strcpy(k->id.vdev, "xvda");
    memset(k->id.uuid, 0x5a, FC_UUID_BYTES);
    k->data = (struct kit_volume){ .log = &k->log, .size = size };
    k->map = (struct kit_volume){
        .log = &k->log,
        .number = 1,
        .size = 2 * fc_map_slot_bytes(fc_map_blocks(size, block)),
    };
    k->data.bytes = malloc(size);
    k->map.bytes = calloc(1, k->map.size);
    k->primary.bytes = malloc(size);
    k->primary.size = size;
    assert_true(k->data.bytes && k->map.bytes && k->primary.bytes);
    memset(k->data.bytes, 0xee, size); /* never to be seen */
    kit_fill(k->primary.bytes, 0, size, 1);
}

static inline int kit_try_open(struct kit *k, const struct fc_primary_ops *ops,
                               uint64_t budget)
{
    struct fc_shadow_config config = {
        .primary = ops,
        .primary_user = &k->primary,
        .cache = k->id.cache,
        .budget_bytes = budget,
        .depth = 4,
    };
    struct fc_volume *file;

    k->primary.cancelled = false;
    assert_int_equal(
        fc_volume_new(&kit_volume_ops, &k->data, k->data.size, &config.volume),
        0);
    assert_int_equal(
        fc_volume_new(&kit_volume_ops, &k->map, k->map.size, &file), 0);
    int rc = fc_map_open(file, &k->id, &config.map);
    if (rc) {
        fc_volume_close(file);
    } else {
        rc = fc_shadow_open(&config, &k->s);
        if (rc)
            fc_map_close(config.map);
    }
    if (rc)
        fc_volume_close(config.volume);
    return rc;
}

static inline void kit_open(struct kit *k)
{
    assert_int_equal(kit_try_open(k, &kit_primary_ops, 0), 0);
}

static inline void kit_init(struct kit *k)
{
    kit_init_sized(k, KIT_SIZE, KIT_BLOCK, false);
    kit_open(k);
}

static inline void kit_close_shadow(struct kit *k)
{
    assert_int_equal(fc_shadow_close(k->s), 0);
    k->s = NULL;
}

static inline void kit_log_dispose(struct kit_log *log)
{
    for (size_t i = 0; log->keep && i < log->count; i++)
        free(log->entries[i].data);
    free(log->entries);
    log->entries = NULL;
    log->count = log->room = 0;
}

static inline void kit_dispose(struct kit *k)
{
    if (k->s)
        kit_close_shadow(k);
    kit_log_dispose(&k->log);
    free(k->data.bytes);
    free(k->map.bytes);
    free(k->primary.bytes);
}

/* COPYING -> FENCED with blocks `invalid` (a set the test made, or all). */
static inline void kit_fence(struct kit *k, const struct fc_blockset *invalid)
{
    struct fc_blockset all;

    assert_int_equal(
        fc_blockset_init(
            &all, fc_map_blocks(k->id.size_bytes, k->id.block_bytes), true),
        0);
    assert_int_equal(
        fc_shadow_fence(k->s, invalid ? invalid : &all, kit_migration, 7), 0);
    fc_blockset_dispose(&all);
}

static inline void kit_own(struct kit *k)
{
    kit_fence(k, NULL);
    assert_int_equal(fc_shadow_own(k->s, kit_migration, 7), 0);
}

static inline struct fc_shadow_status kit_status(struct kit *k)
{
    struct fc_shadow_status status;

    fc_shadow_status(k->s, &status);
    return status;
}

static inline bool kit_is_valid(struct kit *k, uint32_t block)
{
    struct fc_blockset set;

    assert_int_equal(
        fc_blockset_init(
            &set, fc_map_blocks(k->id.size_bytes, k->id.block_bytes), false),
        0);
    fc_shadow_valid(k->s, &set);
    bool valid = fc_blockset_test(&set, block);
    fc_blockset_dispose(&set);
    return valid;
}

/* The disk as the guest reads it is `want`. */
static inline void kit_assert_reads(struct kit *k, uint64_t offset,
                                    const uint8_t *want, uint64_t len)
{
    uint8_t *got = malloc(len);

    assert_non_null(got);
    assert_int_equal(fc_shadow_read(k->s, offset, got, len), 0);
    for (uint64_t i = 0; i < len; i++)
        if (got[i] != want[i])
            fail_msg("byte %llu reads %02x, not %02x",
                     (unsigned long long)(offset + i), got[i], want[i]);
    free(got);
}

#endif
