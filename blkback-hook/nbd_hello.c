/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd_hello.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "wire.h"

#define MAGIC 0x4e42444d41474943ull        /* "NBDMAGIC" */
#define OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define REPLY_MAGIC 0x0003e889045565a9ull
#define FIXED_NEWSTYLE 1u
#define NO_ZEROES 2u
#define OPT_GO 7u
#define REP_ACK 1u
#define REP_INFO 3u
#define REP_ERROR 0x80000000u
#define INFO_EXPORT 0u
#define INFO_BLOCK_SIZE 3u

/* The protocol lets strings have 4096 bytes; no reply that we ask for is
 * longer. A server that sends one INFO after the other has to end. */
#define MAX_REPLY 4096u
#define MAX_REPLIES 32u
#define MAX_BLOCK_MIN 65536u /* the protocol's bound for a minimum */

struct talk {
    int fd;
    uint64_t deadline_ms;
};

static uint64_t get_be(struct fc_reader *r, unsigned bytes)
{
    const uint8_t *p = fc_get_bytes(r, bytes);
    uint64_t v = 0;

    for (unsigned i = 0; p && i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static void put_be(struct fc_writer *w, uint64_t v, unsigned bytes)
{
    while (bytes--)
        fc_put_u8(w, (uint8_t)(v >> (8 * bytes)));
}

static int refuse(int rc, const char *what)
{
    fc_error("NBD handshake: %s: %s", what,
             rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
    return rc;
}

/* As many bytes as asked for, by the deadline. */
static int take(struct talk *t, void *buf, size_t len)
{
    for (size_t got = 0; got < len;) {
        uint64_t now = fc_now_ms();
        if (now >= t->deadline_ms)
            return FC_ETIMEOUT;
        int ready = fc_wait_readable(t->fd, (int)(t->deadline_ms - now));
        if (ready < 0)
            return ready;
        if (ready == 0)
            continue;
        ssize_t n = recv(t->fd, (char *)buf + got, len - got, MSG_DONTWAIT);
        if (n == 0)
            return FC_EEOF;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return FC_EIO;
        if (n > 0)
            got += (size_t)n;
    }
    return 0;
}

/* What is said is short and fits into the socket of any server that reads. */
static int say(struct talk *t, const struct fc_writer *w)
{
    size_t len = fc_writer_used(w);
    ssize_t n = send(t->fd, w->start, len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0)
        return FC_EIO;
    if ((size_t)n != len) {
        errno = EAGAIN;
        return FC_EIO;
    }
    return 0;
}

int fc_nbd_connect(const char *path, int timeout_ms)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct timeval wait = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
    const struct timeval never = { 0, 0 };

    if (strlen(path) >= sizeof(addr.sun_path))
        return FC_ETOOBIG;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return FC_ESYS;
    /* a full queue makes it wait; the limit must not stay on a socket that
     * the kernel's driver gets */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) ||
        connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &never, sizeof(never))) {
        fc_close(&fd);
        return FC_ESYS;
    }
    return fd;
}

static int greet(struct talk *t)
{
    uint8_t raw[18], answer[4];
    struct fc_reader r = fc_reader_of(raw, sizeof(raw));
    struct fc_writer w = fc_writer_of(answer, sizeof(answer));

    int rc = take(t, raw, sizeof(raw));
    if (rc)
        return refuse(rc, "greeting");
    if (get_be(&r, 8) != MAGIC)
        return refuse(FC_EFORMAT, "greeting's magic number");
    if (get_be(&r, 8) != OPTION_MAGIC)
        return refuse(FC_EVERSION, "server speaks the old style");
    if (!(get_be(&r, 2) & FIXED_NEWSTYLE))
        return refuse(FC_EVERSION, "server's newstyle is not the fixed one");
    put_be(&w, FIXED_NEWSTYLE | NO_ZEROES, 4);
    rc = say(t, &w);
    return rc ? refuse(rc, "client flags") : 0;
}

static int ask(struct talk *t, const char *name)
{
    uint8_t raw[16 + 4 + FC_NBD_EXPORT_MAX + 4];
    struct fc_writer w = fc_writer_of(raw, sizeof(raw));
    size_t n = strlen(name);

    put_be(&w, OPTION_MAGIC, 8);
    put_be(&w, OPT_GO, 4);
    put_be(&w, 4 + n + 4, 4);
    put_be(&w, n, 4);
    fc_put_bytes(&w, name, n);
    put_be(&w, 1, 2); /* one thing besides the export itself */
    put_be(&w, INFO_BLOCK_SIZE, 2);
    int rc = w.bad ? FC_EINVAL : say(t, &w);
    return rc ? refuse(rc, "asking for the export") : 0;
}

