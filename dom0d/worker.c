/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "batch.h"
#include "err.h"
#include "io.h"
#include "log.h"

/*
 * Two queues under one lock: jobs to do, jobs done. The thread sleeps on a
 * condition; the event loop is woken by an eventfd. Only the thread touches
 * the handle to guest memory and its buffers, only the loop calls `done`.
 */
struct queue {
    struct fc_job *first, **last;
};

struct fc_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct queue todo, ready; /* under lock */
    bool stop;                /* under lock */
    int event_fd;
    struct event *event;

    const struct fc_guestmem_ops *mem;
    void *mem_user;
    void (*done)(void *user, struct fc_job *job);
    void *user;

    /* the thread's own */
    void *handle;
    uint8_t *pages; /* FC_JOB_PAGES of them */
    uint8_t *out;   /* FC_BATCH_MAX_BYTES */
    struct fc_batch_item items[FC_JOB_PAGES];
};

static void queue_init(struct queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void queue_add(struct queue *q, struct fc_job *job)
{
    job->next = NULL;
    *q->last = job;
    q->last = &job->next;
}

static struct fc_job *queue_take(struct queue *q)
{
    struct fc_job *job = q->first;
    if (job && !(q->first = job->next))
        q->last = &q->first;
    return job;
}

void fc_job_free(struct fc_job *job)
{
    if (job)
        free(job->batch);
    free(job);
}

/* Sorts one page that was read; true when it has to be sent. */
static bool judge(struct fc_job_page *p, const uint8_t *page)
{
    if (fc_page_is_zero(page)) {
        p->found = FC_PAGE_ZERO;
        return false;
    }
    p->hash = fc_page_hash(page);
    bool same = !fc_hash_is_none(p->known) && fc_hash_equal(p->known, p->hash);
    p->found = same ? FC_PAGE_SAME : FC_PAGE_DATA;
    return !same;
}

static int encode(struct fc_worker *w, struct fc_job *job)
{
    ssize_t n =
        fc_batch_encode(w->items, job->data_pages, w->out, FC_BATCH_MAX_BYTES);
    if (n < 0)
        return (int)n;
    job->batch = malloc(FC_JOB_HEADROOM + (size_t)n);
    if (!job->batch)
        return FC_ENOMEM;
    memcpy(job->batch + FC_JOB_HEADROOM, w->out, (size_t)n);
    job->batch_bytes = (size_t)n;
    return 0;
}

static int run(struct fc_worker *w, struct fc_job *job)
{
    uint64_t pfns[FC_JOB_PAGES];
    uint8_t good[FC_JOB_PAGES] = { 0 };
    int rc = w->handle ? 0 : w->mem->open(w->mem_user, &w->handle);
    if (rc)
        return rc;
    for (unsigned i = 0; i < job->count; i++)
        pfns[i] = job->page[i].pfn;
    rc = w->mem->copy(w->handle, job->domid, pfns, job->count, w->pages, good);
    if (rc)
        return rc;

    for (unsigned i = 0; i < job->count; i++) {
        struct fc_job_page *p = &job->page[i];
        const uint8_t *page = w->pages + (size_t)i * FC_PAGE_SIZE;
        if (!good[i])
            p->found = FC_PAGE_ABSENT;
        else if (judge(p, page))
            w->items[job->data_pages++] = (struct fc_batch_item){
                .entry = p->pfn,
                .page = page,
                .hash = p->hash,
                .kind = FC_BATCH_DATA,
            };
    }
    return job->data_pages ? encode(w, job) : 0;
}

static void *thread_main(void *arg)
{
    struct fc_worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        struct fc_job *job = queue_take(&w->todo);
        if (!job) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        uint64_t start = fc_now_ns();
        job->rc = run(w, job);
        job->took_ns = fc_now_ns() - start;
        pthread_mutex_lock(&w->lock);
        queue_add(&w->ready, job);
        /* The counter cannot overflow: one for each job at most. */
        uint64_t one = 1;
        if (write(w->event_fd, &one, sizeof(one)) < 0)
            fc_error("cannot wake the event loop: %s", strerror(errno));
    }
    pthread_mutex_unlock(&w->lock);
    if (w->handle)
        w->mem->close(w->handle);
    return NULL;
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct fc_worker *w = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        fc_error("cannot read the worker's event: %s", strerror(errno));
    for (;;) {
        pthread_mutex_lock(&w->lock);
        struct fc_job *job = queue_take(&w->ready);
        pthread_mutex_unlock(&w->lock);
        if (!job)
            return;
        w->done(w->user, job);
    }
}

static int start_thread(struct fc_worker *w)
{
    /* Signals are the event loop's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    errno = pthread_create(&w->thread, NULL, thread_main, w);
    int rc = errno ? FC_ESYS : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void destroy(struct fc_worker *w)
{
    struct fc_job *job;
    while ((job = queue_take(&w->todo)) || (job = queue_take(&w->ready)))
        fc_job_free(job);
    if (w->event)
        event_free(w->event);
    fc_close(&w->event_fd);
    free(w->pages);
    free(w->out);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int fc_worker_new(struct event_base *base, const struct fc_guestmem_ops *mem,
                  void *mem_user, void (*done)(void *user, struct fc_job *job),
                  void *user, struct fc_worker **worker_r)
{
    struct fc_worker *w = calloc(1, sizeof(*w));
    if (!w)
        return FC_ENOMEM;
    int rc = FC_ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    queue_init(&w->todo);
    queue_init(&w->ready);
    w->mem = mem;
    w->mem_user = mem_user;
    w->done = done;
    w->user = user;
    w->pages = malloc((size_t)FC_JOB_PAGES * FC_PAGE_SIZE);
    w->out = malloc(FC_BATCH_MAX_BYTES);
    w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!w->pages || !w->out)
        goto out;
    rc = FC_ESYS;
    if (w->event_fd < 0)
        goto out;
    w->event = event_new(base, w->event_fd, EV_READ | EV_PERSIST, on_ready, w);
    if (!w->event || event_add(w->event, NULL) < 0)
        goto out;
    rc = start_thread(w);
out:
    if (rc)
        destroy(w);
    else
        *worker_r = w;
    return rc;
}

void fc_worker_free(struct fc_worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    destroy(w);
}

void fc_worker_submit(struct fc_worker *w, struct fc_job *job)
{
    pthread_mutex_lock(&w->lock);
    queue_add(&w->todo, job);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}
