#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks nobody writes, or that are read most of the time, arrive as whole as
# those that are written, complete and lazy.
. "$(dirname "$0")/lib.sh"
disks_ready
for mode in idle reader; do
    guest_at 1 "$mode" disk --disk 16M "disk_mode=$mode"
    migrate 1 2 "$mode" --with-disks
    is "$RC" 0 "$mode: migrates, complete"
    guest_is_well "$mode" 2
    migrate 2 1 "$mode" --with-disks --lazy-disks
    is "$RC" 0 "$mode: and back, lazy"
    guest_is_well "$mode" 1
    disks_are_plain 1 "$mode"
    guest_gone "$mode"
done
done_testing
