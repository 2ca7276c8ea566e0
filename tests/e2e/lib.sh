# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What the tests on the two hosts share: TAP, the lab, guests, migrations.
# A test sources this, calls `lab_ready`, and ends with `done_testing`.
set -eu -o pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WORK=$(mktemp -d)
TESTS=0 FAILED=0
BACKGROUND=()
# xl as Xen ships it, past forecopy's
STOCK_XL='/usr/lib/xen-*/bin/xl'
export STOCK_XL

cleanup() {
    local rc=$? pid
    trap - EXIT
    for pid in "${BACKGROUND[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$WORK"
    exit "$rc"
}
trap cleanup EXIT

if [[ -z ${FC_LAB:-} ]]; then
    echo "1..0 # SKIP no lab is up: tests/lab/lab up --name X, then FC_LAB=X"
    exit 0
fi

# ---- TAP -------------------------------------------------------------------
diag() { printf '%s\n' "$*" | sed 's/^/# /'; }

ok() { # ok STATUS NAME
    TESTS=$((TESTS + 1))
    if (($1 == 0)); then
        echo "ok $TESTS - $2"
    else
        FAILED=$((FAILED + 1))
        echo "not ok $TESTS - $2"
    fi
}

is() { # is GOT WANTED NAME
    if [[ $1 == "$2" ]]; then
        ok 0 "$3"
    else
        ok 1 "$3"
        diag "got '$1', wanted '$2'"
    fi
}

like() { # like TEXT REGEX NAME
    if [[ $1 =~ $2 ]]; then
        ok 0 "$3"
    else
        ok 1 "$3"
        diag "nothing matches '$2' in:" "$1"
    fi
}

unlike() { # unlike TEXT REGEX NAME
    if [[ $1 =~ $2 ]]; then
        ok 1 "$3"
        diag "'$2' is in:" "$1"
    else
        ok 0 "$3"
    fi
}

# A number compared: cmp 5 -le 9 NAME
cmp() {
    if [[ $1 =~ ^-?[0-9]+$ && $3 =~ ^-?[0-9]+$ ]] && test "$1" "$2" "$3"; then
        ok 0 "$4"
    else
        ok 1 "$4"
        diag "'$1' $2 '$3' does not hold"
    fi
}

done_testing() {
    echo "1..$TESTS"
    exit "$((FAILED > 0))"
}

bail() {
    diag "$*"
    ok 1 "$1"
    done_testing
}

# ---- the lab ---------------------------------------------------------------
lab() { "$TOP/tests/lab/lab" "$@"; }
on() { # on HOST COMMAND...: output and exit code are the command's
    local n=$1
    shift
    lab ssh "$n" "$@" </dev/null
}

# wait_for SECONDS WHAT COMMAND...: polls; says what it waited for in vain
wait_for() {
    local end=$((SECONDS + $1)) seconds=$1 what=$2
    shift 2
    until "$@"; do
        if ((SECONDS >= end)); then
            diag "waited $seconds s in vain for $what"
            return 1
        fi
        sleep 0.5
    done
}

# json FILTER: what jq's filter finds in the JSON on stdin; empty when nothing
json() { jq -r "$1 | if . == null then \"\" else . end" 2>/dev/null || true; }

daemon_up() { on "$1" 'forecopy version --json' >/dev/null 2>&1; }

kill_daemon() { # and all its children, as a crash of the unit would
    on "$1" 'kill -9 $(pidof forecopyd); rm -f /run/lab-forecopyd.pid'
}

# Both hosts up, link whole and unshaped, daemons running, no domain left over
# but those named.
lab_ready() {
    local n keep
    lab mend link >/dev/null 2>&1 || true
    lab shape off >/dev/null
    for n in 1 2; do
        on "$n" true >/dev/null 2>&1 || lab boot "$n" >/dev/null
        daemon_up "$n" || on "$n" '/lab/daemon start' >/dev/null 2>&1 || true
        wait_for 30 "forecopyd on host $n" daemon_up "$n" ||
            bail "forecopyd does not run on host $n"
        for keep in $(on "$n" "xl list | awk 'NR > 2 && \$1 ~ /--/ { print \$2 }'"); do
            diag "host $n: destroying leftover domain $keep"
            on "$n" "xl destroy $keep" >/dev/null 2>&1 || true
        done
    done
}

