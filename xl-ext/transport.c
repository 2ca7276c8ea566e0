/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "back.h"
#include "err.h"
#include "io.h"

#define READ_BYTES 65536
/* The helper reads frames at once while it lives; one that does not for so
 * long is not worth holding xl's own bytes up. */
#define FRAME_MS 10000

struct relay {
    int out_fd, back_fd;
    bool out_broken, back_broken;
};

static void to_out(void *user, const void *bytes, size_t len)
{
    struct relay *r = user;
    if (!r->out_broken && fc_write_all(r->out_fd, bytes, len) < 0)
        r->out_broken = true;
}

/* All of a frame or, on a peer that is gone, no frame ever again: half of one
 * would make the rest unreadable. */
static void to_back(void *user, const void *raw, size_t len,
                    const struct fc_back_frame *frame)
{
    struct relay *r = user;
    const char *p = raw;
    (void)frame;
    while (len && !r->back_broken) {
        ssize_t n = send(r->back_fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            r->back_broken = fc_wait_writable(r->back_fd, FRAME_MS) <= 0;
        } else if (errno != EINTR) {
            r->back_broken = true;
        }
    }
}

int fc_transport_relay(int from_fd, int out_fd, int back_fd)
{
    struct relay r = { .out_fd = out_fd, .back_fd = back_fd };
    struct fc_back_splitter split = { .plain = to_out,
                                      .frame = to_back,
                                      .user = &r };
    char buf[READ_BYTES];
    while (!r.out_broken) {
        ssize_t n = read(from_fd, buf, sizeof(buf));
        if (n > 0)
            fc_back_split(&split, buf, (size_t)n);
        else if (n == 0 || errno != EINTR)
            break;
    }
    fc_back_split_end(&split);
    return r.out_broken ? FC_EIO : 0;
}
