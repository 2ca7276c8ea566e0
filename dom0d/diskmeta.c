/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "diskmeta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "kvdb.h"
#include "log.h"
#include "wire.h"

#define VERSION 1u
#define RANGE_VERSION 2u /* 1: whether it is foretold was not said */
#define READS_VERSION 1u
#define MAP_BYTES (256u << 20) /* 256 ranges of thousands of copies */
#define KEY_BYTES (1 + FC_DISK_KEY + 1 + FC_DISKMETA_HOST + 4 + 1)
#define ONE_MILLION 1000000u

enum { FORETOLD = 1 }; /* of a range */
enum { MADE = 1, WARM = 2, OWNED = 4, COMPLETE = 8, ALL_FLAGS = 15 };

struct fc_diskmeta {
    struct fc_kvdb kv;
};

size_t fc_disk_volume_encode(const struct fc_disk_volume *v,
                             uint8_t out[FC_DISKMETA_VOLUME])
{
    struct fc_writer w = fc_writer_of(out, FC_DISKMETA_VOLUME);
    size_t len = strlen(v->path);
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, (v->made ? MADE : 0) | (v->warm ? WARM : 0) |
                       (v->owned ? OWNED : 0) | (v->complete ? COMPLETE : 0));
    fc_put_u64(&w, v->size);
    fc_put_u32(&w, v->block_bytes);
    fc_put_u32(&w, (uint32_t)len);
    fc_put_bytes(&w, v->migration, FC_MIGRATION_BYTES);
    fc_put_bytes(&w, v->path, len);
    return fc_writer_used(&w);
}

int fc_disk_volume_decode(const void *buf, size_t len, struct fc_disk_volume *v)
{
    struct fc_reader r = fc_reader_of(buf, len);
    memset(v, 0, sizeof(*v));
    uint32_t version = fc_get_u32(&r), flags = fc_get_u32(&r);
    v->size = fc_get_u64(&r);
    v->block_bytes = fc_get_u32(&r);
    uint32_t path = fc_get_u32(&r);
    const uint8_t *migration = fc_get_bytes(&r, FC_MIGRATION_BYTES);
    const uint8_t *text = fc_get_bytes(&r, path);
    if (r.bad || fc_reader_left(&r) || version != VERSION ||
        (flags & ~(uint32_t)ALL_FLAGS) || path >= FC_DISK_PATH || !v->size ||
        v->block_bytes < 4096 || v->block_bytes > 1 << 20 ||
        (v->block_bytes & (v->block_bytes - 1)) || memchr(text, '\0', path))
        return FC_EFORMAT;
    memcpy(v->migration, migration, FC_MIGRATION_BYTES);
    memcpy(v->path, text, path);
    v->made = flags & MADE;
    v->warm = flags & WARM;
    v->owned = flags & OWNED;
    v->complete = flags & COMPLETE;
    return fc_disk_path_ok(v->path) ? 0 : FC_EFORMAT;
}

void fc_disk_range_encode(const struct fc_disk_range *range,
                          uint8_t out[FC_DISKMETA_RANGE])
{
    struct fc_writer w = fc_writer_of(out, FC_DISKMETA_RANGE);
    fc_put_u32(&w, RANGE_VERSION);
    fc_put_u32(&w, range->foretold ? FORETOLD : 0);
    fc_put_u64(&w, range->first);
    fc_put_u32(&w, range->blocks);
    fc_put_u32(&w, range->valid);
    fc_put_u64(&w, range->epoch);
    fc_put_u32(&w, range->foretold ? range->chance_ppm : 0);
    fc_put_u32(&w, 0);
    fc_put_u64(&w, range->used_s);
}

