/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "err.h"
#include "jail.h"
#include "keeper_int.h"
#include "keeper_msg.h"
#include "log.h"

/*
 * The keeper's process: one thread, one poll(2) loop over the daemon's socket
 * and the channels. It is the only code of forecopy that reads what another
 * host's daemon sends, so it gives up everything else first (jail.h).
 *
 * It never waits on anybody: sockets and pipes are non-blocking, and what
 * cannot be said now is kept in a bounded place (status: the newest; log lines:
 * dropped; closed channels: a short list, and no commands are taken while it is
 * nearly full; evictions: see keeper_int.h) until it can.
 *
 * It ends when the source says that the store is not needed any more, when no
 * channel was open for linger_ms, when the daemon says so, or when the daemon
 * is gone. It does not log by fc_log(): the log's lock may have been held by
 * another thread of the daemon at the fork.
 */
#define IDLE_MS 120000u
#define STATUS_MS 100u
#define TICK_MS 1000
#define END_MS 1000u      /* for the last frames to go out */
#define MODEL_WAITS 20u   /* each as long as a status may take */
#define LOG_BURST 20u     /* lines */
#define LOG_EVERY_MS 500u /* a line more */

static int send_event(struct fc_keeper *k, const struct fc_keeper_event *e)
{
    uint8_t raw[FC_KEEPER_PACKET];
    size_t len = fc_keeper_event_make(e, raw);
    if (fc_send_fds(k->args.sock, raw, len, NULL, 0) == (ssize_t)len)
        return 0;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
        return FC_EBUSY;
    k->orphan = true;
    return FC_EIO;
}

void fc_keeper_log(struct fc_keeper *k, int level, const char *fmt, ...)
{
    struct fc_keeper_event e = { .type = FC_KEEPER_LOG };
    va_list ap;
    uint64_t earned = (k->now_ms - k->log_credit_ms) / LOG_EVERY_MS;
    k->log_credit_ms += earned * LOG_EVERY_MS;
    k->log_credit = earned + k->log_credit > LOG_BURST
                        ? LOG_BURST
                        : k->log_credit + (unsigned)earned;
    if (!k->log_credit)
        return;
    k->log_credit--;
    e.log.level = level;
    va_start(ap, fmt);
    vsnprintf(e.log.text, sizeof(e.log.text), fmt, ap);
    va_end(ap);
    send_event(k, &e);
}

void fc_keeper_closed(struct fc_keeper *k, uint64_t id)
{
    if (k->closed_count < FC_KEEPER_UNTOLD)
        k->closed[k->closed_count++] = id;
}

static void tell_closed(struct fc_keeper *k)
{
    while (k->closed_count) {
        struct fc_keeper_event e = { .type = FC_KEEPER_CLOSED };
        e.closed.id = k->closed[0];
        if (send_event(k, &e))
            return;
        k->closed_count--;
        memmove(k->closed, k->closed + 1,
                k->closed_count * sizeof(k->closed[0]));
    }
}

void fc_keeper_model(struct fc_keeper *k, const uint8_t *body, uint32_t len)
{
    uint8_t *copy = len ? malloc(len) : NULL;
    if (!copy)
        return; /* the guest is learned anew, then */
    memcpy(copy, body, len);
    free(k->model);
    k->model = copy;
    k->model_len = len;
    k->model_at = 0;
}

/* The keeper looks at none of it. False: there is more to tell. */
static bool tell_model(struct fc_keeper *k)
{
    static struct fc_keeper_event e; /* too large a stack */
    while (k->model) {
        uint32_t left = k->model_len - k->model_at;
        e.type = FC_KEEPER_MODEL;
        e.model.total = k->model_len;
        e.model.at = k->model_at;
        e.model.len = left < FC_KEEPER_PART ? left : FC_KEEPER_PART;
        memcpy(e.model.bytes, k->model + k->model_at, e.model.len);
        if (send_event(k, &e))
            return false;
        k->model_at += e.model.len;
        if (k->model_at == k->model_len) {
            free(k->model);
            k->model = NULL;
        }
    }
    return true;
}

static unsigned channels_in(const struct fc_keeper *k,
                            enum fc_keeper_chan_state from)
{
    unsigned n = 0;
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        n += k->chan[i].state >= from;
    return n;
}

static void tell_status(struct fc_keeper *k, bool last)
{
    struct fc_keeper_event e = { .type = FC_KEEPER_STATUS };
    struct fc_store_stats st;
    fc_store_stats_get(k->store, &st);
    e.status = (struct fc_keeper_status){
        .epoch = fc_store_epoch(k->store),
        .pfns = st.pfns,
        .pages = st.pages,
        .stored_bytes = st.stored_bytes,
        .used_bytes = st.used_bytes,
        .budget_bytes = st.budget_bytes,
        .puts = st.puts,
        .duplicates = st.duplicates,
        .evicted = st.evicted,
        .refused = st.refused,
        .received_bytes = k->received_bytes,
        .last_error = k->last_error,
        .ending = last || k->ending,
    };
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        e.status.channels += k->chan[i].state == FC_CHAN_OPEN;
    if (!last && (k->now_ms - k->sent_ms < STATUS_MS ||
                  !memcmp(&e.status, &k->sent, sizeof(e.status))))
        return;
    if (last)
        fc_wait_writable(k->args.sock, STATUS_MS);
    if (!send_event(k, &e)) {
        k->sent = e.status;
        k->sent_ms = k->now_ms;
    }
}

