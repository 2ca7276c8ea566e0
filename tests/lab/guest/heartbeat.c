/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * heartbeat: shows to the network when this guest runs.  It echoes every
 * probe it gets, and sends a beat of its own to the last prober every 5 ms,
 * so that after a migration the switches learn the guest's new place from
 * the first beat and not from the next probe that happens to be flooded.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "beat.h"

/*
 * A guest that got no CPU for a while shall answer what is asked now and not
 * a queue of what was asked then: room for a few probes only.
 */
#define QUEUE_BYTES 4096

/* A client that stopped asking is forgotten after this long. */
#define PROBER_FORGET_NS 10000000000ull

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

int main(void)
{
    const uint64_t period_ns = BEAT_PERIOD_MS * 1000000ull;
    struct sockaddr_in self = {.sin_family = AF_INET,
                               .sin_port = htons(BEAT_PORT)};
    struct sockaddr_in prober = {0};
    uint64_t prober_seen_ns = 0, prober_seq = 0, guest_seq = 0, next_ns;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), queue = QUEUE_BYTES;

    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0) {
        perror("heartbeat: cannot listen");
        return 1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue) < 0)
        perror("heartbeat: SO_RCVBUF");
    next_ns = now_ns() + period_ns;
    for (;;) {
        uint64_t now = now_ns();
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        struct timespec wait = {0};
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        struct beat b;
        ssize_t n;

        /* Emulated clocks can go back: never wait for longer than a period. */
        if (next_ns > now + period_ns)
            next_ns = now + period_ns;
        if (now < next_ns)
            wait.tv_nsec = (long)(next_ns - now);
        if (prober_seen_ns == 0)
            ppoll(&pfd, 1, NULL, NULL);
        else
            ppoll(&pfd, 1, &wait, NULL);

        n = recvfrom(fd, &b, sizeof b, MSG_DONTWAIT, (struct sockaddr *)&from,
                     &len);
        if (n == sizeof b && b.magic == BEAT_MAGIC && b.type == BEAT_PROBE) {
            prober = from;
            prober_seen_ns = now_ns();
            prober_seq = b.probe_seq;
            b.type = BEAT_ECHO;
            b.guest_seq = ++guest_seq;
            b.guest_ns = now_ns();
            sendto(fd, &b, sizeof b, 0, (struct sockaddr *)&from, len);
        }

        now = now_ns();
        if (now < next_ns)
            continue;
        /* Late beats are skipped, not sent in a burst. */
        next_ns = now - (now - next_ns) % period_ns + period_ns;
        if (prober_seen_ns == 0)
            continue;
        if (now - prober_seen_ns > PROBER_FORGET_NS) {
            prober_seen_ns = 0;
            continue;
        }
        b = (struct beat){.magic = BEAT_MAGIC,
                          .type = BEAT_ALIVE,
                          .probe_seq = prober_seq,
                          .guest_seq = ++guest_seq,
                          .guest_ns = now};
        sendto(fd, &b, sizeof b, 0, (struct sockaddr *)&prober,
               sizeof prober);
    }
}
