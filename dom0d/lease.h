/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LEASE_H
#define FC_LEASE_H

#include "disk_id.h"

/*
 * Who owns a disk, docs/formats/lease.md: records on disk, each fsync'd before
 * the call that changes it returns. One process and one thread at a time.
 */
#define FC_LEASE_HOST 256u
#define FC_LEASE_RECORD (44u + FC_LEASE_HOST - 1)

enum fc_lease_state { FC_LEASE_HERE, FC_LEASE_OFFERED, FC_LEASE_PASSED };

struct fc_lease {
    struct fc_disk_id id;
    enum fc_lease_state state;
    uint64_t epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    uint64_t written_s;
    char host[FC_LEASE_HOST]; /* "" in state here */
};

/* "here", "offered", "passed" */
const char *fc_lease_state_name(enum fc_lease_state state);

/* A record's bytes. Length; 0 or FC_EFORMAT. The id is the key's. */
size_t fc_lease_encode(const struct fc_lease *lease,
                       uint8_t out[FC_LEASE_RECORD]);
int fc_lease_decode(const void *buf, size_t len, struct fc_lease *lease_r);

struct fc_lease_db;

/* 0, FC_ENOMEM, FC_ESYS (errno) or FC_EFORMAT. */
int fc_lease_db_open(const char *dir, struct fc_lease_db **db_r);
void fc_lease_db_close(struct fc_lease_db *db);

/* 0; a disk without a record is here with epoch 0. FC_EFORMAT (damaged: nobody
 * can say who owns it) or FC_EIO. */
int fc_lease_get(struct fc_lease_db *db, const struct fc_disk_id *id,
                 struct fc_lease *lease_r);

/*
 * Offers all disks to `host` under one migration, in one transaction. Of a
 * retry with the same migration and host it says the same. 0 with the epoch of
 * each; FC_EPERM when one is another's (it comes in *refused_r); FC_EFULL,
 * FC_EFORMAT or FC_EIO. On an error nothing is changed.
 */
int fc_lease_offer(struct fc_lease_db *db, const struct fc_disk_id *ids,
                   unsigned count, const char *host,
                   const uint8_t migration[FC_MIGRATION_BYTES],
                   uint64_t *epochs_r, struct fc_lease *refused_r);

/* The guest may run there from now on: all disks or none. 0 (also when passed
 * already), FC_EPERM when one is not offered under that migration, or as
 * above. */
int fc_lease_pass(struct fc_lease_db *db, const struct fc_disk_id *ids,
                  unsigned count, const uint8_t migration[FC_MIGRATION_BYTES]);

/*
 * Takes one back with epoch + 1. `agreed`: the other host said that it wrote
 * nothing. 0 (also when it is here already); FC_EPERM when it is passed and the
 * other has not agreed, or belongs to another migration.
 */
int fc_lease_return(struct fc_lease_db *db, const struct fc_disk_id *id,
                    const uint8_t migration[FC_MIGRATION_BYTES], bool agreed);

/* At the destination: it is here with this epoch. 0 (also when it was so
 * already), or FC_EPERM when the record's epoch is higher. */
int fc_lease_take(struct fc_lease_db *db, const struct fc_disk_id *id,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch);

/* The operator's word against all rules: `host` NULL: here. 0 or an error of
 * the disk's. */
int fc_lease_override(struct fc_lease_db *db, const struct fc_disk_id *id,
                      const char *host);

/* Calls `each` for all records; damaged ones are logged and left out. It must
 * not use the database. 0 or FC_EIO. */
int fc_lease_each(struct fc_lease_db *db,
                  void (*each)(void *user, const struct fc_lease *lease),
                  void *user);

#endif
