/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io.h"
#include "receiver.h"
#include "sender.h"

#define PIPE_BYTES 1048576
#define DRAIN_BYTES 1048576

/* ---- the helpers' part: this program again ---- */

/* The most memory this program has had, in bytes, without the store that it
 * shares. getrusage() would count what its parent had before the exec. */
static uint64_t peak_rss(void)
{
    unsigned long long peak = 0, shared = 0;
    char line[256];
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof(line), f)) {
        sscanf(line, "VmHWM: %llu kB", &peak);
        sscanf(line, "RssShmem: %llu kB", &shared);
    }
    if (f)
        fclose(f);
    return (peak - shared) * 1024;
}

/* To the parent: bytes written and memory. */
static int tell(uint64_t written)
{
    uint64_t numbers[2] = { written, peak_rss() };
    return fc_write_all(STDOUT_FILENO, numbers, sizeof(numbers)) < 0;
}

static int role_send(int in_fd, int out_fd, int back_fd, int staged_fd)
{
    struct fc_session session;
    struct fc_hashset staged;
    struct fc_sender *sender;
    fc_session_defaults(&session);
    session.back_fd = back_fd;
    if (staged_fd >= 0 && fc_hashset_map(&staged, staged_fd) < 0)
        return 1;
    struct fc_sender_config c = { .in_fd = in_fd,
                                  .out_fd = out_fd,
                                  .session = &session,
                                  .staged = staged_fd >= 0 ? &staged : NULL };
    if (fc_sender_start(&c, &sender) < 0 || fc_sender_finish(sender, true) < 0)
        return 1;
    struct fc_sender_stats st;
    fc_sender_stats_get(sender, &st);
    return tell(st.written);
}

static void role_hello(void *user, const struct fc_hello *hello,
                       struct fc_page_source *source, uint64_t *held_r)
{
    struct fc_store_view *view = user;
    (void)hello;
    (void)held_r;
    if (view->map)
        *source = (struct fc_page_source){ stream_staged_get, view };
}

static int role_receive(int in_fd, int out_fd, int back_fd, int store_fd)
{
    struct fc_store_view view = { 0 };
    struct fc_receiver *r;
    if (store_fd >= 0 && fc_store_view_open(store_fd, &view) < 0)
        return 1;
    struct fc_receiver_config c = { .in_fd = in_fd,
                                    .out_fd = out_fd,
                                    .back_fd = back_fd,
                                    .hello = role_hello,
                                    .user = &view };
    if (fc_receiver_start(&c, &r) < 0)
        return 1;
    if (fc_receiver_finish(r, true) < 0) {
        fprintf(stderr, "receiver: %s\n", fc_receiver_why(r));
        return 1;
    }
    return tell(0);
}

int stream_pipe_role(char **argv)
{
    int fds[STREAM_ROLE_ARGS - 2];
    for (int i = 0; i < STREAM_ROLE_ARGS - 2; i++)
        fds[i] = atoi(argv[2 + i]);
    return !strcmp(argv[1], "--send")
               ? role_send(fds[0], fds[1], fds[2], fds[3])
               : role_receive(fds[0], fds[1], fds[2], fds[3]);
}

/* ---- running pipelines ---- */

static void pipe_of(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC) < 0)
        stream_die("pipe");
    fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
}

static pid_t start_role(const char *role, const int fds[4], int report_fd)
{
    char words[4][16];
    pid_t pid = fork();
    if (pid < 0)
        stream_die("fork");
    if (pid)
        return pid;
    for (int i = 0; i < 4; i++) {
        snprintf(words[i], sizeof(words[i]), "%d", fds[i]);
        if (fds[i] >= 0)
            fc_set_cloexec(fds[i], 0);
    }
    dup2(report_fd, STDOUT_FILENO);
    execl("/proc/self/exe", "bench_stream", role, words[0], words[1], words[2],
          words[3], (char *)NULL);
    _exit(127);
}

static pid_t start_lz4(const char *option, int in_fd, int out_fd)
{
    pid_t pid = fork();
    if (pid < 0)
        stream_die("fork");
    if (pid)
        return pid;
    dup2(in_fd, STDIN_FILENO);
    dup2(out_fd, STDOUT_FILENO);
    execlp("lz4", "lz4", "-q", option, "-c", (char *)NULL);
    _exit(127);
}

