/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memguard: memory whose every page can be told right from wrong, and a
 * writer that keeps part of it changing.  Run in a guest that is migrated;
 * afterwards `check` says whether any page was lost, mixed, swapped or went
 * back in time.
 *
 * Layout.  `total` pages, the first `hot` of them written to.  A page is
 *     header (64 bytes) | structured part | random part
 * The structured part looks like records of a program (LZ4 packs it about
 * 8:1), the random part does not compress; --compress is the share of the
 * structured part in percent.  The parts' first contents are a function of
 * the page number alone.  The random part is an array of 8-byte slots: only
 * these are written, so that a page's compressibility stays what it was.
 *
 * Step n (n = 1, 2, ...) writes one slot.  Which page, which slot and which
 * value are functions of n alone.  One step does four things:
 *     the slot            = value(n)
 *     page header         : last_step = n, writes++, sum = new content sum
 *     ledger entry of page: the same three, in another part of memory
 *     step counter        = n
 * "sum" is the XOR over all 8-byte words of the page behind the header of
 * mix(page, position, word): it depends on every byte and can be kept up to
 * date by the one word that changes.
 *
 * What betrays what:
 *   - a torn, mixed, lost or foreign page: content against its own header;
 *   - a page from an earlier time, consistent in itself: header against the
 *     ledger (and a ledger page from an earlier time: the same, reversed);
 *   - page and ledger both from an earlier time: the last RECENT steps are
 *     computed anew from the step counter, and each page they touched has
 *     to say so in both places;
 *   - everything from an earlier time: nothing inside can see that; the step
 *     count in the verdict lets the network compare with what it saw before.
 *
 * One thread does all of it and the checker looks between two steps only, so
 * not even one unfinished step may be seen: the guest is stopped and goes on
 * at an instruction, and whatever that was in the midst of is finished before
 * the checker runs.  The tolerance is therefore zero.
 *
 * Checking is done in slices between the writer's periods, so that the guest
 * keeps dirtying memory meanwhile: `scan` pages a period all the time, and
 * CHECK_SLICE pages a period when a check was asked for.
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / 8)
#define HEADER_WORDS 8u
#define BODY_WORDS (PAGE_WORDS - HEADER_WORDS)
#define PAGE_MAGIC 0x6472617567656d31ull
#define CHECK_SLICE 256u /* pages; about 10 ms under emulation */
#define RECENT 16384u    /* steps computed anew by a check: about a second */
#define ASK_PORT 8

struct page {
    uint64_t magic;
    uint32_t index;
    uint32_t hot;
    uint64_t last_step;
    uint64_t writes;
    uint64_t sum;
    uint64_t header_sum;
    uint64_t reserved[2];
    uint64_t body[BODY_WORDS];
};

struct ledger {
    uint64_t last_step;
    uint64_t writes;
    uint64_t sum;
    uint64_t entry_sum;
};

struct guard {
    struct page *pages;
    struct ledger *ledger;
    unsigned char *seen; /* one byte a page, scratch of check_recent() */
    uint32_t total, hot;
    uint32_t first_slot; /* in words of the body */
    uint32_t slots;
    uint64_t step;
    uint64_t errors; /* ever seen, by any scan: never forgotten */
    uint32_t bad_page;
    const char *bad_why;
    uint64_t scanned, laps;
    uint32_t scan_next;
};

struct request {
    bool running, answered;
    char id[32];
    struct sockaddr_in from;
    uint32_t next;
    uint64_t start_ns;
    char reply[768];
};

/*
 * The monotonic clock, and how far it was ever seen to go back: an emulated
 * machine's clock may, and whoever waits for a time would then wait long.
 */
static uint64_t clock_back_ns;

static uint64_t now_ns(void)
{
    static uint64_t last;
    struct timespec ts;
    uint64_t now;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
    if (now < last && last - now > clock_back_ns)
        clock_back_ns = last - now;
    last = now;
    return now;
}

