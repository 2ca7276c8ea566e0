/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client_helper.h"

#include <stdio.h>
#include <string.h>

#include "err.h"

#define SELF_TEST_MS 10000

static int read_word(const struct fc_client_world *world, const char *path,
                     char *text, size_t cap)
{
    if (world->read(world->user, path, text, cap))
        return FC_ENOENT;
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

int fc_client_xen(const struct fc_client_world *world, char xen[FC_CLIENT_XEN])
{
    char major[FC_CLIENT_XEN / 2 - 1] = "", minor[FC_CLIENT_XEN / 2 - 1] = "";
    xen[0] = '\0';
    if (read_word(world, "/sys/hypervisor/version/major", major,
                  sizeof(major)) ||
        read_word(world, "/sys/hypervisor/version/minor", minor, sizeof(minor)))
        return FC_ENOENT;
    snprintf(xen, FC_CLIENT_XEN, "%s.%s", major, minor);
    return 0;
}

int fc_client_helper(const struct fc_client_world *world, const char *xen,
                     char path[FC_CLIENT_HELPER])
{
    char command[FC_CLIENT_HELPER + 16], output[64];
    snprintf(path, FC_CLIENT_HELPER, "/usr/lib/xen-%s/bin/forecopy-save-helper",
             xen);
    if (!world->executable(world->user, path))
        return FC_ENOENT;
    snprintf(command, sizeof(command), "%s --self-test", path);
    return world->run(world->user, command, SELF_TEST_MS, output,
                      sizeof(output))
               ? FC_EIO
               : 0;
}
