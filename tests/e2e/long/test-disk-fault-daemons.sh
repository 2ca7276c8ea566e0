#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# While the disks are copied the destination's daemon and engines die, or our own
# daemon: the guest never sees an error, and the migration either arrives or
# leaves it at the source on its plain disks.
. "$(dirname "$0")/../lib.sh"
disks_ready
guest_at 1 d disk --disk 16M

lab shape 16mbit
migrate_start 1 2 d --with-disks
disk_copy_under_way 1 d 2000000
kill_daemon 2
on 2 'kill -9 $(pidof nbdkit); /lab/daemon start' >/dev/null || true
lab shape off
migrate_end
diag "exit code $RC: $(tail -n 2 <<<"$OUT")"
((RC != 0)) || { guest_is_well d 2; migrate 2 1 d --with-disks; }
guest_is_well d 1
disks_are_plain 1 d

lab shape 16mbit
migrate_start 1 2 d --with-disks
disk_copy_under_way 1 d 2000000
kill_daemon 1
migrate_end
lab shape off
cmp "$RC" -ne 0 'our own daemon killed: xl fails'
on 1 '/lab/daemon start' >/dev/null
guest_is_well d 1
disks_are_plain 1 d
migrate 1 2 d --with-disks
is "$RC" 0 'the next attempt succeeds'
guest_is_well d 2
guest_gone d
done_testing
