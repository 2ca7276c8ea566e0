/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io.h"
#include "log.h"
#include "nbd_hello.h"

#define MOST 65536u /* bytes; fits into a socket at once */

static void drop(void *user, enum fc_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* A server's words in an NBD handshake; what is taken must be sane. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_nbd_export e;
    int pair[2];

    fc_log_set_sink(drop, NULL);
    if (size > MOST || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 0;
    if (fc_write_all(pair[1], data, size) || shutdown(pair[1], SHUT_WR))
        abort();
    int rc = fc_nbd_hello(pair[0], "disk", 60000, &e);
    close(pair[0]);
    close(pair[1]);
    if (rc == 0 && (e.size == 0 || e.size > INT64_MAX ||
                    !(e.flags & FC_NBD_HAS_FLAGS) || e.min_block > 65536))
        abort();
    return 0;
}
