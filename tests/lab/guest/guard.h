/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs that guard a guest's disks share. */
#ifndef FC_LAB_GUARD_H
#define FC_LAB_GUARD_H

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#define DISK_PORT 10 /* where questions about a guest's disk are answered */

static inline uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Since `then`; an emulated machine's clock may go back. */
static inline uint64_t ms_since(uint64_t then)
{
    uint64_t now = now_ns();

    return now > then ? (now - then) / 1000000 : 0;
}

/* splitmix64's finisher. */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* A socket for questions, or -1 after saying why not. */
static inline int guard_listen(const char *who)
{
    struct sockaddr_in self = { .sin_family = AF_INET,
                                .sin_port = htons(DISK_PORT) };
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0) {
        perror(who);
        return -1;
    }
    return fd;
}

#endif
