/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_id.h"

#include <stdio.h>
#include <string.h>

#include "err.h"

bool fc_vdev_ok(const char *vdev)
{
    size_t len = strlen(vdev);
    return len && len < FC_VDEV &&
           len == strspn(vdev, "abcdefghijklmnopqrstuvwxyz0123456789");
}

bool fc_disk_id_equal(const struct fc_disk_id *a, const struct fc_disk_id *b)
{
    return !memcmp(a->uuid, b->uuid, FC_UUID_BYTES) &&
           !strcmp(a->vdev, b->vdev);
}

void fc_disk_id_format(const struct fc_disk_id *id, char text[FC_DISK_ID_TEXT])
{
    char uuid[FC_UUID_TEXT];
    fc_uuid_format(id->uuid, uuid);
    snprintf(text, FC_DISK_ID_TEXT, "%s-%s", uuid, id->vdev);
}

int fc_disk_id_parse(const char *text, struct fc_disk_id *id)
{
    char uuid[FC_UUID_TEXT];
    memset(id, 0, sizeof(*id));
    if (strlen(text) < FC_UUID_TEXT || text[FC_UUID_TEXT - 1] != '-' ||
        !fc_vdev_ok(text + FC_UUID_TEXT))
        return FC_EFORMAT;
    memcpy(uuid, text, FC_UUID_TEXT - 1);
    uuid[FC_UUID_TEXT - 1] = '\0';
    strcpy(id->vdev, text + FC_UUID_TEXT);
    return fc_uuid_parse(uuid, id->uuid);
}

unsigned fc_disk_id_key(const struct fc_disk_id *id, uint8_t key[FC_DISK_KEY])
{
    size_t len = strlen(id->vdev);
    memcpy(key, id->uuid, FC_UUID_BYTES);
    memcpy(key + FC_UUID_BYTES, id->vdev, len);
    return FC_UUID_BYTES + (unsigned)len;
}

int fc_disk_id_of_key(const void *key, size_t len, struct fc_disk_id *id)
{
    memset(id, 0, sizeof(*id));
    if (len <= FC_UUID_BYTES || len >= FC_UUID_BYTES + FC_VDEV)
        return FC_EFORMAT;
    memcpy(id->uuid, key, FC_UUID_BYTES);
    memcpy(id->vdev, (const char *)key + FC_UUID_BYTES, len - FC_UUID_BYTES);
    return fc_vdev_ok(id->vdev) && strlen(id->vdev) == len - FC_UUID_BYTES
               ? 0
               : FC_EFORMAT;
}

bool fc_disk_path_ok(const char *path)
{
    size_t len = strlen(path);
    if (path[0] != '/' || len < 2 || len >= FC_DISK_PATH ||
        path[len - 1] == '/')
        return false;
    for (const char *p = path; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    for (const char *p = path; (p = strstr(p, "/..")); p++)
        if (!p[3] || p[3] == '/')
            return false;
    return true;
}

int fc_disk_template(const char *pattern, const struct fc_disk_id *id,
                     const char *name, const char *path, char out[FC_DISK_PATH])
{
    char uuid[FC_UUID_TEXT];
    size_t used = 0;
    fc_uuid_format(id->uuid, uuid);
    for (const char *p = pattern; *p; p++) {
        char one[2] = { *p, '\0' };
        const char *piece = one;
        if (*p == '%') {
            p++;
            if (*p == 'p')
                piece = path;
            else if (*p == 'u')
                piece = uuid;
            else if (*p == 'v')
                piece = id->vdev;
            else if (*p == 'n')
                piece = name;
            else if (*p != '%')
                return FC_EINVAL;
        }
        if (piece == name && (!*name || *name == '.' || strchr(name, '/')))
            return FC_EINVAL;
        size_t len = strlen(piece);
        if (len >= FC_DISK_PATH - used)
            return FC_ETOOBIG;
        memcpy(out + used, piece, len);
        used += len;
    }
    out[used] = '\0';
    return fc_disk_path_ok(out) ? 0 : FC_EINVAL;
}
