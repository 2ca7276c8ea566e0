/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was learned of a guest, as another host sends it: an engine that takes
 * it over goes on, and says nothing that is no chance. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_learned.h"
#include "learned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct fc_learned *l)
{
    struct fc_engine_config config = { .kind = FC_ENGINE_MEMORY,
                                       .pages = 1024,
                                       .tick_ms = l->tick_ms };
    struct fc_engine *e;
    memcpy(config.horizon_ms, l->horizon_ms, sizeof(config.horizon_ms));
    if (fc_engine_create(&config, &e))
        return;
    if (!fc_learned_apply(l, e))
        for (unsigned t = 0; t < 4; t++) {
            (void)fc_engine_write(e, 16 * t, 20);
            (void)fc_engine_tick(e, l->tick_ms, NULL);
            for (unsigned z = 0; z < FC_HORIZONS; z++) {
                float p = fc_engine_p(e, 16 * t, z);
                if (!(p >= 0 && p <= 1))
                    abort();
            }
        }
    fc_engine_destroy(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fc_learned l;
    struct fc_model_problem problem;
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    learned_mend(copy, size);
    if (fc_learned_parse(copy, size, &l, &problem) == 0) {
        use(&l);
        fc_learned_dispose(&l);
    }
    free(copy);
    return 0;
}
