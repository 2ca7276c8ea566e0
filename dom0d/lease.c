/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lease.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "err.h"
#include "kvdb.h"
#include "log.h"
#include "wire.h"

#define VERSION 1u
#define MAP_BYTES (16u << 20)

struct fc_lease_db {
    struct fc_kvdb kv;
};

static const uint8_t no_migration[FC_MIGRATION_BYTES];

const char *fc_lease_state_name(enum fc_lease_state state)
{
    static const char *const names[] = { "here", "offered", "passed" };
    return names[state];
}

size_t fc_lease_encode(const struct fc_lease *l, uint8_t out[FC_LEASE_RECORD])
{
    struct fc_writer w = fc_writer_of(out, FC_LEASE_RECORD);
    size_t host = strlen(l->host);
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, l->state);
    fc_put_u64(&w, l->epoch);
    fc_put_bytes(&w, l->migration, FC_MIGRATION_BYTES);
    fc_put_u64(&w, l->written_s);
    fc_put_u16(&w, (uint16_t)host);
    fc_put_u16(&w, 0);
    fc_put_bytes(&w, l->host, host);
    return fc_writer_used(&w);
}

int fc_lease_decode(const void *buf, size_t len, struct fc_lease *l)
{
    struct fc_reader r = fc_reader_of(buf, len);
    memset(l, 0, sizeof(*l));
    uint32_t version = fc_get_u32(&r), state = fc_get_u32(&r);
    l->epoch = fc_get_u64(&r);
    const uint8_t *migration = fc_get_bytes(&r, FC_MIGRATION_BYTES);
    l->written_s = fc_get_u64(&r);
    uint16_t host = fc_get_u16(&r), zero = fc_get_u16(&r);
    const uint8_t *name = fc_get_bytes(&r, host);
    if (r.bad || fc_reader_left(&r) || version != VERSION || zero ||
        state > FC_LEASE_PASSED || !l->epoch || host >= FC_LEASE_HOST ||
        (host == 0) != (state == FC_LEASE_HERE) || memchr(name, '\0', host))
        return FC_EFORMAT;
    l->state = (enum fc_lease_state)state;
    memcpy(l->migration, migration, FC_MIGRATION_BYTES);
    memcpy(l->host, name, host);
    return 0;
}

int fc_lease_db_open(const char *dir, struct fc_lease_db **db_r)
{
    struct fc_lease_db *db = calloc(1, sizeof(*db));
    if (!db)
        return FC_ENOMEM;
    int rc = fc_kvdb_open(dir, MAP_BYTES, &db->kv);
    if (rc) {
        free(db);
        return rc;
    }
    *db_r = db;
    return 0;
}

void fc_lease_db_close(struct fc_lease_db *db)
{
    if (!db)
        return;
    fc_kvdb_close(&db->kv);
    free(db);
}

static int get(struct fc_lease_db *db, MDB_txn *txn,
               const struct fc_disk_id *id, struct fc_lease *l)
{
    uint8_t bytes[FC_DISK_KEY];
    MDB_val key = { fc_disk_id_key(id, bytes), bytes }, value;
    int r = mdb_get(txn, db->kv.dbi, &key, &value), rc = 0;
    memset(l, 0, sizeof(*l));
    if (!r)
        rc = fc_lease_decode(value.mv_data, value.mv_size, l);
    else if (r != MDB_NOTFOUND)
        rc = fc_kvdb_error(r);
    l->id = *id;
    return rc;
}

static int put(struct fc_lease_db *db, MDB_txn *txn, struct fc_lease *l)
{
    uint8_t bytes[FC_DISK_KEY], record[FC_LEASE_RECORD];
    MDB_val key = { fc_disk_id_key(&l->id, bytes), bytes };
    l->written_s = (uint64_t)time(NULL);
    MDB_val value = { fc_lease_encode(l, record), record };
    return fc_kvdb_error(mdb_put(txn, db->kv.dbi, &key, &value, 0));
}

static int begin(struct fc_lease_db *db, MDB_txn **txn_r)
{
    return fc_kvdb_error(mdb_txn_begin(db->kv.env, NULL, 0, txn_r));
}

