/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What recalibration and mixture cost a tick of 163,840 regions, beside a plain
 * copy of the same opinions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calibrate.h"
#include "mixture.h"

#define REGIONS 163840u
#define SCORERS 6u
#define HORIZONS 4u
#define LABELS 2048u
#define ROUNDS 20u

static double now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static float *p[SCORERS], *out;
static volatile float sink;

static double copy(struct fc_mixture *m, struct fc_calibrate *c)
{
    (void)m;
    (void)c;
    double start = now_ms();
    for (unsigned h = 0; h < HORIZONS; h++)
        for (unsigned i = 0; i < SCORERS; i++) {
            memcpy(out, p[i], REGIONS * sizeof(*out));
            sink = out[h * SCORERS + i];
        }
    return now_ms() - start;
}

static double calibrate(struct fc_mixture *m, struct fc_calibrate *c)
{
    (void)m;
    double start = now_ms();
    for (unsigned h = 0; h < HORIZONS; h++)
        for (unsigned i = 0; i < SCORERS; i++)
            fc_calibrate_apply(c, REGIONS, p[i], out);
    return now_ms() - start;
}

static double combine(struct fc_mixture *m, struct fc_calibrate *c)
{
    (void)c;
    double start = now_ms();
    for (unsigned h = 0; h < HORIZONS; h++)
        fc_mixture_combine(m, h, REGIONS, (const float *const *)p, out);
    return now_ms() - start;
}

static double learn(struct fc_mixture *m, struct fc_calibrate *c)
{
    static uint8_t touched[LABELS];
    double start = now_ms();
    for (unsigned h = 0; h < HORIZONS; h++) {
        fc_mixture_learn(m, h, LABELS, (const float *const *)p, touched);
        for (unsigned i = 0; i < SCORERS; i++)
            fc_calibrate_learn(c, LABELS, p[i], touched);
    }
    return now_ms() - start;
}

static void report(const char *what,
                   double (*run)(struct fc_mixture *, struct fc_calibrate *),
                   struct fc_mixture *m, struct fc_calibrate *c)
{
    double best = 1e9;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double ms = run(m, c);
        best = ms < best ? ms : best;
    }
    printf("%-44s %8.3f ms\n", what, best);
}

int main(void)
{
    static const char *const names[SCORERS] = { "a", "b", "c", "d", "e", "f" };
    const struct fc_mixture_config config = {
        .scorers = SCORERS, .horizons = HORIZONS, .simple = 3, .names = names
    };
    struct fc_calibrate c;
    struct fc_mixture *m;
    fc_calibrate_init(&c);
    out = malloc(REGIONS * sizeof(*out));
    if (!out || fc_mixture_create(&config, &m))
        return 1;
    for (unsigned i = 0; i < SCORERS; i++) {
        p[i] = malloc(REGIONS * sizeof(*out));
        if (!p[i])
            return 1;
        for (unsigned j = 0; j < REGIONS; j++)
            p[i][j] = (float)(rand() % 1000) / 1000.0f;
    }
    printf("%u regions, %u scorers, %u horizons; best of %u\n", REGIONS,
           SCORERS, HORIZONS, ROUNDS);
    report("copy of all opinions", copy, m, &c);
    report("recalibration of all opinions", calibrate, m, &c);
    report("mixture", combine, m, &c);
    report("learning, 2048 labels a horizon", learn, m, &c);
    for (unsigned i = 0; i < SCORERS; i++)
        free(p[i]);
    free(out);
    fc_mixture_destroy(m);
    return 0;
}
