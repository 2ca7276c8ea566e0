/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HINTS_H
#define FC_HINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Events that a guest announces (docs/formats/hints.md). Names and values are
 * the guest's and hostile. Plain data; one thread at a time.
 */
#define FC_HINTS_MAX 16u
#define FC_HINT_NAME 33u /* with the NUL */
#define FC_HINT_TEXT 40u

enum fc_hint_kind {
    FC_HINT_CHECKPOINT,
    FC_HINT_BACKUP,
    FC_HINT_BATCH,
    FC_HINT_OTHER,
    FC_HINT_KINDS
};

struct fc_hint {
    char name[FC_HINT_NAME];
    char text[FC_HINT_TEXT]; /* the value seen */
    enum fc_hint_kind kind;
    uint64_t begin_ms, end_ms; /* on the clock of now_ms */
    bool seen;                 /* inner: in the look under way */
};

struct fc_hints {
    struct fc_hint hint[FC_HINTS_MAX];
    unsigned count;
};

void fc_hints_init(struct fc_hints *h);

/*
 * A look at all of the guest's keys: begin, set for each of them, end; those
 * not set in between are gone. set: 0; FC_EFORMAT (name or value) or FC_ELIMIT
 * (too many), with the key ignored and what is wrong in `why`.
 */
void fc_hints_begin(struct fc_hints *h);
int fc_hints_set(struct fc_hints *h, const char *name, const char *value,
                 uint64_t now_ms, char *why, size_t why_len);
void fc_hints_end(struct fc_hints *h);

/* 0 to 1 for each kind: 0 nothing announced, 1 it goes on now. */
void fc_hints_features(const struct fc_hints *h, uint64_t now_ms,
                       float out[FC_HINT_KINDS]);

#endif
