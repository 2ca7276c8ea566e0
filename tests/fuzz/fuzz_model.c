/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Model files: one that parses can be run, written and read again. The
 * checksum is made to match, or nothing would get past it. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "model.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct fc_model *m)
{
    struct fc_model_problem problem;
    struct fc_model again;
    float x[FC_GRU_MAX_INPUTS], h[FC_GRU_MAX_HIDDEN] = { 0 };
    float logits[FC_GRU_OUTPUTS];
    uint8_t *bytes;
    size_t len;

    for (unsigned i = 0; i < FC_GRU_MAX_INPUTS; i++)
        x[i] = i % 2 ? 1.0f : -1.0f;
    fc_gru_step(m->gru, 1, x, h, logits);
    for (unsigned i = 0; i < FC_GRU_OUTPUTS; i++)
        if (!isfinite(logits[i]))
            abort();
    if (fc_model_format(m, &bytes, &len))
        return;
    if (fc_model_parse(bytes, len, m->gru->purpose.kind, &again, &problem))
        abort();
    fc_model_dispose(&again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_model_problem problem;
    struct fc_model m;
    uint8_t *copy = malloc(size + 1);

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (size >= 16)
        fc_le_store(copy + 12, size, 4);
    if (size >= 24)
        fc_le_store(copy + size - 8, XXH3_64bits(copy, size - 8), 8);
    if (fc_model_parse(copy, size, 0, &m, &problem) == 0) {
        use(&m);
        fc_model_dispose(&m);
    }
    free(copy);
    return 0;
}
