/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What arming a guest of 1 GiB costs the source daemon in memory: an armed
 * guest as the daemon has it (sampler, page table, scorer, stager, worker,
 * channel), over a Xen that is made up, until all is staged that can be. The
 * destination is a process of its own that acknowledges everything.
 *
 *   hot-set      64 writes every 50 ms into 8 MiB
 *   all-written  the same, after every page has been written once
 *
 * Prints bytes of growth per page of the guest, at the peak (as seen every 50
 * ms) and at rest, of the process's own memory, and writes
 * build/bench/rss.json.
 */
#include <errno.h>
#include <event2/event.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../rng.h"
#include "channel.h"
#include "child.h"
#include "err.h"
#include "guest.h"
#include "io.h"
#include "log.h"
#include "wire.h"
#include "xenwatch.h"

#define PAGES (1u << 18)
#define PFNS 0xff000u /* of a PVH guest: Xen's own pages are below 4 GiB */
#define SPECIAL_FIRST 0xfeff8u
#define HOT_PAGES 2048u
#define HOT_WRITES 64u
#define DOMID 7u
#define LIMIT_MS 240000u
#define BATCH_COUNT 4u /* where a batch has its number of pages */
#define TARGET 48.0    /* bytes a page */
#define OUT_DIR "build/bench"
#define OUT_FILE OUT_DIR "/rss.json"

static void __attribute__((noreturn)) die(const char *what)
{
    fprintf(stderr, "bench_rss: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- Xen ---- */

static uint64_t dirty[PFNS / 64];

static void mark(uint64_t pfn)
{
    dirty[pfn / 64] |= 1ull << pfn % 64;
}

static int log_size(void *user, uint32_t domid, uint64_t *pfns_r)
{
    (void)user;
    (void)domid;
    *pfns_r = PFNS;
    return 0;
}

static int log_switch(void *user, uint32_t domid)
{
    (void)user;
    (void)domid;
    return 0;
}

static int log_peek(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns)
{
    (void)user;
    (void)domid;
    memcpy(bitmap, dirty, pfns / 8);
    return 0;
}

static int log_clean(void *user, uint32_t domid, uint64_t *bitmap,
                     uint64_t pfns)
{
    log_peek(user, domid, bitmap, pfns);
    memset(dirty, 0, sizeof(dirty));
    return 0;
}

static int log_mark(void *user, uint32_t domid, const struct fc_pfn_run *runs,
                    unsigned count)
{
    (void)user;
    (void)domid;
    for (unsigned i = 0; i < count; i++)
        for (uint64_t n = 0; n < runs[i].count; n++)
            mark(runs[i].first + n);
    return 0;
}

static const struct fc_dirtylog_ops log_ops = {
    .size = log_size,
    .enable = log_switch,
    .disable = log_switch,
    .clean = log_clean,
    .peek = log_peek,
    .mark = log_mark,
};

static int mem_open(void *user, void **handle_r)
{
    *handle_r = user;
    return 0;
}

static void mem_close(void *handle)
{
    (void)handle;
}

/* Every fourth page is zero, no two of the others are alike. */
static int mem_copy(void *handle, uint32_t domid, const uint64_t *pfns,
                    unsigned count, uint8_t *pages, uint8_t *good)
{
    (void)handle;
    (void)domid;
    for (unsigned i = 0; i < count; i++, pages += FC_PAGE_SIZE) {
        uint64_t pfn = pfns[i];
        good[i] = pfn < PAGES || pfn >= SPECIAL_FIRST;
        for (unsigned at = 0; good[i] && at < FC_PAGE_SIZE; at += 8)
            fc_le_store(pages + at, pfn % 4 ? pfn * 2654435761u + at % 256 : 0,
                        8);
    }
    return 0;
}

static const struct fc_guestmem_ops mem_ops = { mem_open, mem_close, mem_copy };

/* ---- the destination: this program again ---- */

static void answer(enum fc_channel_type type, uint8_t *frame, ssize_t len)
{
    fc_channel_head_make(frame, type, frame + FC_CHANNEL_HEADER, (uint32_t)len);
    if (fc_write_all(STDOUT_FILENO, frame, FC_CHANNEL_HEADER + (size_t)len) < 0)
        exit(0);
}

static int destination(void)
{
    static uint8_t body[FC_CHANNEL_MAX_BODY];
    uint8_t raw[FC_CHANNEL_HEADER], out[FC_CHANNEL_HEADER + 256];
    uint8_t *reply = out + FC_CHANNEL_HEADER;
    const struct fc_channel_welcome welcome = { .version = FC_CHANNEL_VERSION,
                                                .epoch = 1,
                                                .budget_bytes = 1ull << 40 };
    struct fc_channel_head head;
    while (!fc_read_exact(STDIN_FILENO, raw, sizeof(raw)) &&
           !fc_channel_head_parse(raw, &head) &&
           !fc_read_exact(STDIN_FILENO, body, head.length)) {
        if (head.type == FC_CHANNEL_HELLO)
            answer(FC_CHANNEL_WELCOME, out,
                   fc_channel_welcome_make(&welcome, reply, 256));
        /* a PUT: u64 number, then the batch */
        if (head.type == FC_CHANNEL_PUT)
            answer(FC_CHANNEL_STORED, out,
                   fc_channel_stored_make(
                       fc_le_load(body, 8),
                       (uint32_t)fc_le_load(body + 8 + BATCH_COUNT, 4), NULL, 0,
                       reply, 256));
        if (head.type == FC_CHANNEL_PING) {
            memcpy(reply, body, 8);
            answer(FC_CHANNEL_PONG, out, 8);
        }
    }
    return 0;
}

/* ---- the source ---- */

/* A xenstore in which the guest has left nothing. */
static char *no_value(void *user, const char *path)
{
    (void)user;
    (void)path;
    return NULL;
}

static const struct fc_xenwatch_ops watch_ops = { .read = no_value,
                                                  .list = no_value };

/* A line of /proc/self/status, in bytes. */
static uint64_t status_line(const char *key)
{
    unsigned long long kib = 0;
    char line[256];
    size_t len = strlen(key);
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, len))
            sscanf(line + len, ": %llu kB", &kib);
    if (f)
        fclose(f);
    return kib * 1024;
}

