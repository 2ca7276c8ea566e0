/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * diskguard DISK...: disks whose every sector can be told right from wrong, and
 * load on them.  Run in a guest that is migrated with its disks; afterwards
 * `check` says whether any sector was lost, torn, stale or another's.
 *
 * A disk is divided into stripes of 64 KiB.  Some are holes: never written,
 * they have to read as zeros.  All others are filled at the start.  Each
 * stripe belongs to one of `workers` threads, and only this one touches it.
 *
 * A worker's step n (n % workers is the worker) writes 1 to 128 sectors of
 * one of its stripes, with O_DIRECT.  Which ones is a function of n alone, and
 * what a sector holds is one of n and its place: magic, the guest's number,
 * disk and sector, n, a body that half compresses, a hash of all that.  Once
 * the write is acknowledged, `journal` has n for each of the sectors.  The
 * journal is memory and migrates with the guest.
 *
 * A sector is right only when it is, byte for byte, what its journal entry
 * says.  No write of the stripe is under way when it is read, as the reader is
 * its only writer.  So the tolerance is zero, and an I/O error is an error.
 *
 * After a power cut the journal is gone, and a new guest takes the disks on
 * with --adopt FLOORS.  A worker's floor is its last step before a flush that
 * was acknowledged, as told by `status` before the cut.  All steps up to the
 * floors are played into the journal.  Then a sector is right when it holds
 * that step or a later one that writes this sector.  The worker goes on after
 * its floor: steps that were done already are done again with the same data,
 * so that a later adoption may count on all of them.
 *
 * The thread that answers does no I/O: it answers while the disks are held.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guard.h"
#include "sector.h"

#define STRIPE_SECTORS 128u
#define STRIPE_BYTES (STRIPE_SECTORS * SECTOR)
#define EXTENT_STRIPES 16u /* hot or not, as a whole: 1 MiB */
#define DISKS_MAX 4u
#define WORKERS_MAX 8u
#define CHECK_SLICE 8u /* stripes a period while a check runs */
#define SCAN_SLICE 1u  /* stripes a period always */

struct worker {
    pthread_t thread;
    unsigned number;
    uint32_t *hot, *cold; /* its stripes that may be written */
    uint32_t hots, colds;
    unsigned char *buf; /* a stripe, aligned */
    uint64_t next;      /* step */
    uint64_t reading;   /* counts hot reads */
    uint32_t scan, check;
    _Atomic uint64_t floor, done, writes, reads, flushes;
    _Atomic uint64_t io_since_ns, slowest_ms;
    _Atomic unsigned checked; /* number of the last check it finished */
};

static struct {
    int fd[DISKS_MAX];
    uint32_t first[DISKS_MAX + 1]; /* stripe; [disks]: how many in all */
    unsigned disks, workers, sector_min;
    uint64_t guest; /* a number of its own, in every sector */
    bool adopting;
    uint32_t hot_percent, hole_percent;
    uint32_t writes_period, reads_period, period_ms, flush_each;
    uint64_t *journal; /* step of each sector of each stripe */
    struct worker worker[WORKERS_MAX];
    _Atomic unsigned check_wanted;
    _Atomic uint64_t errors, io_errors;
    pthread_mutex_t bad_lock;
    char bad[160]; /* the first error */
} g = { .bad_lock = PTHREAD_MUTEX_INITIALIZER };

static unsigned disk_of(uint32_t stripe)
{
    unsigned d = 0;

    while (stripe >= g.first[d + 1])
        d++;
    return d;
}

static bool is_hole(uint32_t stripe)
{
    return mix(stripe ^ 0x401e5) % 100 < g.hole_percent;
}

static bool is_hot(uint32_t stripe)
{
    return mix(stripe / EXTENT_STRIPES ^ 0x407) % 100 < g.hot_percent;
}

static uint64_t place(uint32_t stripe, unsigned sector)
{
    return (uint64_t)stripe * STRIPE_SECTORS + sector;
}

/* What a sector is compared with, and the complaint when it differs. */
static void expected(uint64_t *w, uint32_t stripe, unsigned sector,
                     uint64_t step)
{
    sector_make(w, g.guest, place(stripe, sector), step);
}

