/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream against the lz4 program, on the same bytes, on the same cores, in
 * the same run.
 *
 *   bench_stream [FILE]
 *
 * FILE is a saved guest: what `xl save` writes, or the libxc part of it alone.
 * Without it a guest of 256 MiB is made up (and the table says so). Cases:
 * cold, nothing staged; staged95, 95 % of the pages with contents are in the
 * destination's store.
 *
 * Pipeline: this process feeds the stream to a sender and drains a receiver,
 * each a process of its own (this program again) as the helpers are, with
 * pipes between; the peer is `lz4 -1 | lz4 -d` fed and drained the same way.
 * Both have the same two CPUs. Runs alternate; medians are shown. Codec: the
 * encoder and decoder alone, from memory to memory, in thread CPU time.
 */
#include <errno.h>
#include <json-c/json.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "stream_codec.h"
#include "stream_pipe.h"

#define RUNS 7
#define CPUS 2
#define OUT_DIR "build/bench"
#define OUT_FILE OUT_DIR "/stream.json"

#define THROUGHPUT_TARGET 1.0 /* of the peer's */
#define CODEC_TARGET 2e9      /* bytes a second and core, each way */
#define RSS_TARGET (64 << 20)

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, RUNS, sizeof(*values), by_value);
    return values[RUNS / 2];
}

struct result {
    const char *name, *metric, *unit, *peer_name;
    double ours, peer, target; /* 0: none */
    bool higher_is_better, target_is_ratio;
};

static void report(struct json_object *all, const char *input,
                   const struct result *r)
{
    struct json_object *o = json_object_new_object();
    double ratio = r->peer > 0 ? r->ours / r->peer : 0;
    double judged = r->target_is_ratio ? ratio : r->ours;
    bool ok = r->higher_is_better ? judged >= r->target : judged <= r->target;
#define ADD(key, value) json_object_object_add(o, key, value)
    ADD("bench", json_object_new_string("stream"));
    ADD("case", json_object_new_string(r->name));
    ADD("metric", json_object_new_string(r->metric));
    ADD("unit", json_object_new_string(r->unit));
    ADD("ours", json_object_new_double(r->ours));
    ADD("peer", r->peer > 0 ? json_object_new_double(r->peer) : NULL);
    ADD("peer_name",
        r->peer_name ? json_object_new_string(r->peer_name) : NULL);
    ADD("ratio", r->peer > 0 ? json_object_new_double(ratio) : NULL);
    ADD("target", r->target > 0 ? json_object_new_double(r->target) : NULL);
    ADD("ok", r->target > 0 ? json_object_new_boolean(ok) : NULL);
    ADD("input", json_object_new_string(input));
#undef ADD
    json_object_array_add(all, o);
    printf("%-9s %-32s %14.4g", r->name, r->metric, r->ours);
    if (r->peer > 0)
        printf(" %14.4g %7.3f", r->peer, ratio);
    else
        printf(" %14s %7s", "", "");
    printf("  %s\n", r->target > 0 ? (ok ? "ok" : "MISSED") : "");
}

static void bench_case(const char *name, const struct stream_input *in,
                       const struct stream_staged *st, uint8_t *scratch,
                       size_t scratch_len, uint64_t lz4_len,
                       struct json_object *all)
{
    double ours[RUNS], peer[RUNS], ocpu[RUNS], pcpu[RUNS];
    double enc[RUNS], dec[RUNS];
    struct stream_side last = { 0 };
    uint64_t rss = 0;
    for (int i = 0; i < RUNS; i++) {
        last = stream_pipe_ours(in, st);
        ours[i] = (double)in->len / last.seconds;
        ocpu[i] = last.cpu_seconds;
        rss = last.rss_bytes > rss ? last.rss_bytes : rss;
        struct stream_side p = stream_pipe_lz4(in);
        peer[i] = (double)in->len / p.seconds;
        pcpu[i] = p.cpu_seconds;
        stream_codec_run(in, st, scratch, scratch_len, &enc[i], &dec[i]);
    }
    const char *lz4 = "lz4 -1 | lz4 -d";
    double codec_target = st ? CODEC_TARGET : 0;
    double encode = median(enc), decode = median(dec);
    const struct result results[] = {
        { name, "throughput", "bytes/s", lz4, median(ours), median(peer),
          THROUGHPUT_TARGET, true, true },
        { name, "cpu_seconds", "s", lz4, median(ocpu), median(pcpu), 0, false,
          true },
        { name, "wire_bytes", "bytes", "lz4 -1", (double)last.wire_bytes,
          (double)lz4_len, 0, false, true },
        { name, "compression_ratio", "1", "lz4 -1",
          (double)in->len / (double)last.wire_bytes,
          (double)in->len / (double)lz4_len, 0, true, true },
        { name, "bytes_per_second_per_core", "bytes/s", NULL,
          encode < decode ? encode : decode, 0, codec_target, true, false },
        { name, "encode_bytes_per_second_per_core", "bytes/s", NULL, encode, 0,
          0, true, false },
        { name, "decode_bytes_per_second_per_core", "bytes/s", NULL, decode, 0,
          0, true, false },
        { name, "peak_rss_bytes", "bytes", NULL, (double)rss, 0, RSS_TARGET,
          false, false },
    };
    for (unsigned i = 0; i < sizeof(results) / sizeof(results[0]); i++)
        report(all, in->name, &results[i]);
}

/* The first CPUS of those we may use, for us and all our children; how many. */
static int keep_cpus(void)
{
    cpu_set_t all, some;
    int n = 0;
    if (sched_getaffinity(0, sizeof(all), &all) < 0)
        stream_die("sched_getaffinity");
    CPU_ZERO(&some);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < CPUS; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &some);
            n++;
        }
    if (sched_setaffinity(0, sizeof(some), &some) < 0)
        stream_die("sched_setaffinity");
    return n;
}

static void write_json(struct json_object *all)
{
    mkdir("build", 0777);
    mkdir(OUT_DIR, 0777);
    if (json_object_to_file_ext(OUT_FILE, all,
                                JSON_C_TO_STRING_PRETTY |
                                    JSON_C_TO_STRING_NOSLASHESCAPE) < 0)
        stream_die(OUT_FILE);
}

int main(int argc, char **argv)
{
    struct stream_input in = { 0 };
    struct stream_staged st = { 0 };
    signal(SIGPIPE, SIG_IGN);
    if (argc == STREAM_ROLE_ARGS)
        return stream_pipe_role(argv);
    if (argc > 2) {
        fprintf(stderr, "usage: bench_stream [FILE]\n");
        return 2;
    }
    if (argc > 1)
        stream_input_load(&in, argv[1]);
    else
        stream_input_make(&in);
    int cpus = keep_cpus();
    printf("stream: %s, %zu bytes, %llu pages, %llu of them zero; medians of "
           "%d runs on %d CPUs\n",
           in.name, in.len, (unsigned long long)in.pages,
           (unsigned long long)in.zero_pages, RUNS, cpus);
    printf("%-9s %-32s %14s %14s %7s\n", "case", "metric", "ours", "lz4",
           "ratio");
    stream_stage(&st, &in);
    size_t scratch_len = in.len + in.len / 8 + (16u << 20);
    uint8_t *scratch = stream_map(scratch_len);
    struct json_object *all = json_object_new_array();
    uint64_t lz4_len = stream_pipe_lz4_bytes(&in);
    bench_case("cold", &in, NULL, scratch, scratch_len, lz4_len, all);
    bench_case("staged95", &in, &st, scratch, scratch_len, lz4_len, all);
    write_json(all);
    json_object_put(all);
    return 0;
}
