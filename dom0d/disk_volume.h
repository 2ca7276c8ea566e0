/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_VOLUME_H
#define FC_DISK_VOLUME_H

#include "diskmeta.h"

/*
 * The volume for a disk that comes from another host: a logical volume or
 * partition, or a file.
 */
enum fc_volume_kind {
    FC_VOLUME_NONE, /* nothing is there */
    FC_VOLUME_FILE,
    FC_VOLUME_BLOCK,
    FC_VOLUME_OTHER, /* a directory, a socket... */
};

struct fc_volume_look {
    enum fc_volume_kind kind;
    uint64_t size;
};

/* What is at the path; symbolic links are followed, as device mapper's are. 0
 * or FC_EIO with errno. */
int fc_volume_look(const char *path, struct fc_volume_look *look_r);

/*
 * Whether and how the path may take a disk of `size`: 0 with *make_r when it
 * has to be made; FC_EPERM (is there, not `ours`, and not to be overwritten) or
 * FC_EINVAL, with a sentence; also on success.
 */
int fc_volume_check(const char *path, const struct fc_volume_look *look,
                    uint64_t size, bool ours, bool overwrite, bool *make_r,
                    char *text, size_t cap);

/* Whether the path to be made is a logical volume's (/dev/GROUP/NAME, of which
 * the parts are given), and not a file's. */
bool fc_volume_is_lv(const char *path, char *group, char *name, size_t cap);

/* Makes a sparse file of that size, mode 0600. 0 or FC_ESYS. */
int fc_volume_make_file(const char *path, uint64_t size);

#endif
