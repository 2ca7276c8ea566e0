#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The stream breaks: the guest runs on at the source as if nothing had been
# tried, and the next attempt succeeds.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

lab shape 16mbit
migrate_start 1 2 g
stream_under_way 1 3
on 1 'kill -9 $(pidof forecopy-save-helper)'
migrate_end
cmp "$RC" -ne 0 'helper killed at the source: xl fails'
guest_is_well g 1

migrate_start 1 2 g
stream_under_way 1 3
# as a terminal does: to the whole foreground process group
on 1 '/bin/kill -s INT -- "-$(cut -d" " -f5 "/proc/$(pidof -s timeout)/stat")"'
migrate_end
is "$RC" 130 'interrupted by ^C: exit code 130'
like "$OUT" 'forecopy: ' 'and it says that it was interrupted'
guest_is_well g 1

migrate_start 1 2 g
stream_under_way 1 3
lab cut link
migrate_end
cmp "$RC" -ne 0 'link cut mid-stream: xl fails, within a bound'
guest_is_well g 1
lab mend link
lab shape off
no_incoming() { ! on 2 'xl list' | grep -q -- '--incoming'; }
wait_for 200 'the receiver to give up' no_incoming || true

migrate 1 2 g
is "$RC" 0 'the next attempt succeeds'
guest_is_well g 2
done_testing
