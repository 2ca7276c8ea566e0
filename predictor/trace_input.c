/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trace_input.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "err.h"
#include "io.h"

#define RAW_BYTES 65536u
#define READY_BYTES (1u << 18)
#define PEEK_BYTES 4096u
#define WINDOW_LOG 27 /* 128 MiB: zstd's own default limit */

static const uint8_t zstd_magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };

struct fc_trace_input {
    int fd;
    bool file_ended;
    bool inside; /* a zstd frame that has begun and not ended */
    int rc;      /* the first failure stays */
    ZSTD_DStream *zstd;
    uint8_t *raw; /* as read, when it has to be decompressed */
    size_t raw_pos, raw_len;
    uint8_t *ready;
    size_t pos, len;
    uint64_t offset; /* of ready[pos] */
};

/* Reads once into `buf`: bytes, 0 at the end of the file. */
static size_t read_some(struct fc_trace_input *in, uint8_t *buf, size_t room)
{
    ssize_t n;
    do {
        n = read(in->fd, buf, room);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        in->rc = FC_EIO;
    if (n <= 0)
        in->file_ended = true;
    return n > 0 ? (size_t)n : 0;
}

static void decompress_some(struct fc_trace_input *in)
{
    if (in->raw_pos == in->raw_len && !in->file_ended) {
        in->raw_len = read_some(in, in->raw, RAW_BYTES);
        in->raw_pos = 0;
    }
    ZSTD_inBuffer from = { in->raw, in->raw_len, in->raw_pos };
    ZSTD_outBuffer to = { in->ready, READY_BYTES, in->len };
    size_t left = ZSTD_decompressStream(in->zstd, &to, &from);
    bool moved = from.pos > in->raw_pos || to.pos > in->len;
    in->raw_pos = from.pos;
    in->len = to.pos;
    if (ZSTD_isError(left))
        in->rc = FC_EFORMAT;
    else if (moved)
        in->inside = left > 0;
    else if (in->file_ended && in->inside && in->rc == 0)
        in->rc = FC_EEOF;
}

/* Until `want` bytes are ready or no more will come. */
static void fill(struct fc_trace_input *in, size_t want)
{
    if (in->len - in->pos >= want)
        return;
    memmove(in->ready, in->ready + in->pos, in->len - in->pos);
    in->len -= in->pos;
    in->pos = 0;
    while (in->len < want && in->rc == 0) {
        size_t before = in->len;
        if (in->zstd)
            decompress_some(in);
        else if (!in->file_ended)
            in->len +=
                read_some(in, in->ready + in->len, READY_BYTES - in->len);
        if (in->len == before && in->file_ended && in->raw_pos == in->raw_len)
            break;
    }
}

static int start_zstd(struct fc_trace_input *in)
{
    fill(in, sizeof(zstd_magic));
    if (in->len < sizeof(zstd_magic) ||
        memcmp(in->ready, zstd_magic, sizeof(zstd_magic)))
        return in->rc;
    in->zstd = ZSTD_createDStream();
    in->raw = in->zstd ? malloc(READY_BYTES) : NULL;
    if (!in->raw)
        return FC_ENOMEM;
    ZSTD_DCtx_setParameter(in->zstd, ZSTD_d_windowLogMax, WINDOW_LOG);
    memcpy(in->raw, in->ready, in->len);
    in->raw_len = in->len;
    in->len = 0;
    return 0;
}

int fc_trace_input_new(int fd, struct fc_trace_input **in_r)
{
    int rc = FC_ENOMEM;
    struct fc_trace_input *in = calloc(1, sizeof(*in));
    if (!in) {
        fc_close(&fd);
        return rc;
    }
    in->fd = fd;
    in->ready = malloc(READY_BYTES);
    if (!in->ready)
        goto out;
    rc = start_zstd(in);
out:
    if (rc) {
        fc_trace_input_free(in);
        return rc;
    }
    *in_r = in;
    return 0;
}

void fc_trace_input_free(struct fc_trace_input *in)
{
    if (!in)
        return;
    ZSTD_freeDStream(in->zstd);
    fc_close(&in->fd);
    free(in->raw);
    free(in->ready);
    free(in);
}

const uint8_t *fc_trace_input_peek(struct fc_trace_input *in, size_t want,
                                   size_t *len_r)
{
    fill(in, want < PEEK_BYTES ? want : PEEK_BYTES);
    *len_r = in->len - in->pos < want ? in->len - in->pos : want;
    return in->ready + in->pos;
}

uint64_t fc_trace_input_offset(const struct fc_trace_input *in)
{
    return in->offset;
}

int fc_trace_input_read(struct fc_trace_input *in, void *buf, size_t len)
{
    uint8_t *to = buf;
    size_t got = 0;
    while (got < len) {
        if (in->pos == in->len)
            fill(in, 1);
        size_t n =
            in->len - in->pos < len - got ? in->len - in->pos : len - got;
        if (n == 0)
            break;
        memcpy(to + got, in->ready + in->pos, n);
        in->pos += n;
        in->offset += n;
        got += n;
    }
    if (got == len)
        return 1;
    if (in->rc)
        return in->rc;
    return got ? FC_EEOF : 0;
}

int fc_trace_input_number(struct fc_trace_input *in, uint64_t *number_r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte;
        int rc = fc_trace_input_read(in, &byte, 1);
        if (rc != 1)
            return rc == 0 && shift ? FC_EEOF : rc;
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *number_r = v;
            return 1;
        }
    }
    return FC_EFORMAT;
}

int fc_trace_input_line(struct fc_trace_input *in, char *line, size_t room)
{
    size_t n = 0;
    for (;;) {
        char c;
        int rc = fc_trace_input_read(in, &c, 1);
        if (rc < 0)
            return rc;
        if (rc == 0 && n == 0)
            return 0;
        if (rc == 0 || c == '\n')
            break;
        if (c == '\0')
            return FC_EFORMAT;
        if (n + 1 == room)
            return FC_ETOOBIG;
        line[n++] = c;
    }
    if (n && line[n - 1] == '\r')
        n--;
    line[n] = '\0';
    return 1;
}
