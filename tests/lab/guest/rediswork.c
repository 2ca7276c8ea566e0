/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rediswork: load for the redis server beside it, whose answers can be told
 * right from wrong.  Every key's value is a function of the key and of how
 * often it was written; the counts are kept here, so a value the server
 * returns is either the last one written or an error.  Sets and gets are sent
 * in pipelined batches; nine tenths go to a tenth of the keys.
 *
 * Answers "check ID" on UDP port 9 as memguard does on its own: reads every
 * key, then replies.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ASK_PORT 9
#define REDIS_PORT 6379
#define BATCH_MAX 256
#define VALUE_MAX 8192

struct work {
    FILE *in, *out;
    uint32_t *written; /* writes of each key */
    uint32_t keys, bytes, ops, period_ms;
    uint64_t random, sets, gets, mismatches, broken;
    char expect[VALUE_MAX];
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/*
 * A record: half text that repeats, half random bytes.  No printf() in the
 * loop: under emulation this would be most of the load.
 */
static void value(struct work *w, uint32_t key, uint32_t version)
{
    uint64_t r = mix((uint64_t)key << 32 | version);
    int n = snprintf(w->expect, sizeof w->expect,
                     "{\"key\":%" PRIu32 ",\"version\":%" PRIu32
                     ",\"state\":\"active\",\"owner\":\"nobody\",\"data\":\"",
                     key, version);

    for (uint32_t i = (uint32_t)n; i < w->bytes; i += 16) {
        uint32_t len = w->bytes - i < 16 ? w->bytes - i : 16;
        char part[16] = "the same";

        r = mix(r);
        memcpy(part + 8, &r, sizeof r);
        memcpy(w->expect + i, part, len);
    }
}

static uint32_t pick(struct work *w)
{
    uint32_t r = (uint32_t)(mix(w->random++) >> 33), tenth = w->keys / 10 + 1;

    return r % 10 ? r / 10 % tenth : r / 10 % w->keys;
}

static void put_set(struct work *w, uint32_t key)
{
    char name[24];
    int len = snprintf(name, sizeof name, "k:%" PRIu32, key);

    value(w, key, ++w->written[key]);
    fprintf(w->out, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%" PRIu32 "\r\n", len,
            name, w->bytes);
    fwrite(w->expect, 1, w->bytes, w->out);
    fputs("\r\n", w->out);
    w->sets++;
}

static void put_get(struct work *w, uint32_t key)
{
    char name[24];
    int len = snprintf(name, sizeof name, "k:%" PRIu32, key);

    fprintf(w->out, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len, name);
    w->gets++;
}

static void complain(struct work *w, const char *what, uint32_t key)
{
    if (++w->mismatches <= 20)
        fprintf(stderr, "rediswork: key %" PRIu32 ": %s\n", key, what);
}

/* version is what the key had when the question was put. */
static int take_get(struct work *w, uint32_t key, uint32_t version)
{
    char line[64], got[VALUE_MAX + 2];

    if (!fgets(line, sizeof line, w->in))
        return -1;
    if (line[0] != '$' || strtol(line + 1, NULL, 10) != (long)w->bytes) {
        complain(w, "no value of our length", key);
        return line[0] == '$' && line[1] == '-' ? 0 : -1;
    }
    if (fread(got, 1, w->bytes + 2, w->in) != w->bytes + 2)
        return -1;
    value(w, key, version);
    if (memcmp(got, w->expect, w->bytes))
        complain(w, "value is not the last one written", key);
    return 0;
}

static int take_set(struct work *w, uint32_t key)
{
    char line[64];

    if (!fgets(line, sizeof line, w->in))
        return -1;
    if (strncmp(line, "+OK", 3))
        complain(w, "a set was refused", key);
    return 0;
}

static int batch(struct work *w, uint32_t ops)
{
    uint32_t keys[BATCH_MAX], versions[BATCH_MAX];
    bool set[BATCH_MAX];

    for (uint32_t i = 0; i < ops; i++) {
        keys[i] = pick(w);
        set[i] = mix(w->random++) & 1;
        if (set[i])
            put_set(w, keys[i]);
        else
            put_get(w, keys[i]);
        versions[i] = w->written[keys[i]];
    }
    if (fflush(w->out))
        return -1;
    for (uint32_t i = 0; i < ops; i++)
        if (set[i] ? take_set(w, keys[i])
                   : take_get(w, keys[i], versions[i]))
            return -1;
    return 0;
}

static int in_batches(struct work *w, bool set)
{
    for (uint32_t key = 0; key < w->keys; key += 64) {
        uint32_t end = key + 64 < w->keys ? key + 64 : w->keys;

        for (uint32_t k = key; k < end; k++)
            if (set)
                put_set(w, k);
            else
                put_get(w, k);
        if (fflush(w->out))
            return -1;
        for (uint32_t k = key; k < end; k++)
            if (set ? take_set(w, k) : take_get(w, k, w->written[k]))
                return -1;
    }
    return 0;
}

static int dial(struct work *w)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(REDIS_PORT),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    for (int tries = 0; tries < 300; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
            w->in = fdopen(fd, "r");
            w->out = fdopen(dup(fd), "w");
            if (!w->in || !w->out)
                return -1;
            setvbuf(w->out, NULL, _IOFBF, 1 << 20);
            setvbuf(w->in, NULL, _IOFBF, 1 << 18);
            return 0;
        }
        close(fd);
        usleep(100000);
    }
    fprintf(stderr, "rediswork: no redis server\n");
    return -1;
}

