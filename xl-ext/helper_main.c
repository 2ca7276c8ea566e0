/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * forecopy-save-helper: takes the place of Xen's libxl-save-helper. libxl runs
 * it with its conversation on descriptors 0 and 1; nothing else may be printed
 * there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helper.h"
#include "log.h"

#define SAVE_ARGS 6
#define RESTORE_ARGS 9
#define CONTEXT "libxl-save-helper" /* what xl shows before the text */

static void usage(void)
{
    fprintf(stderr,
            "usage: forecopy-save-helper --save-domain|--restore-domain ...\n"
            "       forecopy-save-helper --self-test | --version\n"
            "libxl runs it; see forecopy-save-helper(8).\n");
}

/* -1 as libxl prints it for "no descriptor", or an unsigned number. */
static int parse(char **argv, int count, long *values)
{
    for (int i = 0; i < count; i++) {
        char *end;
        errno = 0;
        values[i] = strtol(argv[i], &end, 10);
        if (errno || end == argv[i] || *end || values[i] < -1 ||
            values[i] > UINT32_MAX)
            return -1;
    }
    return 0;
}

static void to_libxl(void *user, enum fc_level level, const char *line)
{
    uint32_t to = level <= FC_LOG_ERROR  ? FC_LIBXL_ERROR
                  : level <= FC_LOG_WARN ? FC_LIBXL_WARN
                  : level <= FC_LOG_INFO ? FC_LIBXL_INFO
                                         : FC_LIBXL_DEBUG;
    fc_libxl_log(user, to, -1, CONTEXT, line);
}

static int save(const long *v, struct fc_libxl *libxl)
{
    struct fc_helper_args args = {
        .io_fd = (int)v[0],
        .back_fd = (int)v[1],
        .domid = (uint32_t)v[2],
        .flags = (uint32_t)v[3],
        .cbflags = (unsigned)v[4],
        .stream_type = (unsigned)v[5],
    };
    return fc_helper_save(&args, libxl);
}

static int restore(const long *v, struct fc_libxl *libxl)
{
    struct fc_helper_args args = {
        .io_fd = (int)v[0],
        .back_fd = (int)v[1],
        .domid = (uint32_t)v[2],
        .store_evtchn = (unsigned)v[3],
        .store_domid = (unsigned)v[4],
        .console_evtchn = (unsigned)v[5],
        .console_domid = (unsigned)v[6],
        .cbflags = (unsigned)v[7],
        .stream_type = (unsigned)v[8],
    };
    return fc_helper_restore(&args, libxl);
}

int main(int argc, char **argv)
{
    struct fc_libxl libxl;
    long values[RESTORE_ARGS];
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "--version")) {
        printf("forecopy-save-helper %s (Xen %s)\n", FC_VERSION,
               FC_XEN_VERSION);
        return 0;
    }
    if (!strcmp(mode, "--dump-options")) {
        puts("--save-domain\n--restore-domain\n--self-test\n--version");
        return 0;
    }
    if (!strcmp(mode, "--self-test"))
        return fc_helper_self_test();
    int (*run)(const long *, struct fc_libxl *) =
        !strcmp(mode, "--save-domain")      ? save
        : !strcmp(mode, "--restore-domain") ? restore
                                            : NULL;
    int count = run == save ? SAVE_ARGS : RESTORE_ARGS;
    if (!run || argc != count + 2 || parse(argv + 2, count, values) < 0) {
        usage();
        return 2;
    }
    fc_log_init("forecopy-save-helper", FC_LOG_DEBUG);
    fc_libxl_init(&libxl, 1, 0);
    fc_log_set_sink(to_libxl, &libxl);
    int status = run(values, &libxl);
    fc_log_set_sink(NULL, NULL);
    fc_libxl_dispose(&libxl);
    return status;
}
