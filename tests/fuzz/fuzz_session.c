/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The environment variable: what parses can be written and parses again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_session a, b;
    char text[2048], why[64], again[FC_SESSION_TEXT];
    if (size >= sizeof(text))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (fc_session_parse(text, &a, why, sizeof(why)) < 0) {
        if (!*why)
            abort();
        return 0;
    }
    if (fc_session_format(&a, again) < 0 ||
        fc_session_parse(again, &b, why, sizeof(why)) < 0 ||
        a.back_fd != b.back_fd || a.window_bytes != b.window_bytes ||
        a.epoch != b.epoch)
        abort();
    return 0;
}