/* The process's own memory. Programs' and libraries' pages, which a process
 * forked just now maps again one by one, are in the page cache anyway. */
static uint64_t memory(void)
{
    return status_line("RssAnon") + status_line("RssShmem");
}

struct source {
    struct event_base *base;
    struct fc_guest *guest;
    uint64_t start_ms, peak_bytes;
};

static void on_job(void *user, struct fc_job *job)
{
    struct source *s = user;
    fc_guest_job_done(s->guest, job, fc_now_ms());
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct source *s = user;
    uint64_t now = fc_now_ms();
    (void)fd;
    (void)what;
    for (unsigned i = 0; i < HOT_WRITES; i++)
        mark(test_rng() % HOT_PAGES);
    fc_guest_tick(s->guest, now);
    uint64_t bytes = memory();
    s->peak_bytes = bytes > s->peak_bytes ? bytes : s->peak_bytes;
    bool steady = fc_stager_is_steady(&s->guest->stager) &&
                  s->guest->pages.staged > PAGES / 2;
    if (steady || now - s->start_ms > LIMIT_MS)
        event_base_loopbreak(s->base);
}

static void set(struct fc_settings *s, const char *key, const char *value)
{
    char why[FC_SETTING_WHY];
    if (fc_settings_set(s, FC_SOURCE_CONTROL, key, value, why)) {
        fprintf(stderr, "bench_rss: %s: %s\n", key, why);
        exit(1);
    }
}

struct numbers {
    uint64_t start_bytes, peak_bytes, rest_bytes, counted_bytes;
    uint64_t staged, zero, took_ms;
    bool steady;
};

static void measure(struct source *s, struct numbers *n)
{
    const struct timeval tick = { 0, FC_GUEST_TICK_MS * 1000 };
    struct event *timer = event_new(s->base, -1, EV_PERSIST, on_tick, s);
    s->start_ms = fc_now_ms();
    if (!timer || event_add(timer, &tick) < 0)
        die("event");
    event_base_dispatch(s->base);
    n->took_ms = fc_now_ms() - s->start_ms;
    n->steady = fc_stager_is_steady(&s->guest->stager);
    n->peak_bytes = s->peak_bytes - n->start_bytes;
    n->rest_bytes = memory() - n->start_bytes;
    n->counted_bytes = fc_guest_bytes(s->guest);
    n->staged = s->guest->pages.staged;
    n->zero = s->guest->pages.zero;
    event_free(timer);
}

/* The kinds of setting that a quick run wants; none of them changes what is
 * kept for a page. */
static void hurry(struct fc_settings *settings)
{
    fc_settings_init(settings, NULL);
    set(settings, "stage_rate_bytes", "0");
    set(settings, "stage_quiet_s", "1");
    set(settings, "sample_interval_ms", "50");
    set(settings, "log_share_percent", "50");
    set(settings, "fault_cost_ns", "100");
}

