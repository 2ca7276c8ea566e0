/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_KVDB_H
#define FC_KVDB_H

#include <lmdb.h>
#include <stddef.h>

/*
 * What users of an LMDB environment with one nameless database share. One
 * process and one thread at a time.
 */
struct fc_kvdb {
    MDB_env *env;
    MDB_dbi dbi;
};

/*
 * Opens, making the directory (0700). A commit has reached the disk when it
 * returns. 0, FC_ENOMEM, FC_ESYS (errno) or FC_EFORMAT.
 */
int fc_kvdb_open(const char *dir, size_t map_bytes, struct fc_kvdb *db);
void fc_kvdb_close(struct fc_kvdb *db);

/* 0, FC_EFULL, FC_EFORMAT or FC_EIO with errno, for LMDB's code. */
int fc_kvdb_error(int r);

#endif
