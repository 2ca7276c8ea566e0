#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A trace of the tree could not be read, is cut off, empty, or nobody knows
# what was recorded in it; or the tree gets big by them.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/unit/tap.sh
. tests/unit/tap.sh
eval=${FC_BUILD:-build}/forecopy-eval
LIMIT_BYTES=1500000
shopt -s nullglob

bytes=0
for trace in tests/traces/*.trace; do
    name=$(basename "$trace" .trace)
    info=$("$eval" info "$trace" 2>&1)
    # name, kind, MiB, ticks, requests, seconds, hash; "cut off" would follow
    [[ $(head -c 7 "$trace") == FCTRACE ]] &&
        awk 'NR == 2 && NF == 7 && ($2 == "memory" ? $4 : $5) > 100 && $6 > 30 { good = 1 }
            END { exit !good }' <<<"$info"
    result $? "$name is a whole trace, and there is something in it" "$info"
    grep -q "^| $name |" tests/traces/README.md
    result $? "README.md says what $name is"
    bytes=$((bytes + $(stat -c %s "$trace")))
done
((bytes > 0 && bytes <= LIMIT_BYTES))
result $? "all of them are at most $LIMIT_BYTES bytes" "$bytes bytes"
tap_end