# guest_at HOST NAME KIND [PARAMETER...]: a healthy guest there, made anew
# unless the last test left it so.
guest_at() {
    local host=$1 name=$2 kind=$3
    shift 3
    if lab guest ip "$name" >/dev/null 2>&1; then
        if [[ $(lab guest where "$name" 2>/dev/null) == "$host" ]] &&
            lab guest check "$name" >/dev/null 2>&1; then
            return
        fi
        guest_gone "$name"
    fi
    lab guest start "$host" "$kind" --name "$name" "$@" >/dev/null
    lab guest wait "$name" >/dev/null || bail "guest $name does not come up"
}

guest_gone() {
    on 1 "forecopy disarm $1" >/dev/null 2>&1 || true
    lab guest stop "$1" >/dev/null 2>&1 || true
}

# The three things that must hold after anything: alive, in one place, whole.
guest_is_well() { # guest_is_well NAME HOST
    local verdict
    is "$(lab guest where "$1" 2>&1)" "$2" "guest runs on host $2, and only there"
    if verdict=$(lab guest check "$1" "${FC_CHECK_S:-60}" 2>&1); then
        ok 0 "guest's memory, and its disks if any, are as it left them"
    else
        ok 1 "guest's memory, and its disks if any, are as it left them"
        diag "$verdict" "$(grep -h 'Triple fault' \
            "$TOP/build/lab/run/$FC_LAB"/host*.serial)"
    fi
}

# ---- migrations ------------------------------------------------------------
# migrate FROM TO NAME [OPTION...]: runs to its end; RC, OUT (stdout and
# stderr), REPORT (JSON). FC_XL names another xl.
migrate() {
    migrate_start "$@"
    migrate_end
}

migrate_start() {
    local from=$1 to=$2 name=$3
    shift 3
    MIGRATE_FROM=$from
    on "$from" 'rm -f /tmp/report.json'
    lab ssh "$from" "timeout -k 10 ${FC_MIGRATE_S:-400} ${FC_XL:-xl} migrate \
        ${FC_PREDICTIVE---predictive --report /tmp/report.json} \
        ${FC_SSH--s fc-rsh} $* $name host$to" \
        </dev/null >"$WORK/out" 2>&1 &
    MIGRATE_PID=$!
    BACKGROUND+=("$MIGRATE_PID")
}

migrate_end() {
    RC=0
    wait "$MIGRATE_PID" || RC=$?
    BACKGROUND=()
    OUT=$(tr '\r' '\n' <"$WORK/out")
    REPORT=$(on "$MIGRATE_FROM" 'cat /tmp/report.json' 2>/dev/null || true)
    export OUT REPORT
}

migrate_running() { kill -0 "$MIGRATE_PID" 2>/dev/null; }

link_bytes() { lab counters | json ".[$(($1 - 1))].bytes"; }

# stream_under_way FROM MB: waits until that much of a migration went over the
# link, or it ended.
stream_under_way() {
    local from=$1 start mb=$2
    start=$(link_bytes "$from")
    until (($(link_bytes "$from") - start > mb * 1000000)); do
        migrate_running || return 1
        sleep 0.3
    done
}

# arm FROM TO NAME PERCENT [OPTION...]: arms and waits until that much is staged
arm() {
    local from=$1 to=$2 name=$3 percent=$4
    shift 4
    on "$from" "forecopy arm $name host$to --command 'fc-rsh host$to forecopy receive %u' $*" ||
        bail "cannot arm $name"
    wait_for 240 "$percent % of $name staged" staged "$from" "$name" "$percent" || {
        diag "$(on "$from" "forecopy status $name; forecopy log -n 20")"
        bail "staging does not come to $percent %"
    }
}

