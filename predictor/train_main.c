/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * forecopy-train: makes a GRU's weights of memory traces and made-up guests.
 * The same options, traces and build give the same file, bit for bit.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset.h"
#include "engine.h"
#include "err.h"
#include "io.h"
#include "lr.h"
#include "model.h"
#include "synth.h"

#define EXIT_USAGE 2
#define STEPS 40u   /* of a window */
#define WARM 8u     /* of them without labels, when it began before */
#define COLUMNS 64u /* windows in a batch */
#define CAP 250000u /* rows of one trace */
#define RATE 1e-3f  /* falls to a fiftieth in a straight line */
/* Of a window's features, the share that is not shown: guests that are seen in
 * training are otherwise told apart by what is chance in them. */
#define HIDDEN_SHARE 0.15
#define MAX_NORM 1.0f
#define SYNTH_SECONDS 480u
#define MAX_UPDATES 1000000ul

enum {
    OPT_HIDDEN = 256,
    OPT_OUTPUT,
    OPT_SEED,
    OPT_STEP,
    OPT_TICK,
    OPT_SYNTH,
    OPT_UPDATES,
    OPT_VERSION,
    OPT_DUMP, /* for the test of the manual */
};

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "hidden", required_argument, NULL, OPT_HIDDEN },
    { "output", required_argument, NULL, OPT_OUTPUT },
    { "seed", required_argument, NULL, OPT_SEED },
    { "step", required_argument, NULL, OPT_STEP },
    { "tick", required_argument, NULL, OPT_TICK },
    { "synth", required_argument, NULL, OPT_SYNTH },
    { "updates", required_argument, NULL, OPT_UPDATES },
    { "version", no_argument, NULL, OPT_VERSION },
    { "dump-options", no_argument, NULL, OPT_DUMP },
    { NULL, 0, NULL, 0 },
};

struct options {
    unsigned long seed, synth, updates, hidden, step, tick;
    const char *output;
};

struct run {
    struct options options;
    struct fc_model model;
    struct fc_gru_purpose purpose;
    struct fc_dataset set[FC_MODEL_MAX_TRACES];
    unsigned sets;
    uint64_t random;
    float *x, *now, *label, *weight;
};

static void usage(FILE *to)
{
    fprintf(to, "usage: forecopy-train --output FILE [OPTION...] [TRACE...]\n"
                "  --hidden N   units of state: 16, 32, 48 or 64 (32)\n"
                "  --seed N     of everything random (1)\n"
                "  --step MS    between two steps of a region (1000)\n"
                "  --tick MS    between two looks at the memory (50)\n"
                "  --synth N    made-up guests besides the traces (48)\n"
                "  --updates N  of the weights (3000)\n"
                "  -h, --help   show this\n"
                "  --version    show the version\n");
}

static void dump_options(void)
{
    for (const struct option *o = long_options; o->name; o++) {
        if (o->val == OPT_DUMP)
            continue;
        if (o->val < 128)
            printf("-%c\n", o->val);
        printf("--%s\n", o->name);
    }
}