int fc_disk_range_decode(const void *buf, size_t len,
                         struct fc_disk_range *range)
{
    struct fc_reader r = fc_reader_of(buf, len);
    memset(range, 0, sizeof(*range));
    uint32_t version = fc_get_u32(&r), flags = fc_get_u32(&r);
    range->first = fc_get_u64(&r);
    range->blocks = fc_get_u32(&r);
    range->valid = fc_get_u32(&r);
    range->epoch = fc_get_u64(&r);
    range->chance_ppm = fc_get_u32(&r);
    uint32_t zero = fc_get_u32(&r);
    range->used_s = fc_get_u64(&r);
    if (r.bad || fc_reader_left(&r) || version < 1 || version > RANGE_VERSION ||
        zero || flags > (version == 1 ? 0 : FORETOLD) || !range->blocks ||
        range->valid > range->blocks || range->chance_ppm > ONE_MILLION)
        return FC_EFORMAT;
    range->foretold = version == 1 ? range->chance_ppm > 0 : flags != 0;
    return range->chance_ppm && !range->foretold ? FC_EFORMAT : 0;
}

void fc_disk_reads_encode(const struct fc_readstats *s,
                          uint8_t out[FC_DISKMETA_READS])
{
    fc_le_store(out, READS_VERSION, 4);
    fc_le_store(out + 4, 0, 4);
    fc_readstats_encode(s, out + 8);
}

int fc_disk_reads_decode(const void *buf, size_t len, struct fc_readstats *s)
{
    const uint8_t *in = buf;
    if (len != FC_DISKMETA_READS || fc_le_load(in, 4) != READS_VERSION ||
        fc_le_load(in + 4, 4))
        return FC_EFORMAT;
    fc_readstats_decode(in + 8, s);
    return 0;
}

int fc_diskmeta_open(const char *dir, struct fc_diskmeta **meta_r)
{
    struct fc_diskmeta *m = calloc(1, sizeof(*m));
    if (!m)
        return FC_ENOMEM;
    int rc = fc_kvdb_open(dir, MAP_BYTES, &m->kv);
    if (rc) {
        free(m);
        return rc;
    }
    *meta_r = m;
    return 0;
}

void fc_diskmeta_close(struct fc_diskmeta *m)
{
    if (!m)
        return;
    fc_kvdb_close(&m->kv);
    free(m);
}

/* 'v' or 'r' and the disk; its length. */
static size_t key_of(char kind, const struct fc_disk_id *id, uint8_t *key)
{
    key[0] = (uint8_t)kind;
    return 1 + fc_disk_id_key(id, key + 1);
}

/* The range key's beginning up to the host's end (NULL: of all hosts). */
static size_t range_prefix(const struct fc_disk_id *id, const char *host,
                           uint8_t *key)
{
    size_t len = key_of('r', id, key);
    key[len++] = 0;
    if (!host)
        return len;
    size_t host_len = strnlen(host, FC_DISKMETA_HOST - 1);
    memcpy(key + len, host, host_len);
    len += host_len;
    key[len++] = 0;
    return len;
}

/* A disk's one record of a kind; `*txn_r` is to be aborted after use, also
 * after a failure when it is not NULL. */
static int get_one(struct fc_diskmeta *m, char kind,
                   const struct fc_disk_id *id, MDB_val *value, MDB_txn **txn_r)
{
    uint8_t bytes[KEY_BYTES];
    MDB_val key = { key_of(kind, id, bytes), bytes };
    *txn_r = NULL;
    int r = mdb_txn_begin(m->kv.env, NULL, MDB_RDONLY, txn_r);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_get(*txn_r, m->kv.dbi, &key, value);
    return r == MDB_NOTFOUND ? FC_ENOENT : fc_kvdb_error(r);
}

