#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The staging channel is cut, the store's budget is reached, a staged page is
# damaged: what can be used is used, the rest is sent, the guest is whole.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

arm 1 2 g 20
before=$(status_of 1 g staged_pages)
on 2 'for p in $(pidof forecopy); do
    grep -q receive "/proc/$p/cmdline" && kill -9 "$p"
done; true'
resumed() { (($(status_of 1 g staged_pages) > before)) && [[ $(status_of 1 g channels) -gt 0 ]]; }
wait_for 120 'the channel to come back' resumed
ok $? 'a cut channel comes back and staging goes on where it was'
wait_for 240 '70 % staged' staged 1 g 70

# Noise over a sixteenth of every store there, spread over all that it holds,
# behind the keepers' backs: whatever part of it is referenced, some is damaged.
# A store's memory file has the arena's offset at byte 16.
used=$(on 2 'forecopy stat --json' | json '.counters.keeper_used_bytes')
on 2 'seen=
for fd in /proc/[0-9]*/fd/*; do
    case $(readlink "$fd") in *memfd:forecopy-store*) ;; *) continue ;; esac
    file=$(stat -L -c %i "$fd")
    case " $seen " in *" $file "*) continue ;; esac
    seen="$seen $file"
    at=$(od -An -t u8 -j 16 -N 8 "$fd" | tr -d " ")
    i=0
    while [ $((i << 20)) -lt '"$used"' ]; do
        dd if=/dev/urandom of="$fd" bs=64k count=1 seek="$((at + (i << 20)))" \
            oflag=seek_bytes conv=notrunc 2>&1 || exit
        i=$((i + 1))
    done
    echo "damaged in $i places"
done' >"$WORK/harm"
like "$(cat "$WORK/harm")" 'damaged in [1-9][0-9]' 'staged pages are damaged'
migrate 1 2 g
is "$RC" 0 'migrates although staged pages are damaged'
guest_is_well g 2
cmp "$(json .pulled_pages <<<"$REPORT")" -gt 0 'damaged pages were pulled'

guest_gone g
guest_at 1 g writer
on 2 'forecopy set store_budget_bytes 16M'
on 1 "forecopy arm g host2 --command 'fc-rsh host2 forecopy receive %u'"
full() { [[ $(status_of 1 g reason) == *[Ss]tore* ]] || (($(on 2 'forecopy stat --json' | json '.counters.keeper_pages_evicted // 0') > 0)); }
wait_for 120 'the budget to be reached' full
ok $? 'the store'\''s budget is reached'
cmp "$(on 2 'forecopy stat --json' | json '.counters.keeper_used_bytes')" -le 16777216 'and kept'
migrate 1 2 g
on 2 'forecopy set store_budget_bytes 1G'
is "$RC" 0 'migrates with a full store'
guest_is_well g 2
done_testing
