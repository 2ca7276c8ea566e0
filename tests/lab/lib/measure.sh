# SPDX-License-Identifier: LGPL-2.1-or-later
# Measuring: a guest's downtime as the network sees it, and the dirty-log soak.
# shellcheck shell=bash

help_heartbeat() {
    cat <<'TEXT'
usage: lab heartbeat GUEST --seconds S | --until-file FILE [--log FILE]

A network client's view of a guest: probes every 5 ms, and the guest sends a
beat of its own as often.  Prints JSON: longest_gap_ms (the longest time without
any answer: the downtime, if a migration was under way), second_gap_ms (the
longest but one: the jitter to judge it by), lost probes, went_back (datagrams
whose counter was not above the last one's: a guest that went back in time, or
exists twice).  Exits 1 when the guest never answered.
  --until-file FILE  until FILE exists
  --log FILE         a line for each answer: time, echo|beat, probe's number,
                     guest's number, guest's clock
TEXT
}

cmd_heartbeat() {
    lab_open
    guest_open "${1:-}"
    shift
    net_exec "$BIN/fc-beat" "$GUEST_IP" "$@" || exit
}

help_soak() {
    cat <<'TEXT'
usage: lab soak [ROUNDS]

Is this emulator fit for live migration?  On a fresh writer guest on host 1:
ROUNDS (200) times the dirty log is turned on, cleaned four times and turned
off.  One line of verdict; exits 0 only when the guest lives and its memory is
right.
TEXT
}

cmd_soak() {
    local rounds=${1:-200} guest=soak domid verdict faults before start=$SECONDS
    lab_open
    [[ $rounds =~ ^[0-9]+$ ]] || wrong_usage "soak takes a number of rounds"
    if [[ -e $(guest_file "$guest") ]]; then guest_stop "$guest"; fi
    guest_start 1 writer --name "$guest"
    guest_wait "$guest"
    before=$(host_run 1 "xl dmesg | grep -ci 'triple fault'" </dev/null || true)
    domid=$(host_run 1 "xl domid $guest" </dev/null)
    host_run 1 "/lab/xen-soak $domid $rounds" </dev/null || true
    faults=$(($(host_run 1 "xl dmesg | grep -ci 'triple fault'" </dev/null || true) - before))
    if verdict=$(guest_check "$guest" 30); then
        guest_stop "$guest"
        echo "soak: PASS $rounds rounds in $((SECONDS - start)) s, guest alive, memory right, triple faults $faults: $verdict"
    else
        echo "soak: FAIL of $rounds rounds, triple faults $faults, state '$(host_run 1 "xl list $guest | awk 'NR == 2 { print \$5 }'" </dev/null || true)': ${verdict:-no answer}"
        guest_console "$guest" | tail -n 20 >&2
        guest_stop "$guest"
        exit 1
    fi
}
