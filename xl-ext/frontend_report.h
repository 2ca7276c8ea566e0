/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_REPORT_H
#define FC_FRONTEND_REPORT_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What the front end tells people and scripts. No state; any thread. */

/* "999 B", "12.3 MiB"; returns `out`. */
const char *fc_front_bytes(uint64_t bytes, char *out, size_t size);
/* "120 ms", "5.2 s", "3 min 20 s". */
const char *fc_front_time(uint64_t ms, char *out, size_t size);
/* Control characters become '?'. Returns text. */
char *fc_front_scrub(char *text);

/* The progress line for a progress event, at most `width` columns, without
 * line end. */
void fc_front_progress(struct json_object *event, unsigned width, char *out,
                       size_t size);

/*
 * A forecast as a dry run finds it; NULL pointers: not known. `reason` is why
 * a predictive migration is impossible (NULL: it is possible).
 */
struct fc_front_forecast {
    const char *host, *reason;
    struct json_object *guest; /* of `status` */
    struct json_object *estimate;
    struct json_object *destination; /* of `forecopy version` there */
    const char *helper;              /* NULL: none that works */
    bool in_band;                    /* -s '': the destination is not asked */
    long max_downtime_ms;
    struct json_object *disks; /* of a dry `disk-begin`; NULL: none asked */
    bool lazy_disks;
};
void fc_front_forecast_text(const struct fc_front_forecast *f, FILE *out);
struct json_object *fc_front_forecast_json(const struct fc_front_forecast *f);

/* What became of a migration. */
struct fc_front_outcome {
    const char *domain, *uuid, *host;
    const char *mode;   /* predictive, plain */
    const char *reason; /* why plain or failed; NULL: nothing */
    bool success, interrupted, retried;
    bool finished; /* the exit status is known */
    int exit_status;
    uint64_t elapsed_ms;          /* from xl's start to its end */
    uint64_t handover_ms;         /* from the suspend to xl's end; 0: none */
    struct json_object *estimate; /* made before; may be NULL */
    struct json_object *summary;  /* of the helper; may be NULL */
    struct json_object *disks;    /* fc_front_disks_json(); may be NULL */
};
void fc_front_outcome_text(const struct fc_front_outcome *o, FILE *out);
struct json_object *fc_front_outcome_json(const struct fc_front_outcome *o);

/* What is known of the disks of a migration. */
struct fc_front_disk_facts {
    struct json_object *begun;  /* reply of `disk-begin` */
    struct json_object *status; /* the last of `disk-status`; may be NULL */
    bool lazy;
    uint64_t copy_ms;    /* from the beginning until the copy had converged */
    const char *outcome; /* moved, kept, unknown; NULL: not over */
};
struct json_object *fc_front_disks_json(const struct fc_front_disk_facts *f);
/* From that object; `host` and `domain` for what the user is to do. */
void fc_front_disks_text(struct json_object *disks, const char *domain,
                         const char *host, FILE *out);
void fc_front_disks_forecast_text(const struct fc_front_forecast *f, FILE *out);

/* Share of the disks that is over there: 0 to 100, of a `disk-status`. */
unsigned fc_front_disks_percent(struct json_object *status);
/* As fc_front_progress(), of a `disk-status`. */
void fc_front_disks_progress(struct json_object *status, unsigned width,
                             char *out, size_t size);

#endif
