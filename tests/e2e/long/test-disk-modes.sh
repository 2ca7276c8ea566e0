#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk nobody writes arrives complete, one that is read all the time lazily,
# as whole as those that are written.
. "$(dirname "$0")/../lib.sh"
disks_ready
guest_at 1 idle disk --disk 16M disk_mode=idle
migrate 1 2 idle --with-disks
is "$RC" 0 'idle: migrates, complete'
guest_is_well idle 2
disks_are_plain 2 idle
guest_gone idle

guest_at 1 reader disk --disk 16M disk_mode=reader
migrate 1 2 reader --with-disks --lazy-disks
is "$RC" 0 'reader: migrates, lazy'
guest_is_well reader 2
disks_are_plain 2 reader
guest_gone reader
done_testing
