#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The destination has no memory, holds a leftover of an earlier attempt, or
# loses its power: the guest runs on at the source.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

free=$(on 2 "xl info | awk '/^free_memory/ { print \$3 }'")
lab guest start 2 idle --name ballast --mem "$((free - 60))" total_mb=8 >/dev/null
migrate 1 2 g
cmp "$RC" -ne 0 'no memory there: xl fails'
guest_is_well g 1
guest_gone ballast

uuid=$(on 1 'xl list -v g' | awk 'NR == 2 { print $7 }')
on 2 "printf '%s\n' 'name=\"g--incoming\"' 'uuid=\"$uuid\"' 'type=\"pvh\"' 'memory=96' \
    'kernel=\"/lab/guest/vmlinux\"' >/tmp/left.cfg && xl create -qp /tmp/left.cfg"
like "$(on 2 'xl list')" 'g--incoming' 'a leftover of an earlier attempt is there'
migrate 1 2 g
is "$RC" 0 'migrates past the leftover'
like "$OUT" 'forecopy: .*--incoming' 'and says that it removed it'
guest_is_well g 2

migrate 2 1 g
is "$RC" 0 'back again'
lab shape 16mbit
migrate_start 1 2 g
stream_under_way 1 3
lab cut power 2
migrate_end
cmp "$RC" -ne 0 'power cut at the destination mid-stream: xl fails, within a bound'
lab boot 2 >/dev/null
guest_is_well g 1
done_testing
