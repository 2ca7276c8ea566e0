/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Offered windows lie in two batches: one is being filled under the lock, the
 * other belongs to the thread while it learns. When the filled one is full the
 * thread takes it as soon as its budget allows; until then offers are dropped.
 * After each update the thread makes a new model and puts it in place of the
 * old one under the lock, which is never held for longer than a window's copy.
 *
 * The budget: after work that took t of the thread's processor time it rests
 * for t * (1 / share - 1).
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "adapt.h"
#include "err.h"
#include "gru_train.h"

#define COLUMNS 16u /* windows of one update */
#define WARM 8u     /* steps without labels: the state begins at zero */
#define RATE 1e-4f  /* of Adam's: a thirtieth of the offline training's */
#define MAX_NORM 1.0f
#define DRAW_BACK 1e-3f /* of the distance to the start, each update */
#define MISS_WEIGHT                                                            \
    4.0f /* added for a label that was foretold quite wrongly                  \
          */
#define LOSS_KEEP 0.95
#define LEAST_SHARE 1e-4

struct batch {
    float *x, *label, *weight;
    uint32_t columns;
};

struct fc_adapt {
    struct fc_gru_model *start, *against;
    struct fc_gru_trainer trainer; /* the thread's */
    pthread_t thread;
    double born_s;

    pthread_mutex_t lock; /* of all below */
    float share;
    pthread_cond_t wake;
    bool stop;
    struct batch batch[2];
    unsigned filling;
    struct fc_gru_model *model;
    struct fc_adapt_stats stats;
};

