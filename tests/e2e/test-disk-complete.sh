#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest that writes two local disks all the time takes them along, and home
# again: no sector lost, torn, stale or another's; holes are not sent.
. "$(dirname "$0")/lib.sh"
disks_ready
guest_at 1 d disk --disk 24M,8M

dry=$(on 1 'xl migrate --predictive --with-disks --dry-run --json -s fc-rsh d host2')
is "$(json '[.disks[].vdev] | join(" ")' <<<"$dry")" 'xvda xvdb' 'the dry run names both disks'
is "$(lab guest where d)" 1 'and moves nothing'

lab heartbeat d --until-file "$WORK/stop" >"$WORK/beat" &
BACKGROUND+=($!)
beat=$!
writes=$(disk_writes d)
migrate 1 2 d --with-disks
touch "$WORK/stop"
wait "$beat" || true
is "$RC" 0 'migrates with its disks'
like "$OUT" 'Migration successful\.' 'and xl says so'
guest_is_well d 2
is "$(json .went_back <"$WORK/beat")" 0 'no client saw the guest go back in time'
cmp "$(disk_writes d)" -gt "$writes" 'it wrote all the while'
is "$(json .disks.outcome <<<"$REPORT")" moved 'the report says that the disks moved'
is "$(json .disks.remaining_bytes <<<"$REPORT")" 0 'and that nothing was left behind'
is "$(json .disks.count <<<"$REPORT")" 2 'both of them'
cmp "$(json .disks.zero_bytes <<<"$REPORT")" -gt 0 'holes were not sent'
disks_are_plain 2 d
disks_are_gone 1 d
# the guest never writes a quarter of it; a file of 24 MiB without holes takes 24576
cmp "$(on 2 'du -k /var/guests/d-xvda.img | cut -f1')" -lt 24576 'holes are holes there as well'

migrate 2 1 d --with-disks
is "$RC" 0 'migrates back'
guest_is_well d 1
disks_are_plain 1 d
is "$(json '[.leases[] | select(.state == "offered")] | length' <<<"$(on 1 'forecopy lease show --json')")" 0 \
    'no hand-over is left open'
guest_gone d
done_testing