static uint64_t draw(struct run *run) /* splitmix64 */
{
    uint64_t z = run->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int add_trace(struct run *run, const char *path, const char *name)
{
    struct fc_trace_problem problem = { "" };
    struct fc_replay_info info;
    struct fc_dataset *d = &run->set[run->sets];

    if (run->sets == FC_MODEL_MAX_TRACES) {
        fprintf(stderr, "forecopy-train: more than %u traces\n",
                FC_MODEL_MAX_TRACES);
        return FC_ELIMIT;
    }
    const struct fc_replay_options replay = { .tick_ms =
                                                  (uint32_t)run->options.tick };
    int rc = fc_dataset_load(d, path, (uint32_t)run->options.step, &replay, CAP,
                             &info, &problem);
    if (rc == FC_EINVAL) {
        printf("%-24s is passed over: %s\n", name, problem.text);
        fc_dataset_dispose(d);
        return 0;
    }
    if (rc) {
        fprintf(stderr, "forecopy-train: %s: %s\n", name,
                problem.text[0] ? problem.text : fc_strerror(rc));
        fc_dataset_dispose(d);
        return rc;
    }
    if (info.kind != FC_TRACE_MEMORY || d->rows == 0) {
        printf("%-24s has nothing of memory to teach\n", name);
        fc_dataset_dispose(d);
        return 0;
    }
    printf("%-24s %8u rows of %6u regions\n", name, d->rows, d->regions);
    fflush(stdout);
    memcpy(run->purpose.horizon_ms, info.horizon_ms, sizeof(info.horizon_ms));
    run->sets++;
    return fc_model_add_trace(&run->model, name, info.hash);
}

static int add_synth(struct run *run, uint64_t seed)
{
    char path[64], name[64];
    FILE *file = tmpfile();

    if (!file)
        return FC_ESYS;
    int fd = fileno(file);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    snprintf(name, sizeof(name), "made-up-%" PRIu64, seed);
    int rc = fc_synth_write(fd, seed, SYNTH_SECONDS);
    if (rc == 0)
        rc = add_trace(run, path, name);
    fclose(file);
    return rc;
}

static void hide_features(struct run *run, uint32_t column)
{
    for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++) {
        if ((double)(draw(run) >> 40) * 0x1p-24 >= HIDDEN_SHARE)
            continue;
        for (uint32_t step = 0; step < STEPS; step++) {
            size_t at = ((size_t)step * COLUMNS + column) * FC_FEATURE_STRIDE;
            run->x[at + k] = run->now[at + k] = 0;
        }
    }
}

static void fill_batch(struct run *run)
{
    for (uint32_t column = 0; column < COLUMNS; column++) {
        const struct fc_dataset *d = &run->set[draw(run) % run->sets];
        uint64_t pick[2] = { draw(run), draw(run) };
        fc_dataset_window(d, pick, STEPS, WARM, column, COLUMNS, run->x,
                          run->now, run->label, run->weight);
        hide_features(run, column);
    }
}

static void learn(struct run *run, struct fc_gru_trainer *t)
{
    struct fc_gru_batch batch = { STEPS,      COLUMNS,     run->x, run->now,
                                  run->label, run->weight, NULL };
    unsigned long updates = run->options.updates;
    double loss = 0;

    for (unsigned long i = 0; i < updates; i++) {
        float left = (float)(updates - i) / (float)updates;
        fill_batch(run);
        loss += fc_gru_trainer_gradient(t, &batch);
        fc_gru_trainer_update(t, RATE * (0.02f + 0.98f * left), MAX_NORM);
        if ((i + 1) % 1000 == 0) {
            printf("%8lu updates: loss %.4f\n", i + 1, loss / 1000);
            fflush(stdout);
            loss = 0;
        }
    }
}

/* The read-out of the inputs begins where the regression does: with what a
 * region's own gaps say. From zero it would take most of the training to get
 * there. */
static void begin_readout(struct fc_gru_shape shape, float *params)
{
    float *s = params + fc_gru_offsets(shape).ws;
    struct fc_lr lr;
    fc_lr_init(&lr);
    for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
            s[k * FC_GRU_OUTPUTS + z] = lr.w[k][z];
}