static void serve(struct work *w, int fd)
{
    static char last_id[32], reply[512];
    char text[64], verb[16] = "", id[32] = "";
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, text, sizeof text - 1, MSG_DONTWAIT,
                         (struct sockaddr *)&from, &len);
    uint64_t start = now_ns();

    if (n <= 0)
        return;
    text[n] = 0;
    if (sscanf(text, "%15s %31s", verb, id) != 2)
        return;
    if (strcmp(id, last_id)) {
        if (!strcmp(verb, "check") && !w->broken && in_batches(w, false))
            w->broken = 1;
        strcpy(last_id, id);
        snprintf(reply, sizeof reply,
                 "%s {\"ok\":%s,\"keys\":%" PRIu32 ",\"mismatches\":%" PRIu64
                 ",\"connection_broken\":%s,\"sets\":%" PRIu64
                 ",\"gets\":%" PRIu64 ",\"check_ms\":%" PRIu64 "}\n",
                 id, w->mismatches || w->broken ? "false" : "true", w->keys,
                 w->mismatches, w->broken ? "true" : "false", w->sets,
                 w->gets, (now_ns() - start) / 1000000);
    }
    sendto(fd, reply, strlen(reply), 0, (struct sockaddr *)&from, len);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"keys", required_argument, NULL, 'k'},
        {"bytes", required_argument, NULL, 'b'},
        {"ops", required_argument, NULL, 'o'},
        {"period-ms", required_argument, NULL, 'p'},
        {0},
    };
    static struct work w = {
        .keys = 20000, .bytes = 1000, .ops = 40, .period_ms = 20};
    struct sockaddr_in self = {.sin_family = AF_INET,
                               .sin_port = htons(ASK_PORT)};
    uint64_t next_ns, period_ns;
    int c, fd;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint32_t v = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;

        switch (c) {
        case 'k': w.keys = v; break;
        case 'b': w.bytes = v; break;
        case 'o': w.ops = v; break;
        case 'p': w.period_ms = v ? v : 1; break;
        default: return 2;
        }
    }
    if (w.keys == 0 || w.bytes < 128 || w.bytes > VALUE_MAX ||
        w.ops > BATCH_MAX) {
        fprintf(stderr, "rediswork: need keys > 0, 128 <= bytes <= %d, "
                        "ops <= %d\n",
                VALUE_MAX, BATCH_MAX);
        return 2;
    }
    w.written = calloc(w.keys, sizeof *w.written);
    if (!w.written || dial(&w) || in_batches(&w, true)) {
        fprintf(stderr, "rediswork: cannot fill the server\n");
        return 1;
    }
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0) {
        perror("rediswork: cannot listen");
        return 1;
    }
    printf("rediswork: %" PRIu32 " keys of %" PRIu32 " bytes, %" PRIu32
           " operations each %" PRIu32 " ms\n",
           w.keys, w.bytes, w.ops, w.period_ms);
    fflush(stdout);
    period_ns = w.period_ms * UINT64_C(1000000);
    for (next_ns = now_ns();;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ns();
        struct timespec wait = {0};

        if (now < next_ns && next_ns - now <= period_ns) {
            wait.tv_sec = (time_t)((next_ns - now) / UINT64_C(1000000000));
            wait.tv_nsec = (long)((next_ns - now) % UINT64_C(1000000000));
        }
        if (ppoll(&pfd, 1, &wait, NULL) > 0)
            serve(&w, fd);
        now = now_ns();
        /* A clock that went back must not stop the load. */
        if (now < next_ns && next_ns - now <= period_ns)
            continue;
        next_ns += period_ns;
        if (next_ns < now || next_ns > now + period_ns)
            next_ns = now;
        if (!w.broken && batch(&w, w.ops)) {
            fprintf(stderr, "rediswork: lost the server\n");
            w.broken = 1;
        }
    }
}
