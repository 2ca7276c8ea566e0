/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>

#include "config.h"
#include "log.h"

/* Xen's parser loses a token at a syntax error. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libxlutil.so";
}

static void silent(void *user, enum fc_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* A configuration file, through libxlutil's parser and ours. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fc_settings host;
    fc_log_set_sink(silent, NULL);
    fc_settings_init(&host, NULL);
    (void)fc_config_parse(&host, "fuzz.conf", (const char *)data, size);
    fc_settings_dispose(&host);
    return 0;
}
