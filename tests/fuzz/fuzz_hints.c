/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hints of a guest: lines "name=value"; whatever they say, the features stay
 * within 0 to 1 and the number of events is bounded. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hints.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_hints h;
    float f[FC_HINT_KINDS];
    char text[1024], why[80], *rest = text, *line;
    uint64_t now_ms = 0;
    if (size >= sizeof(text))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    fc_hints_init(&h);
    fc_hints_begin(&h);
    while ((line = strsep(&rest, "\n"))) {
        char *value = strchr(line, '=');
        now_ms += 5000;
        why[0] = '\0';
        if (!value) {
            fc_hints_end(&h);
            fc_hints_begin(&h);
            continue;
        }
        *value++ = '\0';
        if (fc_hints_set(&h, line, value, now_ms, why, sizeof(why)) && !*why)
            abort();
        fc_hints_features(&h, now_ms, f);
        for (unsigned k = 0; k < FC_HINT_KINDS; k++)
            if (!(f[k] >= 0 && f[k] <= 1))
                abort();
        if (h.count > FC_HINTS_MAX)
            abort();
    }
    return 0;
}
