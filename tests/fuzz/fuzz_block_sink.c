/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A shadow's end of the block channel against a source that says anything: no
 * crash, no leak, and the channel ends. The input is a list of frames: type,
 * length (2 bytes), body; headers are made right, and a HELLO comes first, as
 * the fuzzer would never get past either.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz_block.h"
#include "map.h"
#include "shadow.h"
#include "sink.h"

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

static void say_hello(int fd)
{
    struct fc_frame_hello h = { .highest = 1,
                                .lowest = 1,
                                .block_bytes = FUZZ_BLOCK,
                                .size = FUZZ_SIZE,
                                .name = "xvda" };
    uint8_t body[256];
    ssize_t n = fc_frame_hello_make(&h, body, sizeof(body));
    fuzz_send(fd, FC_FRAME_HELLO, body, (size_t)n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_map_id id = { .vdev = "xvda",
                            .size_bytes = FUZZ_SIZE,
                            .block_bytes = FUZZ_BLOCK };
    struct fc_sink_config config = { .name = "xvda",
                                     .block_bytes = FUZZ_BLOCK,
                                     .size = FUZZ_SIZE };
    struct fc_map *map;
    struct fc_sink *sink;
    struct fc_shadow *shadow;
    int ends[2];
    fuzz_quiet();
    if (fc_map_open(memory(0), &id, &map) || fc_sink_open(&config, &sink))
        abort();
    struct fc_shadow_config sc = { .volume = memory(FUZZ_SIZE),
                                   .map = map,
                                   .primary = &fc_sink_primary,
                                   .primary_user = sink };
    if (fc_shadow_open(&sc, &shadow) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        abort();
    fc_sink_attach(sink, shadow);
    if (fc_sink_channel(sink, ends[0], ends[0]))
        abort();
    say_hello(ends[1]);
    fuzz_frames(ends[1], data, size);
    fuzz_drain(ends[1]);
    fc_shadow_cancel(shadow);
    fc_sink_stop(sink);
    fc_shadow_close(shadow);
    fc_sink_close(sink);
    return 0;
}
