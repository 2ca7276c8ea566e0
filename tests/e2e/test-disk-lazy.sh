#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A lazy hand-over: what has not come yet is fetched when it is read. While
# the link is cut such reads wait and never fail, and all is there in the end.
. "$(dirname "$0")/lib.sh"
disks_ready
guest_at 1 d disk --disk 48M

lab shape 16mbit
migrate 1 2 d --with-disks --lazy-disks
is "$RC" 0 'migrates before all of its disk is there'
is "$(lab guest where d)" 2 'and runs at the destination'
is "$(json .disks.mode <<<"$REPORT")" lazy 'the report says lazy'
like "$(on 2 'forecopy disks')" 'd.*xvda' 'the disk is shown there'

# The shaping makes it likely, not certain, that something is missing still.
if ! plain_now 2 d; then
    lab cut link
    waits() { (($(lab guest disk d | json .waiting_ms) > 2000)); }
    wait_for 30 'a read to need the other host' waits || diag 'all that was read was there'
    is "$(lab guest disk d | json .io_errors)" 0 'link cut: what is missing waits, nothing fails'
    lab mend link
fi
lab shape off
guest_is_well d 2
disks_are_plain 2 d 180
disks_are_gone 1 d

# and home, where an old copy lies
migrate 2 1 d --with-disks --lazy-disks
is "$RC" 0 'migrates back'
guest_is_well d 1
disks_are_plain 1 d
guest_gone d
done_testing
