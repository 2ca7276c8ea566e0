/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ARMED_H
#define FC_ARMED_H

#include "guest.h"
#include "linkrate.h"
#include "profile.h"

/*
 * The armed guests on disk, so that they are armed again when the daemon
 * starts anew. An LMDB environment in a directory of its own; one process and
 * one thread at a time.
 */
struct fc_armed_db;

/* Makes the directory (0700) when it is not there. 0, FC_ENOMEM, FC_ESYS
 * (errno), or FC_EFORMAT (not a database; nothing is changed). */
int fc_armed_db_open(const char *dir, struct fc_armed_db **db_r);
void fc_armed_db_close(struct fc_armed_db *db);

/* 0, FC_EFULL or FC_EIO. */
int fc_armed_db_put(struct fc_armed_db *db, const struct fc_armed *armed);
/* 0 also when it is not there. */
int fc_armed_db_remove(struct fc_armed_db *db, const uint8_t *uuid);

/* Calls `each` for all of them; damaged records are logged and left out. `each`
 * must not use the database. 0 or FC_EIO. */
int fc_armed_db_each(struct fc_armed_db *db,
                     void (*each)(void *user, const struct fc_armed *armed),
                     void *user);

/* What migrations have taught; all zero when nothing (sensible) is kept. */
void fc_armed_db_calibration(struct fc_armed_db *db, struct fc_calibration *c);
/* 0, FC_EFULL or FC_EIO. */
int fc_armed_db_calibrate(struct fc_armed_db *db,
                          const struct fc_calibration *c);

/* The same of links: empty when nothing is kept; 0, FC_EFULL or FC_EIO. */
void fc_armed_db_links(struct fc_armed_db *db, struct fc_linkrate *l);
int fc_armed_db_links_put(struct fc_armed_db *db, const struct fc_linkrate *l);

/* A guest's long-term profile. 0; FC_ENOENT; FC_EIO; or as
 * fc_profile_decode(), with what is wrong in `why`. */
int fc_armed_db_profile(struct fc_armed_db *db, const uint8_t *uuid,
                        struct fc_profile *profile_r, char *why,
                        size_t why_len);
/* 0, FC_EFULL or FC_EIO. */
int fc_armed_db_profile_put(struct fc_armed_db *db, const uint8_t *uuid,
                            const struct fc_profile *profile);
/* Removes profiles that nothing was added to since `before_s`, and damaged
 * ones. Their number, FC_EFULL or FC_EIO. */
int fc_armed_db_profile_prune(struct fc_armed_db *db, uint64_t before_s);

/*
 * What was learned of a guest (docs/formats/learned.md), here only bytes, and
 * whether it came with the guest; that of FC_ARMED_LEARNED guests at most, past
 * that the one kept longest ago goes. get: to be freed by the caller; 0,
 * FC_ENOENT, FC_ENOMEM or FC_EIO. put: 0, FC_ETOOBIG, FC_EFULL or FC_EIO. prune
 * as profiles: those kept before then.
 */
#define FC_ARMED_LEARNED 128u
int fc_armed_db_learned(struct fc_armed_db *db, const uint8_t *uuid,
                        uint8_t **bytes_r, size_t *len_r, bool *came_r);
int fc_armed_db_learned_put(struct fc_armed_db *db, const uint8_t *uuid,
                            const void *bytes, size_t len, uint64_t now_s,
                            bool came);
int fc_armed_db_learned_prune(struct fc_armed_db *db, uint64_t before_s);

/* A record: version, rate, channels, since when away, host, command. Length or
 * FC_ETOOBIG; 0 or FC_EFORMAT. */
#define FC_ARMED_RECORD (24u + FC_ARMED_HOST + FC_ARMED_COMMAND)
ssize_t fc_armed_encode(const struct fc_armed *armed, void *out, size_t cap);
int fc_armed_decode(const void *buf, size_t len, struct fc_armed *armed_r);

#endif
