/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* forecopy-eval: scores the predictor on traces, and converts these. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "err.h"
#include "eval.h"
#include "io.h"
#include "model.h"
#include "trace.h"

enum { EXIT_USAGE = 2 };
#define MAX_TICK_MS 86400000u
#define MIN_EXTENT 512u
#define MAX_EXTENT (1u << 30)
#define MAX_EVERY 1000000u

enum {
    OPT_JSON = 0x1000,
    OPT_READS,
    OPT_DISK_MODEL,
    OPT_VERSION,
    OPT_DUMP,
    OPT_DISK
};
enum { MEMORY_MODEL, DISK_MODEL, MODELS }; /* kinds of model files */

static const struct option options[] = {
    { "disk", no_argument, NULL, OPT_DISK },
    { "disk-model", required_argument, NULL, OPT_DISK_MODEL },
    { "every", required_argument, NULL, 'n' },
    { "extent", required_argument, NULL, 'e' },
    { "help", no_argument, NULL, 'h' },
    { "json", required_argument, NULL, OPT_JSON },
    { "model", required_argument, NULL, 'm' },
    { "reads", no_argument, NULL, OPT_READS },
    { "tick", required_argument, NULL, 't' },
    { "version", no_argument, NULL, OPT_VERSION },
    { "dump-options", no_argument, NULL, OPT_DUMP },
    { NULL, 0, NULL, 0 },
};

struct request {
    struct fc_eval_options eval;
    struct fc_model model[MODELS];
    const char *json;
};

static void usage(FILE *to)
{
    fprintf(
        to,
        "usage: forecopy-eval [OPTION...] TRACE...   score every method\n"
        "       forecopy-eval info TRACE...          what they hold\n"
        "       forecopy-eval convert FROM TO        into the own format\n"
        "  -e, --extent BYTES  disks: size of an extent (1048576)\n"
        "  -t, --tick MS       time between ticks (disks: by length)\n"
        "      --reads         disks: foretell reads, not any access\n"
        "      --disk          play disks against a cache of 10 %% of their "
        "extents too\n"
        "  -n, --every N       judge each N-th tick (memory 4, disks 1)\n"
        "  -m, --model FILE    a GRU's weights, for memory\n"
        "      --disk-model FILE  and for disks\n"
        "      --json FILE     write the figures as JSON too (-: print "
        "only these)\n"
        "  -h, --help          show this help\n"
        "      --version       show the version\n");
}

static int dump_options(void)
{
    for (const struct option *o = options; o->name; o++) {
        if (o->val == OPT_DUMP)
            continue;
        if (o->val < 128)
            printf("-%c\n", o->val);
        printf("--%s\n", o->name);
    }
    return 0;
}

static void complain(const char *path, const char *text)
{
    fprintf(stderr, "forecopy-eval: %s: %s\n", path, text);
}

/* A whole number in the range; false, with a message, for anything else. */
static bool parse_number(const char *name, const char *text, uint32_t least,
                         uint32_t most, uint32_t *value_r)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || v < least || v > most) {
        fprintf(stderr, "forecopy-eval: --%s takes %u to %u, not \"%s\"\n",
                name, least, most, text);
        return false;
    }
    *value_r = (uint32_t)v;
    return true;
}

static bool load_model(struct request *q, uint32_t kind, const char *path)
{
    struct fc_model_problem problem = { "" };
    fc_model_dispose(&q->model[kind]);
    int rc = fc_model_load(path, kind, &q->model[kind], &problem);
    if (rc) {
        complain(path, rc == FC_EIO ? strerror(errno) : problem.text);
        return false;
    }
    q->eval.gru = q->model[MEMORY_MODEL].gru;
    q->eval.disk_gru = q->model[DISK_MODEL].gru;
    return true;
}

static int info(int count, char **path)
{
    int failed = 0;
    printf("%-20s %-6s %12s %8s %10s %12s %-16s\n", "trace", "kind", "MiB",
           "ticks", "requests", "seconds", "hash");
    for (int i = 0; i < count; i++) {
        struct fc_trace_summary s;
        struct fc_trace_problem problem;
        if (fc_trace_scan(path[i], &s, &problem)) {
            complain(path[i], problem.text);
            failed = 1;
            continue;
        }
        const char *slash = strrchr(path[i], '/');
        printf("%-20s %-6s %12.1f %8" PRIu64 " %10" PRIu64 " %12.1f "
               "%016" PRIx64 "%s\n",
               slash ? slash + 1 : path[i],
               s.head.kind == FC_TRACE_MEMORY ? "memory" : "block",
               (double)(s.head.units << s.head.unit_shift) / (1 << 20), s.ticks,
               s.requests, (double)s.last_us / 1e6, s.hash,
               s.whole ? "" : " cut off");
    }
    return failed;
}

