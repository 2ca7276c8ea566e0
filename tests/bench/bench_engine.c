/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a tick of the engine costs on one core, without a GRU, and then making
 * the ranked lists: 163,840 active regions that are all written in each tick
 * (10 GiB, the worst case), the same with an eighth of them written, and a
 * guest of 1 TiB of which 2 % is active. Prints a table and writes
 * build/bench/engine.json.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "engine.h"
#include "err.h"
#include "lists.h"

#define REGION 16u /* pages */
#define TICKS 40u
#define LIST_ROOM 8192u /* as the daemon's */

struct load {
    const char *name;
    uint64_t pages;
    uint32_t regions; /* active */
    uint32_t every;   /* region's mean ticks from write to write */
    uint32_t warm;    /* ticks before measuring: some times that */
    double tick_target_ms, bytes_target; /* bytes: a page, or in all */
    bool bytes_in_all;
};

static const struct load loads[] = {
    { "tick-163840", 2621440, 163840, 1, 16, 50, 24, false },
    { "tick-163840-eighth", 2621440, 163840, 8, 40, 50, 24, false },
    { "1tib-2percent", 1ull << 28, 335544, 64, 320, 20, 1ull << 30, true },
};

static double cpu_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static uint64_t seed = 88172645463325252ull;

static uint64_t random_number(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Runs of 64 regions (4 MiB) with gaps between, as heaps and caches lie. */
static uint64_t page_of(const struct load *l, uint64_t region)
{
    uint64_t stretch = l->pages / REGION / l->regions * 64;
    return (region / 64 * stretch + region % 64) * REGION;
}

static int write_some(struct fc_engine *e, const struct load *l)
{
    int rc = 0;
    for (uint64_t r = 0; r < l->regions && !rc; r++)
        if (l->every == 1 || random_number() % l->every == 0)
            rc = fc_engine_write(e, page_of(l, r) + random_number() % 8, 4);
    return rc;
}

static int write_all(struct fc_engine *e, const struct load *l)
{
    int rc = 0;
    for (uint64_t r = 0; r < l->regions && !rc; r++)
        rc = fc_engine_write(e, page_of(l, r), REGION);
    return rc;
}

static void report(FILE *json, const struct load *l, const char *metric,
                   const char *unit, double ours, double target)
{
    static bool more;
    printf("%-20s %-16s %12.2f %-6s target %12.0f  %s\n", l->name, metric, ours,
           unit, target, ours <= target ? "ok" : "missed");
    fprintf(json,
            "%s{\"bench\":\"engine\",\"case\":\"%s\",\"metric\":\"%s\","
            "\"unit\":\"%s\",\"ours\":%.3f,\"target\":%.0f,\"ok\":%s}",
            more ? ",\n" : "[", l->name, metric, unit, ours, target,
            ours <= target ? "true" : "false");
    more = true;
}

static int make_lists(const struct fc_engine_config *engine,
                      struct fc_lists **lists_r)
{
    struct fc_lists_config config = { .kind = engine->kind,
                                      .tick_ms = engine->tick_ms,
                                      .room = LIST_ROOM,
                                      .risk = 0.05f,
                                      .calm = 2,
                                      .busy = 1 };
    memcpy(config.horizon_ms, engine->horizon_ms, sizeof(config.horizon_ms));
    return fc_lists_create(&config, lists_r);
}

static int measure(const struct load *l, FILE *json)
{
    struct fc_engine_config config = { .kind = FC_ENGINE_MEMORY,
                                       .pages = l->pages,
                                       .tick_ms = 50,
                                       .horizon_ms = { 50, 1000, 10000,
                                                       30000 } };
    struct fc_engine *e;
    struct fc_engine_stats st;
    double feeding = 0, ticking = 0, listing = 0, worst = 0;
    struct fc_lists *lists = NULL;
    int rc = fc_engine_create(&config, &e);
    if (!rc)
        rc = make_lists(&config, &lists);
    for (unsigned t = 0; t < l->warm + TICKS && !rc; t++) {
        double start = cpu_ms();
        rc = t ? write_some(e, l) : write_all(e, l);
        double fed = cpu_ms();
        if (!rc)
            rc = fc_engine_tick(e, 50, NULL);
        double ticked = cpu_ms();
        if (!rc)
            fc_lists_tick(lists, e, 50, 1000 + 50ull * t);
        double end = cpu_ms();
        if (t < l->warm)
            continue;
        feeding += (fed - start) / TICKS;
        ticking += (ticked - fed) / TICKS;
        listing += (end - ticked) / TICKS;
        worst = ticked - start > worst ? ticked - start : worst;
    }
    if (rc)
        return rc;
    fc_engine_stats(e, &st);
    report(json, l, "feed_ms", "ms", feeding, l->tick_target_ms);
    report(json, l, "lists_ms", "ms", listing, l->tick_target_ms);
    report(json, l, "tick_ms", "ms", feeding + ticking, l->tick_target_ms);
    report(json, l, "tick_and_lists_ms", "ms", feeding + ticking + listing,
           l->tick_target_ms);
    report(json, l, "worst_tick_ms", "ms", worst, l->tick_target_ms);
    if (l->bytes_in_all)
        report(json, l, "memory_bytes", "B", (double)st.bytes, l->bytes_target);
    else
        report(json, l, "bytes_per_page", "B",
               (double)st.bytes / ((double)st.active * REGION),
               l->bytes_target);
    fc_lists_destroy(lists);
    fc_engine_destroy(e);
    return 0;
}

int main(void)
{
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    FILE *json = fopen("build/bench/engine.json", "w");
    if (!json) {
        perror("build/bench/engine.json");
        return 1;
    }
    int rc = 0;
    for (unsigned i = 0; i < sizeof(loads) / sizeof(*loads) && !rc; i++)
        rc = measure(&loads[i], json);
    fprintf(json, "]\n");
    fclose(json);
    if (rc)
        fprintf(stderr, "bench_engine: %s\n", fc_strerror(rc));
    return rc != 0;
}
