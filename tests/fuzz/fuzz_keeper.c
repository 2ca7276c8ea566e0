/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keeper's channel: any bytes of another host leave the store within its
 * budget and its mappings readable. The first byte says whether the rest is
 * raw, or frames (type, 16-bit length, body) that are given right checks, which
 * no fuzzer would find. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keeper_int.h"
#include "wire.h"

#define RAW 1u
#define WITH_HELLO 2u
#define PIECE 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[FC_UUID_BYTES] = "guest";
static struct fc_keeper k;

static void set_up(int fds[2])
{
    memset(&k, 0, sizeof(k));
    k.args.sock = -1;
    k.args.idle_ms = 1000;
    memcpy(k.args.uuid, uuid, sizeof(uuid));
    k.args.store_fd = fc_store_file_new("fuzz", FC_STORE_MIN_BYTES);
    k.pages = malloc((size_t)FC_BATCH_PAGES * FC_PAGE_SIZE);
    k.good = malloc(FC_BATCH_PAGES);
    if (!k.pages || !k.good || k.args.store_fd < 0 ||
        fc_store_open(k.args.store_fd, FC_STORE_MIN_BYTES, &k.store) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0 ||
        fc_keeper_chan_open(&k, &k.chan[0], 1, fds[1], dup(fds[1])))
        abort();
}

static void feed(int s, const uint8_t *bytes, size_t len)
{
    static uint8_t answers[FC_KEEPER_OUT_BYTES];
    struct fc_keeper_chan *c = &k.chan[0];
    while (len && c->state != FC_CHAN_UNUSED) {
        ssize_t r = send(s, bytes, len < PIECE ? len : PIECE, MSG_NOSIGNAL);
        if (r <= 0)
            return;
        bytes += r;
        len -= (size_t)r;
        for (unsigned i = 0; i < 64 && fc_keeper_chan_reads(&k, c); i++)
            fc_keeper_chan_read(&k, c);
        if (fc_keeper_chan_writes(c))
            fc_keeper_chan_write(&k, c);
        (void)!read(s, answers, sizeof(answers));
        k.evicted_count = 0;
        k.now_ms++;
        fc_keeper_chan_timers(&k, c);
    }
}

static void feed_frame(int s, enum fc_channel_type type, const uint8_t *body,
                       size_t len)
{
    uint8_t head[FC_CHANNEL_HEADER];
    fc_channel_head_make(head, type, body, (uint32_t)len);
    feed(s, head, sizeof(head));
    feed(s, body, len);
}

static void say_hello(int s)
{
    struct fc_channel_hello hello = { .highest = 1, .lowest = 1 };
    uint8_t body[128];
    memcpy(hello.uuid, uuid, sizeof(uuid));
    ssize_t len = fc_channel_hello_make(&hello, body, sizeof(body));
    feed_frame(s, FC_CHANNEL_HELLO, body, (size_t)len);
}

static void feed_frames(int s, const uint8_t *data, size_t size)
{
    struct fc_reader r = fc_reader_of(data, size);
    while (fc_reader_left(&r) > 3) {
        uint8_t type = fc_get_u8(&r);
        size_t len = fc_get_u16(&r), left = fc_reader_left(&r);
        if (len > left)
            len = left;
        feed_frame(s, type, fc_get_bytes(&r, len), len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_store_stats stats;
    int fds[2];
    if (!size)
        return 0;
    set_up(fds);
    if (data[0] & WITH_HELLO)
        say_hello(fds[0]);
    if (data[0] & RAW)
        feed(fds[0], data + 1, size - 1);
    else
        feed_frames(fds[0], data + 1, size - 1);
    fc_store_stats_get(k.store, &stats);
    if (stats.used_bytes > stats.budget_bytes)
        abort();
    fc_keeper_chan_close(&k, &k.chan[0]);
    fc_store_free(k.store);
    free(k.evicted);
    free(k.model);
    free(k.pages);
    free(k.good);
    close(k.args.store_fd);
    close(fds[0]);
    return 0;
}
