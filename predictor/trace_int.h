/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRACE_INT_H
#define FC_TRACE_INT_H

#include "trace.h"
#include "trace_input.h"

/* What the readers of the several formats share; for predictor/trace*.c. */

#define FC_TRACE_HEADER_BYTES 64u
#define FC_TRACE_FRAME_BYTES 24u
#define FC_TRACE_MAX_RAW (4u << 20)
#define FC_TRACE_MAX_PACKED (FC_TRACE_MAX_RAW + 65536u)
#define FC_TRACE_MAX_TIME_US (1ull << 56)
#define FC_TRACE_MAX_TICK_US 3600000000u
#define FC_TRACE_MIN_TICK_US 1000u
#define FC_TRACE_MAGIC "FCTRACE\n"
#define FC_TRACE_VERSION 1u
#define FC_TRACE_BACKWARDS_US 1000000u /* clocks of processors differ */

/* A format. `next` fills in all of the record but the unused parts. */
struct fc_trace_ops {
    const char *name;
    /* Whether the first bytes (up to 128) are this format's. */
    bool (*is)(const uint8_t *start, size_t len);
    /* Reads up to the first record; sets head and own. */
    int (*open)(struct fc_trace *trace, struct fc_trace_problem *problem);
    /* 1, 0 at the end, or an error. */
    int (*next)(struct fc_trace *trace, struct fc_trace_record *record,
                struct fc_trace_problem *problem);
    void (*close)(struct fc_trace *trace); /* frees own, also half made */
};

struct fc_trace {
    const struct fc_trace_ops *ops;
    struct fc_trace_input *in;
    struct fc_trace_head head;
    bool whole;
    uint64_t time_us; /* of the record before */
    struct fc_trace_run *run;
    uint32_t runs, run_room;
    void *own;
};

extern const struct fc_trace_ops fc_trace_native, fc_trace_drec, fc_trace_csv,
    fc_trace_blktrace, fc_trace_vscsi1, fc_trace_vscsi2;

/* Fills the problem in as "at byte N: ..." and returns rc. */
int fc_trace_fail(const struct fc_trace *trace,
                  struct fc_trace_problem *problem, int rc, const char *fmt,
                  ...) __attribute__((format(printf, 4, 5)));

/* The text for a failure of the input itself; `what` was being read. */
int fc_trace_fail_input(const struct fc_trace *trace,
                        struct fc_trace_problem *problem, int rc,
                        const char *what);

/* Appends to trace->run: 0, FC_ENOMEM, FC_EFORMAT (out of range). */
int fc_trace_add_run(struct fc_trace *trace, uint64_t first, uint64_t count);

/* Sorts trace->run and joins runs that overlap or touch. */
void fc_trace_tidy_runs(struct fc_trace *trace);

/* Sets trace->time_us from a clock that may fall back a little: 0 or
 * FC_EFORMAT with the problem. */
int fc_trace_set_time(struct fc_trace *trace, uint64_t time_us,
                      struct fc_trace_problem *problem);

/* A request of bytes as the one run of sectors that covers it. Fills in
 * record and returns 1, or FC_EFORMAT with the problem. */
int fc_trace_request(struct fc_trace *trace, struct fc_trace_record *record,
                     enum fc_trace_type type, uint64_t offset_bytes,
                     uint64_t length_bytes, struct fc_trace_problem *problem);

static inline int64_t fc_trace_unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static inline uint64_t fc_trace_zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

#endif
