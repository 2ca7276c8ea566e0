/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "block_cmd.h"
#include "log.h"
#include "nbd_attach.h"

#define DEFAULT_TIMEOUT_S 10
#define MAX_TIMEOUT_S 3600
#define DEFAULT_BLOCK 512
#define MAX_BLOCK 4096 /* the kernel driver's: a page */

enum { OPT_EXPORT = 256, OPT_SIZE, OPT_BLOCK, OPT_TIMEOUT };

static struct fc_nbd_request request = {
    .export = "",
    .block_size = DEFAULT_BLOCK,
    .timeout_ms = DEFAULT_TIMEOUT_S * 1000,
};

const struct option fc_nbd_attach_options[] = {
    { "export", required_argument, NULL, OPT_EXPORT },
    { "size", required_argument, NULL, OPT_SIZE },
    { "block-size", required_argument, NULL, OPT_BLOCK },
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { 0 },
};
const struct option fc_nbd_reattach_options[] = {
    { "export", required_argument, NULL, OPT_EXPORT },
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { 0 },
};

static int take(int val, const char *text)
{
    long long n = 1;

    switch (val) {
    case OPT_EXPORT:
        request.export = text;
        break;
    case OPT_SIZE:
        n = fc_block_number(text, 1, INT64_MAX);
        request.bytes = (uint64_t)n;
        break;
    case OPT_BLOCK:
        n = fc_block_number(text, DEFAULT_BLOCK, MAX_BLOCK);
        if (n > 0 && n & (n - 1))
            n = -1;
        request.block_size = (uint32_t)n;
        break;
    case OPT_TIMEOUT:
        n = fc_block_number(text, 1, MAX_TIMEOUT_S);
        request.timeout_ms = (int)n * 1000;
        break;
    }
    return n > 0;
}

static int open_nbd(struct fc_nbd *nbd)
{
    if (access("/sys/module/nbd", F_OK))
        fc_block_modprobe("nbd");
    return fc_nbd_open(nbd);
}

/* The number of the device named, or -1 and a line about it. */
static int device_index(const char *command, const char *device)
{
    int index = fc_nbd_index(device);
    if (index < 0)
        fc_error("%s: \"%s\" is no nbd device", command, device);
    return index;
}

int fc_nbd_attach_command(int argc, char **argv)
{
    struct fc_nbd nbd;
    uint32_t index = 0;

    int rc = fc_block_parse(argc, argv, fc_nbd_attach_options, 1, 1, take);
    if (rc >= 0)
        return rc;
    request.socket = argv[optind];
    rc = open_nbd(&nbd);
    if (rc == 0)
        rc = fc_nbd_attach(&nbd, &request, &index);
    fc_nbd_close(&nbd);
    if (rc)
        return 1;
    printf("/dev/nbd%" PRIu32 "\n", index);
    return 0;
}

int fc_nbd_reattach_command(int argc, char **argv)
{
    struct fc_nbd nbd;

    int rc = fc_block_parse(argc, argv, fc_nbd_reattach_options, 2, 2, take);
    if (rc >= 0)
        return rc;
    int index = device_index(argv[0], argv[optind]);
    if (index < 0)
        return FC_BLOCK_USAGE;
    request.socket = argv[optind + 1];
    rc = open_nbd(&nbd);
    if (rc == 0)
        rc = fc_nbd_reattach(&nbd, (uint32_t)index, &request);
    fc_nbd_close(&nbd);
    return rc ? 1 : 0;
}

int fc_nbd_detach_command(int argc, char **argv)
{
    struct fc_nbd nbd;

    int rc = fc_block_parse(argc, argv, NULL, 1, 1, NULL);
    if (rc >= 0)
        return rc;
    int index = device_index(argv[0], argv[optind]);
    if (index < 0)
        return FC_BLOCK_USAGE;
    rc = open_nbd(&nbd);
    if (rc == 0)
        rc = fc_nbd_detach(&nbd, (uint32_t)index);
    fc_nbd_close(&nbd);
    return rc ? 1 : 0;
}
