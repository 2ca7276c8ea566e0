#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Daemons die, while pages are staged and while the stream runs: the
# migration arrives all the same, and staging goes on by itself.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

arm 1 2 g 20
kill_daemon 2
like "$(on 2 'forecopy status 2>&1' || true)" 'does not answer' 'the destination'\''s daemon is dead'
is "$(on 1 'xl list g >/dev/null && echo here')" here 'the guest does not mind'
on 2 '/lab/daemon start' >/dev/null
wait_for 120 'staging to begin anew' staged 1 g 20
ok $? 'staging begins anew by itself'
guest_is_well g 1

wait_for 240 'most of it staged' staged 1 g 60
lab shape 16mbit
migrate_start 1 2 g
stream_under_way 1 0
kill_daemon 2
kill_daemon 1
migrate_end
is "$RC" 0 'both daemons killed while the stream runs: it arrives'
like "$OUT" 'Migration successful\.' 'and xl says so'
guest_is_well g 2
done_testing