struct feed {
    const struct stream_input *in;
    int fd;
};

/* A record at a time, as libxc writes. */
static void *feed_main(void *user)
{
    struct feed *f = user;
    for (size_t at = 0; at < f->in->len;) {
        size_t n = FC_RECORD_HEADER + FC_PAGE_DATA_MAX;
        n = n < f->in->len - at ? n : f->in->len - at;
        if (fc_write_all(f->fd, f->in->bytes + at, n) < 0)
            break;
        at += n;
    }
    close(f->fd);
    return NULL;
}

/* Reads all there is and says how much; compares it with `in` unless NULL, in
 * samples, for it to cost little beside what is measured. */
static size_t drain(int fd, const struct stream_input *in)
{
    static uint8_t buf[DRAIN_BYTES];
    size_t at = 0;
    ssize_t n;
    errno = 0;
    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        if (in && ((size_t)n > in->len - at ||
                   (at % (64u << 20) < sizeof(buf) &&
                    memcmp(buf, in->bytes + at, (size_t)n))))
            stream_die("what came out is not what went in");
        at += (size_t)n;
    }
    close(fd);
    if (in && at != in->len)
        stream_die("the output is cut short");
    return at;
}

/* Sends `in` into to_fd while it drains from_fd; bytes that came out. */
static size_t pass(const struct stream_input *in, int to_fd, int from_fd,
                   bool compare)
{
    struct feed f = { .in = in, .fd = to_fd };
    pthread_t thread;
    pthread_create(&thread, NULL, feed_main, &f);
    size_t n = drain(from_fd, compare ? in : NULL);
    pthread_join(thread, NULL);
    return n;
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static void reap(pid_t pid, struct stream_side *s)
{
    struct rusage u;
    int status;
    if (wait4(pid, &status, 0, &u) < 0 || status)
        stream_die("a child failed");
    s->cpu_seconds += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                      (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

struct stream_side stream_pipe_ours(const struct stream_input *in,
                                    const struct stream_staged *st)
{
    struct stream_side s = { 0 };
    int a[2], b[2], c[2], back[2], report[2];
    pipe_of(a);
    pipe_of(b);
    pipe_of(c);
    pipe_of(report);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, back) < 0)
        stream_die("socketpair");
    uint64_t start = fc_now_ns();
    pid_t sender = start_role(
        "--send", (int[]){ a[0], b[1], back[0], st ? st->set.fd : -1 },
        report[1]);
    pid_t receiver = start_role(
        "--receive", (int[]){ b[0], c[1], back[1], st ? st->store_fd : -1 },
        report[1]);
    close_all((int[]){ a[0], b[0], b[1], c[1], back[0], back[1], report[1] },
              7);
    pass(in, a[1], c[0], true);
    s.seconds = (double)(fc_now_ns() - start) / 1e9;
    reap(sender, &s);
    reap(receiver, &s);
    for (int i = 0; i < 2; i++) {
        uint64_t numbers[2];
        if (fc_read_exact(report[0], numbers, sizeof(numbers)) < 0)
            stream_die("report");
        s.wire_bytes += numbers[0];
        s.rss_bytes += numbers[1];
    }
    close(report[0]);
    return s;
}

struct stream_side stream_pipe_lz4(const struct stream_input *in)
{
    struct stream_side s = { 0 };
    int a[2], b[2], c[2];
    pipe_of(a);
    pipe_of(b);
    pipe_of(c);
    uint64_t start = fc_now_ns();
    pid_t packer = start_lz4("-1", a[0], b[1]);
    pid_t unpacker = start_lz4("-d", b[0], c[1]);
    close_all((int[]){ a[0], b[0], b[1], c[1] }, 4);
    pass(in, a[1], c[0], true);
    s.seconds = (double)(fc_now_ns() - start) / 1e9;
    reap(packer, &s);
    reap(unpacker, &s);
    return s;
}

uint64_t stream_pipe_lz4_bytes(const struct stream_input *in)
{
    struct stream_side s = { 0 };
    int a[2], b[2];
    pipe_of(a);
    pipe_of(b);
    pid_t packer = start_lz4("-1", a[0], b[1]);
    close_all((int[]){ a[0], b[1] }, 2);
    uint64_t bytes = pass(in, a[1], b[0], false);
    reap(packer, &s);
    return bytes;
}