static void run_case(bool all_written, const char *program, struct numbers *n)
{
    static const struct fc_calibration untaught;
    static const struct fc_linkrate no_links;
    char why[FC_GUEST_WHY], proc[] = "/tmp/bench-rss.XXXXXX";
    struct source s = { .base = event_base_new() };
    struct fc_settings settings;
    struct fc_guest_env env = { .base = s.base,
                                .log_ops = &log_ops,
                                .proc_root = proc,
                                .watch = &watch_ops,
                                .calibration = &untaught,
                                .links = &no_links,
                                .adapt_share = 0.05f };
    struct fc_armed armed = { .uuid = { 1 }, .host = "destination" };
    struct fc_domain domain = {
        .domid = DOMID, .type = FC_DOMAIN_PVH, .pages = PAGES, .name = "bench"
    };
    if (!s.base || !mkdtemp(proc) || fc_children_new(s.base, &env.children) ||
        fc_worker_new(s.base, &mem_ops, NULL, on_job, &s, &env.worker))
        die("cannot set up");
    hurry(&settings);
    snprintf(armed.command, sizeof(armed.command), "exec '%s' --destination",
             program);
    if (all_written)
        for (uint64_t pfn = 0; pfn < PAGES; pfn++)
            mark(pfn);
    n->start_bytes = memory();
    if (fc_guest_new(&env, &armed, &settings, &domain, 1, &s.guest, why)) {
        fprintf(stderr, "bench_rss: %s\n", why);
        exit(1);
    }
    measure(&s, n);
    rmdir(proc);
}

/* Each in a process of its own, so that one's memory is not the other's. */
static struct numbers fork_case(bool all_written, const char *program)
{
    struct numbers n = { 0 };
    int fds[2], status;
    fflush(stdout);
    if (pipe(fds) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (!pid) {
        run_case(all_written, program, &n);
        _exit(fc_write_all(fds[1], &n, sizeof(n)) < 0);
    }
    close(fds[1]);
    if (fc_read_exact(fds[0], &n, sizeof(n)) < 0)
        die("the source ended early");
    close(fds[0]);
    waitpid(pid, &status, 0);
    return n;
}

static void add(struct json_object *all, const char *name, const char *metric,
                double value, bool judged)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "bench", json_object_new_string("rss"));
    json_object_object_add(o, "case", json_object_new_string(name));
    json_object_object_add(o, "metric", json_object_new_string(metric));
    json_object_object_add(o, "unit", json_object_new_string("bytes"));
    json_object_object_add(o, "ours", json_object_new_double(value));
    json_object_object_add(o, "peer", NULL);
    json_object_object_add(o, "peer_name", NULL);
    json_object_object_add(o, "ratio", NULL);
    json_object_object_add(o, "target",
                           judged ? json_object_new_double(TARGET) : NULL);
    json_object_object_add(
        o, "ok", judged ? json_object_new_boolean(value < TARGET) : NULL);
    json_object_array_add(all, o);
}

static void report(struct json_object *all, const char *name,
                   const struct numbers *n)
{
    double peak = (double)n->peak_bytes / PAGES;
    double rest = (double)n->rest_bytes / PAGES;
    double counted = (double)n->counted_bytes / PAGES;
    printf("%-12s %9llu %9llu %8.1f %10.1f %10.1f %10.1f  %s%s\n", name,
           (unsigned long long)n->staged, (unsigned long long)n->zero,
           (double)n->took_ms / 1000, peak, rest, counted,
           peak < TARGET ? "ok" : "MISSED",
           n->steady ? "" : " (not all staged)");
    add(all, name, "peak_rss_growth_per_page", peak, true);
    add(all, name, "rest_rss_growth_per_page", rest, true);
    add(all, name, "counted_per_page", counted, false);
}

int main(int argc, char **argv)
{
    char program[512];
    if (argc == 2 && !strcmp(argv[1], "--destination"))
        return destination();
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (len < 0)
        die("/proc/self/exe");
    program[len] = '\0';
    signal(SIGPIPE, SIG_IGN);
    fc_log_init("bench_rss", FC_LOG_WARN);
    struct json_object *all = json_object_new_array();
    printf("arming a guest of %u pages; bytes per page of it\n", PAGES);
    printf("%-12s %9s %9s %8s %10s %10s %10s\n", "case", "staged", "zero",
           "seconds", "peak", "at rest", "counted");
    static const char *const names[] = { "hot-set", "all-written" };
    for (int i = 0; i < 2; i++) {
        struct numbers n = fork_case(i == 1, program);
        report(all, names[i], &n);
    }
    mkdir("build", 0777);
    mkdir(OUT_DIR, 0777);
    if (json_object_to_file_ext(OUT_FILE, all,
                                JSON_C_TO_STRING_PRETTY |
                                    JSON_C_TO_STRING_NOSLASHESCAPE) < 0)
        die(OUT_FILE);
    json_object_put(all);
    return 0;
}