static void complain(uint32_t stripe, unsigned sector, const uint64_t *got,
                     uint64_t wanted)
{
    unsigned d = disk_of(stripe);
    char text[sizeof g.bad];

    snprintf(text, sizeof text,
             "disk %u sector %" PRIu64 ": %s (step %" PRIu64
             ", should be %" PRIu64 ")",
             d, place(stripe - g.first[d], sector),
             sector_fault(got, g.guest, place(stripe, sector), wanted), got[3],
             wanted);
    pthread_mutex_lock(&g.bad_lock);
    if (!g.bad[0])
        memcpy(g.bad, text, sizeof text);
    pthread_mutex_unlock(&g.bad_lock);
    if (atomic_fetch_add(&g.errors, 1) < 20)
        fprintf(stderr, "diskguard: %s\n", text);
}

/* ---- steps -------------------------------------------------------------- */

static void step_target(uint64_t n, uint32_t *stripe_r, unsigned *sector_r,
                        unsigned *count_r)
{
    const struct worker *w = &g.worker[n % g.workers];
    uint64_t h = mix(n ^ g.guest);
    bool hot = w->hots && (h & 7 || !w->colds);
    unsigned kind = (unsigned)(h >> 3) & 31, at = (unsigned)(h >> 8) & 127;
    uint32_t pick = (uint32_t)(h >> 32);

    *stripe_r = hot ? w->hot[pick % w->hots] : w->cold[pick % w->colds];
    if (kind < 20) {
        *count_r = 8;
        *sector_r = at & ~7u;
    } else if (kind < 26) {
        *count_r = 32;
        *sector_r = at & ~31u;
    } else if (kind < 29 && g.sector_min == 1) {
        *count_r = 1 + kind % 3;
        *sector_r = at & ~3u;
    } else {
        *count_r = STRIPE_SECTORS;
        *sector_r = 0;
    }
}

static bool step_covers(uint64_t n, uint32_t stripe, unsigned sector)
{
    uint32_t at_stripe;
    unsigned first, count;

    if (n <= STEP_FILL || n < g.workers || n % g.workers != stripe % g.workers)
        return false;
    step_target(n, &at_stripe, &first, &count);
    return at_stripe == stripe && sector >= first && sector < first + count;
}

/* ---- input and output --------------------------------------------------- */

static bool transfer(struct worker *w, bool write, uint32_t stripe,
                     unsigned sector, unsigned count)
{
    unsigned d = disk_of(stripe);
    off_t at =
        (off_t)(stripe - g.first[d]) * STRIPE_BYTES + (off_t)sector * SECTOR;
    size_t len = (size_t)count * SECTOR;
    uint64_t start = now_ns(), took;
    ssize_t r;

    atomic_store(&w->io_since_ns, start);
    r = write ? pwrite(g.fd[d], w->buf, len, at)
              : pread(g.fd[d], w->buf, len, at);
    atomic_store(&w->io_since_ns, 0);
    took = ms_since(start);
    if (took > atomic_load(&w->slowest_ms))
        atomic_store(&w->slowest_ms, took);
    if (r == (ssize_t)len)
        return true;
    if (atomic_fetch_add(&g.io_errors, 1) < 20)
        fprintf(stderr, "diskguard: %s of %zu bytes at %lld of disk %u: %s\n",
                write ? "write" : "read", len, (long long)at, d,
                r < 0 ? strerror(errno) : "short");
    return false;
}

static void flush(struct worker *w)
{
    uint64_t done = atomic_load(&w->done), start = now_ns();
    bool good = true;

    atomic_store(&w->io_since_ns, start);
    for (unsigned d = 0; d < g.disks; d++)
        if (fdatasync(g.fd[d]) < 0) {
            atomic_fetch_add(&g.io_errors, 1);
            perror("diskguard: flush");
            good = false;
        }
    atomic_store(&w->io_since_ns, 0);
    if (good)
        atomic_store(&w->floor, done);
    atomic_fetch_add(&w->flushes, 1);
}

static void write_sectors(struct worker *w, uint32_t stripe, unsigned first,
                          unsigned count, uint64_t step)
{
    for (unsigned i = 0; i < count; i++)
        expected((uint64_t *)(w->buf + (size_t)i * SECTOR), stripe, first + i,
                 step);
    if (!transfer(w, true, stripe, first, count))
        return;
    for (unsigned i = 0; i < count; i++)
        g.journal[place(stripe, first + i)] = step;
    atomic_fetch_add(&w->writes, 1);
}

static void write_step(struct worker *w)
{
    uint32_t stripe;
    unsigned first, count;

    step_target(w->next, &stripe, &first, &count);
    write_sectors(w, stripe, first, count, w->next);
    atomic_store(&w->done, w->next);
    w->next += g.workers;
    if (atomic_load(&w->writes) % g.flush_each == 0)
        flush(w);
}