/* splitmix64's finisher. */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* One word's part in a page's sum; one multiplication, as it runs often. */
static inline uint64_t word_sum(uint32_t index, uint32_t pos, uint64_t word)
{
    uint64_t x = (word ^ ((uint64_t)index << 32 | pos) * 0x9fb21c651e98df25ull) *
                 0xd6e8feb86659fd93ull;

    return x ^ (x >> 32);
}

static uint64_t body_sum(const struct page *p, uint32_t index)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < BODY_WORDS; i++)
        sum ^= word_sum(index, i, p->body[i]);
    return sum;
}

static uint64_t header_sum(const struct page *p)
{
    return mix(p->magic ^ mix((uint64_t)p->index << 32 | p->hot) ^
               mix(p->last_step + 1) ^ mix(p->writes + 2) ^ mix(p->sum + 3));
}

static uint64_t entry_sum(const struct ledger *l, uint32_t index)
{
    return mix(index ^ mix(l->last_step + 1) ^ mix(l->writes + 2) ^
               mix(l->sum + 3));
}

static uint32_t step_page(const struct guard *g, uint64_t n)
{
    return (uint32_t)(((mix(n) >> 32) * g->hot) >> 32);
}

static uint32_t step_slot(const struct guard *g, uint64_t n)
{
    return g->first_slot +
           (uint32_t)(((mix(n) & 0xffffffffull) * g->slots) >> 32);
}

static uint64_t step_value(uint64_t n)
{
    return mix(n ^ 0x5bd1e995cafef00dull);
}

static void page_fill(struct guard *g, uint32_t index)
{
    struct page *p = &g->pages[index];
    struct ledger *l = &g->ledger[index];
    uint64_t seed = mix(index ^ 0xfeedull);

    p->magic = PAGE_MAGIC;
    p->index = index;
    p->hot = index < g->hot;
    for (uint32_t i = 0; i < g->first_slot; i++) {
        /* Records of eight words: two near pointers, small numbers, zeros. */
        switch (i % 8) {
        case 0: p->body[i] = 0x00007f3a10000000ull + index * 4096ull; break;
        case 1: p->body[i] = 0x00007f3a10000000ull + (seed & 0xfff000); break;
        case 2: p->body[i] = i / 8; break;
        case 3: p->body[i] = 0x0000000100000040ull; break;
        default: p->body[i] = 0; break;
        }
    }
    for (uint32_t i = g->first_slot; i < BODY_WORDS; i++)
        p->body[i] = mix(seed + i);
    p->sum = body_sum(p, index);
    p->header_sum = header_sum(p);
    l->sum = p->sum;
    l->entry_sum = entry_sum(l, index);
}

static void write_step(struct guard *g)
{
    uint64_t n = g->step + 1, value = step_value(n);
    uint32_t index = step_page(g, n), slot = step_slot(g, n);
    struct page *p = &g->pages[index];
    struct ledger *l = &g->ledger[index];
    uint64_t change = word_sum(index, slot, p->body[slot]) ^
                      word_sum(index, slot, value);

    p->body[slot] = value;
    p->last_step = n;
    p->writes++;
    p->sum ^= change;
    p->header_sum = header_sum(p);
    /* From the ledger's own past, so that a wrong header is not copied. */
    l->last_step = n;
    l->writes++;
    l->sum ^= change;
    l->entry_sum = entry_sum(l, index);
    g->step = n;
}

static void report(struct guard *g, uint32_t index, const char *why)
{
    if (g->errors++ == 0) {
        g->bad_page = index;
        g->bad_why = why;
    }
    if (g->errors <= 20)
        fprintf(stderr, "memguard: page %" PRIu32 ": %s\n", index, why);
}

