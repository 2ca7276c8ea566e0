/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRACE_H
#define FC_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Traces of a guest's dirty pages or of a disk's requests
 * (docs/formats/trace.md), read and written as a stream: a few MiB of memory
 * whatever the length. A reader or a writer belongs to one thread at a time.
 */
#define FC_TRACE_MAX_UNITS (1ull << 40)
#define FC_TRACE_MAX_RUNS 65536u /* of one record */

enum fc_trace_kind { FC_TRACE_MEMORY = 1, FC_TRACE_BLOCK = 2 };

struct fc_trace_head {
    enum fc_trace_kind kind;
    unsigned unit_shift; /* log2 of a unit's bytes: 12 memory, 9 block */
    uint32_t tick_us;    /* memory: the intended interval; block: 0 */
    uint64_t units;      /* of the guest or the disk; 0: not known */
    uint64_t start_s;    /* wall clock of the beginning; 0: not known */
};

struct fc_trace_run {
    uint64_t first, count; /* units */
};

struct fc_trace_rates {
    uint32_t cpu_permille;                   /* 1000: one vcpu wholly busy */
    uint64_t net_rx, net_tx, vbd_rd, vbd_wr; /* bytes a second */
};

enum fc_trace_type {
    FC_TRACE_TICK = 1,    /* runs: dirtied since the tick before */
    FC_TRACE_MORE = 2,    /* further runs of the tick just given */
    FC_TRACE_PRESENT = 3, /* runs: pages in use */
    FC_TRACE_RATES = 4,   /* guest-wide, for the ticks that follow */
    FC_TRACE_READ = 5,    /* one run */
    FC_TRACE_WRITE = 6,   /* one run */
    FC_TRACE_DISCARD = 7, /* one run */
};

struct fc_trace_record {
    enum fc_trace_type type;
    uint64_t time_us; /* since the beginning, never falls */
    uint32_t run_count;
    const struct fc_trace_run *run; /* ascending, apart from each other; the
                                     * reader's until the next call */
    struct fc_trace_rates rates;
};

/* What was wrong and where, for a message: "FILE: " is the caller's. */
struct fc_trace_problem {
    char text[160];
};

struct fc_trace;

/*
 * Opens a trace of our format or of one that can be imported, known by its
 * first bytes, plain or compressed by zstd: DREC1, CSV
 * (time_us,op,offset_bytes,length_bytes), blktrace's binary, vscsi 1 and 2.
 * 0; FC_EIO (errno), FC_EFORMAT, FC_EVERSION, FC_ECHECK, FC_ETOOBIG or
 * FC_ENOMEM, with `problem` filled in.
 */
int fc_trace_open(const char *path, struct fc_trace **trace_r,
                  struct fc_trace_problem *problem);

/* The same from an open descriptor, which the trace takes over (also when it
 * fails). */
int fc_trace_open_fd(int fd, struct fc_trace **trace_r,
                     struct fc_trace_problem *problem);
void fc_trace_close(struct fc_trace *trace); /* NULL is fine */

const struct fc_trace_head *fc_trace_head(const struct fc_trace *trace);

/* The format's name: "forecopy", "drec1", "csv", "blktrace", "vscsi1", ... */
const char *fc_trace_format(const struct fc_trace *trace);

/* 1 with a record, 0 at the end, or an error as fc_trace_open's. */
int fc_trace_next(struct fc_trace *trace, struct fc_trace_record *record,
                  struct fc_trace_problem *problem);

/* After the end: whether the trace says that it is whole. One that a crash of
 * the recorder cut off is good up to there, and is not. */
bool fc_trace_whole(const struct fc_trace *trace);

/* What a reading from end to end finds. */
struct fc_trace_summary {
    struct fc_trace_head head; /* units: from the header, or the highest
                                * that occurs and one */
    uint64_t ticks;            /* memory */
    uint64_t requests;         /* block */
    uint64_t touched;          /* units in all runs of ticks or requests */
    uint64_t last_us;
    uint64_t hash; /* XXH3-64 of what the records say, whatever the format */
    bool whole;
};

int fc_trace_scan(const char *path, struct fc_trace_summary *summary_r,
                  struct fc_trace_problem *problem);

struct fc_trace_writer;

/*
 * Writes a trace to `fd`, which stays the caller's. Records go out in frames;
 * what a crash leaves can be read up to the last one. 0, FC_EINVAL, FC_ENOMEM
 * or FC_EIO.
 */
int fc_trace_writer_new(int fd, const struct fc_trace_head *head,
                        struct fc_trace_writer **writer_r);

/*
 * Appends a record; time_us must not fall, runs must ascend without touching
 * and lie inside head.units (if known). Runs past FC_TRACE_MAX_RUNS become
 * further records. 0, FC_EINVAL, FC_EIO.
 */
int fc_trace_put(struct fc_trace_writer *writer,
                 const struct fc_trace_record *record);

/* Sends what is buffered on its way to `fd`. 0 or FC_EIO. */
int fc_trace_flush(struct fc_trace_writer *writer);

/* Flushes and sets the mark of the end. Then, or instead, free it. */
int fc_trace_finish(struct fc_trace_writer *writer);
void fc_trace_writer_free(struct fc_trace_writer *writer);

#endif
