/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "frontend.h"
#include "frontend_args.h"
#include "frontend_exec.h"
#include "frontend_migrate.h"

/*
 * The xl front end: Xen's xl for everything but `migrate --predictive`, and
 * `migrate-receive` with our restore helper. What is not ours is handed on
 * with arguments, environment, descriptors and signals as they came.
 */

#define STATUS_USAGE 2

static int pass_on(int argc, char **argv)
{
    /* Debian's wrapper goes by the name */
    static char name[] = "xl";
    if (argc > 0)
        argv[0] = name;
    return fc_front_exec_xl((const char *const *)argv);
}

static int receive(int argc, char **argv)
{
    char helper[PATH_MAX];

    if (!getenv("LIBXL_SAVE_HELPER") && !fc_front_helper_path(helper)) {
        if (fc_front_self_test(helper))
            setenv("LIBXL_SAVE_HELPER", helper, 1);
        else
            fprintf(stderr,
                    "forecopy: %s fails its self-test; receiving as "
                    "plain xl\n",
                    helper);
    }
    return pass_on(argc, argv);
}

static int help(void)
{
    const char *argv[] = { "xl", "migrate", "--help", NULL };

    fc_front_args_usage(stdout);
    fflush(stdout);
    return fc_front_exec_xl(argv);
}

static int predictive(int argc, char **argv)
{
    struct fc_front_args args;

    if (fc_front_args_parse(argc, argv, &args, stderr))
        return STATUS_USAGE;
    if (args.help)
        return help();
    if (args.dump_options) {
        fc_front_args_dump(stdout);
        return 0;
    }
    return args.dry_run ? fc_front_dry_run(&args) : fc_front_migrate(&args);
}

int fc_front_main(int argc, char **argv)
{
    struct fc_front_globals globals;

    switch (fc_front_args_classify(argc, argv, &globals)) {
    case FC_FRONT_PREDICTIVE:
        return predictive(argc, argv);
    case FC_FRONT_RECEIVE:
        return receive(argc, argv);
    default:
        return pass_on(argc, argv);
    }
}
