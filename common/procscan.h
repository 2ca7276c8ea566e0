/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PROCSCAN_H
#define FC_PROCSCAN_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Who is at work on a domain: looks through the command lines under
 * `proc_root` ("/proc"; tests have their own) for a save or restore helper,
 * Xen's or ours, whose domain is `domid`. Only a snapshot: a helper may start
 * or end at any time. Any thread.
 *
 * Returns the helper's pid, 0 when there is none, or FC_ESYS with errno when
 * proc_root cannot be read.
 */
pid_t fc_procscan_saver(const char *proc_root, uint32_t domid);
pid_t fc_procscan_restorer(const char *proc_root, uint32_t domid);

/*
 * A process of program NAME (first word as below) that has `word` as one of
 * its arguments; likewise.
 */
pid_t fc_procscan_program(const char *proc_root, const char *name,
                          const char *word);

/*
 * The child of `parent` whose command line's first word ends in "/NAME" or is
 * NAME. Returns its pid, 0 or FC_ESYS, as above.
 */
pid_t fc_procscan_child(const char *proc_root, pid_t parent, const char *name);

#endif
