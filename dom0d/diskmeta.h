/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISKMETA_H
#define FC_DISKMETA_H

#include "disk_id.h"
#include "ranges.h"
#include "readstats.h"

/*
 * What is known of guests' disks and of their copies, on disk:
 * docs/formats/disk-meta.md. One process and one thread at a time.
 */
#define FC_DISKMETA_RANGES FC_RANGES_MAX
#define FC_DISKMETA_VOLUME (40u + FC_DISK_PATH - 1)
#define FC_DISKMETA_RANGE 48u
#define FC_DISKMETA_HOST 256u
#define FC_DISKMETA_READS (8u + FC_READSTATS_BYTES)

struct fc_disk_volume {
    struct fc_disk_id id;
    char path[FC_DISK_PATH];
    uint64_t size;
    uint32_t block_bytes;
    bool made, warm, owned, complete;
    uint8_t migration[FC_MIGRATION_BYTES];
};

struct fc_disk_range {
    uint64_t first;
    uint32_t blocks, valid;
    uint64_t epoch;
    bool foretold; /* chance_ppm is known */
    uint32_t chance_ppm;
    uint64_t used_s; /* 0: not known */
};

/* Records' bytes. Length; 0 or FC_EFORMAT. */
size_t fc_disk_volume_encode(const struct fc_disk_volume *v,
                             uint8_t out[FC_DISKMETA_VOLUME]);
int fc_disk_volume_decode(const void *buf, size_t len,
                          struct fc_disk_volume *v_r);
void fc_disk_range_encode(const struct fc_disk_range *r,
                          uint8_t out[FC_DISKMETA_RANGE]);
int fc_disk_range_decode(const void *buf, size_t len, struct fc_disk_range *r);

void fc_disk_reads_encode(const struct fc_readstats *s,
                          uint8_t out[FC_DISKMETA_READS]);
int fc_disk_reads_decode(const void *buf, size_t len, struct fc_readstats *s_r);

struct fc_diskmeta;

/* 0, FC_ENOMEM, FC_ESYS (errno) or FC_EFORMAT. */
int fc_diskmeta_open(const char *dir, struct fc_diskmeta **meta_r);
void fc_diskmeta_close(struct fc_diskmeta *m);

/* 0, FC_ENOENT, FC_EFORMAT or FC_EIO. */
int fc_diskmeta_volume(struct fc_diskmeta *m, const struct fc_disk_id *id,
                       struct fc_disk_volume *v_r);
/* 0, FC_EFULL or FC_EIO. */
int fc_diskmeta_volume_put(struct fc_diskmeta *m,
                           const struct fc_disk_volume *v);
/* With all its ranges. 0 also when there is none. */
int fc_diskmeta_forget(struct fc_diskmeta *m, const struct fc_disk_id *id);
/* `each` must not use the database; damaged records are logged and left out. */
int fc_diskmeta_each(struct fc_diskmeta *m,
                     void (*each)(void *user, const struct fc_disk_volume *v),
                     void *user);

/* How a disk's reads were served, as its engine has counted. As above. */
int fc_diskmeta_reads_put(struct fc_diskmeta *m, const struct fc_disk_id *id,
                          const struct fc_readstats *s);
int fc_diskmeta_reads(struct fc_diskmeta *m, const struct fc_disk_id *id,
                      struct fc_readstats *s_r);
/* Of all disks together. */
int fc_diskmeta_reads_sum(struct fc_diskmeta *m, struct fc_readstats *sum_r);

/* The ranges of the copy at `host`: in place of those that were there. */
int fc_diskmeta_ranges_put(struct fc_diskmeta *m, const struct fc_disk_id *id,
                           const char *host, const struct fc_disk_range *r,
                           unsigned count);
/* Those of all hosts, in order; `host` is valid during the call. */
int fc_diskmeta_ranges(struct fc_diskmeta *m, const struct fc_disk_id *id,
                       void (*each)(void *user, const char *host,
                                    const struct fc_disk_range *r),
                       void *user);

#endif
