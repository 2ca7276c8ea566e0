/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

/* "KEY\nVALUE" as xenstore or a client gives it; the value then fills in the
 * command of a channel. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fc_settings host, guest;
    char why[FC_SETTING_WHY], command[256];
    if (size > 4096)
        return 0;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    char *value = strchr(text, '\n');
    if (value)
        *value++ = '\0';
    fc_settings_init(&host, NULL);
    fc_settings_init(&guest, &host);
    if (value &&
        !fc_settings_set(&guest, FC_SOURCE_XENSTORE, text, value, why)) {
        struct json_object *o = fc_settings_json(&guest, text);
        if (!o)
            abort(); /* a key that can be set can be shown */
        json_object_put(o);
    }
    if (value &&
        !fc_settings_command(value, text, "u", command, sizeof(command)) &&
        strlen(command) >= sizeof(command))
        abort();
    (void)fc_settings_u64(&guest, FC_SET_WINDOW);
    fc_settings_dispose(&guest);
    fc_settings_dispose(&host);
    free(text);
    return 0;
}
