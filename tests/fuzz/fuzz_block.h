/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FUZZ_BLOCK_H
#define FC_FUZZ_BLOCK_H

/* What the fuzzers of the block channel's two ends share. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "log.h"

#define FUZZ_BLOCK 4096u
#define FUZZ_SIZE (FUZZ_BLOCK * 8u)
#define FUZZ_FRAMES 64 /* more teach nothing */

static inline void fuzz_swallow(void *user, enum fc_level level,
                                const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static inline void fuzz_quiet(void)
{
    signal(SIGPIPE, SIG_IGN);
    fc_log_set_sink(fuzz_swallow, NULL);
}

static inline void fuzz_send(int fd, unsigned type, const uint8_t *body,
                             size_t len)
{
    uint8_t raw[FC_FRAME_HEADER];
    fc_frame_head_make(raw, type, body, (uint32_t)len);
    if (fc_write_all(fd, raw, sizeof(raw)) || fc_write_all(fd, body, len))
        return; /* it has hung up, as it may */
}

/*
 * DATA's hash and sequence are made right when its body's last byte is odd: a
 * fuzzer finds neither.
 */
static inline void fuzz_mend(uint8_t *body, size_t len, uint64_t seq)
{
    static uint8_t plain[FC_FRAME_MAX_PLAIN], coded[FC_FRAME_MAX_PLAIN];
    struct fc_frame_data d;
    if (len <= FC_FRAME_DATA_HEAD || !(body[len - 1] & 1))
        return;
    memcpy(body, &seq, sizeof(seq));
    if (fc_frame_data_parse(body, len, &d) || d.encoding != FC_FRAME_RAW)
        return;
    memcpy(plain, d.bytes, d.coded);
    fc_frame_data_encode(&d, plain, coded);
    if (d.encoding == FC_FRAME_ZEROS)
        return;
    memcpy(body + 32, &d.hash_lo, 8);
    memcpy(body + 40, &d.hash_hi, 8);
}

static inline void fuzz_frames(int fd, const uint8_t *data, size_t size)
{
    static uint8_t body[65536];
    uint64_t seq = 0;
    for (int n = 0; n < FUZZ_FRAMES && size >= 3; n++) {
        unsigned type = data[0];
        size_t len = data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        if (len > size)
            len = size;
        memcpy(body, data, len);
        if (type == FC_FRAME_DATA)
            fuzz_mend(body, len, ++seq);
        fuzz_send(fd, type, body, len);
        data += len;
        size -= len;
    }
}

/* No more is said; until the other end has nothing more to say either. */
static inline void fuzz_drain(int fd)
{
    uint8_t buf[4096];
    shutdown(fd, SHUT_WR);
    while (read(fd, buf, sizeof(buf)) > 0)
        ;
    close(fd);
}

#endif
