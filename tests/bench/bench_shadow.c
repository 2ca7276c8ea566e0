/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of bench-shadow.
 *
 *   bench_shadow own DISK MAP UUID VDEV
 *       writes the map of a shadow that has all of DISK and owns it
 *   bench_shadow flip PLUGIN DIR JSON [-s SECONDS] [-a SECONDS] [TRACE...]
 *       lazy hand-overs over a link of 16 Mbit/s and 20 ms each way: a load
 *       that repeats itself, and each trace. Three at a time, side by side:
 *       blocks in the predictor's order; by address; only what is read. The
 *       first two copy the same number of bytes before the hand-over: what the
 *       order names, and at most what the link carries in -a seconds (30).
 *       Then -s seconds (60) of the load are played against the shadow.
 *   bench_shadow order [-s SECONDS] [-a SECONDS] [TRACE...]
 *       reckoned only, over up to eight such windows of each trace: which of
 *       the reads would be answered by what was copied ahead, for several ways
 *       to make the order
 */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "flip_order.h"
#include "flip_run.h"
#include "log.h"
#include "map.h"

#define LINK_BPS 2000000u /* bytes: 16 Mbit/s */
#define LINK_DELAY_US 20000u
#define LEAST_READS 100u /* of a trace's window, to be worth judging */

#define LOCAL_TARGET 0.9
#define SEQUENTIAL_TARGET 1.5
#define LATENCY_TARGET (1.0 / 3)

static int fail(const char *what, int rc)
{
    fprintf(stderr, "bench_shadow: %s: %s: %m\n", what, fc_strerror(rc));
    return 1;
}

static int own(char **argv)
{
    struct fc_map_id id = { .block_bytes = FC_SHADOW_BLOCK_DEFAULT };
    struct fc_map_state state = { .state = FC_SHADOW_OWNED,
                                  .epoch = 1,
                                  .clean = true };
    struct fc_volume *disk, *file;
    struct fc_blockset all;
    struct fc_map *map;
    int rc = fc_volume_open(argv[0], FC_VOLUME_READ_ONLY, &disk);
    if (rc)
        return fail(argv[0], rc);
    id.size_bytes = disk->size_bytes;
    fc_volume_close(disk);
    if (fc_uuid_parse(argv[2], id.uuid) || strlen(argv[3]) >= sizeof(id.vdev))
        return fail("UUID or VDEV", FC_EINVAL);
    strcpy(id.vdev, argv[3]);
    rc = fc_volume_open(argv[1], FC_VOLUME_CREATE, &file);
    if (rc)
        return fail(argv[1], rc);
    rc = fc_map_open(file, &id, &map);
    if (rc)
        return fail(argv[1], rc);
    rc = fc_blockset_init(&all, fc_map_blocks(id.size_bytes, id.block_bytes),
                          true);
    if (!rc)
        rc = fc_map_commit(map, &all, &state);
    fc_map_close(map);
    fc_blockset_dispose(&all);
    return rc ? fail(argv[1], rc) : 0;
}

/* ---- hand-overs -----------------------------------------------------------
 */

struct line {
    const char *metric, *unit, *peer_name;
    double ours, peer, judged, target;
    bool at_least;
};

static void report(struct json_object *all, const char *name,
                   const struct line *r)
{
    struct json_object *o = json_object_new_object();
    bool has_ratio = r->peer > 0;
    bool ok = r->at_least ? r->judged >= r->target : r->judged <= r->target;
    char kase[80];
    snprintf(kase, sizeof(kase), "lazy-flip-%s", name);
#define ADD(key, value) json_object_object_add(o, key, value)
    ADD("bench", json_object_new_string("shadow"));
    ADD("case", json_object_new_string(kase));
    ADD("metric", json_object_new_string(r->metric));
    ADD("unit", json_object_new_string(r->unit));
    ADD("ours", json_object_new_double(r->ours));
    ADD("peer", json_object_new_double(r->peer));
    ADD("peer_name", json_object_new_string(r->peer_name));
    ADD("ratio", has_ratio ? json_object_new_double(r->ours / r->peer) : NULL);
    ADD("target", json_object_new_double(r->target));
    ADD("ok", json_object_new_boolean(ok));
#undef ADD
    json_object_array_add(all, o);
    printf("  %-20s %10.4g against %10.4g (%s): ", r->metric, r->ours, r->peer,
           r->peer_name);
    if (has_ratio)
        printf("ratio %.3f, ", r->ours / r->peer);
    printf("%s\n", ok ? "ok" : "MISSED");
}

