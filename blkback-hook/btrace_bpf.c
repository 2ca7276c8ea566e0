/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tracing by a BPF program at block_bio_queue (btrace.bpf.c, which is compiled
 * at build time and is part of this program). It needs the kernel's own type
 * information (/sys/kernel/btf/vmlinux) and root.
 *
 * At the end of an interval the program is turned to the other map; when all
 * processors have passed a point at which none can still be in it (that is what
 * membarrier's global command waits for), the first map holds still and is
 * emptied.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "btrace.h"
#include "btrace_bpf.h"
#include "err.h"

__asm__(".pushsection .rodata\n"
        ".balign 8\n"
        "fc_btrace_bpf_begin:\n"
        ".incbin \"build/bpf/btrace.bpf.o\"\n"
        "fc_btrace_bpf_end:\n"
        ".popsection\n");

extern const uint8_t fc_btrace_bpf_begin[], fc_btrace_bpf_end[];

#define DRAIN_BATCH 4096u
#define SETTLE_US 50000 /* where the kernel has no global membarrier */

struct bpf {
    struct fc_btrace *t;
    struct bpf_object *object;
    struct bpf_program *program;
    struct bpf_link *link;
    struct ring_buffer *ring;
    struct fc_btrace_bpf_state *shared;
    int counts[2];
    uint64_t *key; /* [DRAIN_BATCH] */
    struct fc_btrace_bpf_count *value;
    uint32_t targets;
};

/* What libbpf has to say is said in our own words, or nobody asked. */
static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

static int on_request(void *user, void *data, size_t len)
{
    struct bpf *b = user;
    const struct fc_btrace_bpf_request *q = data;
    if (len >= sizeof(*q) && q->device < b->targets)
        fc_btrace_request(b->t, q->device, q->time_ns,
                          (enum fc_blockbatch_op)q->op, q->sector, q->sectors);
    return 0;
}

static int fail(char why[FC_BTRACE_WHY], const char *doing)
{
    int error = errno;
    snprintf(why, FC_BTRACE_WHY, "%s: %s", doing, strerror(error));
    return error == ENOMEM ? FC_ENOMEM : FC_ESYS;
}

static int load(struct bpf *b, const struct fc_btrace_config *c,
                char why[FC_BTRACE_WHY])
{
    struct fc_btrace_bpf_config config = { .requests = c->requests };
    while (512u << config.extent_shift < c->extent_bytes)
        config.extent_shift++;
    libbpf_set_print(quiet);
    b->object = bpf_object__open_mem(
        fc_btrace_bpf_begin,
        (size_t)((uintptr_t)fc_btrace_bpf_end - (uintptr_t)fc_btrace_bpf_begin),
        NULL);
    if (!b->object)
        return fail(why, "the program cannot be opened");
    struct bpf_map *rodata = bpf_object__find_map_by_name(b->object, ".rodata");
    struct bpf_map *ring = bpf_object__find_map_by_name(b->object, "ring");
    if (!rodata || bpf_map__set_initial_value(rodata, &config, sizeof(config)))
        return fail(why, "the program cannot be configured");
    if (!c->requests && ring) /* not used: as small as may be */
        bpf_map__set_max_entries(ring, (uint32_t)sysconf(_SC_PAGESIZE));
    if (bpf_object__load(b->object))
        return fail(why, "the kernel does not take the program");
    int bss = bpf_object__find_map_fd_by_name(b->object, ".bss");
    b->shared = mmap(NULL, sizeof(*b->shared), PROT_READ | PROT_WRITE,
                     MAP_SHARED, bss, 0);
    if (b->shared == MAP_FAILED) {
        b->shared = NULL;
        return fail(why, "the program's memory cannot be seen");
    }
    return 0;
}

static int set_up(struct bpf *b, const struct fc_btrace_config *c,
                  char why[FC_BTRACE_WHY])
{
    int devices = bpf_object__find_map_fd_by_name(b->object, "devices");
    b->counts[0] = bpf_object__find_map_fd_by_name(b->object, "counts_0");
    b->counts[1] = bpf_object__find_map_fd_by_name(b->object, "counts_1");
    for (uint32_t i = 0; i < c->targets; i++) {
        const struct fc_btrace_target *d = &c->target[i];
        uint32_t dev = d->major << 20 | d->minor; /* the kernel's dev_t */
        struct fc_btrace_bpf_device value = { .first = d->first,
                                              .sectors = d->sectors,
                                              .index = i };
        if (bpf_map_update_elem(devices, &dev, &value, BPF_ANY))
            return fail(why, "a device cannot be entered");
    }
    if (c->requests) {
        b->ring =
            ring_buffer__new(bpf_object__find_map_fd_by_name(b->object, "ring"),
                             on_request, b, NULL);
        if (!b->ring)
            return fail(why, "no ring buffer");
    }
    b->program = bpf_object__find_program_by_name(b->object, "queued");
    b->link = b->program ? bpf_program__attach(b->program) : NULL;
    return b->link ? 0 : fail(why, "the program cannot be attached");
}

static void bpf_close(void *state)
{
    struct bpf *b = state;
    bpf_link__destroy(b->link);
    ring_buffer__free(b->ring);
    if (b->shared)
        munmap(b->shared, sizeof(*b->shared));
    bpf_object__close(b->object);
    free(b->key);
    free(b->value);
    free(b);
}

static int bpf_open(struct fc_btrace *t, const struct fc_btrace_config *c,
                    void **state_r, char why[FC_BTRACE_WHY])
{
    struct bpf *b = calloc(1, sizeof(*b));
    if (!b)
        return FC_ENOMEM;
    b->t = t;
    b->targets = c->targets;
    b->key = calloc(DRAIN_BATCH, sizeof(*b->key));
    b->value = calloc(DRAIN_BATCH, sizeof(*b->value));
    int rc = b->key && b->value ? load(b, c, why) : FC_ENOMEM;
    rc = rc ? rc : set_up(b, c, why);
    if (rc) {
        bpf_close(b);
        return rc;
    }
    *state_r = b;
    return 0;
}

/* Waits until no processor is in the program with the old value of active. */
static void settle(void)
{
    if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
        usleep(SETTLE_US);
}

static void take(struct bpf *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t device = b->key[i] >> FC_BTRACE_BPF_DEVICE_SHIFT;
        const struct fc_btrace_bpf_count *v = &b->value[i];
        struct fc_blockbatch_count count = {
            .extent = b->key[i] & ((1ull << FC_BTRACE_BPF_DEVICE_SHIFT) - 1),
            .reads = v->reads,
            .writes = v->writes,
            .read_bytes = v->read_bytes,
            .write_bytes = v->write_bytes,
        };
        if (device < b->targets && (v->reads || v->writes))
            fc_btrace_count(b->t, (uint32_t)device, &count);
    }
}