/* Names evicted pages to the source on its lowest-numbered channel. */
static void tell_evicted(struct fc_keeper *k)
{
    static uint64_t pfns[FC_CHANNEL_MAX_PFNS];
    static uint8_t body[sizeof(pfns)];
    struct fc_keeper_chan *to = NULL;
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        if (k->chan[i].state == FC_CHAN_OPEN &&
            (!to || k->chan[i].number < to->number))
            to = &k->chan[i];
    size_t told = 0;
    while (to && told < k->evicted_count &&
           fc_keeper_chan_room(to) >= FC_KEEPER_OUT_RESERVE) {
        uint32_t n = 0;
        for (; n < FC_CHANNEL_MAX_PFNS && told < k->evicted_count; n++)
            pfns[n] = k->evicted[told++];
        ssize_t len = fc_channel_pfns_make(pfns, n, body, sizeof(body));
        fc_keeper_chan_queue(to, FC_CHANNEL_EVICTED, body, (size_t)len);
    }
    k->evicted_count -= told;
    if (told)
        memmove(k->evicted, k->evicted + told,
                k->evicted_count * sizeof(*k->evicted));
}

void fc_keeper_end(struct fc_keeper *k, enum fc_channel_bye reason,
                   const char *text)
{
    if (k->ending)
        return;
    k->ending = true;
    k->end_by_ms = k->now_ms + END_MS;
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        fc_keeper_chan_bye(k, &k->chan[i], reason, text);
}

/* One ERROR frame, as far as it goes, for a channel that cannot be served. */
static void turn_away(struct fc_keeper *k, uint64_t id, int *fds,
                      const char *why)
{
    uint8_t raw[FC_CHANNEL_HEADER + FC_CHANNEL_MAX_TEXT];
    ssize_t len = fc_channel_text_make(
        FC_CHANNEL_ERROR, 0, why, raw + FC_CHANNEL_HEADER, FC_CHANNEL_MAX_TEXT);
    fc_channel_head_make(raw, FC_CHANNEL_ERROR, raw + FC_CHANNEL_HEADER,
                         (uint32_t)len);
    if (!fc_set_nonblock(fds[1], 1))
        (void)!write(fds[1], raw, FC_CHANNEL_HEADER + (size_t)len);
    fc_close(&fds[0]);
    fc_close(&fds[1]);
    fc_keeper_closed(k, id);
}

static void take_channel(struct fc_keeper *k, uint64_t id, int *fds)
{
    struct fc_keeper_chan *c = NULL;
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS && !c; i++)
        if (k->chan[i].state == FC_CHAN_UNUSED)
            c = &k->chan[i];
    if (k->ending)
        turn_away(k, id, fds, "the store is being freed: come again");
    else if (!c)
        turn_away(k, id, fds, "too many channels");
    else if (fc_keeper_chan_open(k, c, id, fds[0], fds[1]))
        fc_keeper_log(k, FC_LOG_ERROR, "cannot take a channel: %s",
                      fc_strerror(FC_ENOMEM));
}

/* One command of the daemon; false when there is none. */
static bool take_command(struct fc_keeper *k)
{
    uint8_t raw[FC_KEEPER_COMMAND_BYTES + 1];
    enum fc_keeper_command command;
    uint64_t value;
    int fds[2] = { -1, -1 }, nfds;
    ssize_t r = fc_recv_fds(k->args.sock, raw, sizeof(raw), fds, 2, &nfds);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    if (r <= 0) {
        k->orphan = true;
        return false;
    }
    if (fc_keeper_command_parse(raw, (size_t)r, &command, &value) ||
        (command == FC_KEEPER_CMD_CHANNEL) != (nfds == 2)) {
        fc_close(&fds[0]);
        fc_close(&fds[1]);
        fc_keeper_log(k, FC_LOG_ERROR, "a malformed command");
        return true;
    }
    switch (command) {
    case FC_KEEPER_CMD_CHANNEL:
        take_channel(k, value, fds);
        break;
    case FC_KEEPER_CMD_BUDGET:
        fc_store_budget_set(k->store, value, fc_keeper_chan_evicted, k);
        break;
    case FC_KEEPER_CMD_SHUTDOWN:
        fc_keeper_end(k, FC_BYE_SHUTDOWN, "shutting down");
        break;
    case FC_KEEPER_CMD_FREE:
        fc_keeper_end(k, FC_BYE_DISARMED, "freed at the destination");
        break;
    }
    return true;
}

static bool wants_commands(const struct fc_keeper *k)
{
    return k->closed_count + FC_KEEPER_CHANNELS + 1 < FC_KEEPER_UNTOLD;
}