static void check_page(struct guard *g, uint32_t index)
{
    const struct page *p = &g->pages[index];
    const struct ledger *l = &g->ledger[index];
    const char *why = NULL;

    if (p->magic != PAGE_MAGIC)
        why = "not one of our pages";
    else if (p->index != index || p->hot != (index < g->hot))
        why = "another page's content";
    else if (p->header_sum != header_sum(p))
        why = "header torn";
    else if (l->entry_sum != entry_sum(l, index))
        why = "ledger torn";
    else if (p->last_step < l->last_step)
        why = "page older than the ledger";
    else if (p->last_step > l->last_step)
        why = "ledger older than the page";
    else if (p->writes != l->writes || p->sum != l->sum)
        why = "page and ledger differ";
    else if (p->last_step > g->step)
        why = "page newer than the step counter";
    else if (body_sum(p, index) != p->sum)
        why = "content differs from its sum";
    if (why)
        report(g, index, why);
    g->scanned++;
}

static void check_recent(struct guard *g)
{
    uint64_t n = g->step, stop = n > RECENT ? n - RECENT : 0;

    memset(g->seen, 0, g->hot);
    for (; n > stop; n--) {
        uint32_t index = step_page(g, n);

        if (g->seen[index])
            continue;
        g->seen[index] = 1;
        if (g->pages[index].last_step != n)
            report(g, index, "lost its last write");
        else if (g->pages[index].body[step_slot(g, n)] != step_value(n))
            report(g, index, "last write has another value");
    }
}

static void scan_some(struct guard *g, uint32_t count)
{
    while (count--) {
        check_page(g, g->scan_next);
        if (++g->scan_next == g->total) {
            g->scan_next = 0;
            g->laps++;
            check_recent(g);
        }
    }
}

static void verdict(const struct guard *g, struct request *req, int checked)
{
    snprintf(req->reply, sizeof req->reply,
             "%s {\"ok\":%s,\"pages_checked\":%d,\"errors\":%" PRIu64
             ",\"first_bad_page\":%" PRId64 ",\"first_bad_why\":\"%s\""
             ",\"steps\":%" PRIu64 ",\"hot_pages\":%" PRIu32
             ",\"total_pages\":%" PRIu32 ",\"laps\":%" PRIu64
             ",\"check_ms\":%" PRIu64 ",\"uptime_s\":%" PRIu64
             ",\"clock_back_ms\":%" PRIu64 "}\n",
             req->id, g->errors ? "false" : "true", checked, g->errors,
             g->errors ? (int64_t)g->bad_page : -1,
             g->errors ? g->bad_why : "", g->step, g->hot, g->total, g->laps,
             (now_ns() - req->start_ns) / 1000000, now_ns() / UINT64_C(1000000000),
             clock_back_ns / 1000000);
}

static void answer(int fd, struct request *req)
{
    sendto(fd, req->reply, strlen(req->reply), 0,
           (struct sockaddr *)&req->from, sizeof req->from);
}

/*
 * "check ID": a whole pass from now on, answered when done.  The same ID
 * again is the asker's retry: it gets the answer there is, or none yet.
 * "status ID": what is known without a pass.
 * "harm N": damages page N on purpose, to prove that a check can fail.
 */
static void serve(struct guard *g, int fd, struct request *req)
{
    char text[64], verb[16] = "", id[32] = "";
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, text, sizeof text - 1, MSG_DONTWAIT,
                         (struct sockaddr *)&from, &len);

    if (n <= 0)
        return;
    text[n] = 0;
    if (sscanf(text, "%15s %31s", verb, id) != 2)
        return;
    if (!strcmp(verb, "status")) {
        struct request now = {.from = from, .start_ns = now_ns()};

        memcpy(now.id, id, sizeof now.id);
        verdict(g, &now, 0);
        answer(fd, &now);
    } else if (!strcmp(verb, "check")) {
        if (!strcmp(id, req->id)) {
            req->from = from;
            if (req->answered)
                answer(fd, req);
            return;
        }
        *req = (struct request){
            .running = true, .from = from, .start_ns = now_ns()};
        memcpy(req->id, id, sizeof req->id);
    } else if (!strcmp(verb, "harm")) {
        unsigned long page = strtoul(id, NULL, 10);

        if (page < g->total)
            g->pages[page].body[BODY_WORDS - 1] ^= 1;
    }
}