status_of() { on "$1" "forecopy status $2 --json" | json ".guests[0].$3"; }

staged() {
    local percent
    percent=$(status_of "$1" "$2" valid_percent)
    ((${percent%.*} >= $3))
}

# ---- disks -----------------------------------------------------------------
# As lab_ready, for guests with disks: their channels go over the lab's plain
# TCP, and a check may have to wait for blocks from the other host.
disks_ready() {
    local n
    lab_ready
    for n in 1 2; do
        on "$n" "forecopy set channel_command 'fc-rsh %h forecopy receive %u'" >/dev/null ||
            bail "host $n takes no channel_command"
    done
    FC_CHECK_S=${FC_CHECK_S:-120}
}

guest_uuid() { lab guest list | awk -v name="$1" '$1 == name { print $4 }'; }

# What `forecopy disks` has of a guest's disks: disks_of HOST NAME FILTER
disks_of() {
    on "$1" "forecopy disks --json" |
        json "[.disks[] | select(.uuid == \"$(guest_uuid "$2")\")] | $3"
}

# Plain again: the tables lead to the volumes, no engine and no nbd device is left.
plain_now() { # HOST NAME
    local found
    found=$(on "$1" "dmsetup table | grep '^forecopy-$(guest_uuid "$2")'
        pgrep -af '^nbdkit.*$(guest_uuid "$2")'; true")
    [[ $found == *' linear 7:'* && $found != *' linear 43:'* && $found != *nbdkit* ]]
}
# Nothing of the guest's disks is attached: neither table nor engine.
gone_now() { # HOST NAME
    ! on "$1" "dmsetup table | grep '^forecopy-$(guest_uuid "$2")'
        pgrep -f '^nbdkit.*$(guest_uuid "$2")'" | grep -q .
}
disks_are_plain() {
    if wait_for "${3:-120}" "the disks of $2 to be plain on host $1" plain_now "$1" "$2"; then
        ok 0 "its disks are plain volumes of host $1 again"
    else
        ok 1 "its disks are plain volumes of host $1 again"
        diag "$(on "$1" 'dmsetup table; pgrep -af nbdkit; forecopy disks' 2>&1 || true)"
    fi
}
disks_are_gone() {
    if wait_for 60 "the disks of $2 to leave host $1" gone_now "$1" "$2"; then
        ok 0 "nothing of them is attached on host $1"
    else
        ok 1 "nothing of them is attached on host $1"
        diag "$(on "$1" 'dmsetup table; pgrep -af nbdkit; forecopy disks' 2>&1 || true)"
    fi
}

# disk_copy_under_way FROM NAME BYTES: waits until that much of the disks was
# sent, or the migration ended.
disk_copy_under_way() {
    local sent
    until sent=$(disks_of "$1" "$2" '[.[].sent_bytes // 0] | add // 0') &&
        ((${sent:-0} >= $3)); do
        migrate_running || return 1
        sleep 0.3
    done
}

# disk_state_is FROM NAME STATE...: waits until the disks are in one of the
# states, or the migration ended.
disk_state_is() {
    local from=$1 name=$2 state
    shift 2
    until state=$(disks_of "$from" "$name" '[.[] | select(.role == "source")][0].state') && [[ " $* " == *" $state "* ]]; do
        migrate_running || return 1
        sleep 0.2
    done
}

# What the guest's disks must still hold after a power cut: to be given to the
# next guest as disk_adopt.
disk_floors() { lab guest disk "$1" | json .floors; }
disk_writes() { lab guest disk "$1" | json .writes; }

# The guest was where the power was cut: started again on the same disks, it
# finds all it had flushed.
guest_adopts() { # HOST NAME FLOORS
    lab guest start "$1" disk --name "$2" --keep "disk_adopt=$3" >/dev/null ||
        bail "$2 does not start on its old disks"
    lab guest wait "$2" 120 || bail "$2 does not come up on its old disks"
    guest_is_well "$2" "$1"
}