static void turn(struct fc_keeper *k)
{
    struct pollfd p[1 + 2 * FC_KEEPER_CHANNELS];
    const unsigned count = 1 + 2 * FC_KEEPER_CHANNELS;
    p[0] = (struct pollfd){ wants_commands(k) ? k->args.sock : -1, POLLIN, 0 };
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++) {
        const struct fc_keeper_chan *c = &k->chan[i];
        p[1 + 2 * i] = (struct pollfd){ fc_keeper_chan_reads(k, c) ? c->in : -1,
                                        POLLIN, 0 };
        p[2 + 2 * i] = (struct pollfd){ fc_keeper_chan_writes(c) ? c->out : -1,
                                        POLLOUT, 0 };
    }
    bool quiet = k->now_ms - k->sent_ms > 2 * STATUS_MS && !k->closed_count &&
                 !k->ending;
    if (poll(p, count, quiet ? TICK_MS : (int)STATUS_MS) < 0)
        memset(p, 0, sizeof(p)); /* EINTR: nothing is known to be ready */
    k->now_ms = fc_now_ms();
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++) {
        if (p[1 + 2 * i].revents && fc_keeper_chan_reads(k, &k->chan[i]))
            fc_keeper_chan_read(k, &k->chan[i]);
        if (p[2 + 2 * i].revents && fc_keeper_chan_writes(&k->chan[i]))
            fc_keeper_chan_write(k, &k->chan[i]);
    }
    if (p[0].revents)
        while (wants_commands(k) && !k->orphan && take_command(k))
            ;
}

static void loop(struct fc_keeper *k)
{
    while (!k->orphan && !k->failed) {
        turn(k);
        tell_evicted(k);
        for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
            fc_keeper_chan_timers(k, &k->chan[i]);
        if (channels_in(k, FC_CHAN_HELLO))
            k->alone_ms = k->now_ms;
        else if (k->now_ms - k->alone_ms >= k->args.linger_ms)
            fc_keeper_end(k, FC_BYE_DISARMED, "");
        tell_closed(k);
        tell_model(k);
        tell_status(k, false);
        if (k->ending &&
            (!channels_in(k, FC_CHAN_HELLO) || k->now_ms >= k->end_by_ms))
            return;
    }
}

static int set_up(struct fc_keeper *k)
{
    int fds[2] = { k->args.sock, k->args.store_fd };
    k->now_ms = k->alone_ms = k->log_credit_ms = fc_now_ms();
    k->log_credit = LOG_BURST;
    int rc = fc_jail_drop(fds, 2, "fc-keeper", k->args.uid, k->args.gid);
    if (rc)
        return rc;
    k->args.sock = fds[0];
    k->args.store_fd = fds[1];
    if (!k->args.idle_ms)
        k->args.idle_ms = IDLE_MS;
    k->pages = malloc((size_t)FC_BATCH_PAGES * FC_PAGE_SIZE);
    k->good = malloc(FC_BATCH_PAGES);
    if (!k->pages || !k->good)
        return FC_ENOMEM;
    rc = fc_set_nonblock(k->args.sock, 1);
    if (rc)
        return rc;
    rc = fc_store_open(k->args.store_fd, k->args.budget_bytes, &k->store);
    return rc ? rc : fc_jail_seal(k->args.store_fd);
}

int fc_keeper_run(const struct fc_keeper_args *args)
{
    static struct fc_keeper k; /* one in a process, and too large a stack */
    k.args = *args;
    int rc = set_up(&k);
    if (rc) {
        int saved = errno;
        fc_keeper_log(&k, FC_LOG_ERROR, "a keeper cannot start: %s%s%s",
                      fc_strerror(rc), rc == FC_ESYS ? ": " : "",
                      rc == FC_ESYS ? strerror(saved) : "");
        return 1;
    }
    loop(&k);
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        fc_keeper_chan_close(&k, &k.chan[i]);
    if (k.failed)
        fc_keeper_log(&k, FC_LOG_ERROR, "a keeper ends: %s",
                      fc_strerror(FC_ENOMEM));
    tell_closed(&k);
    for (unsigned i = 0; i < MODEL_WAITS && !k.orphan && !tell_model(&k); i++)
        fc_wait_writable(k.args.sock, STATUS_MS);
    if (!k.orphan)
        tell_status(&k, true);
    return k.failed ? 1 : 0;
}

int fc_keeper_spawn(const struct fc_keeper_args *args, pid_t *pid_r)
{
    int pair[2];
    struct fc_keeper_args mine = *args;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   pair) < 0)
        return FC_ESYS;
    pid_t pid = fork();
    if (pid < 0) {
        fc_close(&pair[0]);
        fc_close(&pair[1]);
        return FC_ESYS;
    }
    if (!pid) {
        mine.sock = pair[1];
        _exit(fc_keeper_run(&mine));
    }
    fc_close(&pair[1]);
    *pid_r = pid;
    return pair[0];
}
