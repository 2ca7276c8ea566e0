/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "counters.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io.h"

#define SECTOR_BYTES 512u

static uint64_t read_number(const char *dir, const char *device,
                            const char *file)
{
    char path[512], text[32];
    int n =
        snprintf(path, sizeof(path), "%s/%s/statistics/%s", dir, device, file);
    if (n < 0 || (size_t)n >= sizeof(path))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t r = read(fd, text, sizeof(text) - 1);
    fc_close(&fd);
    if (r <= 0)
        return 0;
    text[r] = '\0';
    return strtoull(text, NULL, 10);
}

/* The sum of two numbers over all devices whose names start with `prefix`. */
static uint64_t sum(const char *dir, const char *prefix, const char *in,
                    const char *out)
{
    uint64_t total = 0;
    DIR *d = opendir(dir);
    struct dirent *entry;
    while (d && (entry = readdir(d)))
        if (!strncmp(entry->d_name, prefix, strlen(prefix)))
            total += read_number(dir, entry->d_name, in) +
                     read_number(dir, entry->d_name, out);
    if (d)
        closedir(d);
    return total;
}

uint64_t fc_counters_vif_bytes(const char *sys_root, uint32_t domid)
{
    char dir[256], prefix[32];
    snprintf(dir, sizeof(dir), "%s/class/net", sys_root);
    snprintf(prefix, sizeof(prefix), "vif%u.", domid);
    return sum(dir, prefix, "rx_bytes", "tx_bytes");
}

uint64_t fc_counters_vbd_bytes(const char *sys_root, uint32_t domid)
{
    char dir[256], prefix[32];
    snprintf(dir, sizeof(dir), "%s/bus/xen-backend/devices", sys_root);
    snprintf(prefix, sizeof(prefix), "vbd-%u-", domid);
    return sum(dir, prefix, "rd_sect", "wr_sect") * SECTOR_BYTES;
}
