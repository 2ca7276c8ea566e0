#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The destination loses its power at five points: before the leases are passed
# the guest goes on at the source, afterwards what it had flushed is on the
# destination's disks. The source loses its power before: its disks are its own.
. "$(dirname "$0")/../lib.sh"
disks_ready
guest_at 1 d disk --disk 24M
export FC_MIGRATE_S=150

# Cuts host 2's power once the given wait is over; the guest must stay whole.
cut_at() { # NAME WAIT...
    local what=$1
    shift
    lab shape 16mbit
    migrate_start 1 2 d --with-disks
    "$@" || diag "$what: the migration had ended before"
    lab cut power 2
    migrate_end
    lab shape off
    lab boot 2 >/dev/null
    wait_for 60 'forecopyd on host 2' daemon_up 2 || true
    cmp "$RC" -ne 0 "power cut at the destination, $what: xl fails"
    guest_is_well d 1
    disks_are_plain 1 d
}
cut_at 'at once' disk_state_is 1 d preparing copying
cut_at 'a quarter copied' disk_copy_under_way 1 d 4000000
cut_at 'converged' disk_state_is 1 d converged
stream() { disk_state_is 1 d converged && stream_under_way 1 6; }
cut_at 'memory on its way' stream

# The fifth: right after the guest has arrived. What it had flushed before and
# since is all on host 2's volume.
migrate 1 2 d --with-disks
is "$RC" 0 'migrates after all that'
guest_is_well d 2
disks_are_plain 2 d
floors=$(disk_floors d)
lab cut power 2
lab guest stop d --keep
lab boot 2 >/dev/null
wait_for 60 'forecopyd on host 2' daemon_up 2
guest_adopts 2 d "$floors"

# The source, before the leases: the guest falls with it, its disk is there
# still, and the destination's copy is nobody's.
lab shape 16mbit
migrate_start 2 1 d --with-disks
disk_copy_under_way 2 d 2000000 || true
floors=$(disk_floors d)
lab cut power 2
migrate_end
lab shape off
lab guest stop d --keep
lab boot 2 >/dev/null
wait_for 60 'forecopyd on host 2' daemon_up 2
guest_adopts 2 d "$floors"
disks_are_plain 2 d
is "$(disks_of 1 d '[.[] | select(.role == "shadow" and .owned)] | length')" 0 'the other host owns nothing'
guest_gone d
done_testing
