/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blockset.h"
#include "err.h"

#define STALL_MS 60000 /* a peer that moves nothing for so long is gone */
#define SMALL_BODY (FC_FRAME_MAX_TEXT + 64u)

int fc_link_init(struct fc_link *l, int in, int out)
{
    *l = (struct fc_link){ .in = in, .out = out, .stop = -1 };
    pthread_mutex_init(&l->send_lock, NULL);
    l->body = malloc(FC_FRAME_MAX_BODY);
    l->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = !l->body                                            ? FC_ENOMEM
             : l->stop < 0                                       ? FC_ESYS
             : fc_set_nonblock(in, 1) || fc_set_nonblock(out, 1) ? FC_ESYS
                                                                 : 0;
    if (rc)
        fc_link_dispose(l);
    return rc;
}

void fc_link_dispose(struct fc_link *l)
{
    if (!l->body && l->stop <= 0)
        return;
    if (l->out == l->in)
        l->out = -1;
    fc_close(&l->in);
    fc_close(&l->out);
    fc_close(&l->stop);
    free(l->body);
    l->body = NULL;
    pthread_mutex_destroy(&l->send_lock);
}

void fc_link_stop(struct fc_link *l)
{
    uint64_t one = 1;
    ssize_t r = write(l->stop, &one, sizeof(one));
    (void)r; /* a full counter is readable, too */
}

/* Until fd is ready for `events`; 0, FC_ETIMEOUT, FC_ECANCEL, FC_EIO. */
static int wait_for(struct fc_link *l, int fd, short events, int timeout_ms)
{
    for (;;) {
        struct pollfd p[2] = { { .fd = fd, .events = events },
                               { .fd = l->stop, .events = POLLIN } };
        int r = poll(p, 2, timeout_ms);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return FC_EIO;
        if (p[1].revents)
            return FC_ECANCEL;
        return r ? 0 : FC_ETIMEOUT;
    }
}

int fc_link_send(struct fc_link *l, enum fc_frame_type type, uint8_t *frame,
                 size_t len)
{
    size_t left = FC_FRAME_HEADER + len;
    int rc = 0;
    fc_frame_head_make(frame, type, frame + FC_FRAME_HEADER, (uint32_t)len);
    pthread_mutex_lock(&l->send_lock);
    for (uint8_t *p = frame; left && !rc;) {
        rc = wait_for(l, l->out, POLLOUT, STALL_MS);
        if (rc)
            break;
        ssize_t r = write(l->out, p, left);
        if (r < 0 && errno != EAGAIN && errno != EINTR)
            rc = FC_EIO;
        if (r <= 0)
            continue;
        p += r;
        left -= (size_t)r;
        l->sent_bytes += (size_t)r;
    }
    l->sent_ms = fc_now_ms();
    pthread_mutex_unlock(&l->send_lock);
    return rc;
}

int fc_link_send_flip(struct fc_link *l, enum fc_frame_type type,
                      const struct fc_frame_flip *flip)
{
    uint8_t frame[FC_FRAME_HEADER + SMALL_BODY];
    ssize_t len =
        fc_frame_flip_make(type, flip, frame + FC_FRAME_HEADER, SMALL_BODY);
    return fc_link_send(l, type, frame, (size_t)len);
}

int fc_link_send_value(struct fc_link *l, enum fc_frame_type type,
                       uint64_t value)
{
    uint8_t frame[FC_FRAME_HEADER + SMALL_BODY];
    ssize_t len =
        fc_frame_value_make(value, frame + FC_FRAME_HEADER, SMALL_BODY);
    return fc_link_send(l, type, frame, (size_t)len);
}

int fc_link_send_text(struct fc_link *l, enum fc_frame_type type,
                      uint16_t reason, const char *text)
{
    uint8_t frame[FC_FRAME_HEADER + SMALL_BODY];
    ssize_t len = fc_frame_text_make(type, reason, text,
                                     frame + FC_FRAME_HEADER, SMALL_BODY);
    return fc_link_send(l, type, frame, (size_t)len);
}

int fc_link_send_set(struct fc_link *l, enum fc_frame_type type,
                     const struct fc_blockset *set)
{
    uint8_t *frame = malloc(FC_FRAME_HEADER + FC_FRAME_MAX_PIECE);
    int rc = frame ? 0 : FC_ENOMEM;
    for (uint32_t at = 0; !rc && at < set->blocks;) {
        size_t len;
        rc = fc_blockset_encode(set, at, frame + FC_FRAME_HEADER,
                                FC_FRAME_MAX_PIECE, &len, &at);
        if (!rc)
            rc = fc_link_send(l, type, frame, len);
    }
    free(frame);
    return rc;
}

/* All `len` bytes. FC_EEOF before the first one, FC_EFORMAT within. */
static int recv_exact(struct fc_link *l, uint8_t *to, size_t len,
                      int first_timeout_ms)
{
    size_t got = 0;
    while (got < len) {
        int rc = wait_for(l, l->in, POLLIN, got ? STALL_MS : first_timeout_ms);
        if (rc)
            return rc;
        ssize_t r = read(l->in, to + got, len - got);
        if (r == 0)
            return got ? FC_EFORMAT : FC_EEOF;
        if (r < 0 && errno != EAGAIN && errno != EINTR)
            return FC_EIO;
        if (r > 0)
            got += (size_t)r;
    }
    l->received_bytes += len;
    return 0;
}

int fc_link_recv(struct fc_link *l, int timeout_ms,
                 struct fc_frame_head *head_r)
{
    uint8_t raw[FC_FRAME_HEADER];
    int rc = recv_exact(l, raw, sizeof(raw), timeout_ms);
    if (!rc)
        rc = fc_frame_head_parse(raw, head_r);
    if (rc)
        return rc;
    rc = recv_exact(l, l->body, head_r->length, STALL_MS);
    if (rc == FC_EEOF)
        rc = FC_EFORMAT;
    return rc ? rc : fc_frame_check(head_r, l->body);
}
