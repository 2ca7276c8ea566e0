/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_MIGRATE_H
#define FC_FRONTEND_MIGRATE_H

#include "frontend_args.h"

/* `xl migrate --predictive`. Returns the exit status, or does not return when
 * it turns into a plain xl. One thread. */
int fc_front_migrate(const struct fc_front_args *args);

/* The same with --dry-run. */
int fc_front_dry_run(const struct fc_front_args *args);

#endif
