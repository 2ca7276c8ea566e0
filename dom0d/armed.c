/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "armed.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "kvdb.h"
#include "learned.h"
#include "log.h"
#include "wire.h"

/* Key: uuid. Record, little endian: u32 version, u32 channels, u64 rate, u16
 * length of the host, u16 of the command, u32 seconds of 1970 since when its
 * domain is not here (0: it is), host, command. And under the key
 * "calibration": u32 version, u32 samples, u64 nanoseconds a page, u64
 * microseconds of scan, u64 fixed, u64 overhead and u64 of disks. Under
 * "links": as in linkrate.h. Under "profile" and a uuid:
 * docs/formats/profile.md. Under "learned" and a uuid: 7 bytes seconds of 1970
 * when it was kept, u8 1 when it came with the guest, then
 * docs/formats/learned.md. */
#define RECORD_VERSION 1u
#define CALIBRATION "calibration"
#define CALIBRATION_VERSION 2u
#define CALIBRATION_BYTES 48u
#define LINKS "links"
#define MAX_PAGE_US 1e6
#define MAX_FIXED_MS 1e6
#define PROFILE "profile"
#define PROFILE_KEY (sizeof(PROFILE) - 1 + FC_UUID_BYTES)
#define LEARNED "learned"
#define LEARNED_HEAD 8u
#define LEARNED_TIME 7u /* of the head */
_Static_assert(sizeof(LEARNED) == sizeof(PROFILE), "keys of one length");
#define MAP_BYTES (64u << 20) /* thousands of guests and their profiles */

struct fc_armed_db {
    struct fc_kvdb kv;
};

ssize_t fc_armed_encode(const struct fc_armed *armed, void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    size_t host = strlen(armed->host), command = strlen(armed->command);
    fc_put_u32(&w, RECORD_VERSION);
    fc_put_u32(&w, armed->channels);
    fc_put_u64(&w, armed->rate_bytes);
    fc_put_u16(&w, (uint16_t)host);
    fc_put_u16(&w, (uint16_t)command);
    fc_put_u32(&w, armed->away_since_s);
    fc_put_bytes(&w, armed->host, host);
    fc_put_bytes(&w, armed->command, command);
    return w.bad ? FC_ETOOBIG : (ssize_t)fc_writer_used(&w);
}