static void read_stripe(struct worker *w, uint32_t stripe)
{
    uint64_t expect[WORDS];

    if (!transfer(w, false, stripe, 0, STRIPE_SECTORS))
        return;
    atomic_fetch_add(&w->reads, 1);
    for (unsigned s = 0; s < STRIPE_SECTORS; s++) {
        const uint64_t *got = (uint64_t *)(w->buf + (size_t)s * SECTOR);
        uint64_t wanted = g.journal[place(stripe, s)];

        expected(expect, stripe, s, wanted);
        if (memcmp(got, expect, SECTOR))
            complain(stripe, s, got, wanted);
    }
}

/* The journal of a stripe that an earlier guest wrote: see the head. */
static void adopt_stripe(struct worker *w, uint32_t stripe)
{
    uint64_t expect[WORDS];

    if (!transfer(w, false, stripe, 0, STRIPE_SECTORS))
        return;
    for (unsigned s = 0; s < STRIPE_SECTORS; s++) {
        const uint64_t *got = (uint64_t *)(w->buf + (size_t)s * SECTOR);
        uint64_t *wanted = &g.journal[place(stripe, s)];

        expected(expect, stripe, s, *wanted);
        if (!memcmp(got, expect, SECTOR))
            continue;
        expected(expect, stripe, s, got[3]);
        if (got[3] > *wanted && step_covers(got[3], stripe, s) &&
            !memcmp(got, expect, SECTOR))
            *wanted = got[3];
        else
            complain(stripe, s, got, *wanted);
    }
}

/* ---- workers ------------------------------------------------------------ */

/* The worker's i-th stripe, holes included; false past its last. */
static bool nth_stripe(const struct worker *w, uint32_t i, uint32_t *stripe_r)
{
    uint64_t stripe = (uint64_t)i * g.workers + w->number;

    *stripe_r = (uint32_t)stripe;
    return stripe < g.first[g.disks];
}

static void check_slice(struct worker *w, uint32_t count)
{
    unsigned wanted = atomic_load(&g.check_wanted);
    uint32_t stripe;

    if (atomic_load(&w->checked) == wanted)
        return;
    while (count--) {
        if (!nth_stripe(w, w->check, &stripe)) {
            w->check = 0;
            atomic_store(&w->checked, wanted);
            return;
        }
        read_stripe(w, stripe);
        w->check++;
    }
}

static void *work(void *arg)
{
    const uint64_t period_ns = g.period_ms * UINT64_C(1000000);
    struct worker *w = arg;
    uint32_t stripe;

    for (;;) {
        uint64_t start = now_ns(), took;

        for (uint32_t i = 0; i < g.writes_period; i++)
            write_step(w);
        for (uint32_t i = 0; i < g.reads_period; i++) {
            uint64_t h = mix(++w->reading ^ 0x4ead);

            if (w->hots)
                read_stripe(w, w->hot[h % w->hots]);
        }
        for (uint32_t i = 0; i < SCAN_SLICE; i++) {
            if (!nth_stripe(w, w->scan++, &stripe))
                w->scan = 0;
            else
                read_stripe(w, stripe);
        }
        check_slice(w, CHECK_SLICE);
        took = now_ns() - start;
        if (took < period_ns)
            usleep((useconds_t)((period_ns - took) / 1000));
    }
    return NULL;
}

/* The fill, or the adoption, of a worker's stripes. */
static void *begin(void *arg)
{
    struct worker *w = arg;
    uint32_t stripe;

    for (uint32_t i = 0; nth_stripe(w, i, &stripe); i++) {
        if (g.adopting)
            adopt_stripe(w, stripe);
        else if (!is_hole(stripe))
            write_sectors(w, stripe, 0, STRIPE_SECTORS, STEP_FILL);
    }
    return NULL;
}

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED) {
        fprintf(stderr, "diskguard: cannot have %zu bytes: %s\n", bytes,
                strerror(errno));
        exit(1);
    }
    return p;
}

static void worker_init(struct worker *w, unsigned number)
{
    uint32_t stripe;

    w->number = number;
    w->next = g.workers + number;
    atomic_store(&w->done, number);
    w->buf = reserve(STRIPE_BYTES);
    w->hot = reserve((g.first[g.disks] / g.workers + 1) * sizeof *w->hot);
    w->cold = reserve((g.first[g.disks] / g.workers + 1) * sizeof *w->cold);
    for (uint32_t i = 0; nth_stripe(w, i, &stripe); i++) {
        if (is_hole(stripe))
            continue;
        if (is_hot(stripe))
            w->hot[w->hots++] = stripe;
        else
            w->cold[w->colds++] = stripe;
    }
    if (w->hots + w->colds == 0) {
        fprintf(stderr, "diskguard: the disks are too small\n");
        exit(1);
    }
}

