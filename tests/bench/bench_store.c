/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page store on one core: pages a second put and read back, for contents
 * of three kinds, and what a pfn costs beside its page. Prints a table and
 * writes build/bench/store.json.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "err.h"
#include "store.h"
#include "wire.h"

#define PAGES 40000u
#define BUDGET (256ull << 20)
#define READ_TARGET 500000.0 /* pages/s: far above what a link brings */

static uint8_t pages[PAGES][FC_PAGE_SIZE];
static struct fc_hash hashes[PAGES];

static const char *const names[] = { "words", "programs", "noise" };

/* Line after line of words, as logs and caches of text are. */
static void fill_words(uint8_t *page, uint64_t *x)
{
    static const char words[] = "page frame guest dirty store index value "
                                "request answer 1023 4096 error /var/lib ";
    for (unsigned k = 0; k < FC_PAGE_SIZE;) {
        *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
        const char *w = words + *x % (sizeof(words) - 12);
        for (unsigned n = 5 + *x % 7; n && k < FC_PAGE_SIZE; n--)
            page[k++] = (uint8_t)*w++;
        page[k < FC_PAGE_SIZE ? k++ : k - 1] = (uint8_t)(*x >> 40);
    }
}

static int fill(unsigned kind)
{
    uint64_t x = 88172645463325252ull;
    FILE *from = NULL;
    if (kind == 1 && !(from = fopen("/proc/self/exe", "rb")))
        return FC_EIO;
    for (unsigned i = 0; i < PAGES; i++) {
        if (kind == 0)
            fill_words(pages[i], &x);
        for (unsigned k = 0; kind == 2 && k < FC_PAGE_SIZE; k += 8) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            fc_le_store(pages[i] + k, x, 8);
        }
        if (kind == 1 && fread(pages[i], FC_PAGE_SIZE, 1, from) != 1) {
            rewind(from);
            if (fread(pages[i], FC_PAGE_SIZE, 1, from) != 1)
                break;
        }
        fc_le_store(pages[i], i, 8);
        hashes[i] = fc_page_hash(pages[i]);
    }
    if (from)
        fclose(from);
    return 0;
}

/* Of this core's time: the machine may have more to do. */
static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static double rate(uint64_t start_ns)
{
    return PAGES * 1e9 / (double)(cpu_ns() - start_ns);
}

static int measure(unsigned kind, FILE *json)
{
    struct fc_store *store = NULL;
    struct fc_store_view view = { 0 };
    struct fc_store_stats st;
    uint8_t page[FC_PAGE_SIZE];
    int fd = fc_store_file_new("bench", BUDGET);
    if (fd < 0 || fc_store_open(fd, BUDGET, &store) ||
        fc_store_view_open(fd, &view) || fill(kind))
        return 1;
    uint64_t start = cpu_ns();
    for (unsigned i = 0; i < PAGES; i++)
        if (fc_store_put(store, i, hashes[i], pages[i], NULL, NULL))
            return 1;
    double put = rate(start);
    fc_store_stats_get(store, &st);
    for (unsigned i = 0; i < PAGES; i++) /* faults the view's mapping in */
        if (fc_store_view_get(&view, hashes[i], page))
            return 1;
    start = cpu_ns();
    for (unsigned i = 0; i < PAGES; i++)
        if (fc_store_view_get(&view, hashes[(i * 7919u) % PAGES], page))
            return 1;
    double get = rate(start);
    printf("%-10s %12.0f %12.0f %12.2f\n", names[kind], put, get,
           (double)st.stored_bytes / (double)PAGES / FC_PAGE_SIZE);
    fprintf(json,
            "%s{\"bench\":\"store\",\"case\":\"%s\",\"metric\":"
            "\"pages_per_second_read\",\"unit\":\"1/s\",\"ours\":%.0f,"
            "\"target\":%.0f,\"ok\":%s}",
            kind ? ",\n" : "[", names[kind], get, READ_TARGET,
            get >= READ_TARGET ? "true" : "false");
    fc_store_view_dispose(&view);
    fc_store_free(store);
    close(fd);
    return 0;
}

int main(void)
{
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    FILE *json = fopen("build/bench/store.json", "w");
    if (!json) {
        perror("build/bench/store.json");
        return 1;
    }
    printf("%-10s %12s %12s %12s\n", "contents", "puts/s", "reads/s",
           "stored/page");
    int rc = 0;
    for (unsigned kind = 0; kind < 3 && !rc; kind++)
        rc = measure(kind, json);
    fprintf(json, "]\n");
    fclose(json);
    return rc;
}