static int put_one(struct fc_diskmeta *m, char kind,
                   const struct fc_disk_id *id, uint8_t *record, size_t len)
{
    uint8_t bytes[KEY_BYTES];
    MDB_val key = { key_of(kind, id, bytes), bytes };
    MDB_val value = { len, record };
    MDB_txn *txn;
    int r = mdb_txn_begin(m->kv.env, NULL, 0, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_put(txn, m->kv.dbi, &key, &value, 0);
    if (r) {
        mdb_txn_abort(txn);
        return fc_kvdb_error(r);
    }
    return fc_kvdb_error(mdb_txn_commit(txn));
}

int fc_diskmeta_volume(struct fc_diskmeta *m, const struct fc_disk_id *id,
                       struct fc_disk_volume *v_r)
{
    MDB_val value;
    MDB_txn *txn;
    int rc = get_one(m, 'v', id, &value, &txn);
    if (!rc)
        rc = fc_disk_volume_decode(value.mv_data, value.mv_size, v_r);
    if (!rc)
        v_r->id = *id;
    mdb_txn_abort(txn);
    return rc;
}

int fc_diskmeta_volume_put(struct fc_diskmeta *m,
                           const struct fc_disk_volume *v)
{
    uint8_t record[FC_DISKMETA_VOLUME];
    return put_one(m, 'v', &v->id, record, fc_disk_volume_encode(v, record));
}

int fc_diskmeta_reads(struct fc_diskmeta *m, const struct fc_disk_id *id,
                      struct fc_readstats *s_r)
{
    MDB_val value;
    MDB_txn *txn;
    int rc = get_one(m, 'm', id, &value, &txn);
    if (!rc)
        rc = fc_disk_reads_decode(value.mv_data, value.mv_size, s_r);
    mdb_txn_abort(txn);
    return rc;
}

int fc_diskmeta_reads_put(struct fc_diskmeta *m, const struct fc_disk_id *id,
                          const struct fc_readstats *s)
{
    uint8_t record[FC_DISKMETA_READS];
    fc_disk_reads_encode(s, record);
    return put_one(m, 'm', id, record, sizeof(record));
}

static bool has_prefix(const MDB_val *key, const uint8_t *prefix, size_t len)
{
    return key->mv_size >= len && !memcmp(key->mv_data, prefix, len);
}

/* Removes all records whose key begins so. LMDB's code. */
static int remove_all(struct fc_diskmeta *m, MDB_txn *txn,
                      const uint8_t *prefix, size_t len)
{
    MDB_cursor *cursor;
    MDB_val key = { len, (void *)(uintptr_t)prefix }, value;
    int r = mdb_cursor_open(txn, m->kv.dbi, &cursor);
    if (r)
        return r;
    r = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (!r && has_prefix(&key, prefix, len)) {
        r = mdb_cursor_del(cursor, 0);
        if (!r)
            r = mdb_cursor_get(cursor, &key, &value, MDB_GET_CURRENT);
        /* past the last one */
        if (r == EINVAL || (!r && !key.mv_size))
            r = MDB_NOTFOUND;
    }
    mdb_cursor_close(cursor);
    return r == MDB_NOTFOUND ? 0 : r;
}

int fc_diskmeta_forget(struct fc_diskmeta *m, const struct fc_disk_id *id)
{
    uint8_t bytes[KEY_BYTES];
    MDB_val key = { key_of('v', id, bytes), bytes };
    MDB_txn *txn;
    int r = mdb_txn_begin(m->kv.env, NULL, 0, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_del(txn, m->kv.dbi, &key, NULL);
    bytes[0] = 'm';
    if (!r || r == MDB_NOTFOUND)
        r = mdb_del(txn, m->kv.dbi, &key, NULL);
    if (!r || r == MDB_NOTFOUND)
        r = remove_all(m, txn, bytes, range_prefix(id, NULL, bytes));
    if (r) {
        mdb_txn_abort(txn);
        return fc_kvdb_error(r);
    }
    return fc_kvdb_error(mdb_txn_commit(txn));
}

/* Walks through the records whose key begins so. */
static int walk(struct fc_diskmeta *m, const uint8_t *prefix, size_t len,
                void (*each)(void *user, const MDB_val *key,
                             const MDB_val *value),
                void *user)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key = { len, (void *)(uintptr_t)prefix }, value;
    int r = mdb_txn_begin(m->kv.env, NULL, MDB_RDONLY, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_cursor_open(txn, m->kv.dbi, &cursor);
    if (!r) {
        r = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        while (!r && has_prefix(&key, prefix, len)) {
            each(user, &key, &value);
            r = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return r == MDB_NOTFOUND ? 0 : fc_kvdb_error(r);
}

struct each_volume {
    void (*each)(void *user, const struct fc_disk_volume *v);
    void *user;
};

static void on_volume(void *user, const MDB_val *key, const MDB_val *value)
{
    const struct each_volume *e = user;
    struct fc_disk_volume v;
    struct fc_disk_id id;
    if (fc_disk_id_of_key((const uint8_t *)key->mv_data + 1, key->mv_size - 1,
                          &id) ||
        fc_disk_volume_decode(value->mv_data, value->mv_size, &v)) {
        fc_warn("a damaged record of a disk's volume is left out");
        return;
    }
    v.id = id;
    e->each(e->user, &v);
}

int fc_diskmeta_each(struct fc_diskmeta *m,
                     void (*each)(void *user, const struct fc_disk_volume *v),
                     void *user)
{
    struct each_volume e = { each, user };
    return walk(m, (const uint8_t *)"v", 1, on_volume, &e);
}

static void on_reads(void *user, const MDB_val *key, const MDB_val *value)
{
    struct fc_readstats one;
    (void)key;
    if (fc_disk_reads_decode(value->mv_data, value->mv_size, &one))
        fc_warn("a damaged record of a disk's reads is left out");
    else
        fc_readstats_add(user, &one);
}

int fc_diskmeta_reads_sum(struct fc_diskmeta *m, struct fc_readstats *sum_r)
{
    memset(sum_r, 0, sizeof(*sum_r));
    return walk(m, (const uint8_t *)"m", 1, on_reads, sum_r);
}

int fc_diskmeta_ranges_put(struct fc_diskmeta *m, const struct fc_disk_id *id,
                           const char *host, const struct fc_disk_range *ranges,
                           unsigned count)
{
    uint8_t bytes[KEY_BYTES], record[FC_DISKMETA_RANGE];
    size_t len = range_prefix(id, host, bytes);
    MDB_txn *txn;
    if (count > FC_DISKMETA_RANGES)
        return FC_EINVAL;
    int r = mdb_txn_begin(m->kv.env, NULL, 0, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = remove_all(m, txn, bytes, len);
    for (unsigned i = 0; i < count && !r; i++) {
        MDB_val key = { len + 4, bytes }, value = { sizeof(record), record };
        bytes[len] = (uint8_t)(i >> 24);
        bytes[len + 1] = (uint8_t)(i >> 16);
        bytes[len + 2] = (uint8_t)(i >> 8);
        bytes[len + 3] = (uint8_t)i;
        fc_disk_range_encode(&ranges[i], record);
        r = mdb_put(txn, m->kv.dbi, &key, &value, 0);
    }
    if (r) {
        mdb_txn_abort(txn);
        return fc_kvdb_error(r);
    }
    return fc_kvdb_error(mdb_txn_commit(txn));
}

struct each_range {
    void (*each)(void *user, const char *host, const struct fc_disk_range *r);
    void *user;
    size_t skip; /* of the key: up to the host */
};

static void on_range(void *user, const MDB_val *key, const MDB_val *value)
{
    const struct each_range *e = user;
    struct fc_disk_range range;
    const char *host = (const char *)key->mv_data + e->skip;
    size_t left = key->mv_size - e->skip;
    if (left < 5 || host[left - 5] || strlen(host) != left - 5 ||
        fc_disk_range_decode(value->mv_data, value->mv_size, &range)) {
        fc_warn("a damaged record of a disk's copy is left out");
        return;
    }
    e->each(e->user, host, &range);
}

int fc_diskmeta_ranges(struct fc_diskmeta *m, const struct fc_disk_id *id,
                       void (*each)(void *user, const char *host,
                                    const struct fc_disk_range *r),
                       void *user)
{
    uint8_t bytes[KEY_BYTES];
    struct each_range e = { each, user, range_prefix(id, NULL, bytes) };
    return walk(m, bytes, e.skip, on_range, &e);
}
