/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kvdb.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "err.h"

int fc_kvdb_error(int r)
{
    if (r == MDB_MAP_FULL)
        return FC_EFULL;
    if (r == MDB_INVALID || r == MDB_VERSION_MISMATCH || r == MDB_CORRUPTED)
        return FC_EFORMAT;
    errno = r > 0 ? r : EIO;
    return r ? FC_EIO : 0;
}

int fc_kvdb_open(const char *dir, size_t map_bytes, struct fc_kvdb *db)
{
    MDB_txn *txn = NULL;
    memset(db, 0, sizeof(*db));
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return FC_ESYS;
    int r = mdb_env_create(&db->env);
    if (r)
        return FC_ENOMEM;
    r = mdb_env_set_mapsize(db->env, map_bytes);
    if (!r)
        r = mdb_env_open(db->env, dir, 0, 0600);
    if (!r)
        r = mdb_txn_begin(db->env, NULL, 0, &txn);
    if (!r) {
        r = mdb_dbi_open(txn, NULL, 0, &db->dbi);
        if (r)
            mdb_txn_abort(txn);
        else
            r = mdb_txn_commit(txn);
    }
    if (!r)
        return 0;
    int rc = fc_kvdb_error(r);
    fc_kvdb_close(db);
    return rc == FC_EIO ? FC_ESYS : rc;
}

void fc_kvdb_close(struct fc_kvdb *db)
{
    int saved = errno;
    if (db->env)
        mdb_env_close(db->env);
    db->env = NULL;
    errno = saved;
}
