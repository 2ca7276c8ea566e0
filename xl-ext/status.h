/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STATUS_H
#define FC_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Events from the helper to the front end, docs/formats/session.md. Any
 * thread. Nothing here can fail a migration: a front end that does not listen
 * loses progress events at once and the others after a short wait.
 */
enum fc_phase {
    FC_PHASE_CONNECT,
    FC_PHASE_PRECOPY,
    FC_PHASE_STOP,
    FC_PHASE_DONE,
    FC_PHASE_FAILED,
};

enum fc_fault {
    FC_FAULT_OURS,   /* of the helper itself */
    FC_FAULT_PEER,   /* the receiver gave up or fell silent */
    FC_FAULT_STREAM, /* the descriptor broke */
    FC_FAULT_GUEST,  /* libxc could not save the guest */
    FC_FAULT_USER,   /* asked to end, or the deadline */
};

struct fc_progress {
    enum fc_phase phase;
    uint64_t round, pages_left, pages_total, bytes_sent;
    uint64_t rate_bps; /* bytes per second over the last second or so */
    uint64_t dirty_pages, dirty_rate_pps;
    bool have_eta, have_downtime;
    uint64_t eta_ms, downtime_estimate_ms;
};

struct fc_summary {
    bool success;
    const char *mode;   /* "predictive" or "plain" */
    const char *reason; /* why the rounds ended */
    uint64_t rounds, total_ms, precopy_ms, sync_ms;
    uint64_t downtime_ms; /* suspend to the end being acknowledged */
    uint64_t downtime_estimate_ms, dirty_at_stop, dirty_rate_pps;
    uint64_t bytes_sent, bytes_plain, encoded_bytes, link_bps, memory_bytes;
    uint64_t suspend_ms;  /* that libxl took to suspend the guest */
    uint64_t final_bytes; /* encoded after that was asked for */
    uint64_t first_round_ms, first_round_pages, first_round_bytes;
    uint64_t later_rounds_ms, later_rounds_pages, later_rounds_bytes;
    uint64_t data_pages, zero_pages, reference_pages, skipped_pages;
    uint64_t pulled_pages;
};

/* fd -1: all of these do nothing. */
void fc_status_progress(int fd, const struct fc_progress *p);
void fc_status_mode(int fd, bool predictive, const char *reason);
void fc_status_suspended(int fd);
void fc_status_failed(int fd, enum fc_fault fault, const char *reason);
void fc_status_summary(int fd, const struct fc_summary *s);

/* One command is waiting on fd: true when it is `abort`. Sets *closed_r when
 * the front end is gone. Does not block. */
bool fc_status_abort_wanted(int fd, bool *closed_r);

#endif
