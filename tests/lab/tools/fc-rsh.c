/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fc-rsh: runs a command on another host over plain TCP.  For the lab only:
 * no authentication, no encryption.  It stands where ssh would, because
 * under emulation ssh measures its own ciphers.
 *
 *     fc-rsh HOST COMMAND [ARG...]      joined by spaces, run by sh -c
 *     fc-rsh --serve PORT
 *
 * A command uses two connections, tied together by a number the client
 * makes up: "D NUMBER 0\n" becomes the command's stdin and stdout, the socket
 * itself, nothing between; "E NUMBER BYTES\n", followed by so many bytes of
 * command, becomes its stderr and ends with a NUL, the exit status in decimal
 * and a newline.  The client exits with the
 * command's status, or 255 when it does not come to know it.
 *
 * A peer that is silent (dead host, cut link) is given up after
 * FC_RSH_TIMEOUT_MS (20000) of unanswered data or keepalives, by both sides.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 9999
#define LINE_BYTES 64
#define COMMAND_BYTES 65536
#define PENDING 32
#define CONNECT_S 10
#define EXIT_UNKNOWN 255

static int timeout_ms(void)
{
    const char *s = getenv("FC_RSH_TIMEOUT_MS");
    int ms = s ? atoi(s) : 0;

    return ms > 0 ? ms : 20000;
}

static void set(int fd, int level, int name, int value)
{
    if (setsockopt(fd, level, name, &value, sizeof value) < 0)
        perror("fc-rsh: setsockopt");
}

static void tune(int fd)
{
    int ms = timeout_ms();

    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, ms / 4000 > 0 ? ms / 4000 : 1);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, ms / 4000 > 0 ? ms / 4000 : 1);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

/* ---- the client ---- */

/*
 * An address, or a name from /etc/hosts.  Not getaddrinfo(): a static program
 * would load the C library's name modules of whatever system it runs on.
 */
static int resolve(const char *host, struct in_addr *addr_r)
{
    char line[1024];
    FILE *f;
    int found = inet_pton(AF_INET, host, addr_r) == 1;

    if (found)
        return 0;
    f = fopen("/etc/hosts", "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        char *save, *addr = strtok_r(line, " \t\n", &save), *name;

        while (addr && (name = strtok_r(NULL, " \t\n", &save)))
            if (!strcmp(name, host) && inet_pton(AF_INET, addr, addr_r) == 1)
                found = 1;
    }
    if (f)
        fclose(f);
    return found ? 0 : -1;
}

static int dial(const char *host)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct timeval tv = {.tv_sec = CONNECT_S}, none = {0};
    int fd;

    if (resolve(host, &to.sin_addr) < 0) {
        fprintf(stderr, "fc-rsh: %s: unknown host\n", host);
        exit(EXIT_UNKNOWN);
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        perror("fc-rsh: socket");
        exit(EXIT_UNKNOWN);
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        fprintf(stderr, "fc-rsh: cannot connect to %s: %s\n", host,
                errno == EINPROGRESS ? "no answer" : strerror(errno));
        exit(EXIT_UNKNOWN);
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    tune(fd);
    return fd;
}

/*
 * Copies, and does not splice: splice() holds the pipe's lock while it waits
 * for the socket, and then neither reads nor signals get at whoever is at the
 * pipe's other end.
 */
static int pump(int from, int to)
{
    static _Thread_local char buf[65536];

    for (;;) {
        ssize_t n = read(from, buf, sizeof buf);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        if (write_all(to, buf, (size_t)n) < 0)
            return -1;
    }
}

struct side {
    int fd;
    int status;
};

static void *upload(void *arg)
{
    int fd = *(int *)arg;

    if (pump(0, fd) < 0 && errno != EPIPE && errno != ECONNRESET)
        perror("fc-rsh: sending");
    shutdown(fd, SHUT_WR);
    return NULL;
}

static void *errors(void *arg)
{
    struct side *side = arg;
    char buf[4096], tail[16];
    size_t tail_len = 0;
    bool in_tail = false;
    ssize_t n;

    while ((n = read(side->fd, buf, sizeof buf)) > 0) {
        size_t text = (size_t)n;
        char *nul = in_tail ? buf : memchr(buf, 0, text);

        if (nul) {
            size_t rest;

            text = (size_t)(nul - buf);
            rest = (size_t)n - text;
            in_tail = true;
            if (rest > sizeof tail - 1 - tail_len)
                rest = sizeof tail - 1 - tail_len;
            memcpy(tail + tail_len, nul, rest);
            tail_len += rest;
        }
        if (text && write_all(2, buf, text) < 0)
            break;
        /* A daemon the command left behind may hold the connection open. */
        if (tail_len && tail[tail_len - 1] == '\n')
            break;
    }
    tail[tail_len] = 0;
    if (tail_len > 1)
        side->status = atoi(tail + 1);
    return NULL;
}

