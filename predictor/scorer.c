/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scorer.h"

#include <string.h>

#include "err.h"
#include "scorer_engine.h"

static const struct fc_scorer_ops *const scorers[] = {
    &fc_scorer_mixture,
    &fc_scorer_ewma,
    &fc_scorer_frequency,
};

const struct fc_scorer_ops *fc_scorer_find(const char *name)
{
    for (unsigned i = 0; i < sizeof(scorers) / sizeof(scorers[0]); i++)
        if (!strcmp(scorers[i]->name, name))
            return scorers[i];
    return NULL;
}

int fc_scorer_init(struct fc_scorer *scorer, const char *name, uint64_t pages)
{
    memset(scorer, 0, sizeof(*scorer));
    const struct fc_scorer_ops *ops = fc_scorer_find(name);
    if (!ops)
        return FC_EINVAL;
    int rc = ops->create(pages, &scorer->state);
    if (!rc)
        scorer->ops = ops;
    return rc;
}

void fc_scorer_dispose(struct fc_scorer *scorer)
{
    if (scorer->ops)
        scorer->ops->destroy(scorer->state);
    memset(scorer, 0, sizeof(*scorer));
}
