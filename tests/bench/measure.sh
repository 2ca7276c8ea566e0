# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Measured migrations of a fresh guest between the hosts of a lab; what `make demo`
# and the benches on hosts share. They set TOP, and may have an at_exit.

lab() { "$TOP/tests/lab/lab" "$@"; }
on() {
    local n=$1
    shift
    lab ssh "$n" "$@" </dev/null
}
say() { printf '%s\n' "$*" >&2; }
link_bytes() { lab counters | jq ".[$(($1 - 1))].bytes"; }

# Uses the lab that FC_LAB names, or brings one up, and takes it down at the end.
lab_of_our_own() {
    local deb
    LAB_OWN=
    trap lab_finish EXIT
    trap 'exit 130' INT TERM
    [[ -z ${FC_LAB:-} ]] || return 0
    make -s --no-print-directory all
    deb=$(lab deb | tail -n 1)
    LAB_OWN=bench-$$
    say "booting two Xen hosts"
    lab up --name "$LAB_OWN" --deb "$deb" >&2
    export FC_LAB=$LAB_OWN
}
lab_finish() {
    local rc=$?
    trap - EXIT
    at_exit
    [[ -z $LAB_OWN ]] || lab down --name "$LAB_OWN" || rc=1
    exit "$rc"
}
at_exit() { :; }

# fresh_guest KIND [PARAMETER...]: one guest named `bench` on host 1
fresh_guest() {
    on 1 'forecopy disarm bench' >/dev/null 2>&1 || true
    lab guest stop bench >/dev/null 2>&1 || true
    lab guest start 1 "$1" --name bench "${@:2}" >/dev/null
    lab guest wait bench >/dev/null
    # the workload's first pass over its memory is not what is measured
    sleep 5
}

# arm_guest FROM TO: stages until nothing more comes, at most 300 s. Prints
# JSON: staged_percent, valid_percent, staged_bytes (on the wire), seconds.
arm_guest() {
    local from=$1 to=$2 start bytes best=-1 since now valid=0 status
    start=$SECONDS since=$SECONDS bytes=$(link_bytes "$from")
    on "$from" "forecopy arm bench host$to --command 'fc-rsh host$to forecopy receive %u'" >/dev/null
    while ((SECONDS - start < 300)); do
        status=$(on "$from" 'forecopy status bench --json')
        valid=$(jq '.guests[0].valid_percent | floor' <<<"$status")
        if ((valid > best)); then
            best=$valid since=$SECONDS
        fi
        if ((SECONDS - since > 15 && best > 0)); then break; fi
        sleep 1
    done
    now=$(link_bytes "$from")
    jq -n --argjson s "$status" --argjson b "$((now - bytes))" \
        --argjson t "$((SECONDS - start))" \
        '$s.guests[0] | {staged_percent, valid_percent, staged_bytes: $b,
         seconds: $t, dirty_rate_pps}'
}

# migrate_guest FROM TO [OPTION...]: prints JSON: wire_bytes, total_seconds,
# downtime_seconds (longest gap that a client saw), report (of a predictive one)
migrate_guest() {
    local from=$1 to=$2 work bytes begin end rc=0 report beat
    shift 2
    work=$(mktemp -d)
    on "$from" 'rm -f /tmp/report.json'
    lab heartbeat bench --until-file "$work/stop" >"$work/beat" &
    beat=$!
    bytes=$(link_bytes "$from")
    begin=$(date +%s%N)
    on "$from" "timeout 900 xl migrate $* -s fc-rsh bench host$to" >"$work/out" 2>&1 || rc=$?
    end=$(date +%s%N)
    bytes=$(($(link_bytes "$from") - bytes))
    sleep 1
    touch "$work/stop"
    wait "$beat" || true
    if ((rc)) || ! lab guest check bench >"$work/check" 2>&1; then
        say "the migration failed (exit code $rc) or the guest's memory is wrong:"
        tr '\r' '\n' <"$work/out" | tail -n 20 >&2
        cat "$work/check" >&2 || true
        rm -rf "$work"
        return 1
    fi
    report=$(on "$from" 'cat /tmp/report.json 2>/dev/null' || true)
    jq -n --argjson b "$bytes" --argjson ns "$((end - begin))" \
        --argjson beat "$(cat "$work/beat")" --argjson report "${report:-null}" \
        '{wire_bytes: $b, total_seconds: ($ns / 1e9),
          downtime_seconds: ($beat.longest_gap_ms / 1000), report: $report}'
    rm -rf "$work"
}

PREDICTIVE='--predictive --report /tmp/report.json'
export PREDICTIVE
