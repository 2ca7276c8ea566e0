/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BTRACE_BPF_H
#define FC_BTRACE_BPF_H

/*
 * What the program in the kernel (btrace.bpf.c) and the one outside
 * (btrace_bpf.c) share. Included by both, so it brings no headers; the types
 * are as wide on both sides.
 */
#define FC_BTRACE_BPF_EXTENTS 32768 /* of all devices in an interval */
#define FC_BTRACE_BPF_RING (4 << 20)
#define FC_BTRACE_BPF_DEVICE_SHIFT 48 /* of a key; below it the extent */

/* Set before the program is loaded. */
struct fc_btrace_bpf_config {
    unsigned int extent_shift; /* sectors to extents */
    unsigned int requests;     /* 1: each request goes to the ring */
};

/* A traced device, by the kernel's number for it. */
struct fc_btrace_bpf_device {
    unsigned long long first, sectors; /* where a partition begins; 0 else */
    unsigned int index, unused;
};

struct fc_btrace_bpf_count {
    unsigned long long read_bytes, write_bytes;
    unsigned int reads, writes;
};

struct fc_btrace_bpf_request {
    unsigned long long time_ns, sector;
    unsigned int sectors;
    unsigned char device, op; /* op: of fc_blockbatch_op */
    unsigned char unused[2];
};

/* Shared memory of the two. */
struct fc_btrace_bpf_state {
    unsigned long long seen, lost;
    unsigned int active; /* which of the two maps is counted into */
    unsigned int unused;
};

#endif
