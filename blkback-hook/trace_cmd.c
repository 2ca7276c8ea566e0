/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trace_cmd.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btrace.h"
#include "err.h"
#include "io.h"

enum { EXIT_USAGE = 2 };
#define DEFAULT_EXTENT (1u << 20)
#define DEFAULT_INTERVAL_MS 1000u
#define COLLECT_MS 100u /* between looks at the kernel's buffers */

const struct option fc_trace_options[] = {
    { "extent", required_argument, NULL, 'e' },
    { "interval", required_argument, NULL, 'i' },
    { "method", required_argument, NULL, 'm' },
    { "requests", no_argument, NULL, 'r' },
    { NULL, 0, NULL, 0 },
};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void usage(FILE *to)
{
    fputs(
        "usage: forecopy-block trace [OPTION...] DEVICE...\n"
        "  -e, --extent BYTES   what is counted together (1048576)\n"
        "  -i, --interval MS    time between batches (1000)\n"
        "  -m, --method NAME    bpf, tracefs or blktrace; else the first that\n"
        "                       can be had\n"
        "  -r, --requests       each request too, not only counts\n"
        "  -h, --help           show this help\n",
        to);
}

static bool parse_number(const char *name, const char *text, uint32_t least,
                         uint32_t most, uint32_t *value_r)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || v < least || v > most) {
        fprintf(stderr, "forecopy-block: --%s takes %u to %u, not \"%s\"\n",
                name, least, most, text);
        return false;
    }
    *value_r = (uint32_t)v;
    return true;
}

static bool parse_extent(const char *text, uint32_t *value_r)
{
    if (!parse_number("extent", text, FC_BLOCKBATCH_EXTENT_LEAST,
                      FC_BLOCKBATCH_EXTENT_MOST, value_r))
        return false;
    if (*value_r & (*value_r - 1)) {
        fprintf(stderr, "forecopy-block: --extent takes a power of two\n");
        return false;
    }
    return true;
}

static bool parse_method(const char *text, enum fc_blockbatch_means *means_r)
{
    for (unsigned m = FC_BLOCKBATCH_BPF; m <= FC_BLOCKBATCH_BLKTRACE; m++)
        if (!strcmp(text, fc_blockbatch_means_name(m))) {
            *means_r = m;
            return true;
        }
    fprintf(stderr,
            "forecopy-block: --method takes bpf, tracefs or blktrace, not "
            "\"%s\"\n",
            text);
    return false;
}

/* The exit status, or -1 to go on. */
static int parse(int argc, char **argv, struct fc_btrace_config *c)
{
    enum { OPTIONS = sizeof(fc_trace_options) / sizeof(fc_trace_options[0]) };
    struct option all[OPTIONS + 1] = { { "help", no_argument, NULL, 'h' } };
    int o;
    memcpy(all + 1, fc_trace_options, sizeof(fc_trace_options));
    optind = 1;
    while ((o = getopt_long(argc, argv, "e:hi:m:r", all, NULL)) != -1) {
        bool ok = true;
        switch (o) {
        case 'e':
            ok = parse_extent(optarg, &c->extent_bytes);
            break;
        case 'i':
            ok = parse_number("interval", optarg, FC_BLOCKBATCH_INTERVAL_LEAST,
                              FC_BLOCKBATCH_INTERVAL_MOST, &c->interval_ms);
            break;
        case 'm':
            ok = parse_method(optarg, &c->only);
            break;
        case 'r':
            c->requests = true;
            break;
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

static int find_targets(int count, char **path, struct fc_btrace_target *target)
{
    char why[FC_BTRACE_WHY];
    if (count < 1 || count > (int)FC_BLOCKBATCH_DEVICES) {
        usage(stderr);
        return EXIT_USAGE;
    }
    for (int i = 0; i < count; i++)
        if (fc_btrace_target_find(path[i], &target[i], why)) {
            fprintf(stderr, "forecopy-block: %s\n", why);
            return 1;
        }
    return 0;
}

/* Whether standard input has ended; waits at most so long. */
static bool input_ended(uint64_t wait_ms)
{
    char waste[256];
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    int r = poll(&p, 1, (int)wait_ms);
    if (r <= 0)
        return false;
    ssize_t n = read(STDIN_FILENO, waste, sizeof(waste));
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static int go_on(struct fc_btrace *t, uint32_t interval_ms)
{
    uint64_t next = fc_now_ms() + interval_ms;
    int rc = fc_btrace_write_start(t, STDOUT_FILENO);
    while (!rc && !stop) {
        uint64_t now = fc_now_ms();
        if (now >= next) {
            rc = fc_btrace_write(t, STDOUT_FILENO, fc_now_ns() / 1000);
            next += interval_ms;
            next = next > now ? next : now + interval_ms;
            continue;
        }
        uint64_t wait = next - now < COLLECT_MS ? next - now : COLLECT_MS;
        if (input_ended(wait))
            break;
        rc = fc_btrace_collect(t);
        rc = rc ? rc : fc_btrace_write_full(t, STDOUT_FILENO);
    }
    rc = rc ? rc : fc_btrace_write(t, STDOUT_FILENO, fc_now_ns() / 1000);
    return rc ? rc : fc_btrace_write_end(t, STDOUT_FILENO);
}

int fc_trace_command(int argc, char **argv)
{
    static struct fc_btrace_target target[FC_BLOCKBATCH_DEVICES];
    struct fc_btrace_config c = { .extent_bytes = DEFAULT_EXTENT,
                                  .interval_ms = DEFAULT_INTERVAL_MS,
                                  .target = target };
    char why[FC_BTRACE_METHODS * FC_BTRACE_WHY] = "";
    struct fc_btrace *t = NULL;
    int status = parse(argc, argv, &c);
    if (status >= 0)
        return status;
    if ((status = find_targets(argc - optind, argv + optind, target)))
        return status;
    c.targets = (uint32_t)(argc - optind);
    struct sigaction act = { .sa_handler = on_signal };
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an error of write */
    if (fc_btrace_open(&c, &t, why)) {
        fprintf(stderr, "forecopy-block: cannot trace: %s\n", why);
        return 1;
    }
    int rc = go_on(t, c.interval_ms);
    if (rc)
        fprintf(stderr, "forecopy-block: tracing ended: %s\n",
                errno ? strerror(errno) : fc_strerror(rc));
    fc_btrace_close(t);
    return rc != 0;
}