static void check_slice(struct guard *g, int fd, struct request *req)
{
    uint32_t end = req->next + CHECK_SLICE;

    if (!req->running)
        return;
    for (; req->next < g->total && req->next < end; req->next++)
        check_page(g, req->next);
    if (req->next < g->total)
        return;
    check_recent(g);
    verdict(g, req, (int)g->total);
    req->running = false;
    req->answered = true;
    answer(fd, req);
}

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED || mlock(p, bytes) < 0) {
        fprintf(stderr, "memguard: cannot have %zu MB: %s\n", bytes >> 20,
                strerror(errno));
        exit(1);
    }
    return p;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"hot-mb", required_argument, NULL, 'h'},
        {"total-mb", required_argument, NULL, 't'},
        {"writes", required_argument, NULL, 'w'},
        {"period-ms", required_argument, NULL, 'p'},
        {"compress", required_argument, NULL, 'c'},
        {"scan", required_argument, NULL, 's'},
        {"dump", required_argument, NULL, 'd'},
        {0},
    };
    uint32_t hot_mb = 8, total_mb = 42, writes = 64, period_ms = 4;
    uint32_t compress = 56, scan = 4;
    const char *dump = NULL;
    struct sockaddr_in self = {.sin_family = AF_INET,
                               .sin_port = htons(ASK_PORT)};
    struct guard g = {0};
    struct request req = {0};
    uint64_t next_ns, period_ns;
    int c, fd;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint32_t v = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;

        switch (c) {
        case 'h': hot_mb = v; break;
        case 't': total_mb = v; break;
        case 'w': writes = v; break;
        case 'p': period_ms = v ? v : 1; break;
        case 'c': compress = v; break;
        case 's': scan = v; break;
        case 'd': dump = optarg; break;
        default: return 2;
        }
    }
    if (total_mb == 0 || hot_mb > total_mb || compress > 90) {
        fprintf(stderr, "memguard: need 0 <= hot-mb <= total-mb, "
                        "compress <= 90\n");
        return 2;
    }
    g.total = total_mb * 256;
    g.hot = hot_mb * 256;
    g.first_slot = (BODY_WORDS * compress / 100) / 8 * 8;
    g.slots = BODY_WORDS - g.first_slot;
    if (g.hot == 0)
        writes = 0;
    g.pages = reserve((size_t)g.total * PAGE_BYTES);
    g.ledger = reserve((size_t)g.total * sizeof *g.ledger);
    g.seen = reserve(g.total);
    for (uint32_t i = 0; i < g.total; i++)
        page_fill(&g, i);
    if (dump) {
        FILE *f = fopen(dump, "wb");

        if (!f || fwrite(g.pages, PAGE_BYTES, g.total, f) != g.total ||
            fclose(f)) {
            perror(dump);
            return 1;
        }
        return 0;
    }

    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0) {
        perror("memguard: cannot listen");
        return 1;
    }
    printf("memguard: %" PRIu32 " MB, %" PRIu32 " MB hot, %" PRIu32
           " writes each %" PRIu32 " ms\n",
           total_mb, hot_mb, writes, period_ms);
    fflush(stdout);
    period_ns = period_ms * UINT64_C(1000000);
    next_ns = now_ns();
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ns();
        struct timespec wait = {0};

        if (now < next_ns && next_ns - now <= period_ns) {
            wait.tv_sec = (time_t)((next_ns - now) / 1000000000ull);
            wait.tv_nsec = (long)((next_ns - now) % 1000000000ull);
        }
        if (ppoll(&pfd, 1, &wait, NULL) > 0)
            serve(&g, fd, &req);
        now = now_ns();
        if (now < next_ns && next_ns - now <= period_ns)
            continue;
        /* After a stop the writer goes on at its pace and makes up nothing. */
        next_ns += period_ns;
        if (next_ns < now || next_ns > now + period_ns)
            next_ns = now;
        for (uint32_t i = 0; i < writes; i++)
            write_step(&g);
        scan_some(&g, scan);
        check_slice(&g, fd, &req);
    }
}
