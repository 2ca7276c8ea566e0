/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "logger_xen.h"

#include <stdio.h>

#define TEXT_BYTES 1024

static void __attribute__((format(printf, 5, 0)))
on_message(struct xentoollog_logger *logger, xentoollog_level level,
           int errnoval, const char *context, const char *format, va_list al)
{
    struct fc_logger *l = (struct fc_logger *)logger;
    char text[TEXT_BYTES];
    vsnprintf(text, sizeof(text), format, al);
    fc_libxl_log(l->libxl, (uint32_t)level, errnoval, context, text);
}

static void on_progress(struct xentoollog_logger *logger, const char *context,
                        const char *doing, int percent, unsigned long done,
                        unsigned long total)
{
    struct fc_logger *l = (struct fc_logger *)logger;
    (void)percent;
    fc_libxl_progress(l->libxl, context, doing, done, total);
}

static void on_destroy(struct xentoollog_logger *logger)
{
    (void)logger;
}

void fc_logger_init(struct fc_logger *logger, struct fc_libxl *libxl)
{
    *logger = (struct fc_logger){
        .vtable = { on_message, on_progress, on_destroy },
        .libxl = libxl,
    };
}
