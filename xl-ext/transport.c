/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "back.h"
#include "err.h"
#include "io.h"
#include "transport_gate.h"

#define READ_BYTES 65536
/* The helper reads frames at once while it lives; one that does not for so
 * long is not worth holding xl's own bytes up. */
#define FRAME_MS 10000

struct relay {
    int out_fd, back_fd;
    bool out_broken, back_broken;
    struct fc_gate gate;
    int (*flip)(void *user);
    void *flip_user;
    int shut; /* why the gate is; 0: it is not */
};

static void to_out(void *user, const void *bytes, size_t len)
{
    struct relay *r = user;
    if (!r->out_broken && fc_write_all(r->out_fd, bytes, len) < 0)
        r->out_broken = true;
}

/* An xl that is gone will not take the guest over: its disks stay. */
static bool reader_gone(int fd)
{
    struct pollfd p = { .fd = fd };
    return poll(&p, 1, 0) > 0 && p.revents & (POLLERR | POLLHUP | POLLNVAL);
}

static int flip_disks(void *user)
{
    struct relay *r = user;
    r->out_broken = reader_gone(r->out_fd);
    return r->out_broken ? FC_EIO : r->flip(r->flip_user);
}

static void to_gate(void *user, const void *bytes, size_t len)
{
    struct relay *r = user;
    r->shut = fc_gate_feed(&r->gate, bytes, len);
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

int fc_transport_relay(int from_fd, int out_fd, int back_fd,
                       int (*flip)(void *user), void *user)
{
    struct relay r = {
        .out_fd = out_fd, .back_fd = back_fd, .flip = flip, .flip_user = user
    };
    struct fc_back_splitter split = { .plain = flip ? to_gate : to_out,
                                      .frame = to_back,
                                      .user = &r };
    char buf[READ_BYTES];
    r.gate.pass = to_out;
    r.gate.flip = flip_disks;
    r.gate.user = &r;
    while (!r.out_broken && !r.shut) {
        ssize_t n = read(from_fd, buf, sizeof(buf));
        if (n > 0)
            fc_back_split(&split, buf, (size_t)n);
        else if (n == 0 || errno != EINTR)
            break;
    }
    fc_back_split_end(&split);
    if (r.shut)
        return r.shut;
    return r.out_broken ? FC_EIO : 0;
}