static double share(const struct flip_result *r)
{
    return r->due_blocks > 0 ? r->local_blocks / r->due_blocks : 0;
}

static void judge(const struct flip_load *l, const struct flip_result *r,
                  bool is_trace, struct json_object *all)
{
    static const char *const names[] = { "predicted", "by address",
                                         "on demand" };
    const struct flip_result *p = &r[FLIP_PREDICTED], *s = &r[FLIP_SEQUENTIAL],
                             *d = &r[FLIP_ON_DEMAND];
    printf("%-12s %9s %7s %7s %8s %8s %10s %10s\n", l->name, "MB ahead",
           "seconds", "reads", "answered", "locally", "p50 ms", "p99 ms");
    for (unsigned i = 0; i < FLIP_METHODS; i++)
        printf("  %-10s %9.1f %7.1f %7.0f %7.1f%% %7.1f%% %10.2f %10.2f\n",
               names[i], r[i].ahead_bytes / 1e6, r[i].ahead_seconds, r[i].reads,
               100 * r[i].done_blocks / r[i].due_blocks, 100 * share(&r[i]),
               1e3 * r[i].p50_seconds, 1e3 * r[i].p99_seconds);
    if (!is_trace)
        report(all, l->name,
               &(struct line){ "local_read_share", "1", "by address", share(p),
                               share(s), share(p), LOCAL_TARGET, true });
    else
        report(all, l->name,
               &(struct line){
                   "against_sequential", "1", "by address", share(p), share(s),
                   share(s) > 0 ? share(p) / share(s) : share(p) * 1e9,
                   SEQUENTIAL_TARGET, true });
    report(all, l->name,
           &(struct line){ "p99_read_seconds", "s", "on demand", p->p99_seconds,
                           d->p99_seconds, p->p99_seconds / d->p99_seconds,
                           LATENCY_TARGET, false });
    if (p->prefetched > 0)
        printf("  of the blocks that the order brought after the hand-over, "
               "%.1f %% were read\n",
               100 * p->used / p->prefetched);
    fflush(stdout);
}

/* The methods side by side, each in a process of its own. */
static void race(struct flip_load *l, const struct flip_terms *t, bool is_trace,
                 struct json_object *all)
{
    size_t bytes = FLIP_METHODS * sizeof(struct flip_result);
    struct flip_result *r = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[FLIP_METHODS];
    int bad = r == MAP_FAILED, status;
    flip_load_predict(l, FLIP_PAST_US, FLIP_EXTENT);
    flip_order_print(l, t);
    flip_disk_make(l, t);
    uint64_t enough = (uint64_t)l->ordered * FLIP_BLOCK;
    if (enough > t->ahead_bytes)
        enough = t->ahead_bytes;
    fflush(stdout);
    for (unsigned i = 0; !bad && i < FLIP_METHODS; i++) {
        pid[i] = fork();
        if (!pid[i]) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            flip_run(l, t, (enum flip_method)i, enough, &r[i]);
            _exit(0);
        }
    }
    for (unsigned i = 0; !bad && i < FLIP_METHODS; i++)
        bad = pid[i] < 0 || waitpid(pid[i], &status, 0) < 0 || status;
    if (bad)
        exit(1); /* it has said why; the others end with us */
    judge(l, r, is_trace, all);
    munmap(r, bytes);
    flip_load_dispose(l);
}

/* What a race leaves behind. */
static void sweep(const char *dir)
{
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'/*", dir);
    if (system(command))
        fprintf(stderr, "bench_shadow: %s cannot be emptied\n", dir);
}

