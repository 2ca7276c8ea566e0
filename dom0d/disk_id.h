/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_ID_H
#define FC_DISK_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "io.h"

/*
 * A guest's disk: the guest's uuid and the name of the virtual device. What
 * belongs to one while it is attached lies in the run directory's UUID-VDEV/.
 */
#define FC_VDEV 16u /* with the NUL */
#define FC_DISK_ID_TEXT (FC_UUID_TEXT + FC_VDEV)
#define FC_DISK_KEY (FC_UUID_BYTES + FC_VDEV)
#define FC_DISKS_MAX 16u /* of one guest */
#define FC_DISK_PATH 1024u
#define FC_MIGRATION_BYTES 16u
#define FC_MIGRATION_TEXT (2 * FC_MIGRATION_BYTES + 1)

struct fc_disk_id {
    uint8_t uuid[FC_UUID_BYTES];
    char vdev[FC_VDEV];
};

/* 1 to 15 of a-z and 0-9. */
bool fc_vdev_ok(const char *vdev);

bool fc_disk_id_equal(const struct fc_disk_id *a, const struct fc_disk_id *b);

/* "UUID-VDEV", which is also the directory's name. Parse: 0 or FC_EFORMAT. */
void fc_disk_id_format(const struct fc_disk_id *id, char text[FC_DISK_ID_TEXT]);
int fc_disk_id_parse(const char *text, struct fc_disk_id *id);

/* As the key of a database; its length. Parse: 0 or FC_EFORMAT. */
unsigned fc_disk_id_key(const struct fc_disk_id *id, uint8_t key[FC_DISK_KEY]);
int fc_disk_id_of_key(const void *key, size_t len, struct fc_disk_id *id);

/* An absolute path with no "..", no control character, that fits. */
bool fc_disk_path_ok(const char *path);

/*
 * A volume's path from a template: %p its path at the source, %u uuid, %v
 * virtual device, %n the guest's name, %% percent. A name that has a slash or
 * begins with a dot is refused. 0, FC_EINVAL or FC_ETOOBIG.
 */
int fc_disk_template(const char *pattern, const struct fc_disk_id *id,
                     const char *name, const char *path,
                     char out[FC_DISK_PATH]);

#endif
