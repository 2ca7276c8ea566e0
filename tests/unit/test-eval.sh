#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A converted trace would say something else, or forecopy-eval would overwrite
# a file, hide that a trace was unreadable, or print figures that are no JSON.
set -u
cd "$(dirname "$0")/../.." || exit 1
eval=${FC_BUILD:-build}/forecopy-eval
seeds=tests/fuzz/corpus/trace
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0

result() { # result STATUS NAME
    n=$((n + 1))
    if [[ $1 == 0 ]]; then
        echo "ok $n - $2"
    else
        failed=1
        echo "not ok $n - $2"
        sed 's/^/# /' "$tmp/out" "$tmp/err"
    fi
}

hash_of() {
    "$eval" info "$1" | awk 'NR == 2 { print $2, $4, $5, $6, $7 }'
}

for seed in csv blktrace vscsi1 vscsi2 drec drec-machine; do
    "$eval" convert $seeds/$seed "$tmp/$seed.trace" >"$tmp/out" 2>"$tmp/err" &&
        [[ $(head -c 7 "$tmp/$seed.trace") == FCTRACE ]] &&
        [[ $(hash_of $seeds/$seed) == "$(hash_of "$tmp/$seed.trace")" ]]
    result $? "$seed says the same when converted"
done

cp "$tmp/csv.trace" "$tmp/before"
! "$eval" convert $seeds/drec "$tmp/csv.trace" >"$tmp/out" 2>"$tmp/err" &&
    cmp -s "$tmp/csv.trace" "$tmp/before" &&
    grep -q 'csv.trace: File exists' "$tmp/err"
result $? 'a file that is there is not overwritten'

head -c 50 "$tmp/csv.trace" >"$tmp/short"
! "$eval" convert "$tmp/short" "$tmp/made" >"$tmp/out" 2>"$tmp/err" &&
    [[ ! -e $tmp/made ]] && grep -q 'short: at byte 50: ' "$tmp/err"
result $? 'what is wrong is said, with the place; nothing is left behind'

"$eval" --json "$tmp/json" "$tmp/short" "$tmp/drec-machine.trace" \
    "$tmp/csv.trace" >"$tmp/out" 2>"$tmp/err"
[[ $? == 1 ]] && grep -q 'short: ' "$tmp/err" &&
    grep -q '^drec-machine: ' "$tmp/out" &&
    grep -q '^csv: ' "$tmp/out" &&
    jq -e 'all(.[]; .bench == "predictor" and has("ratio") and has("ok"))
        and any(.[]; .case == "csv" and .metric == "hit_rate")' \
        "$tmp/json" >/dev/null
result $? 'the traces after an unreadable one are judged'

status=0
for words in '' '--tick 0 x' '--extent 99999999999 x' '--every 1x x' '--nope'; do
    # shellcheck disable=SC2086 # words are to be split
    "$eval" $words >"$tmp/out" 2>"$tmp/err"
    [[ $? == 2 ]] || status=1
done
result $status 'wrong usage is refused with exit status 2'

echo "1..$n"
exit $failed
