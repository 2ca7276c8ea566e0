/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <unistd.h>

#include "client.h"

int main(int argc, char **argv)
{
    struct fc_client_args args;
    struct fc_client_world world = fc_client_real_world;
    world.is_root = geteuid() == 0;
    int status = fc_client_args_parse(argc, argv, &args, stdout, stderr);
    if (status < 0) {
        struct fc_client_task client = { .args = &args,
                                         .world = &world,
                                         .out = stdout,
                                         .err = stderr,
                                         .terminal = isatty(STDOUT_FILENO) };
        if (args.verb == FC_VERB_RECEIVE || args.verb == FC_VERB_DISK_RECEIVE)
            return fc_client_receive(&client);
        if (args.verb == FC_VERB_RECORD)
            return fc_client_record(&client);
        if (args.verb == FC_VERB_DISK_PREPARE)
            return fc_client_disks(&client);
        status = args.verb == FC_VERB_DOCTOR ? fc_client_doctor(&client)
                                             : fc_client_run(&client);
    }
    if (fflush(stdout) == EOF && !status)
        status = 1;
    return status;
}
