/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The datagrams between the heartbeat program in a guest and the client in
 * the lab's network namespace.  Both ends are x86-64 and built together, so
 * the struct travels as it lies in memory.
 */
#ifndef FC_LAB_BEAT_H
#define FC_LAB_BEAT_H

#include <stdint.h>

#define BEAT_MAGIC 0x46434842u /* "FCHB" */
#define BEAT_PORT 7
#define BEAT_PERIOD_MS 5

enum beat_type {
    BEAT_PROBE = 1, /* client to guest */
    BEAT_ECHO = 2,  /* the guest's answer to one probe */
    BEAT_ALIVE = 3, /* sent by the guest every BEAT_PERIOD_MS on its own */
};

struct beat {
    uint32_t magic;
    uint32_t type;
    uint64_t probe_seq; /* the probe's number; in ALIVE: the last one seen */
    uint64_t guest_seq; /* counts every datagram the guest sends */
    uint64_t guest_ns;  /* the guest's monotonic clock */
};

#endif
