/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A source's end of the block channel against a shadow that says anything: no
 * crash, no leak, and the channel ends. Input as for fuzz_block_sink; a WELCOME
 * and a HELD of nothing come first.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "blockset.h"
#include "feed.h"
#include "fuzz_block.h"
#include "source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fc_volume *memory(uint64_t bytes)
{
    char path[64];
    struct fc_volume *v;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) || fc_volume_open(path, 0, &v))
        abort();
    close(fd);
    return v;
}

static void say_welcome(int fd)
{
    struct fc_frame_welcome w = { .version = 1 };
    struct fc_blockset none;
    uint8_t body[256];
    size_t len;
    uint32_t next;
    ssize_t n = fc_frame_welcome_make(&w, body, sizeof(body));
    fuzz_send(fd, FC_FRAME_WELCOME, body, (size_t)n);
    if (fc_blockset_init(&none, FUZZ_SIZE / FUZZ_BLOCK, false) ||
        fc_blockset_encode(&none, 0, body, sizeof(body), &len, &next))
        abort();
    fc_blockset_dispose(&none);
    fuzz_send(fd, FC_FRAME_HELD, body, len);
}

static void *drain(void *arg)
{
    uint8_t buf[4096];
    while (read(*(int *)arg, buf, sizeof(buf)) > 0)
        ;
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_feed_config config = { .name = "xvda",
                                     .block_bytes = FUZZ_BLOCK,
                                     .size = FUZZ_SIZE };
    static const uint8_t migration[FC_MIGRATION_BYTES] = { 1 };
    struct fc_source *source;
    struct fc_feed *feed;
    pthread_t t;
    int ends[2];
    fuzz_quiet();
    if (fc_source_open(memory(FUZZ_SIZE), FUZZ_BLOCK, &source) ||
        fc_source_write(source, 0, "x", 1, false) ||
        fc_feed_open(&config, source, &feed) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        abort();
    if (fc_feed_channel(feed, ends[0], ends[0]) ||
        pthread_create(&t, NULL, drain, &ends[1]))
        abort();
    say_welcome(ends[1]);
    fuzz_frames(ends[1], data, size);
    if (size && data[0] & 0x80)
        fc_feed_fence(feed, migration, 3, false, 1);
    shutdown(ends[1], SHUT_WR);
    pthread_join(t, NULL);
    close(ends[1]);
    fc_feed_close(feed);
    fc_source_close(source);
    return 0;
}