static double clock_s(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the thread --------------------------------------------------------- */

/* Waits, with the lock, until the time or until it is to stop. */
static void rest(struct fc_adapt *a, double seconds)
{
    double until = clock_s(CLOCK_MONOTONIC) + seconds;
    struct timespec ts = { (time_t)until,
                           (long)((until - floor(until)) * 1e9) };
    while (!a->stop &&
           pthread_cond_timedwait(&a->wake, &a->lock, &ts) != ETIMEDOUT)
        ;
}

/* What the weights compared with lose on the batch, as the trainer counts. */
static double loss_against(const struct fc_adapt *a, const struct batch *b)
{
    float h[COLUMNS * FC_GRU_MAX_HIDDEN] = { 0 };
    float logits[COLUMNS * FC_GRU_OUTPUTS];
    size_t inputs = a->start->shape.inputs, outputs = COLUMNS * FC_GRU_OUTPUTS;
    double loss = 0, total = 0;

    for (size_t step = 0; step < FC_ADAPT_STEPS; step++) {
        const float *label = b->label + step * outputs;
        const float *weight = b->weight + step * outputs;
        fc_gru_step(a->against, COLUMNS, b->x + step * COLUMNS * inputs, h,
                    logits);
        for (size_t i = 0; i < outputs; i++) {
            double v = (double)logits[i], w = (double)weight[i];
            loss +=
                w * (fmax(v, 0) - v * (double)label[i] + log1p(exp(-fabs(v))));
            total += w;
        }
    }
    return total > 0 ? loss / total : 0;
}

/* Without the lock. The new model, or NULL: no memory, or it ran wild. */
static struct fc_gru_model *learn(struct fc_adapt *a, const struct batch *b,
                                  double *loss_r)
{
    struct fc_gru_trainer *t = &a->trainer;
    struct fc_gru_batch batch = { FC_ADAPT_STEPS, COLUMNS,   b->x, NULL,
                                  b->label,       b->weight, NULL };
    struct fc_gru_model *model;

    *loss_r = fc_gru_trainer_gradient(t, &batch);
    fc_gru_trainer_update(t, RATE, MAX_NORM);
    for (size_t i = 0; i < t->at.total; i++)
        t->params[i] += DRAW_BACK * (a->start->params[i] - t->params[i]);
    if (fc_gru_model_new(t->shape, &a->start->purpose, t->params, &model))
        return NULL;
    return model;
}

static void average(double *mean, uint64_t seen, double value)
{
    *mean = seen ? LOSS_KEEP * *mean + (1 - LOSS_KEEP) * value : value;
}

static void *run(void *arg)
{
    struct fc_adapt *a = arg;

    pthread_mutex_lock(&a->lock);
    while (!a->stop) {
        struct batch *b = &a->batch[a->filling];
        double loss, other, from = clock_s(CLOCK_THREAD_CPUTIME_ID);
        if (b->columns < COLUMNS) {
            pthread_cond_wait(&a->wake, &a->lock);
            continue;
        }
        a->filling ^= 1;
        pthread_mutex_unlock(&a->lock);
        struct fc_gru_model *model = learn(a, b, &loss);
        other = loss_against(a, b);
        pthread_mutex_lock(&a->lock);
        b->columns = 0;
        if (model) {
            fc_gru_model_unref(a->model);
            a->model = model;
            average(&a->stats.loss, a->stats.updates, loss);
            average(&a->stats.gain, a->stats.updates, other - loss);
            a->stats.updates++;
        }
        a->stats.cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID);
        double share = fmax(a->share, LEAST_SHARE);
        rest(a, (a->stats.cpu_s - from) * (1 / share - 1));
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* ---- the others --------------------------------------------------------- */

static int make(struct fc_adapt *a)
{
    size_t cells = (size_t)FC_ADAPT_STEPS * COLUMNS;
    uint32_t inputs = a->start->shape.inputs;

    for (unsigned i = 0; i < 2; i++) {
        struct batch *b = &a->batch[i];
        b->x = malloc(cells * inputs * sizeof(float));
        b->label = malloc(cells * FC_GRU_OUTPUTS * sizeof(float));
        b->weight = malloc(cells * FC_GRU_OUTPUTS * sizeof(float));
        if (!b->x || !b->label || !b->weight)
            return FC_ENOMEM;
    }
    return fc_gru_trainer_init(&a->trainer, a->start->shape, a->start->params,
                               FC_ADAPT_STEPS, COLUMNS);
}

static void dispose(struct fc_adapt *a)
{
    pthread_cond_destroy(&a->wake);
    pthread_mutex_destroy(&a->lock);
    for (unsigned i = 0; i < 2; i++) {
        free(a->batch[i].x);
        free(a->batch[i].label);
        free(a->batch[i].weight);
    }
    fc_gru_trainer_dispose(&a->trainer);
    fc_gru_model_unref(a->model);
    fc_gru_model_unref(a->against);
    fc_gru_model_unref(a->start);
    free(a);
}

int fc_adapt_new(struct fc_gru_model *start, struct fc_gru_model *against,
                 float share, struct fc_adapt **adapt_r)
{
    pthread_condattr_t attr;
    if (!(share > 0) || share > 1 ||
        against->shape.inputs != start->shape.inputs)
        return FC_EINVAL;
    struct fc_adapt *a = calloc(1, sizeof(*a));
    if (!a)
        return FC_ENOMEM;
    a->share = share;
    a->start = fc_gru_model_ref(start);
    a->against = fc_gru_model_ref(against);
    a->model = fc_gru_model_ref(start);
    a->born_s = clock_s(CLOCK_MONOTONIC);
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&a->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = make(a);
    if (rc == 0) {
        errno = pthread_create(&a->thread, NULL, run, a);
        rc = errno ? FC_ESYS : 0;
    }
    if (rc) {
        dispose(a);
        return rc;
    }
    *adapt_r = a;
    return 0;
}

void fc_adapt_free(struct fc_adapt *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    dispose(a);
}

void fc_adapt_set_share(struct fc_adapt *a, float share)
{
    pthread_mutex_lock(&a->lock);
    a->share = fminf(fmaxf(share, 0), 1);
    pthread_mutex_unlock(&a->lock);
}

static void put_window(struct batch *b, uint32_t inputs,
                       const struct fc_adapt_window *w)
{
    uint32_t column = b->columns++;
    for (uint32_t step = 0; step < FC_ADAPT_STEPS; step++) {
        size_t cell = (size_t)step * COLUMNS + column;
        memcpy(b->x + cell * inputs, w->x + (size_t)step * inputs,
               inputs * sizeof(float));
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++) {
            signed char touched = w->touched[step][z];
            float label = touched > 0 ? 1.0f : 0.0f;
            float miss = fminf(fabsf(w->said[step][z] - label), 1.0f);
            b->label[cell * FC_GRU_OUTPUTS + z] = label;
            b->weight[cell * FC_GRU_OUTPUTS + z] =
                touched < 0 || step < WARM ? 0.0f : 1.0f + MISS_WEIGHT * miss;
        }
    }
}

bool fc_adapt_offer(struct fc_adapt *a, const struct fc_adapt_window *w)
{
    pthread_mutex_lock(&a->lock);
    struct batch *b = &a->batch[a->filling];
    bool room = b->columns < COLUMNS && a->share > 0;
    if (room)
        put_window(b, a->start->shape.inputs, w);
    a->stats.offered++;
    a->stats.dropped += !room;
    if (room && b->columns == COLUMNS)
        pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
    return room;
}

struct fc_gru_model *fc_adapt_model(struct fc_adapt *a)
{
    pthread_mutex_lock(&a->lock);
    struct fc_gru_model *model = fc_gru_model_ref(a->model);
    pthread_mutex_unlock(&a->lock);
    return model;
}

struct fc_adapt_stats fc_adapt_stats(struct fc_adapt *a)
{
    pthread_mutex_lock(&a->lock);
    struct fc_adapt_stats stats = a->stats;
    pthread_mutex_unlock(&a->lock);
    stats.wall_s = clock_s(CLOCK_MONOTONIC) - a->born_s;
    return stats;
}

size_t fc_adapt_bytes(const struct fc_adapt *a)
{
    size_t cells = (size_t)FC_ADAPT_STEPS * COLUMNS;
    size_t batch =
        cells * (a->start->shape.inputs + 2 * FC_GRU_OUTPUTS) * sizeof(float);
    return sizeof(*a) + 2 * batch + fc_gru_trainer_bytes(&a->trainer);
}