/* Plays all steps up to a worker's floor into the journal. */
static void replay(struct worker *w, uint64_t floor)
{
    uint32_t stripe;
    unsigned first, count;

    for (; w->next <= floor; w->next += g.workers) {
        step_target(w->next, &stripe, &first, &count);
        for (unsigned i = 0; i < count; i++)
            g.journal[place(stripe, first + i)] = w->next;
    }
    atomic_store(&w->floor, floor);
    atomic_store(&w->done, floor);
}

/* FLOORS: a number for each worker, dots between. */
static void adopt(const char *floors)
{
    g.adopting = true;
    for (uint32_t s = 0; s < g.first[g.disks]; s++)
        for (unsigned i = 0; i < STRIPE_SECTORS && !is_hole(s); i++)
            g.journal[place(s, i)] = STEP_FILL;
    for (unsigned i = 0; i < g.workers; i++) {
        char *end;
        uint64_t floor = strtoull(floors, &end, 10);

        if (end == floors || floor % g.workers != i ||
            *end != (i + 1 < g.workers ? '.' : '\0')) {
            fprintf(stderr, "diskguard: these are no floors of %u workers\n",
                    g.workers);
            exit(1);
        }
        floors = end + 1;
        replay(&g.worker[i], floor);
    }
}

static void disk_open(const char *path)
{
    uint64_t bytes = 0;
    int sector = SECTOR, fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0 ||
        ioctl(fd, BLKSSZGET, &sector) < 0 || bytes < STRIPE_BYTES) {
        fprintf(stderr, "diskguard: %s: no disk of ours: %s\n", path,
                strerror(errno));
        exit(1);
    }
    if (sector > (int)SECTOR)
        g.sector_min = (unsigned)sector / SECTOR;
    g.fd[g.disks] = fd;
    g.first[g.disks + 1] = g.first[g.disks] + (uint32_t)(bytes / STRIPE_BYTES);
    g.disks++;
}

/* ---- answers ------------------------------------------------------------ */

static void verdict(char *out, size_t size, const char *id)
{
    uint64_t writes = 0, reads = 0, flushes = 0, slowest = 0, waiting = 0;
    uint64_t errors = atomic_load(&g.errors) + atomic_load(&g.io_errors);
    char floors[WORKERS_MAX * 21 + 1] = "";
    size_t used = 0;

    for (unsigned i = 0; i < g.workers; i++) {
        struct worker *w = &g.worker[i];
        uint64_t since = atomic_load(&w->io_since_ns);
        uint64_t ms = since ? ms_since(since) : 0;

        writes += atomic_load(&w->writes);
        reads += atomic_load(&w->reads);
        flushes += atomic_load(&w->flushes);
        waiting = ms > waiting ? ms : waiting;
        ms = atomic_load(&w->slowest_ms);
        slowest = ms > slowest ? ms : slowest;
        used +=
            (size_t)snprintf(floors + used, sizeof floors - used, "%s%" PRIu64,
                             i ? "." : "", atomic_load(&w->floor));
    }
    pthread_mutex_lock(&g.bad_lock);
    snprintf(out, size,
             "%s {\"ok\":%s,\"sectors\":%" PRIu64 ",\"errors\":%" PRIu64
             ",\"io_errors\":%" PRIu64 ",\"first_bad\":\"%s\""
             ",\"writes\":%" PRIu64 ",\"reads\":%" PRIu64
             ",\"flushes\":%" PRIu64 ",\"slowest_ms\":%" PRIu64
             ",\"waiting_ms\":%" PRIu64 ",\"floors\":\"%s\"}\n",
             id, errors ? "false" : "true",
             (uint64_t)g.first[g.disks] * STRIPE_SECTORS,
             atomic_load(&g.errors), atomic_load(&g.io_errors), g.bad, writes,
             reads, flushes, slowest, waiting, floors);
    pthread_mutex_unlock(&g.bad_lock);
}

/* A sector damaged on purpose, to prove that a check can fail. */
static void harm(uint64_t sector)
{
    static _Alignas(4096) unsigned char junk[4096];
    unsigned long first = (unsigned long)sector & ~7ul;
    uint32_t stripe = (uint32_t)(first / STRIPE_SECTORS);
    unsigned d;

    if (stripe >= g.first[g.disks])
        return;
    d = disk_of(stripe);
    memset(junk, 0x5a, sizeof junk);
    if (pwrite(g.fd[d], junk, sizeof junk,
               (off_t)(first - (unsigned long)g.first[d] * STRIPE_SECTORS) *
                   SECTOR) != sizeof junk)
        perror("diskguard: harm");
}

