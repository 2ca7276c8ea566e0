/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_COUNTERS_H
#define FC_COUNTERS_H

#include <stdint.h>

/*
 * What a domain's backends have moved, from sysfs at `sys_root` ("/sys"; tests
 * have their own). A device or file that is not there counts as 0. Any thread.
 */

/* Bytes of all network interfaces vifDOMID.N, both ways. */
uint64_t fc_counters_vif_bytes(const char *sys_root, uint32_t domid);

/* Bytes of all block devices vbd-DOMID-*, read and written. */
uint64_t fc_counters_vbd_bytes(const char *sys_root, uint32_t domid);

#endif