/* Commits when rc is 0, which syncs; else undoes. */
static int end(MDB_txn *txn, int rc)
{
    if (!rc)
        return fc_kvdb_error(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return rc;
}

int fc_lease_get(struct fc_lease_db *db, const struct fc_disk_id *id,
                 struct fc_lease *lease_r)
{
    MDB_txn *txn;
    int rc = fc_kvdb_error(mdb_txn_begin(db->kv.env, NULL, MDB_RDONLY, &txn));
    if (rc)
        return rc;
    rc = get(db, txn, id, lease_r);
    mdb_txn_abort(txn);
    return rc;
}

static bool is_of(const struct fc_lease *l,
                  const uint8_t migration[FC_MIGRATION_BYTES])
{
    return !memcmp(l->migration, migration, FC_MIGRATION_BYTES);
}

/* One disk of an offer, within its transaction. */
static int offer_one(struct fc_lease_db *db, MDB_txn *txn, struct fc_lease *l,
                     const char *host,
                     const uint8_t migration[FC_MIGRATION_BYTES])
{
    if (l->state != FC_LEASE_HERE)
        return is_of(l, migration) && !strcmp(l->host, host) ? 0 : FC_EPERM;
    l->state = FC_LEASE_OFFERED;
    l->epoch++;
    memcpy(l->migration, migration, FC_MIGRATION_BYTES);
    memcpy(l->host, host, strlen(host) + 1);
    return put(db, txn, l);
}

int fc_lease_offer(struct fc_lease_db *db, const struct fc_disk_id *ids,
                   unsigned count, const char *host,
                   const uint8_t migration[FC_MIGRATION_BYTES],
                   uint64_t *epochs_r, struct fc_lease *refused_r)
{
    struct fc_lease l;
    MDB_txn *txn;
    if (!*host || strlen(host) >= FC_LEASE_HOST ||
        !memcmp(migration, no_migration, FC_MIGRATION_BYTES))
        return FC_EINVAL;
    int rc = begin(db, &txn);
    if (rc)
        return rc;
    for (unsigned i = 0; i < count && !rc; i++) {
        rc = get(db, txn, &ids[i], &l);
        if (!rc)
            rc = offer_one(db, txn, &l, host, migration);
        epochs_r[i] = l.epoch;
    }
    if (rc)
        *refused_r = l;
    return end(txn, rc);
}

int fc_lease_pass(struct fc_lease_db *db, const struct fc_disk_id *ids,
                  unsigned count, const uint8_t migration[FC_MIGRATION_BYTES])
{
    struct fc_lease l;
    MDB_txn *txn;
    int rc = begin(db, &txn);
    if (rc)
        return rc;
    for (unsigned i = 0; i < count && !rc; i++) {
        rc = get(db, txn, &ids[i], &l);
        if (!rc && (l.state == FC_LEASE_HERE || !is_of(&l, migration)))
            rc = FC_EPERM;
        if (rc || l.state == FC_LEASE_PASSED)
            continue;
        l.state = FC_LEASE_PASSED;
        rc = put(db, txn, &l);
    }
    return end(txn, rc);
}

int fc_lease_return(struct fc_lease_db *db, const struct fc_disk_id *id,
                    const uint8_t migration[FC_MIGRATION_BYTES], bool agreed)
{
    struct fc_lease l;
    MDB_txn *txn;
    int rc = begin(db, &txn);
    if (rc)
        return rc;
    rc = get(db, txn, id, &l);
    if (!rc && l.state != FC_LEASE_HERE) {
        if (!is_of(&l, migration) || (l.state == FC_LEASE_PASSED && !agreed)) {
            rc = FC_EPERM;
        } else {
            l.state = FC_LEASE_HERE;
            l.epoch++;
            l.host[0] = '\0';
            rc = put(db, txn, &l);
        }
    }
    return end(txn, rc);
}

int fc_lease_take(struct fc_lease_db *db, const struct fc_disk_id *id,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch)
{
    struct fc_lease l;
    MDB_txn *txn;
    int rc = begin(db, &txn);
    if (rc)
        return rc;
    rc = get(db, txn, id, &l);
    if (!rc && (l.epoch > epoch || !epoch ||
                (l.epoch == epoch && l.state != FC_LEASE_HERE)))
        rc = FC_EPERM;
    if (!rc && l.epoch < epoch) {
        l.state = FC_LEASE_HERE;
        l.epoch = epoch;
        l.host[0] = '\0';
        memcpy(l.migration, migration, FC_MIGRATION_BYTES);
        rc = put(db, txn, &l);
    }
    return end(txn, rc);
}

int fc_lease_override(struct fc_lease_db *db, const struct fc_disk_id *id,
                      const char *host)
{
    struct fc_lease l;
    MDB_txn *txn;
    if (host && (!*host || strlen(host) >= FC_LEASE_HOST))
        return FC_EINVAL;
    int rc = begin(db, &txn);
    if (rc)
        return rc;
    rc = get(db, txn, id, &l);
    if (rc == FC_EFORMAT) /* this is how a damaged one is mended */
        rc = 0;
    if (!rc) {
        l.id = *id;
        l.epoch++;
        l.state = host ? FC_LEASE_PASSED : FC_LEASE_HERE;
        memset(l.host, 0, sizeof(l.host));
        if (host)
            memcpy(l.host, host, strlen(host) + 1);
        memcpy(l.migration, no_migration, FC_MIGRATION_BYTES);
        rc = put(db, txn, &l);
    }
    return end(txn, rc);
}

int fc_lease_each(struct fc_lease_db *db,
                  void (*each)(void *user, const struct fc_lease *lease),
                  void *user)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    int r = mdb_txn_begin(db->kv.env, NULL, MDB_RDONLY, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_cursor_open(txn, db->kv.dbi, &cursor);
    if (r) {
        mdb_txn_abort(txn);
        return fc_kvdb_error(r);
    }
    while (!(r = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
        struct fc_lease l;
        struct fc_disk_id id;
        if (fc_disk_id_of_key(key.mv_data, key.mv_size, &id) ||
            fc_lease_decode(value.mv_data, value.mv_size, &l)) {
            fc_warn("a damaged record of a disk's lease is left out");
            continue;
        }
        l.id = id;
        each(user, &l);
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return r == MDB_NOTFOUND ? 0 : fc_kvdb_error(r);
}
