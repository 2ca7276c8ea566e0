/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests are sent when the load has them due, or as soon as one of DEPTH is
 * free; latency is from the sending. At the window's end what is still under
 * way counts with the time that it took so far.
 */
#include "flip_run.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libnbd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "flip_link.h"
#include "io.h"

#define UUID "6f6f7265-636f-7079-8000-000000000001"
#define MIGRATION "00112233445566778899aabbccddeeff"
#define PATIENCE_MS 120000
#define DEPTH 32u
#define SOCKET_BYTES 32768 /* no long queue in front of the link */
#define EXTENT (1u << 20)

static const char *const method_name[] = { "predicted", "sequential",
                                           "ondemand" };

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_shadow: %s: %s\n", what, why);
    exit(1);
}

static uint64_t end_of(const struct flip_load *l, const struct flip_terms *t)
{
    return l->flip_us + t->window_us;
}

/* ---- the disk -------------------------------------------------------------
 */

static void fill(int fd, uint64_t offset, uint64_t size)
{
    static uint64_t words[EXTENT / sizeof(uint64_t)];
    static uint64_t state = 88172645463325252u;
    if (offset >= size)
        return;
    if (lseek(fd, (off_t)offset, SEEK_DATA) == (off_t)offset)
        return; /* was filled before */
    for (size_t i = 0; i < EXTENT / sizeof(*words); i++) {
        state ^= state << 13; /* xorshift64: lz4 finds nothing in it */
        state ^= state >> 7;
        state ^= state << 17;
        words[i] = state;
    }
    if (pwrite(fd, words, EXTENT, (off_t)offset) != EXTENT)
        die("disk", strerror(errno));
}

void flip_disk_make(const struct flip_load *l, const struct flip_terms *t)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/disk", t->dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)l->size))
        die(path, strerror(errno));
    /* what the link carries in that time, and half as much again */
    uint64_t bytes = t->ahead_bytes + t->rate_bps * t->window_us / 1000000;
    bytes += bytes / 2;
    for (uint64_t at = 0; at < bytes; at += EXTENT)
        fill(fd, at, l->size);
    for (uint32_t i = 0; i < l->ordered; i++)
        if ((uint64_t)i * FLIP_BLOCK < bytes)
            fill(fd, (uint64_t)l->order[i] * FLIP_BLOCK / EXTENT * EXTENT,
                 l->size);
    for (size_t i = l->flip; i < l->count; i++) {
        const struct flip_request *r = &l->request[i];
        if (r->time_us >= end_of(l, t))
            break;
        /* and the extents next to it: a miss wakes its neighbourhood */
        uint64_t at = r->offset / EXTENT * EXTENT;
        for (uint64_t k = at ? at - EXTENT : 0; k <= at + 2 * EXTENT;
             k += EXTENT)
            fill(fd, k, l->size);
    }
    close(fd);
}

/* ---- engines --------------------------------------------------------------
 */

struct engine {
    pid_t pid;
    char nbd[300], control[300];
};

static struct json_object *ask(const struct engine *e, const char *text,
                               const int *fds, int nfds)
{
    struct json_object *reply = NULL;
    struct json_object *request = json_tokener_parse(text);
    int sock = fc_ctl_connect(e->control, PATIENCE_MS);
    if (sock < 0)
        die(e->control, "no answer");
    int rc = fc_ctl_call(sock, request, fds, nfds, &reply, NULL, PATIENCE_MS);
    fc_close(&sock);
    json_object_put(request);
    if (rc)
        die(text, reply ? json_object_to_json_string(reply) : "no answer");
    return reply;
}

static void tell(const struct engine *e, const char *text, const int *fds,
                 int nfds)
{
    json_object_put(ask(e, text, fds, nfds));
}

static double number(const struct engine *e, const char *key)
{
    struct json_object *o = ask(e, "{\"cmd\":\"status\"}", NULL, 0);
    double v = (double)fc_json_int(o, key, -1);
    if (v < 0)
        v = fc_json_bool(o, key, 0);
    json_object_put(o);
    return v;
}