static int copy_records(struct fc_trace *from, struct fc_trace_writer *to,
                        struct fc_trace_problem *problem)
{
    struct fc_trace_record record;
    int rc;
    while ((rc = fc_trace_next(from, &record, problem)) == 1) {
        rc = fc_trace_put(to, &record);
        if (rc)
            break;
    }
    return rc ? rc : fc_trace_finish(to);
}

static int convert(const char *from, const char *to)
{
    struct fc_trace *trace = NULL;
    struct fc_trace_writer *writer = NULL;
    struct fc_trace_summary summary;
    struct fc_trace_problem problem = { "" };
    int fd = -1;
    int rc = fc_trace_scan(from, &summary, &problem);
    rc = rc ? rc : fc_trace_open(from, &trace, &problem);
    if (rc)
        goto out;
    fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = FC_EIO;
        goto out;
    }
    rc = fc_trace_writer_new(fd, &summary.head, &writer);
    rc = rc ? rc : copy_records(trace, writer, &problem);
    if (rc == 0 && fsync(fd) && errno != EINVAL)
        rc = FC_EIO;
    if (rc)
        unlink(to);
out:
    if (rc && problem.text[0])
        complain(from, problem.text);
    else if (rc)
        complain(to, rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
    fc_trace_writer_free(writer);
    fc_trace_close(trace);
    fc_close(&fd);
    return rc != 0;
}

static int write_json(const char *path, const struct fc_eval_result *r,
                      unsigned count)
{
    bool print = !strcmp(path, "-");
    FILE *out = print ? stdout : fopen(path, "w");
    int rc = out ? fc_eval_write_json(out, r, count) : FC_EIO;
    if (out && !print && fclose(out))
        rc = FC_EIO;
    if (rc)
        complain(path, strerror(errno));
    return rc != 0;
}

static int evaluate(const struct request *q, unsigned count, char **path)
{
    struct fc_eval_result *r = calloc(count, sizeof(*r));
    bool table = !q->json || strcmp(q->json, "-");
    unsigned done = 0;
    int failed = 0;
    if (!r) {
        complain(path[0], fc_strerror(FC_ENOMEM));
        return 1;
    }
    for (unsigned i = 0; i < count; i++) {
        struct fc_trace_problem problem;
        if (fc_eval_trace(path[i], &q->eval, &r[done], &problem)) {
            complain(path[i], problem.text);
            failed = 1;
            continue;
        }
        if (table)
            fc_eval_print(stdout, &r[done]);
        fflush(stdout);
        done++;
    }
    if (table)
        fc_eval_print_means(stdout, r, done);
    if (q->json)
        failed |= write_json(q->json, r, done);
    free(r);
    return failed;
}

/* The exit status, or -1 to go on. */
static int parse(int argc, char **argv, struct request *q)
{
    struct fc_replay_options *o = &q->eval.replay;
    int c;
    while ((c = getopt_long(argc, argv, "e:hm:n:t:", options, NULL)) != -1) {
        bool ok = true;
        switch (c) {
        case 'e':
            ok = parse_number("extent", optarg, MIN_EXTENT, MAX_EXTENT,
                              &o->extent_bytes);
            break;
        case 't':
            ok = parse_number("tick", optarg, 1, MAX_TICK_MS, &o->tick_ms);
            break;
        case 'n':
            ok = parse_number("every", optarg, 1, MAX_EVERY, &q->eval.every);
            break;
        case 'm':
        case OPT_DISK_MODEL:
            if (!load_model(q, c == 'm' ? MEMORY_MODEL : DISK_MODEL, optarg))
                return 1;
            break;
        case OPT_READS:
            o->any_access = false;
            break;
        case OPT_DISK:
            q->eval.cache = true;
            break;
        case OPT_JSON:
            q->json = optarg;
            break;
        case OPT_VERSION:
            puts("forecopy-eval " FC_VERSION);
            return 0;
        case OPT_DUMP:
            return dump_options();
        case 'h':
            usage(stdout);
            return 0;
        default:
            ok = false;
        }
        if (!ok)
            return EXIT_USAGE;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct request q = { .eval.replay.any_access = true };
    int status = parse(argc, argv, &q);
    int count = argc - optind;
    char **operand = argv + optind;
    if (status >= 0)
        goto out;
    if (count > 1 && !strcmp(operand[0], "info")) {
        status = info(count - 1, operand + 1);
    } else if (count == 3 && !strcmp(operand[0], "convert")) {
        status = convert(operand[1], operand[2]);
    } else if (count > 0) {
        status = evaluate(&q, (unsigned)count, operand);
    } else {
        usage(stderr);
        status = EXIT_USAGE;
    }
out:
    for (unsigned i = 0; i < MODELS; i++)
        fc_model_dispose(&q.model[i]);
    return status;
}
