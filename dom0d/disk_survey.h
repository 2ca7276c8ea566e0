/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_SURVEY_H
#define FC_DISK_SURVEY_H

#include "disk_engine.h"
#include "diskmeta.h"

/*
 * Keeps the metadata's ranges of one copy up to date: asks the engine every
 * FC_SURVEY_MS, while something changes (at once with a new epoch), and adds
 * what the predictor knows. Event loop thread only.
 */
#define FC_SURVEY_MS 10000u

struct fc_disk_survey {
    /* set by the owner before each call */
    const struct fc_disk_env *env;
    struct fc_diskmeta *meta; /* NULL: nothing is kept */
    struct fc_disk_id id;
    char host[FC_DISKMETA_HOST]; /* that has the copy; "-": this one */
    uint64_t size, epoch;
    uint32_t block_bytes;

    uint64_t asked_ms, asked_epoch, mark;
    bool asked, complete;
};

/*
 * To be called each second while the engine is up. `mark`: changes with what
 * the engine counts; while it stays nothing is asked. The survey must stay
 * where it is as long as the engine.
 */
void fc_disk_survey_tick(struct fc_disk_survey *v, struct fc_disk_engine *e,
                         uint64_t mark, uint64_t now_ms);

/* All of the copy is there. */
void fc_disk_survey_complete(struct fc_disk_survey *v);

/* The engine has died: what was asked of it will not come. */
void fc_disk_survey_down(struct fc_disk_survey *v);

#endif
