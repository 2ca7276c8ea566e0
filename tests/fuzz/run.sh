#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every parser of bytes from outside: a crash, a leak, a hang or unbounded
# memory on hostile input. Each target runs FC_FUZZ_SECONDS (60), four at once on
# each processor, with the time that nothing else wants.
set -eu -o pipefail
cd "$(dirname "$0")/../.."

seconds=${FC_FUZZ_SECONDS:-60}
atonce=$((4 * $(nproc)))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
targets=()
for source in tests/fuzz/fuzz_*.c; do
    targets+=("$(basename "$source" .c)")
done
echo "1..${#targets[@]}"

fuzz() {
    local name=$1 seeds=tests/fuzz/corpus/${1#fuzz_}
    mkdir -p "$work/$name" "$seeds"
    if nice -n 10 "build/fuzz/bin/$name" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=1024 -close_fd_mask=3 -artifact_prefix="$work/$name-" \
        "$work/$name" "$seeds" >"$work/$name.log" 2>&1; then
        : >"$work/$name.ok"
    fi
}

for ((i = 0; i < ${#targets[@]}; i += atonce)); do
    for name in "${targets[@]:i:atonce}"; do
        fuzz "$name" &
    done
    wait
done

n=0 failed=0
for name in "${targets[@]}"; do
    n=$((n + 1))
    runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$work/$name.log")
    if [[ -e $work/$name.ok && ${runs:-0} -gt 0 ]]; then
        echo "ok $n - $name: $runs inputs"
    else
        failed=$((failed + 1))
        echo "not ok $n - $name"
        tail -n 30 "$work/$name.log" | sed 's/^/# /'
        for crash in "$work/$name"-*; do
            [[ -f $crash ]] && echo "# $(basename "$crash"): $(
                base64 -w0 <"$crash" | head -c 2000)"
        done
    fi
done
exit "$((failed > 0))"