static bool check_done(void)
{
    for (unsigned i = 0; i < g.workers; i++)
        if (atomic_load(&g.worker[i].checked) != atomic_load(&g.check_wanted))
            return false;
    return true;
}

/*
 * "check ID": a pass over all sectors from now on, answered when done; the same
 * ID again is the asker's retry.  "status ID": what is known without a pass.
 * "harm N": damages sector N, counted over all disks.
 */
static void serve(int fd)
{
    static char check_id[32];
    char text[64], verb[16], id[32], reply[1024];
    struct sockaddr_in from;

    for (;;) {
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(fd, text, sizeof text - 1, 0,
                             (struct sockaddr *)&from, &len);

        if (n <= 0)
            continue;
        text[n] = 0;
        if (sscanf(text, "%15s %31s", verb, id) != 2)
            continue;
        if (!strcmp(verb, "harm")) {
            harm(strtoull(id, NULL, 10));
            continue;
        }
        if (!strcmp(verb, "check") && strcmp(id, check_id)) {
            memcpy(check_id, id, sizeof check_id);
            atomic_fetch_add(&g.check_wanted, 1);
        }
        if (!strcmp(verb, "status") ||
            (!strcmp(verb, "check") && check_done())) {
            verdict(reply, sizeof reply, id);
            sendto(fd, reply, strlen(reply), 0, (struct sockaddr *)&from, len);
        }
    }
}

static void run_all(void *(*what)(void *))
{
    for (unsigned i = 0; i < g.workers; i++)
        if (pthread_create(&g.worker[i].thread, NULL, what, &g.worker[i])) {
            fprintf(stderr, "diskguard: cannot start a thread\n");
            exit(1);
        }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "guest", required_argument, NULL, 'g' },
        { "workers", required_argument, NULL, 'n' },
        { "hot", required_argument, NULL, 'h' },
        { "holes", required_argument, NULL, 'o' },
        { "writes", required_argument, NULL, 'w' },
        { "reads", required_argument, NULL, 'r' },
        { "period-ms", required_argument, NULL, 'p' },
        { "flush-each", required_argument, NULL, 'f' },
        { "adopt", required_argument, NULL, 'a' },
        { 0 },
    };
    const char *floors = NULL, *guest = "";
    int c, fd;

    g.workers = 4;
    g.hot_percent = 20;
    g.hole_percent = 25;
    g.writes_period = g.reads_period = 1;
    g.period_ms = 20;
    g.flush_each = 16;
    g.sector_min = 1;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint32_t v = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;

        switch (c) {
        case 'g':
            guest = optarg;
            break;
        case 'n':
            g.workers = v;
            break;
        case 'h':
            g.hot_percent = v;
            break;
        case 'o':
            g.hole_percent = v;
            break;
        case 'w':
            g.writes_period = v;
            break;
        case 'r':
            g.reads_period = v;
            break;
        case 'p':
            g.period_ms = v ? v : 1;
            break;
        case 'f':
            g.flush_each = v ? v : 1;
            break;
        case 'a':
            floors = optarg;
            break;
        default:
            return 2;
        }
    }
    if (optind == argc || argc - optind > (int)DISKS_MAX || g.workers < 2 ||
        g.workers > WORKERS_MAX || g.hole_percent > 99) {
        fprintf(stderr, "usage: diskguard [OPTION...] DISK...\n");
        return 2;
    }
    for (const char *p = guest; *p; p++)
        g.guest = mix(g.guest ^ (unsigned char)*p);
    for (int i = optind; i < argc; i++)
        disk_open(argv[i]);
    g.journal = reserve(place(g.first[g.disks], 0) * sizeof *g.journal);
    for (unsigned i = 0; i < g.workers; i++)
        worker_init(&g.worker[i], i);
    if (floors)
        adopt(floors);
    run_all(begin);
    for (unsigned i = 0; i < g.workers; i++)
        pthread_join(g.worker[i].thread, NULL);
    for (unsigned i = 0; i < g.workers && !floors; i++)
        flush(&g.worker[i]);
    printf("diskguard: %u disks of %" PRIu32 " MB together, %s\n", g.disks,
           g.first[g.disks] / EXTENT_STRIPES, floors ? "adopted" : "filled");
    fflush(stdout);
    fd = guard_listen("diskguard: cannot listen");
    if (fd < 0)
        return 1;
    run_all(work);
    serve(fd);
}
