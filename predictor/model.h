/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_MODEL_H
#define FC_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "gru.h"

/* Model files: docs/formats/model.md. Any thread. */
#define FC_MODEL_MAX_BYTES (1u << 20)
#define FC_MODEL_MAX_TRACES 64u
#define FC_MODEL_TRACE_NAME 56u /* with the NUL */

struct fc_model_trace {
    uint64_t hash; /* fc_trace_summary.hash; of made-up ones their seed's */
    char name[FC_MODEL_TRACE_NAME];
};

struct fc_model {
    struct fc_gru_model *gru; /* a reference */
    uint64_t seed, updates;
    uint32_t trace_count;
    struct fc_model_trace trace[FC_MODEL_MAX_TRACES];
};

/* What was wrong and where. */
struct fc_model_problem {
    char text[128];
};

/*
 * Reads a model of `kind` from bytes that may be hostile. 0, FC_EFORMAT,
 * FC_EVERSION, FC_ECHECK, FC_ETOOBIG or FC_ENOMEM, with `problem` filled in.
 */
int fc_model_parse(const void *bytes, size_t len, uint32_t kind,
                   struct fc_model *model_r, struct fc_model_problem *problem);

/* The same of a file; FC_EIO with errno when it cannot be read. */
int fc_model_load(const char *path, uint32_t kind, struct fc_model *model_r,
                  struct fc_model_problem *problem);

/* The model of memory that is part of the program (predictor/weights): the one
 * for looks at the memory of about every `tick_ms`. */
int fc_model_shipped(uint32_t tick_ms, struct fc_model *model_r,
                     struct fc_model_problem *problem);

/* Drops the reference. May be called again. */
void fc_model_dispose(struct fc_model *model);

/* Adds a trace to the list; of `path` the last component, what is not
 * printable as '?'. 0 or FC_ELIMIT. */
int fc_model_add_trace(struct fc_model *model, const char *path, uint64_t hash);

/* The file's bytes, to be freed by the caller. 0, FC_EINVAL or FC_ENOMEM. */
int fc_model_format(const struct fc_model *model, uint8_t **bytes_r,
                    size_t *len_r);

/* Writes beside `path`, flushes to the disk and renames. 0, FC_EINVAL,
 * FC_ENOMEM or FC_EIO with errno. */
int fc_model_save(const struct fc_model *model, const char *path);

#endif