static void start(struct engine *e, const struct flip_terms *t, const char *dir,
                  const char *role, const char *disk)
{
    char arg[5][320];
    snprintf(e->nbd, sizeof(e->nbd), "%s/%s.nbd", dir, role);
    snprintf(e->control, sizeof(e->control), "%s/%s.ctl", dir, role);
    snprintf(arg[0], sizeof(arg[0]), "role=%s", role);
    snprintf(arg[1], sizeof(arg[1]), "volume=%s", disk);
    snprintf(arg[2], sizeof(arg[2]), "control=%s", e->control);
    snprintf(arg[3], sizeof(arg[3]), "map=%s/map", dir);
    snprintf(arg[4], sizeof(arg[4]), "%s/%s.log", dir, role);
    const char *argv[] = { "nbdkit",    "-f",   "-U",         e->nbd,
                           t->plugin,   arg[0], arg[1],       arg[2],
                           "vdev=xvda", arg[3], "uuid=" UUID, NULL };
    fflush(stdout);
    e->pid = fork();
    if (!e->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int log = open(arg[4], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        dup2(log, STDERR_FILENO);
        execvp(argv[0], (char **)(uintptr_t)argv);
        _exit(127);
    }
    uint64_t end = fc_now_ms() + PATIENCE_MS;
    while (access(e->nbd, F_OK) || access(e->control, F_OK)) {
        if (e->pid < 0 || fc_now_ms() > end ||
            waitpid(e->pid, NULL, WNOHANG) == e->pid)
            die(role, "its engine does not start");
        usleep(10000);
    }
}

static void stop(struct engine *e)
{
    kill(e->pid, SIGKILL); /* its files are thrown away */
    waitpid(e->pid, NULL, 0);
}

/* A socket pair: one end for an engine, one for the link. */
static void pair(int ends[2])
{
    int bytes = SOCKET_BYTES;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        die("socketpair", strerror(errno));
    for (unsigned i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static struct flip_link *join(const struct engine *source,
                              const struct engine *shadow,
                              const struct flip_terms *t)
{
    const struct engine *who[] = { shadow, source };
    int inner[2];
    for (unsigned i = 0; i < 2; i++) {
        int ends[2];
        pair(ends);
        int fds[2] = { ends[0], ends[0] };
        tell(who[i], "{\"cmd\":\"channel\"}", fds, 2);
        close(ends[0]);
        inner[i] = ends[1];
    }
    return flip_link_new(inner[0], inner[1], t->rate_bps, t->delay_us);
}

static void give_order(const struct flip_load *l, const struct engine *e)
{
    size_t bytes = (size_t)l->ordered * sizeof(*l->order);
    int fd = fc_memfd_new("order", bytes);
    if (fd < 0 || pwrite(fd, l->order, bytes, 0) != (ssize_t)bytes)
        die("order", strerror(errno));
    tell(e, "{\"cmd\":\"order\"}", &fd, 1);
    close(fd);
}

/* ---- the window -----------------------------------------------------------
 */

struct slot {
    struct player *player;
    const struct flip_request *request;
    uint64_t sent_ns;
    bool busy;
    uint8_t data[FLIP_REQUEST_MAX];
};

struct player {
    struct nbd_handle *nbd;
    struct slot *slot;
    unsigned busy;
    double *latency;
    size_t reads;
};

static int done(void *user, int *error)
{
    struct slot *s = user;
    struct player *p = s->player;
    if (*error)
        die("request to the shadow", strerror(*error));
    if (!s->request->write)
        p->latency[p->reads++] = (double)(fc_now_ns() - s->sent_ns) / 1e9;
    s->busy = false;
    p->busy--;
    return 1;
}

static void send_one(struct player *p, const struct flip_request *r)
{
    struct slot *s = p->slot;
    while (s->busy)
        s++;
    nbd_completion_callback call = { .callback = done, .user_data = s };
    s->player = p;
    s->request = r;
    s->busy = true;
    s->sent_ns = fc_now_ns();
    p->busy++;
    int64_t r64 =
        r->write
            ? nbd_aio_pwrite(p->nbd, s->data, r->length, r->offset, call, 0)
            : nbd_aio_pread(p->nbd, s->data, r->length, r->offset, call, 0);
    if (r64 < 0)
        die("request to the shadow", nbd_get_error());
}

static void play(struct player *p, const struct flip_load *l,
                 const struct flip_terms *t)
{
    uint64_t start = fc_now_ns() / 1000;
    size_t i = l->flip;
    for (;;) {
        uint64_t now = fc_now_ns() / 1000 - start;
        if (now >= t->window_us)
            return;
        uint64_t until = t->window_us;
        while (i < l->count && p->busy < DEPTH &&
               l->request[i].time_us - l->flip_us <= now)
            send_one(p, &l->request[i++]);
        if (i < l->count && p->busy < DEPTH &&
            l->request[i].time_us - l->flip_us < until)
            until = l->request[i].time_us - l->flip_us;
        int ms = until > now ? (int)((until - now + 999) / 1000) : 0;
        if (nbd_poll(p->nbd, ms) < 0)
            die("shadow", nbd_get_error());
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void judge(struct player *p, struct flip_result *r)
{
    uint64_t now = fc_now_ns();
    for (unsigned i = 0; i < DEPTH; i++)
        if (p->slot[i].busy && !p->slot[i].request->write)
            p->latency[p->reads++] = (double)(now - p->slot[i].sent_ns) / 1e9;
    qsort(p->latency, p->reads, sizeof(*p->latency), by_value);
    r->reads = (double)p->reads;
    if (p->reads) {
        r->p50_seconds = p->latency[p->reads / 2];
        r->p99_seconds = p->latency[p->reads - 1 - p->reads / 100];
    }
}

static void window(const struct flip_load *l, const struct flip_terms *t,
                   const struct engine *shadow, struct flip_result *r)
{
    struct player p = { .nbd = nbd_create(),
                        .slot = calloc(DEPTH, sizeof(*p.slot)),
                        .latency =
                            calloc(l->count - l->flip + 1, sizeof(double)) };
    if (!p.nbd || !p.slot || !p.latency || nbd_connect_unix(p.nbd, shadow->nbd))
        die(shadow->nbd, nbd_get_error());
    for (size_t i = l->flip;
         i < l->count && l->request[i].time_us < end_of(l, t); i++) {
        const struct flip_request *q = &l->request[i];
        if (!q->write)
            r->due_blocks += (double)((q->offset + q->length - 1) / FLIP_BLOCK -
                                      q->offset / FLIP_BLOCK + 1);
    }
    play(&p, l, t);
    r->local_blocks = number(shadow, "read_hits");
    r->done_blocks = r->local_blocks + number(shadow, "read_misses");
    r->prefetched = number(shadow, "prefetched");
    r->used = number(shadow, "prefetch_used");
    judge(&p, r);
    nbd_close(p.nbd); /* before the slots: they are its callbacks' */
    free(p.slot);
    free(p.latency);
}

/* ---- a hand-over ----------------------------------------------------------
 */

static void copy_ahead(const struct flip_terms *t, const struct engine *source,
                       const struct engine *shadow, uint64_t enough_bytes,
                       struct flip_result *r)
{
    uint64_t start_ms = fc_now_ms();
    uint64_t limit_ms = PATIENCE_MS + 4 * enough_bytes * 1000 / t->rate_bps;
    while (number(source, "channel") <= 0 ||
           number(shadow, "valid_blocks") * FLIP_BLOCK < (double)enough_bytes) {
        if (fc_now_ms() - start_ms > limit_ms)
            die("copying", "blocks do not arrive");
        usleep(50000);
    }
    tell(source,
         "{\"cmd\":\"fence\",\"migration\":\"" MIGRATION
         "\",\"epoch\":5,\"timeout_ms\":60000}",
         NULL, 0);
    r->ahead_bytes = number(shadow, "valid_blocks") * FLIP_BLOCK;
    r->ahead_seconds = (double)(fc_now_ms() - start_ms) / 1000;
}

void flip_run(const struct flip_load *l, const struct flip_terms *t,
              enum flip_method method, uint64_t enough_bytes,
              struct flip_result *result_r)
{
    struct engine source, shadow;
    char dir[200], disk[256], copy[256];
    snprintf(dir, sizeof(dir), "%s/%s", t->dir, method_name[method]);
    snprintf(disk, sizeof(disk), "%s/disk", t->dir);
    snprintf(copy, sizeof(copy), "%s/copy", dir);
    if (mkdir(dir, 0700))
        die(dir, strerror(errno));
    int fd = open(copy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)l->size))
        die(copy, strerror(errno));
    close(fd);
    *result_r = (struct flip_result){ .reads = 0 };
    start(&source, t, dir, "source", disk);
    start(&shadow, t, dir, "shadow", copy);
    if (method == FLIP_PREDICTED) {
        give_order(l, &source);
        give_order(l, &shadow);
    } else if (method == FLIP_ON_DEMAND) {
        tell(&source, "{\"cmd\":\"rate\",\"bytes_ps\":1}", NULL, 0);
    }
    struct flip_link *link = join(&source, &shadow, t);
    copy_ahead(t, &source, &shadow, method == FLIP_ON_DEMAND ? 0 : enough_bytes,
               result_r);
    tell(&source, "{\"cmd\":\"lease\"}", NULL, 0);
    window(l, t, &shadow, result_r);
    stop(&shadow);
    stop(&source);
    flip_link_free(link);
}
