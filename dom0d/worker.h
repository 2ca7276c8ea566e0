/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_WORKER_H
#define FC_WORKER_H

#include <stddef.h>
#include <stdint.h>

#include "guestmem.h"
#include "page.h"
#include "pagetab.h"

struct event_base;

/*
 * The thread that reads, hashes and compresses guest pages, so that the event
 * loop stays free. A job belongs to the worker from submission until `done` is
 * called on the event loop.
 */
#define FC_JOB_PAGES 128u
/* Room kept in front of a job's batch for the caller's own header. */
#define FC_JOB_HEADROOM 64u

struct fc_job_page {
    uint64_t pfn;
    struct fc_hash known;     /* in: as staged, or none */
    struct fc_hash hash;      /* out: unless absent or zero */
    enum fc_page_found found; /* out */
};

struct fc_job {
    uint64_t owner; /* the submitter's own mark */
    uint32_t domid;
    unsigned count;
    struct fc_job_page page[FC_JOB_PAGES];

    int rc; /* out: 0, FC_ENODOM, FC_ENOMEM, FC_ESYS: nothing was read */
    /* out: FC_JOB_HEADROOM bytes, then a batch of the FC_PAGE_DATA pages;
     * NULL when there is none. The receiver of the job frees both. */
    uint8_t *batch;
    size_t batch_bytes; /* without the headroom */
    unsigned data_pages;
    uint64_t took_ns; /* out */

    struct fc_job *next;
};

struct fc_worker;

/* Starts the thread. `done` is called on `base`'s loop for each job and owns
 * it from then on. 0, FC_ENOMEM or FC_ESYS. */
int fc_worker_new(struct event_base *base, const struct fc_guestmem_ops *mem,
                  void *mem_user, void (*done)(void *user, struct fc_job *job),
                  void *user, struct fc_worker **worker_r);

/* Finishes the job at hand, drops the others, ends the thread. */
void fc_worker_free(struct fc_worker *worker);

/* Event loop thread. */
void fc_worker_submit(struct fc_worker *worker, struct fc_job *job);

void fc_job_free(struct fc_job *job);

#endif
