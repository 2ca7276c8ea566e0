/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_OPTIONS_H
#define FC_OPTIONS_H

#include <stdbool.h>

/* The command line of forecopyd. */
struct fc_options {
    bool foreground, debug;
    const char *config_path; /* NULL: the default, which may be missing */
    const char *socket_path;
};

enum fc_options_result {
    FC_OPTIONS_RUN,
    FC_OPTIONS_DONE,  /* something was printed; exit with 0 */
    FC_OPTIONS_WRONG, /* wrong usage, said on stderr; exit with 2 */
};

enum fc_options_result fc_options_parse(int argc, char **argv,
                                        struct fc_options *options);

#endif
