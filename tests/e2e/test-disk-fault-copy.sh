#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# While the disks are copied a channel is cut and an engine is killed: the guest
# never sees an error, and the migration either arrives or leaves it at the
# source on its plain disks.
. "$(dirname "$0")/lib.sh"
disks_ready
guest_at 1 d disk --disk 16M

lab shape 16mbit
migrate_start 1 2 d --with-disks
disk_copy_under_way 1 d 2000000
on 2 'for p in $(pidof forecopy); do
    grep -q disk-receive "/proc/$p/cmdline" && kill -9 "$p"
done; true'
disk_copy_under_way 1 d 4000000
on 1 'kill -9 $(pidof nbdkit)'
sleep 2
is "$(lab guest disk d | json .io_errors)" 0 'engine killed under a writing guest: no error reaches it'
lab shape off
migrate_end
if ((RC == 0)); then
    guest_is_well d 2
    disks_are_plain 2 d
    migrate 2 1 d --with-disks
    is "$RC" 0 'and home again'
fi
guest_is_well d 1
disks_are_plain 1 d
guest_gone d
done_testing