static int drain(struct bpf *b, int map)
{
    uint32_t at, n;
    bool begun = false;
    int r;
    do {
        n = DRAIN_BATCH;
        r = bpf_map_lookup_and_delete_batch(map, begun ? &at : NULL, &at,
                                            b->key, b->value, &n, NULL);
        if (r && errno != ENOENT)
            return FC_ESYS;
        take(b, n);
        begun = true;
    } while (!r);
    return 0;
}

static int bpf_collect(void *state, bool counts)
{
    struct bpf *b = state;
    if (b->ring && ring_buffer__consume(b->ring) < 0)
        return FC_ESYS;
    if (!counts)
        return 0;
    uint32_t was = b->shared->active;
    __atomic_store_n(&b->shared->active, !was, __ATOMIC_SEQ_CST);
    settle();
    return drain(b, b->counts[was ? 1 : 0]);
}

/* What found no room, and when the program was not run for being in itself. */
static uint64_t bpf_lost(void *state)
{
    struct bpf *b = state;
    struct bpf_prog_info info = { .type = 0 };
    uint32_t len = sizeof(info);
    if (bpf_obj_get_info_by_fd(bpf_program__fd(b->program), &info, &len))
        info.recursion_misses = 0;
    return __atomic_load_n(&b->shared->lost, __ATOMIC_RELAXED) +
           info.recursion_misses;
}

static uint64_t bpf_seen(void *state)
{
    struct bpf *b = state;
    return __atomic_load_n(&b->shared->seen, __ATOMIC_RELAXED);
}

const struct fc_btrace_means_ops fc_btrace_bpf = {
    .means = FC_BLOCKBATCH_BPF,
    .open = bpf_open,
    .collect = bpf_collect,
    .lost = bpf_lost,
    .seen = bpf_seen,
    .close = bpf_close,
};