static int flip(int argc, char **argv)
{
    double seconds = 60, ahead = 30;
    struct flip_terms t = { .plugin = argv[0],
                            .dir = argv[1],
                            .rate_bps = LINK_BPS,
                            .delay_us = LINK_DELAY_US };
    const char *json = argv[2];
    struct json_object *all = json_object_new_array();
    struct flip_load l;
    unsigned disks = 0;
    optind = 3;
    for (int c; (c = getopt(argc, argv, "s:a:")) != -1;) {
        if (c == '?')
            return 2;
        *(c == 's' ? &seconds : &ahead) = strtod(optarg, NULL);
    }
    t.window_us = (uint64_t)(seconds * 1e6);
    /* more than the link could bring, were all of them elsewhere, would
     * measure the link */
    unsigned most = (unsigned)(seconds * LINK_BPS / FLIP_BLOCK);
    t.ahead_bytes = (uint64_t)(ahead * LINK_BPS);
    printf("lazy-flip: link of %.0f Mbit/s, %u ms each way; at most %.0f s of "
           "copying ahead; %.0f s of the load afterwards\n",
           LINK_BPS * 8 / 1e6, LINK_DELAY_US / 1000, ahead, seconds);
    flip_load_repeating(&l, t.window_us);
    race(&l, &t, false, all);
    sweep(t.dir);
    for (int i = optind; i < argc; i++) {
        if (!flip_load_trace(&l, argv[i], 60, t.window_us, LEAST_READS, most)) {
            if (l.count)
                printf("%s: skipped: no %.0f s with %u to %u reads in the last "
                       "40 %%\n",
                       argv[i], seconds, LEAST_READS, most);
            flip_load_dispose(&l);
            continue;
        }
        disks++;
        race(&l, &t, true, all);
        sweep(t.dir);
    }
    if (!disks)
        printf("lazy-flip on traces: skipped: TRACES names no disk trace that "
               "does\n");
    int bad = json_object_to_file_ext(json, all, JSON_C_TO_STRING_PRETTY);
    json_object_put(all);
    return bad ? fail(json, FC_EIO) : 0;
}

static int order(int argc, char **argv)
{
    double seconds = 60, ahead = 30;
    struct flip_load l;
    for (int c; (c = getopt(argc, argv, "s:a:")) != -1;) {
        if (c == '?')
            return 2;
        *(c == 's' ? &seconds : &ahead) = strtod(optarg, NULL);
    }
    struct flip_terms t = { .rate_bps = LINK_BPS,
                            .window_us = (uint64_t)(seconds * 1e6),
                            .ahead_bytes = (uint64_t)(ahead * LINK_BPS) };
    unsigned most = (unsigned)(seconds * LINK_BPS / FLIP_BLOCK);
    for (int i = optind; i < argc; i++) {
        struct flip_order_sums sums = { 0 };
        uint64_t before = UINT64_MAX;
        char name[sizeof(l.name)] = "";
        for (unsigned percent = 60; percent < 100; percent += 5) {
            if (flip_load_trace(&l, argv[i], percent, t.window_us, LEAST_READS,
                                most) &&
                l.flip_us != before) {
                before = l.flip_us;
                memcpy(name, l.name, sizeof(name));
                flip_order_compare(&l, &t, &sums);
            }
            flip_load_dispose(&l);
        }
        if (sums.windows)
            flip_order_done(name, &sums);
    }
    return 0;
}

int main(int argc, char **argv)
{
    fc_log_init("bench_shadow", FC_LOG_WARN);
    if (argc == 6 && !strcmp(argv[1], "own"))
        return own(argv + 2);
    if (argc >= 5 && !strcmp(argv[1], "flip"))
        return flip(argc - 2, argv + 2);
    if (argc >= 2 && !strcmp(argv[1], "order"))
        return order(argc - 1, argv + 1);
    fprintf(stderr, "usage: bench_shadow own DISK MAP UUID VDEV\n"
                    "       bench_shadow flip PLUGIN DIR JSON [-s SECONDS] "
                    "[-a SECONDS] [TRACE...]\n"
                    "       bench_shadow order [-s SECONDS] [-a SECONDS] "
                    "[TRACE...]\n");
    return 2;
}
