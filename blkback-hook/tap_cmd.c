/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "block_cmd.h"
#include "tapdisk.h"

#define MOST 0x7fffffff

enum { OPT_READ_ONLY = 256 };

static bool read_only;

const struct option fc_tap_attach_options[] = {
    { "read-only", no_argument, NULL, OPT_READ_ONLY },
    { 0 },
};

static int take(int val, const char *text)
{
    (void)text;
    read_only = val == OPT_READ_ONLY;
    return 1;
}

static bool take_tapdisk(char **argv, struct fc_tapdisk *tap)
{
    tap->pid = (long)fc_block_number(argv[0], 2, MOST);
    tap->minor = (long)fc_block_number(argv[1], 0, MOST);
    if (tap->pid >= 0 && tap->minor >= 0)
        return true;
    fprintf(stderr, "forecopy-block: \"%s %s\" is no tapdisk\n", argv[0],
            argv[1]);
    return false;
}

int fc_tap_attach_command(int argc, char **argv)
{
    char path[FC_TAPDISK_PATH_MAX];
    struct fc_tapdisk tap;

    int rc = fc_block_parse(argc, argv, fc_tap_attach_options, 1, 1, take);
    if (rc >= 0)
        return rc;
    if (!fc_tapdisk_image_ok(argv[optind]))
        return FC_BLOCK_USAGE;
    if (fc_tapdisk_attach(argv[optind], read_only, &tap))
        return 1;
    fc_tapdisk_path(&tap, path);
    printf("%ld %ld %s\n", tap.pid, tap.minor, path);
    return 0;
}

int fc_tap_swap_command(int argc, char **argv)
{
    struct fc_tapdisk tap;

    int rc = fc_block_parse(argc, argv, NULL, 3, 3, NULL);
    if (rc >= 0)
        return rc;
    if (!take_tapdisk(argv + optind, &tap) ||
        !fc_tapdisk_image_ok(argv[optind + 2]))
        return FC_BLOCK_USAGE;
    return fc_tapdisk_swap(&tap, argv[optind + 2]) ? 1 : 0;
}

int fc_tap_detach_command(int argc, char **argv)
{
    struct fc_tapdisk tap;

    int rc = fc_block_parse(argc, argv, NULL, 2, 2, NULL);
    if (rc >= 0)
        return rc;
    if (!take_tapdisk(argv + optind, &tap))
        return FC_BLOCK_USAGE;
    return fc_tapdisk_detach(&tap) ? 1 : 0;
}
