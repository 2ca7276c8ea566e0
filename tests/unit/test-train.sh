#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# forecopy-train: weights that nobody can make again, or that nothing reads.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1

build=${FC_BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
result() { # result STATUS NAME
    n=$((n + 1))
    if (($1 == 0)); then
        echo "ok $n - $2"
    else
        failed=$((failed + 1))
        echo "not ok $n - $2"
        sed 's/^/# /' "$tmp/out"
    fi
}
train() {
    "$build/forecopy-train" --hidden 16 --synth 1 --updates 30 "$@" \
        >"$tmp/out" 2>&1
}

echo 1..6
train --output "$tmp/a" && train --output "$tmp/b"
result $? 'trains on made-up guests alone'
cmp "$tmp/a" "$tmp/b" >"$tmp/out" 2>&1
result $? 'the same seed gives the same file'
train --output "$tmp/c" --seed 2 && ! cmp -s "$tmp/a" "$tmp/c"
result $? 'another seed gives another'
printf 'time_us,op,offset_bytes,length_bytes\n0,W,0,4096\n1000000,R,0,4096\n' \
    >"$tmp/disk.csv"
train --output "$tmp/d" "$tmp/disk.csv" &&
    grep -q 'disk.csv .*nothing of memory' "$tmp/out"
result $? 'a trace of a disk is passed over, and said so'
train --output "$tmp/e" "$tmp/none"
[[ $? == 1 && ! -e $tmp/e ]] && grep -q "$tmp/none: " "$tmp/out"
result $? 'a trace that is not there is an error, and names it'
train --output "$tmp/e" --hidden 17
[[ $? == 2 && ! -e $tmp/e ]]
result $? 'a shape that cannot be is wrong usage'
exit "$((failed > 0))"
