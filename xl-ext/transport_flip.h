/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRANSPORT_FLIP_H
#define FC_TRANSPORT_FLIP_H

#include <stdbool.h>
#include <stddef.h>

#define FC_FLIP_MIGRATION_DIGITS 32u
/* The guest stands still meanwhile. The user's patience, and enough for what
 * it wrote since the disks had converged. */
#define FC_FLIP_MS 60000

/* Whether the text is a migration's name: hex digits. */
bool fc_flip_migration_valid(const char *text);

/*
 * Has the local forecopyd hand the disks over (`disk-flip`,
 * docs/formats/control.md), within timeout_ms and a little. A connection that
 * breaks before the reply says nothing about the outcome: it is asked again,
 * which changes nothing when it was done. 0; else FC_EDAEMON when nobody
 * answers or what the daemon said, with a sentence in `why`: the guest must
 * then go on here.
 */
int fc_flip(const char *migration, int timeout_ms, char *why, size_t size);

#endif