static int train(struct run *run)
{
    struct fc_gru_shape shape = { FC_FEATURE_STRIDE,
                                  (uint32_t)run->options.hidden };
    struct fc_gru_trainer t = { 0 };
    size_t cells = (size_t)STEPS * COLUMNS;
    float *params = calloc(fc_gru_offsets(shape).total, sizeof(*params));
    int rc = FC_ENOMEM;

    run->x = malloc(cells * shape.inputs * sizeof(*run->x));
    run->now = malloc(cells * shape.inputs * sizeof(*run->now));
    run->label = malloc(cells * FC_GRU_OUTPUTS * sizeof(*run->label));
    run->weight = malloc(cells * FC_GRU_OUTPUTS * sizeof(*run->weight));
    if (!params || !run->x || !run->now || !run->label || !run->weight)
        goto out;
    fc_gru_random_params(shape, run->options.seed, params);
    begin_readout(shape, params);
    rc = fc_gru_trainer_init(&t, shape, params, STEPS, COLUMNS);
    if (rc)
        goto out;
    learn(run, &t);
    run->model.seed = run->options.seed;
    run->model.updates = run->options.updates;
    run->purpose.kind = FC_ENGINE_MEMORY;
    run->purpose.step_ms = (uint32_t)run->options.step;
    run->purpose.features_hash = fc_feature_hash();
    rc = fc_gru_model_new(shape, &run->purpose, t.params, &run->model.gru);
out:
    fc_gru_trainer_dispose(&t);
    free(params);
    free(run->x);
    free(run->now);
    free(run->label);
    free(run->weight);
    return rc;
}

/* Where the number of an option goes; NULL: it has none. */
static unsigned long *number_of(struct options *o, int option)
{
    switch (option) {
    case OPT_HIDDEN:
        return &o->hidden;
    case OPT_SEED:
        return &o->seed;
    case OPT_STEP:
        return &o->step;
    case OPT_TICK:
        return &o->tick;
    case OPT_SYNTH:
        return &o->synth;
    case OPT_UPDATES:
        return &o->updates;
    default:
        return NULL;
    }
}

static bool parse(int argc, char **argv, struct options *o)
{
    int c;

    while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        unsigned long *number = number_of(o, c);
        char *end = NULL;
        if (c == 'h')
            usage(stdout);
        else if (c == OPT_VERSION)
            puts("forecopy-train " FC_VERSION);
        else if (c == OPT_DUMP)
            dump_options();
        if (c == 'h' || c == OPT_VERSION || c == OPT_DUMP)
            exit(0);
        if (c == OPT_OUTPUT) {
            o->output = optarg;
            continue;
        }
        errno = 0;
        if (!number || *optarg < '0' || *optarg > '9' ||
            (*number = strtoul(optarg, &end, 10), *end) || errno)
            return false;
    }
    return o->output && o->synth <= FC_MODEL_MAX_TRACES &&
           o->updates <= MAX_UPDATES && o->step >= 50 && o->step <= 3600000 &&
           o->tick >= 50 && o->tick <= 3600000 &&
           o->hidden <= FC_GRU_MAX_HIDDEN &&
           fc_gru_shape_ok((struct fc_gru_shape){ 1, (uint32_t)o->hidden });
}

int main(int argc, char **argv)
{
    static struct run run = { .options = { .seed = 1,
                                           .synth = 48,
                                           .updates = 3000,
                                           .step = 1000,
                                           .tick = 50,
                                           .hidden = 32 } };
    int rc = 0;

    if (!parse(argc, argv, &run.options)) {
        usage(stderr);
        return EXIT_USAGE;
    }
    run.random = run.options.seed;
    for (; optind < argc && rc == 0; optind++)
        rc = add_trace(&run, argv[optind], argv[optind]);
    for (unsigned long i = 0; i < run.options.synth && rc == 0; i++)
        rc = add_synth(&run, run.options.seed * 1000 + i);
    if (rc == 0 && run.sets == 0) {
        fprintf(stderr, "forecopy-train: nothing to learn from\n");
        rc = FC_EINVAL;
    }
    if (rc == 0)
        rc = train(&run);
    if (rc == 0)
        rc = fc_model_save(&run.model, run.options.output);
    if (rc)
        fprintf(stderr, "forecopy-train: %s: %s\n", run.options.output,
                rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
    for (unsigned i = 0; i < run.sets; i++)
        fc_dataset_dispose(&run.set[i]);
    fc_model_dispose(&run.model);
    return rc ? 1 : 0;
}
