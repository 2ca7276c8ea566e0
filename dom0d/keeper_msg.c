/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper_msg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "channel.h"
#include "err.h"
#include "wire.h"

static void put_status(struct fc_writer *w, const struct fc_keeper_status *s)
{
    fc_put_u64(w, s->epoch);
    fc_put_u64(w, s->pfns);
    fc_put_u64(w, s->pages);
    fc_put_u64(w, s->stored_bytes);
    fc_put_u64(w, s->used_bytes);
    fc_put_u64(w, s->budget_bytes);
    fc_put_u64(w, s->puts);
    fc_put_u64(w, s->duplicates);
    fc_put_u64(w, s->evicted);
    fc_put_u64(w, s->refused);
    fc_put_u64(w, s->received_bytes);
    fc_put_u32(w, s->channels);
    fc_put_u32(w, (uint32_t)s->last_error);
}

static void get_status(struct fc_reader *r, struct fc_keeper_status *s)
{
    s->epoch = fc_get_u64(r);
    s->pfns = fc_get_u64(r);
    s->pages = fc_get_u64(r);
    s->stored_bytes = fc_get_u64(r);
    s->used_bytes = fc_get_u64(r);
    s->budget_bytes = fc_get_u64(r);
    s->puts = fc_get_u64(r);
    s->duplicates = fc_get_u64(r);
    s->evicted = fc_get_u64(r);
    s->refused = fc_get_u64(r);
    s->received_bytes = fc_get_u64(r);
    s->channels = fc_get_u32(r);
    s->last_error = (int32_t)fc_get_u32(r);
}

size_t fc_keeper_event_make(const struct fc_keeper_event *event, uint8_t *out)
{
    struct fc_writer w = fc_writer_of(out, FC_KEEPER_PACKET);
    fc_put_u32(&w, event->type);
    switch (event->type) {
    case FC_KEEPER_STATUS:
        fc_put_u32(&w, event->status.ending);
        put_status(&w, &event->status);
        break;
    case FC_KEEPER_LOG:
        fc_put_u32(&w, (uint32_t)event->log.level);
        fc_put_bytes(&w, event->log.text,
                     strnlen(event->log.text, FC_KEEPER_TEXT));
        break;
    case FC_KEEPER_CLOSED:
        fc_put_u32(&w, 0);
        fc_put_u64(&w, event->closed.id);
        break;
    case FC_KEEPER_MODEL:
        fc_put_u32(&w, event->model.total);
        fc_put_u32(&w, event->model.at);
        fc_put_bytes(&w, event->model.bytes, event->model.len);
        break;
    }
    return fc_writer_used(&w);
}

int fc_keeper_event_parse(const void *packet, size_t len,
                          struct fc_keeper_event *event_r)
{
    struct fc_reader r = fc_reader_of(packet, len);
    struct fc_keeper_event e = { 0 };
    e.type = fc_get_u32(&r);
    uint32_t detail = fc_get_u32(&r);
    size_t left = fc_reader_left(&r);
    switch (e.type) {
    case FC_KEEPER_STATUS:
        get_status(&r, &e.status);
        if (detail > 1)
            return FC_EFORMAT;
        e.status.ending = (uint8_t)detail;
        break;
    case FC_KEEPER_LOG:
        if (detail > 7 || left > FC_KEEPER_TEXT)
            return FC_EFORMAT;
        e.log.level = (int)detail;
        memcpy(e.log.text, fc_get_bytes(&r, left), left);
        e.log.text[left] = '\0';
        break;
    case FC_KEEPER_CLOSED:
        e.closed.id = fc_get_u64(&r);
        if (detail)
            return FC_EFORMAT;
        break;
    case FC_KEEPER_MODEL:
        e.model.total = detail;
        e.model.at = fc_get_u32(&r);
        e.model.len = (uint32_t)fc_reader_left(&r);
        if (r.bad || !e.model.len || e.model.len > FC_KEEPER_PART ||
            detail > FC_CHANNEL_MAX_MODEL || e.model.len > detail ||
            e.model.at > detail - e.model.len)
            return FC_EFORMAT;
        memcpy(e.model.bytes, fc_get_bytes(&r, e.model.len), e.model.len);
        break;
    default:
        return FC_EFORMAT;
    }
    if (r.bad || r.p != r.end)
        return FC_EFORMAT;
    *event_r = e;
    return 0;
}

int fc_keeper_status_parse(const void *packet, size_t len,
                           struct fc_keeper_status *status_r)
{
    struct fc_keeper_event e;
    int rc = fc_keeper_event_parse(packet, len, &e);
    if (!rc && e.type != FC_KEEPER_STATUS)
        rc = FC_EFORMAT;
    if (!rc)
        *status_r = e.status;
    return rc;
}

int fc_keeper_command_parse(const void *packet, size_t len,
                            enum fc_keeper_command *command_r,
                            uint64_t *value_r)
{
    struct fc_reader r = fc_reader_of(packet, len);
    uint32_t type = fc_get_u32(&r), zero = fc_get_u32(&r);
    uint64_t value = fc_get_u64(&r);
    if (r.bad || r.p != r.end || zero || type < FC_KEEPER_CMD_CHANNEL ||
        type > FC_KEEPER_CMD_FREE)
        return FC_EFORMAT;
    *command_r = type;
    *value_r = value;
    return 0;
}

int fc_keeper_event_read(int sock, struct fc_keeper_event *event_r)
{
    uint8_t packet[FC_KEEPER_PACKET];
    ssize_t r;
    do
        r = recv(sock, packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
    while (r < 0 && errno == EINTR);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (r < 0)
        return errno == ECONNRESET ? FC_EEOF : FC_EIO;
    if (r == 0)
        return FC_EEOF;
    if ((size_t)r > sizeof(packet))
        return FC_EFORMAT;
    int rc = fc_keeper_event_parse(packet, (size_t)r, event_r);
    return rc ? rc : 1;
}

static int send_command(int sock, enum fc_keeper_command command,
                        uint64_t value, const int *fds, int nfds)
{
    uint8_t raw[FC_KEEPER_COMMAND_BYTES];
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    fc_put_u32(&w, command);
    fc_put_u32(&w, 0);
    fc_put_u64(&w, value);
    if (fc_send_fds(sock, raw, sizeof(raw), fds, nfds) == (ssize_t)sizeof(raw))
        return 0;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ETOOMANYREFS
               ? FC_EBUSY
               : FC_EIO;
}

int fc_keeper_give_channel(int sock, uint64_t id, int in_fd, int out_fd)
{
    const int fds[2] = { in_fd, out_fd };
    return send_command(sock, FC_KEEPER_CMD_CHANNEL, id, fds, 2);
}

int fc_keeper_set_budget(int sock, uint64_t budget_bytes)
{
    return send_command(sock, FC_KEEPER_CMD_BUDGET, budget_bytes, NULL, 0);
}

int fc_keeper_shutdown(int sock)
{
    return send_command(sock, FC_KEEPER_CMD_SHUTDOWN, 0, NULL, 0);
}

int fc_keeper_free(int sock)
{
    return send_command(sock, FC_KEEPER_CMD_FREE, 0, NULL, 0);
}