static bool take_text(struct fc_reader *r, size_t len, char *out, size_t cap)
{
    const uint8_t *text = fc_get_bytes(r, len);
    if (!text || len >= cap || memchr(text, '\0', len))
        return false;
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

int fc_armed_decode(const void *buf, size_t len, struct fc_armed *armed_r)
{
    struct fc_reader r = fc_reader_of(buf, len);
    memset(armed_r, 0, sizeof(*armed_r));
    uint32_t version = fc_get_u32(&r);
    armed_r->channels = fc_get_u32(&r);
    armed_r->rate_bytes = fc_get_u64(&r);
    uint16_t host = fc_get_u16(&r), command = fc_get_u16(&r);
    armed_r->away_since_s = fc_get_u32(&r);
    if (r.bad || version != RECORD_VERSION ||
        armed_r->channels > FC_UPLINK_CHANNELS)
        return FC_EFORMAT;
    if (!take_text(&r, host, armed_r->host, sizeof(armed_r->host)) ||
        !take_text(&r, command, armed_r->command, sizeof(armed_r->command)) ||
        fc_reader_left(&r) || !fc_settings_host_ok(armed_r->host))
        return FC_EFORMAT;
    return 0;
}

int fc_armed_db_open(const char *dir, struct fc_armed_db **db_r)
{
    struct fc_armed_db *db = calloc(1, sizeof(*db));
    if (!db)
        return FC_ENOMEM;
    int rc = fc_kvdb_open(dir, MAP_BYTES, &db->kv);
    if (rc)
        free(db);
    else
        *db_r = db;
    return rc;
}

void fc_armed_db_close(struct fc_armed_db *db)
{
    if (!db)
        return;
    fc_kvdb_close(&db->kv);
    free(db);
}

/* Puts the record, or with a NULL value removes it. */
static int change(struct fc_armed_db *db, const void *key_bytes, size_t len,
                  MDB_val *value)
{
    uint8_t bytes[PROFILE_KEY];
    MDB_val key = { len, bytes };
    MDB_txn *txn;
    memcpy(bytes, key_bytes, len);
    int r = mdb_txn_begin(db->kv.env, NULL, 0, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = value ? mdb_put(txn, db->kv.dbi, &key, value, 0)
              : mdb_del(txn, db->kv.dbi, &key, NULL);
    if (r && r != MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return fc_kvdb_error(r);
    }
    return fc_kvdb_error(mdb_txn_commit(txn));
}

int fc_armed_db_put(struct fc_armed_db *db, const struct fc_armed *armed)
{
    uint8_t record[FC_ARMED_RECORD];
    ssize_t n = fc_armed_encode(armed, record, sizeof(record));
    if (n < 0)
        return (int)n;
    MDB_val value = { (size_t)n, record };
    return change(db, armed->uuid, FC_UUID_BYTES, &value);
}

int fc_armed_db_remove(struct fc_armed_db *db, const uint8_t *uuid)
{
    return change(db, uuid, FC_UUID_BYTES, NULL);
}

static bool is_of(const MDB_val *key, const char *what)
{
    return key->mv_size == PROFILE_KEY &&
           !memcmp(key->mv_data, what, sizeof(PROFILE) - 1);
}

static bool is_named(const MDB_val *key, const char *name)
{
    return key->mv_size == strlen(name) &&
           !memcmp(key->mv_data, name, key->mv_size);
}

static void make_key(const char *what, const uint8_t *uuid,
                     uint8_t bytes[PROFILE_KEY])
{
    memcpy(bytes, what, sizeof(PROFILE) - 1);
    memcpy(bytes + sizeof(PROFILE) - 1, uuid, FC_UUID_BYTES);
}

/* Begins a walk through all records; LMDB's code. */
static int walk(struct fc_armed_db *db, unsigned flags, MDB_txn **txn_r,
                MDB_cursor **cursor_r)
{
    int r = mdb_txn_begin(db->kv.env, NULL, flags, txn_r);
    if (r)
        return r;
    r = mdb_cursor_open(*txn_r, db->kv.dbi, cursor_r);
    if (r)
        mdb_txn_abort(*txn_r);
    return r;
}

int fc_armed_db_each(struct fc_armed_db *db,
                     void (*each)(void *user, const struct fc_armed *armed),
                     void *user)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    int r = walk(db, MDB_RDONLY, &txn, &cursor);
    if (r)
        return fc_kvdb_error(r);
    while (!(r = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
        struct fc_armed armed;
        if (is_named(&key, CALIBRATION) || is_named(&key, LINKS) ||
            is_of(&key, PROFILE) || is_of(&key, LEARNED))
            continue;
        if (key.mv_size != FC_UUID_BYTES ||
            fc_armed_decode(value.mv_data, value.mv_size, &armed)) {
            fc_warn("a damaged record of an armed guest is left out");
            continue;
        }
        memcpy(armed.uuid, key.mv_data, FC_UUID_BYTES);
        each(user, &armed);
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return r == MDB_NOTFOUND ? 0 : fc_kvdb_error(r);
}

/* A copy of what is kept under the name; its length, 0 when there is nothing
 * or more than that. */
static size_t copy_named(struct fc_armed_db *db, const char *name, void *out,
                         size_t cap)
{
    char text[16];
    MDB_txn *txn;
    size_t len = 0;

    MDB_val key = { strlen(name), strcpy(text, name) }, value;
    if (mdb_txn_begin(db->kv.env, NULL, MDB_RDONLY, &txn))
        return 0;
    if (!mdb_get(txn, db->kv.dbi, &key, &value) && value.mv_size <= cap) {
        len = value.mv_size;
        memcpy(out, value.mv_data, len);
    }
    mdb_txn_abort(txn);
    return len;
}

void fc_armed_db_calibration(struct fc_armed_db *db, struct fc_calibration *c)
{
    uint8_t record[CALIBRATION_BYTES];
    size_t len = copy_named(db, CALIBRATION, record, sizeof(record));
    struct fc_reader r = fc_reader_of(record, len);
    uint32_t version = fc_get_u32(&r), samples = fc_get_u32(&r);
    double page_us = (double)fc_get_u64(&r) / 1000.0;
    double scan_ms = (double)fc_get_u64(&r) / 1000.0;
    double fixed_ms = (double)fc_get_u64(&r) / 1000.0;
    double overhead_ms = (double)fc_get_u64(&r) / 1000.0;
    double disks_ms = (double)fc_get_u64(&r) / 1000.0;

    memset(c, 0, sizeof(*c));
    if (!r.bad && version == CALIBRATION_VERSION && page_us <= MAX_PAGE_US &&
        scan_ms <= MAX_FIXED_MS && fixed_ms <= MAX_FIXED_MS &&
        overhead_ms <= MAX_FIXED_MS && disks_ms <= MAX_FIXED_MS)
        *c = (struct fc_calibration){ page_us,     scan_ms,  fixed_ms,
                                      overhead_ms, disks_ms, samples };
}

int fc_armed_db_calibrate(struct fc_armed_db *db,
                          const struct fc_calibration *c)
{
    uint8_t record[CALIBRATION_BYTES];
    struct fc_writer w = fc_writer_of(record, sizeof(record));
    fc_put_u32(&w, CALIBRATION_VERSION);
    fc_put_u32(&w, c->samples);
    fc_put_u64(&w, (uint64_t)(c->page_us * 1000.0));
    fc_put_u64(&w, (uint64_t)(c->scan_ms * 1000.0));
    fc_put_u64(&w, (uint64_t)(c->fixed_ms * 1000.0));
    fc_put_u64(&w, (uint64_t)(c->overhead_ms * 1000.0));
    fc_put_u64(&w, (uint64_t)(c->disks_ms * 1000.0));
    MDB_val value = { sizeof(record), record };
    return change(db, CALIBRATION, strlen(CALIBRATION), &value);
}

void fc_armed_db_links(struct fc_armed_db *db, struct fc_linkrate *l)
{
    uint8_t record[FC_LINKRATE_BYTES];
    size_t len = copy_named(db, LINKS, record, sizeof(record));
    (void)fc_linkrate_decode(record, len, l);
}

int fc_armed_db_links_put(struct fc_armed_db *db, const struct fc_linkrate *l)
{
    uint8_t record[FC_LINKRATE_BYTES];
    ssize_t n = fc_linkrate_encode(l, record, sizeof(record));
    if (n < 0)
        return (int)n;
    MDB_val value = { (size_t)n, record };
    return change(db, LINKS, strlen(LINKS), &value);
}

int fc_armed_db_profile(struct fc_armed_db *db, const uint8_t *uuid,
                        struct fc_profile *profile_r, char *why, size_t why_len)
{
    uint8_t bytes[PROFILE_KEY];
    MDB_val key = { sizeof(bytes), bytes }, value;
    MDB_txn *txn;

    make_key(PROFILE, uuid, bytes);
    fc_profile_init(profile_r);
    int r = mdb_txn_begin(db->kv.env, NULL, MDB_RDONLY, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_get(txn, db->kv.dbi, &key, &value);
    int rc = r == MDB_NOTFOUND ? FC_ENOENT : fc_kvdb_error(r);
    if (!rc)
        rc = fc_profile_decode(value.mv_data, value.mv_size, profile_r, why,
                               why_len);
    mdb_txn_abort(txn);
    return rc;
}

int fc_armed_db_profile_put(struct fc_armed_db *db, const uint8_t *uuid,
                            const struct fc_profile *profile)
{
    uint8_t bytes[PROFILE_KEY], record[FC_PROFILE_BYTES];
    ssize_t n = fc_profile_encode(profile, record, sizeof(record));
    if (n < 0)
        return (int)n;
    MDB_val value = { (size_t)n, record };
    make_key(PROFILE, uuid, bytes);
    return change(db, bytes, sizeof(bytes), &value);
}

/* Removes the records of a kind that are not `in_use`. Their number, or as
 * fc_kvdb_error(). */
static int prune(struct fc_armed_db *db, const char *what,
                 bool (*in_use)(const MDB_val *value, uint64_t before_s),
                 uint64_t before_s)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    int removed = 0;
    int r = walk(db, 0, &txn, &cursor);
    if (r)
        return fc_kvdb_error(r);
    while (!(r = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
        if (!is_of(&key, what) || in_use(&value, before_s))
            continue;
        r = mdb_cursor_del(cursor, 0);
        if (r)
            break;
        removed++;
    }
    mdb_cursor_close(cursor);
    if (r && r != MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return fc_kvdb_error(r);
    }
    r = mdb_txn_commit(txn);
    return r ? fc_kvdb_error(r) : removed;
}

/* Whether the profile was used since then; a damaged one was not. */
static bool is_used(const MDB_val *value, uint64_t before_s)
{
    struct fc_profile profile;
    char why[80];
    return !fc_profile_decode(value->mv_data, value->mv_size, &profile, why,
                              sizeof(why)) &&
           profile.last_s >= before_s;
}

int fc_armed_db_profile_prune(struct fc_armed_db *db, uint64_t before_s)
{
    return prune(db, PROFILE, is_used, before_s);
}

int fc_armed_db_learned(struct fc_armed_db *db, const uint8_t *uuid,
                        uint8_t **bytes_r, size_t *len_r, bool *came_r)
{
    uint8_t bytes[PROFILE_KEY];
    MDB_val key = { sizeof(bytes), bytes }, value;
    MDB_txn *txn;
    make_key(LEARNED, uuid, bytes);
    int r = mdb_txn_begin(db->kv.env, NULL, MDB_RDONLY, &txn);
    if (r)
        return fc_kvdb_error(r);
    r = mdb_get(txn, db->kv.dbi, &key, &value);
    int rc = r == MDB_NOTFOUND ? FC_ENOENT : fc_kvdb_error(r);
    if (!rc && value.mv_size < LEARNED_HEAD)
        rc = FC_ENOENT;
    if (!rc) {
        const uint8_t *head = value.mv_data;
        *came_r = head[LEARNED_TIME] == 1;
        *len_r = value.mv_size - LEARNED_HEAD;
        *bytes_r = malloc(*len_r + 1);
        if (*bytes_r)
            memcpy(*bytes_r, head + LEARNED_HEAD, *len_r);
        else
            rc = FC_ENOMEM;
    }
    mdb_txn_abort(txn);
    return rc;
}

static uint64_t kept_s(const MDB_val *value)
{
    return value->mv_size < LEARNED_HEAD
               ? 0
               : fc_le_load(value->mv_data, LEARNED_TIME);
}

/* Makes room for one more when all places are taken. */
static int drop_oldest(struct fc_armed_db *db)
{
    uint8_t oldest[PROFILE_KEY];
    uint64_t oldest_s = UINT64_MAX;
    unsigned count = 0;
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    int r = walk(db, MDB_RDONLY, &txn, &cursor);
    if (r)
        return fc_kvdb_error(r);
    while (!(r = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
        if (!is_of(&key, LEARNED))
            continue;
        count++;
        if (kept_s(&value) < oldest_s) {
            oldest_s = kept_s(&value);
            memcpy(oldest, key.mv_data, sizeof(oldest));
        }
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    if (r != MDB_NOTFOUND)
        return fc_kvdb_error(r);
    return count < FC_ARMED_LEARNED || oldest_s == UINT64_MAX
               ? 0
               : change(db, oldest, sizeof(oldest), NULL);
}

int fc_armed_db_learned_put(struct fc_armed_db *db, const uint8_t *uuid,
                            const void *bytes, size_t len, uint64_t now_s,
                            bool came)
{
    uint8_t key[PROFILE_KEY], *old = NULL;
    size_t old_len;
    bool old_came;
    if (len > FC_LEARNED_MAX_BYTES)
        return FC_ETOOBIG;
    int rc = fc_armed_db_learned(db, uuid, &old, &old_len, &old_came);
    free(old);
    if (rc == FC_ENOENT)
        rc = drop_oldest(db);
    uint8_t *record = rc ? NULL : malloc(LEARNED_HEAD + len);
    if (!record)
        return rc ? rc : FC_ENOMEM;
    fc_le_store(record, now_s, LEARNED_TIME);
    record[LEARNED_TIME] = came;
    memcpy(record + LEARNED_HEAD, bytes, len);
    MDB_val value = { LEARNED_HEAD + len, record };
    make_key(LEARNED, uuid, key);
    rc = change(db, key, sizeof(key), &value);
    free(record);
    return rc;
}

static bool is_kept_since(const MDB_val *value, uint64_t before_s)
{
    return kept_s(value) >= before_s;
}

int fc_armed_db_learned_prune(struct fc_armed_db *db, uint64_t before_s)
{
    return prune(db, LEARNED, is_kept_since, before_s);
}
