#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A real database under load, on a file system on a local disk: SQLite's own
# check passes after each migration and each committed row is there.
. "$(dirname "$0")/lib.sh"
disks_ready
guest_at 1 q sqlite --disk 48M
committed() { lab guest disk q | json .committed; }
before=$(committed)
migrate 1 2 q --with-disks
is "$RC" 0 'migrates'
guest_is_well q 2
cmp "$(committed)" -gt "$before" 'transactions went on'
migrate 2 1 q --with-disks --lazy-disks
is "$RC" 0 'and back, lazy'
guest_is_well q 1
disks_are_plain 1 q
before=$(committed)
sleep 3
cmp "$(committed)" -gt "$before" 'transactions go on'
guest_gone q
done_testing
