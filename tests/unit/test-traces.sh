#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A trace of the tree could not be read, is cut off, empty, would be taken for
# much quicker than it was, or nobody knows what was recorded in it; or the tree
# gets big by them.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/unit/tap.sh
. tests/unit/tap.sh
eval=${FC_BUILD:-build}/forecopy-eval
LIMIT_BYTES=1500000
shopt -s nullglob

traces=(tests/traces/*.trace)
if ((${#traces[@]} == 0)); then
    echo '1..0 # SKIP no traces are in the tree: tests/lab/record-traces makes them'
    exit 0
fi

bytes=0
for trace in "${traces[@]}"; do
    name=$(basename "$trace" .trace)
    info=$("$eval" info "$trace" 2>&1)
    # name, kind, MiB, ticks, requests, seconds, hash; "cut off" would follow
    [[ $(head -c 7 "$trace") == FCTRACE ]] &&
        awk 'NR == 2 && NF == 7 && ($2 == "memory" ? $4 : $5) > 100 && $6 > 30 { good = 1 }
            END { exit !good }' <<<"$info"
    result $? "$name is a whole trace, and there is something in it" "$info"
    interval_us=$(od -An -tu4 -j 12 -N 4 "$trace" | tr -d ' ')
    awk -v us="$interval_us" 'NR == 2 && ($2 != "memory" || $6 * 1e6 <= 1.5 * us * $4) { good = 1 }
        END { exit !good }' <<<"$info"
    result $? "$name's ticks are as long as its head says, about" "interval $interval_us us
$info"
    grep -q "^| $name |" tests/traces/README.md
    result $? "README.md says what $name is"
    bytes=$((bytes + $(stat -c %s "$trace")))
done
((bytes <= LIMIT_BYTES))
result $? "all of them are at most $LIMIT_BYTES bytes" "$bytes bytes"
tap_end