static int client(const char *host, char **args)
{
    static char command[COMMAND_BYTES];
    struct side side = {.status = EXIT_UNKNOWN};
    pthread_t up, err;
    uint64_t number;
    size_t len = 0;
    int data;

    if (getrandom(&number, sizeof number, 0) != sizeof number) {
        perror("fc-rsh: getrandom");
        return EXIT_UNKNOWN;
    }
    for (; *args; args++) {
        int n = snprintf(command + len, sizeof command - len, "%s%s",
                         len ? " " : "", *args);

        if (n < 0 || (size_t)n >= sizeof command - len) {
            fprintf(stderr, "fc-rsh: command too long\n");
            return 2;
        }
        len += (size_t)n;
    }
    side.fd = dial(host);
    data = dial(host);
    if (dprintf(side.fd, "E %" PRIu64 " %zu\n", number, len) < 0 ||
        write_all(side.fd, command, len) < 0 ||
        dprintf(data, "D %" PRIu64 " 0\n", number) < 0) {
        perror("fc-rsh: sending the command");
        return EXIT_UNKNOWN;
    }
    if (pthread_create(&up, NULL, upload, &data) ||
        pthread_create(&err, NULL, errors, &side)) {
        fprintf(stderr, "fc-rsh: cannot make a thread\n");
        return EXIT_UNKNOWN;
    }
    if (pump(data, 1) < 0)
        fprintf(stderr, "fc-rsh: from %s: %s\n", host, strerror(errno));
    close(1);
    pthread_join(err, NULL);
    return side.status;
}

/* ---- the server ---- */

struct half {
    int fd;
    char kind;
    uint64_t number;
    char *command;
};

/*
 * Reads a half's opening and not a byte more: what follows is for the
 * command.
 */
static int read_opening(struct half *h)
{
    struct timeval tv = {.tv_sec = CONNECT_S}, none = {0};
    char line[LINE_BYTES];
    size_t len = 0, bytes = 0;

    setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    do {
        if (len == sizeof line || recv(h->fd, line + len, 1, 0) != 1)
            return -1;
    } while (line[len++] != '\n');
    line[len - 1] = 0;
    if (sscanf(line, "%c %" SCNu64 " %zu", &h->kind, &h->number, &bytes) != 3 ||
        (h->kind != 'D' && h->kind != 'E') || bytes >= COMMAND_BYTES)
        return -1;
    h->command = calloc(1, bytes + 1);
    for (len = 0; len < bytes;) {
        ssize_t n = recv(h->fd, h->command + len, bytes - len, 0);

        if (n <= 0)
            return -1;
        len += (size_t)n;
    }
    setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    return 0;
}

static void run(int data, int side, const char *command)
{
    pid_t waiter = fork(), pid;
    int status = 0;

    if (waiter != 0)
        return;
    setsid();
    signal(SIGCHLD, SIG_DFL);
    pid = fork();
    if (pid == 0) {
        dup2(data, 0);
        dup2(data, 1);
        dup2(side, 2);
        signal(SIGPIPE, SIG_DFL);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(data);
    if (pid < 0)
        _exit(1);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    dprintf(side, "%c%d\n", 0,
            WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    _exit(0);
}

static void drop(struct half *h)
{
    close(h->fd);
    free(h->command);
    h->fd = -1;
    h->command = NULL;
}

static void match(struct half *halves, struct half *h)
{
    struct half *slot = NULL, *side, *data;

    for (struct half *o = halves; o < halves + PENDING; o++) {
        if (o->fd < 0) {
            slot = o;
            continue;
        }
        if (o->number != h->number || o->kind == h->kind)
            continue;
        side = h->kind == 'E' ? h : o;
        data = h->kind == 'E' ? o : h;
        run(data->fd, side->fd, side->command);
        drop(o);
        drop(h);
        return;
    }
    if (!slot) {
        /* Their other halves never came. */
        fprintf(stderr, "fc-rsh: too many half-open commands\n");
        slot = halves;
        drop(slot);
    }
    *slot = *h;
}

static int serve(const char *port)
{
    struct sockaddr_in self = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)atoi(port))};
    struct half halves[PENDING];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    for (int i = 0; i < PENDING; i++)
        halves[i] = (struct half){.fd = -1};
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, (struct sockaddr *)&self, sizeof self) < 0 ||
        listen(fd, 16) < 0) {
        perror("fc-rsh: cannot listen");
        return 1;
    }
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        struct half h = {.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC)};

        if (h.fd < 0)
            continue;
        tune(h.fd);
        if (read_opening(&h) < 0) {
            drop(&h);
            continue;
        }
        match(halves, &h);
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "--serve"))
        return serve(argv[2]);
    if (argc < 3 || argv[1][0] == '-') {
        fprintf(stderr, "usage: fc-rsh HOST COMMAND [ARG...]\n"
                        "       fc-rsh --serve PORT\n");
        return 2;
    }
    return client(argv[1], argv + 2);
}
