/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs in the kernel at each request that is queued to a block device. What is
 * not a traced device's costs one look into a small map. The others are counted
 * by extent, in one of two maps: the program outside drains the one while the
 * other is counted into. Nothing is sent anywhere unless requests are wanted.
 *
 * Of the kernel's structures only the fields used are declared; where they
 * are is settled when the program is loaded.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "btrace_bpf.h"

#define PRESERVE __attribute__((preserve_access_index))

struct block_device {
    unsigned int bd_dev;
} PRESERVE;

struct bvec_iter {
    unsigned long long bi_sector;
    unsigned int bi_size;
} PRESERVE;

struct bio {
    struct block_device *bi_bdev;
    unsigned int bi_opf;
    struct bvec_iter bi_iter;
} PRESERVE;

#define OP_MASK                                                                \
    0xffu /* the numbers are part of the kernel's on-disk traces               \
           */
#define OP_READ 0u
#define OP_WRITE 1u
#define OP_DISCARD 3u
#define OP_SECURE_ERASE 5u
#define OP_WRITE_ZEROES 9u
#define KIND_READ 5
#define KIND_WRITE 6
#define KIND_DISCARD 7
#define MOST_EXTENTS 64u /* of one request; what is beyond is lost */

const volatile struct fc_btrace_bpf_config config;
struct fc_btrace_bpf_state state;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, unsigned int);
    __type(value, struct fc_btrace_bpf_device);
} devices SEC(".maps");

struct counts {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, FC_BTRACE_BPF_EXTENTS);
    __type(key, unsigned long long);
    __type(value, struct fc_btrace_bpf_count);
};
struct counts counts_0 SEC(".maps"), counts_1 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, FC_BTRACE_BPF_RING);
} ring SEC(".maps");

static __always_inline void lose(void)
{
    __sync_fetch_and_add(&state.lost, 1);
}

static __always_inline int kind_of(unsigned int opf)
{
    switch (opf & OP_MASK) {
    case OP_READ:
        return KIND_READ;
    case OP_WRITE:
    case OP_WRITE_ZEROES:
        return KIND_WRITE;
    case OP_DISCARD:
    case OP_SECURE_ERASE:
        return KIND_DISCARD;
    default:
        return 0;
    }
}

/* One request's part in one extent. */
static __always_inline void count(void *map, unsigned long long key, int kind,
                                  unsigned long long bytes)
{
    struct fc_btrace_bpf_count *c = bpf_map_lookup_elem(map, &key);
    if (!c) {
        struct fc_btrace_bpf_count none = {};
        bpf_map_update_elem(map, &key, &none, BPF_NOEXIST);
        c = bpf_map_lookup_elem(map, &key);
        if (!c) {
            lose();
            return;
        }
    }
    if (kind == KIND_READ) {
        __sync_fetch_and_add(&c->reads, 1);
        __sync_fetch_and_add(&c->read_bytes, bytes);
    } else {
        __sync_fetch_and_add(&c->writes, 1);
        __sync_fetch_and_add(&c->write_bytes, bytes);
    }
}

static __always_inline void count_all(void *map, unsigned int device, int kind,
                                      unsigned long long sector,
                                      unsigned long long end)
{
    unsigned int shift = config.extent_shift;
    unsigned long long base = (unsigned long long)device
                              << FC_BTRACE_BPF_DEVICE_SHIFT;
    for (unsigned int i = 0; i < MOST_EXTENTS; i++) {
        unsigned long long extent = sector >> shift;
        unsigned long long stop = (extent + 1) << shift;
        if (stop > end)
            stop = end;
        count(map, base | extent, kind, (stop - sector) << 9);
        sector = stop;
        if (sector >= end)
            return;
    }
    lose();
}

static __always_inline void send(const struct fc_btrace_bpf_device *d, int kind,
                                 unsigned long long sector,
                                 unsigned int sectors)
{
    struct fc_btrace_bpf_request *q = bpf_ringbuf_reserve(&ring, sizeof(*q), 0);
    if (!q) {
        lose();
        return;
    }
    q->time_ns = bpf_ktime_get_ns();
    q->sector = sector;
    q->sectors = sectors;
    q->device = (unsigned char)d->index;
    q->op = (unsigned char)kind;
    q->unused[0] = q->unused[1] = 0;
    /* it is fetched by the clock: waking somebody would cost more */
    bpf_ringbuf_submit(q, BPF_RB_NO_WAKEUP);
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(queued, struct bio *bio)
{
    unsigned int dev = bio->bi_bdev->bd_dev;
    struct fc_btrace_bpf_device *d = bpf_map_lookup_elem(&devices, &dev);
    unsigned int sectors = bio->bi_iter.bi_size >> 9;
    int kind = kind_of(bio->bi_opf);
    if (!d || !kind || !sectors)
        return 0;
    unsigned long long sector = bio->bi_iter.bi_sector - d->first;
    if (sector >= d->sectors || sectors > d->sectors - sector)
        return 0;
    __sync_fetch_and_add(&state.seen, 1);
    if (config.requests)
        send(d, kind, sector, sectors);
    if (kind == KIND_DISCARD)
        return 0;
    unsigned long long end = sector + sectors;
    if (state.active)
        count_all(&counts_1, d->index, kind, sector, end);
    else
        count_all(&counts_0, d->index, kind, sector, end);
    return 0;
}

/* The kernel wants to hear this word; section 3 of the LGPL 2.1 lets us say it.
 */
char program_license[] SEC("license") = "GPL";
