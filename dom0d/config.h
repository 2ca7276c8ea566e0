/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CONFIG_H
#define FC_CONFIG_H

#include <stddef.h>

#include "settings.h"

#define FC_CONFIG_PATH "/etc/forecopy/forecopy.conf"

/*
 * Reads settings from a file in xl.conf's grammar. Each bad line, unknown key
 * and bad value is logged with file and line; what is good is taken. A key
 * with a bad value keeps the value that an earlier reading gave, a key that is
 * not in the file loses it. A file that is not there is an empty one when
 * `optional`. Returns the number of complaints, or FC_ESYS (it cannot be read)
 * or FC_EFORMAT (not the grammar; nothing was changed).
 */
int fc_config_read(struct fc_settings *s, const char *path, int optional);

/* The same for text in memory; `name` stands for the file in messages. */
int fc_config_parse(struct fc_settings *s, const char *name, const char *text,
                    size_t len);

#endif
