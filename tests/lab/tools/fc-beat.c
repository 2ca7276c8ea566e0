/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fc-beat: the network client whose view of a guest counts as its downtime.
 * Sends a probe every 5 ms and takes the guest's echoes and own beats;
 * the longest time without either is the downtime as a client sees it.
 * Receive times are the kernel's, so that a client that waits for the CPU
 * on a busy machine does not show as a gap of the guest.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../guest/beat.h"

struct stream {
    uint64_t count;
    uint64_t last_ns;
    uint64_t gap_ns;    /* the longest */
    uint64_t second_ns; /* the longest but one */
    uint64_t gap_at_ns; /* when the longest began */
};

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
    (void)sig;
    stopped = 1;
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void note(struct stream *s, uint64_t at_ns)
{
    /* Stamps of two receive queues may cross by a little. */
    if (s->count && at_ns > s->last_ns) {
        uint64_t gap = at_ns - s->last_ns;

        if (gap > s->gap_ns) {
            s->second_ns = s->gap_ns;
            s->gap_ns = gap;
            s->gap_at_ns = s->last_ns;
        } else if (gap > s->second_ns) {
            s->second_ns = gap;
        }
    }
    s->count++;
    if (at_ns > s->last_ns)
        s->last_ns = at_ns;
}

static ssize_t receive(int fd, struct beat *b, uint64_t *at_ns_r)
{
    char control[128];
    struct iovec iov = {.iov_base = b, .iov_len = sizeof *b};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);

    if (n < 0)
        return n;
    *at_ns_r = clock_ns(CLOCK_REALTIME);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec ts;

            memcpy(&ts, CMSG_DATA(c), sizeof ts);
            *at_ns_r = (uint64_t)ts.tv_sec * 1000000000ull +
                       (uint64_t)ts.tv_nsec;
        }
    return n;
}

static int usage(void)
{
    fprintf(stderr, "usage: fc-beat IP [--seconds S] [--until-file FILE] "
                    "[--log FILE]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'},
        {"until-file", required_argument, NULL, 'u'},
        {"log", required_argument, NULL, 'l'},
        {0},
    };
    const uint64_t period_ns = BEAT_PERIOD_MS * 1000000ull;
    const char *until = NULL, *log_name = NULL;
    struct sched_param fifo = {.sched_priority = 10};
    struct sockaddr_in guest = {.sin_family = AF_INET,
                                .sin_port = htons(BEAT_PORT)};
    struct stream all = {0}, echoes = {0}, beats = {0};
    uint64_t seq = 0, last_seq = 0, back = 0, start_ns, next_ns, end_ns;
    double seconds = 0;
    FILE *log = NULL;
    int c, fd, on = 1, polls = 0;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 's': seconds = strtod(optarg, NULL); break;
        case 'u': until = optarg; break;
        case 'l': log_name = optarg; break;
        default: return usage();
        }
    }
    if (optind != argc - 1 || (seconds <= 0 && !until))
        return usage();
    if (inet_pton(AF_INET, argv[optind], &guest.sin_addr) != 1) {
        fprintf(stderr, "fc-beat: %s is no IPv4 address\n", argv[optind]);
        return 2;
    }
    if (log_name && !(log = fopen(log_name, "w"))) {
        perror(log_name);
        return 1;
    }
    /* Best effort: without it, the client is merely later to its mail. */
    if (sched_setscheduler(0, SCHED_FIFO, &fifo) < 0)
        (void)setpriority(PRIO_PROCESS, 0, -20);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0) {
        perror("fc-beat: socket");
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);

    start_ns = next_ns = clock_ns(CLOCK_MONOTONIC);
    end_ns = seconds > 0 ? start_ns + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    while (!stopped) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC), at_ns;
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        struct timespec wait = {0};
        struct beat b;

        if (now >= end_ns)
            break;
        if (now >= next_ns) {
            b = (struct beat){.magic = BEAT_MAGIC,
                              .type = BEAT_PROBE,
                              .probe_seq = ++seq};
            /* Errors (no ARP entry yet, unreachable) count as lost. */
            (void)!sendto(fd, &b, sizeof b, 0, (struct sockaddr *)&guest,
                          sizeof guest);
            next_ns = now - (now - next_ns) % period_ns + period_ns;
            if (until && ++polls % 20 == 0 && access(until, F_OK) == 0)
                break;
        }
        now = clock_ns(CLOCK_MONOTONIC);
        if (now < next_ns)
            wait.tv_nsec = (long)(next_ns - now);
        ppoll(&pfd, 1, &wait, NULL);
        while (receive(fd, &b, &at_ns) == sizeof b) {
            if (b.magic != BEAT_MAGIC)
                continue;
            note(&all, at_ns);
            note(b.type == BEAT_ECHO ? &echoes : &beats, at_ns);
            if (b.guest_seq <= last_seq)
                back++;
            else
                last_seq = b.guest_seq;
            if (log)
                fprintf(log, "%" PRIu64 ".%09" PRIu64 " %s %" PRIu64
                             " %" PRIu64 " %" PRIu64 "\n",
                        at_ns / 1000000000u, at_ns % 1000000000u,
                        b.type == BEAT_ECHO ? "echo" : "beat", b.probe_seq,
                        b.guest_seq, b.guest_ns);
        }
    }
    if (log && fclose(log) != 0)
        perror(log_name);
    if (all.count) {
        /* A guest that fell silent and stayed so is a gap, too. */
        uint64_t now = clock_ns(CLOCK_REALTIME);

        if (now > all.last_ns && now - all.last_ns > all.gap_ns) {
            all.second_ns = all.gap_ns;
            all.gap_ns = now - all.last_ns;
            all.gap_at_ns = all.last_ns;
        }
    }
    printf("{\"longest_gap_ms\":%.1f,\"second_gap_ms\":%.1f,"
           "\"gap_at\":%.3f,\"beat_gap_ms\":%.1f,\"echo_gap_ms\":%.1f,"
           "\"probes\":%" PRIu64 ",\"echoes\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"beats\":%" PRIu64 ",\"went_back\":%" PRIu64
           ",\"seconds\":%.1f}\n",
           (double)all.gap_ns / 1e6, (double)all.second_ns / 1e6,
           (double)all.gap_at_ns / 1e9, (double)beats.gap_ns / 1e6,
           (double)echoes.gap_ns / 1e6, seq, echoes.count,
           seq - echoes.count, beats.count, back,
           (double)(clock_ns(CLOCK_MONOTONIC) - start_ns) / 1e9);
    return all.count ? 0 : 1;
}
