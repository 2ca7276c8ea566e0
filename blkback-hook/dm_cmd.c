/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block_cmd.h"
#include "dm.h"
#include "log.h"

#define DEFAULT_TIMEOUT_S 20 /* half of what libxl gives a hotplug script */
#define MAX_TIMEOUT_S 3600

enum { OPT_TIMEOUT = 256, OPT_JSON };

static long long timeout_s = DEFAULT_TIMEOUT_S;
static int as_json;

const struct option fc_dm_create_options[] = { { 0 } };
const struct option fc_dm_swap_options[] = {
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { 0 },
};
const struct option fc_dm_suspend_options[] = {
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { 0 },
};
const struct option fc_dm_remove_options[] = {
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { 0 },
};
const struct option fc_dm_show_options[] = {
    { "json", no_argument, NULL, OPT_JSON },
    { 0 },
};

static int take(int val, const char *text)
{
    if (val == OPT_JSON)
        as_json = 1;
    else
        timeout_s = fc_block_number(text, 1, MAX_TIMEOUT_S);
    return timeout_s > 0;
}

static struct fc_dm open_dm(void)
{
    if (access("/dev/mapper/control", F_OK))
        fc_block_modprobe("dm-mod");
    return fc_dm_kernel();
}

static unsigned timeout_ms(void)
{
    return (unsigned)timeout_s * 1000;
}

int fc_dm_create_command(int argc, char **argv)
{
    int rc = fc_block_parse(argc, argv, fc_dm_create_options, 2, 2, take);
    if (rc >= 0)
        return rc;
    struct fc_dm dm = open_dm();
    if (fc_dm_create(&dm, argv[optind], argv[optind + 1]))
        return 1;
    printf("/dev/mapper/%s\n", argv[optind]);
    return 0;
}

int fc_dm_swap_command(int argc, char **argv)
{
    int rc = fc_block_parse(argc, argv, fc_dm_swap_options, 2, 3, take);
    if (rc >= 0)
        return rc;
    const char *target = argv[optind + 1], *device = argv[optind + 2];
    if (strcmp(target, device ? "linear" : "error")) {
        fc_error("dm-swap takes NAME linear DEVICE or NAME error");
        return FC_BLOCK_USAGE;
    }
    struct fc_dm dm = open_dm();
    return fc_dm_swap(&dm, argv[optind], device, timeout_ms()) ? 1 : 0;
}

int fc_dm_suspend_command(int argc, char **argv)
{
    int rc = fc_block_parse(argc, argv, fc_dm_suspend_options, 1, 1, take);
    if (rc >= 0)
        return rc;
    struct fc_dm dm = open_dm();
    return fc_dm_suspend(&dm, argv[optind], timeout_ms()) ? 1 : 0;
}

int fc_dm_resume_command(int argc, char **argv)
{
    int rc = fc_block_parse(argc, argv, NULL, 1, 1, NULL);
    if (rc >= 0)
        return rc;
    struct fc_dm dm = open_dm();
    return fc_dm_resume(&dm, argv[optind]) ? 1 : 0;
}

int fc_dm_remove_command(int argc, char **argv)
{
    int rc = fc_block_parse(argc, argv, fc_dm_remove_options, 1, 1, take);
    if (rc >= 0)
        return rc;
    struct fc_dm dm = open_dm();
    return fc_dm_remove(&dm, argv[optind], timeout_ms()) ? 1 : 0;
}

static void show_json(const char *name, const struct fc_dm_state *s)
{
    char device[32], node[FC_DM_NAME_MAX + 16];
    struct json_object *o = json_object_new_object();

    snprintf(device, sizeof(device), "%" PRIu32 ":%" PRIu32, s->major,
             s->minor);
    snprintf(node, sizeof(node), "/dev/mapper/%s", name);
    json_object_object_add(o, "name", json_object_new_string(name));
    json_object_object_add(o, "node", json_object_new_string(node));
    json_object_object_add(o, "device", json_object_new_string(device));
    json_object_object_add(o, "target", json_object_new_string(s->target));
    json_object_object_add(o, "params", json_object_new_string(s->params));
    json_object_object_add(
        o, "bytes", json_object_new_int64((int64_t)s->sectors * FC_DM_SECTOR));
    json_object_object_add(o, "open_count", json_object_new_int(s->open_count));
    json_object_object_add(o, "suspended",
                           json_object_new_boolean(s->suspended));
    json_object_object_add(o, "read_only",
                           json_object_new_boolean(s->read_only));
    puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                               JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
}

int fc_dm_show_command(int argc, char **argv)
{
    struct fc_dm_state s;

    int rc = fc_block_parse(argc, argv, fc_dm_show_options, 1, 1, take);
    if (rc >= 0)
        return rc;
    struct fc_dm dm = open_dm();
    if (fc_dm_show(&dm, argv[optind], &s))
        return 1;
    if (as_json)
        show_json(argv[optind], &s);
    else
        printf("%s %" PRIu32 ":%" PRIu32 " %s%s%s %" PRIu64
               " bytes, %d users%s\n",
               argv[optind], s.major, s.minor, s.target, *s.params ? " " : "",
               s.params, s.sectors * FC_DM_SECTOR, s.open_count,
               s.suspended ? ", suspended" : "");
    return 0;
}