static bool block_sizes_ok(const struct fc_nbd_export *e)
{
    return e->min_block && !(e->min_block & (e->min_block - 1)) &&
           e->min_block <= MAX_BLOCK_MIN &&
           e->preferred_block >= e->min_block && e->max_block >= e->min_block;
}

static int take_info(const uint8_t *body, uint32_t len, struct fc_nbd_export *e,
                     bool *have_export)
{
    struct fc_reader r = fc_reader_of(body, len);

    switch (get_be(&r, 2)) {
    case INFO_EXPORT:
        e->size = get_be(&r, 8);
        e->flags = (uint16_t)get_be(&r, 2);
        if (r.bad || fc_reader_left(&r))
            return refuse(FC_EFORMAT, "export's length");
        /* the kernel's offsets are signed */
        if (e->size == 0 || e->size > INT64_MAX)
            return refuse(FC_EFORMAT, "export's size");
        if (!(e->flags & FC_NBD_HAS_FLAGS))
            return refuse(FC_EFORMAT, "export's flags");
        *have_export = true;
        return 0;
    case INFO_BLOCK_SIZE:
        e->min_block = (uint32_t)get_be(&r, 4);
        e->preferred_block = (uint32_t)get_be(&r, 4);
        e->max_block = (uint32_t)get_be(&r, 4);
        if (r.bad || fc_reader_left(&r) || !block_sizes_ok(e))
            return refuse(FC_EFORMAT, "block sizes");
        return 0;
    default: /* what was not asked for may come and be ignored */
        return r.bad ? refuse(FC_EFORMAT, "a piece of information") : 0;
    }
}

/* The server's own words, as far as they can be shown. */
static int refused(uint32_t type, const uint8_t *body, uint32_t len)
{
    fc_error("NBD handshake: the server refuses the export: error %u%s%.*s",
             type & ~REP_ERROR, len ? ": " : "", (int)(len > 200 ? 200 : len),
             (const char *)body);
    return FC_EPEER;
}

/* One reply. 1: the last one, an ACK. */
static int take_reply(struct talk *t, struct fc_nbd_export *e,
                      bool *have_export)
{
    uint8_t raw[20], body[MAX_REPLY];
    struct fc_reader r = fc_reader_of(raw, sizeof(raw));

    int rc = take(t, raw, sizeof(raw));
    if (rc)
        return refuse(rc, "reply");
    if (get_be(&r, 8) != REPLY_MAGIC)
        return refuse(FC_EFORMAT, "reply's magic number");
    if (get_be(&r, 4) != OPT_GO)
        return refuse(FC_EFORMAT, "reply to what was not asked");
    uint32_t type = (uint32_t)get_be(&r, 4), len = (uint32_t)get_be(&r, 4);
    if (len > sizeof(body))
        return refuse(FC_ETOOBIG, "reply's length");
    rc = take(t, body, len);
    if (rc)
        return refuse(rc, "reply");
    if (type & REP_ERROR)
        return refused(type, body, len);
    if (type == REP_INFO)
        return take_info(body, len, e, have_export);
    if (type != REP_ACK || len)
        return refuse(FC_EFORMAT, "reply's type");
    return *have_export ? 1 : refuse(FC_EFORMAT, "no export in the reply");
}

int fc_nbd_hello(int fd, const char *export_name, int timeout_ms,
                 struct fc_nbd_export *export_r)
{
    struct talk t = { fd, fc_now_ms() + (uint64_t)timeout_ms };
    bool have_export = false;

    *export_r = (struct fc_nbd_export){ 0 };
    if (strlen(export_name) > FC_NBD_EXPORT_MAX)
        return refuse(FC_EINVAL, "name of the export");
    int rc = greet(&t);
    if (rc == 0)
        rc = ask(&t, export_name);
    for (unsigned i = 0; rc == 0; i++) {
        if (i == MAX_REPLIES)
            return refuse(FC_ELIMIT, "number of replies");
        rc = take_reply(&t, export_r, &have_export);
    }
    return rc < 0 ? rc : 0;
}
