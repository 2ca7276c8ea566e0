# SPDX-License-Identifier: LGPL-2.1-or-later
# Guests: started, found, asked and stopped.
# shellcheck shell=bash disable=SC2153

help_guest() {
    cat <<'TEXT'
usage: lab guest start N KIND [--name GUEST] [--mem MB] [PARAMETER=VALUE...]
       lab guest wait GUEST [SECONDS]
       lab guest check GUEST [SECONDS]
       lab guest ip | where | console | stop GUEST
       lab guest harm GUEST PAGE
       lab guest list

KIND is idle (40 MB of cold memory), writer (64 random 8-byte writes each 4 ms
over 8 MB hot of 42 MB) or redis (a redis server under load that checks its
answers).  PARAMETERs go to the guest's init: hot_mb, total_mb, writes,
period_ms, compress, scan; redis_keys, redis_bytes, redis_ops.
  start    creates it on host N; GUEST is KIND unless --name says otherwise
  wait     until it answers on the network
  check    has it verify all its memory (redis: all its keys) and prints the
           verdict as JSON; exits 0 only when all is right
  where    the number of the host it runs on
  harm     damages one page of it, to see a check fail
TEXT
}

guest_file() { echo "$RUN/guest.$1"; }

guest_open() {
    [[ ${1:-} ]] || wrong_usage "which guest"
    [[ -s $(guest_file "$1") ]] || die "no guest named '$1' in lab '$NAME'"
    read -r GUEST_IP GUEST_KIND <"$(guest_file "$1")"
}

cmd_guest() {
    local verb=${1:-}
    shift || true
    lab_open
    case $verb in
    start | wait | check | where | console | stop | harm) "guest_$verb" "$@" ;;
    ip) guest_open "${1:-}" && echo "$GUEST_IP" ;;
    list) (cd "$RUN" && for f in guest.*; do
        [[ -e $f ]] && echo "${f#guest.} $(<"$f")"
    done) || true ;;
    *) wrong_usage "guest does not know '$verb'" ;;
    esac
}

guest_start() {
    local n=${1:-} kind=${2:-} name='' mem='' extra='' number ip cfg ramdisk=small
    host_number "$n"
    shift 2 || wrong_usage "guest start takes N and KIND"
    while (($#)); do
        case $1 in
        --name) name=${2:-} && shift 2 ;;
        --mem) mem=${2:-} && shift 2 ;;
        *=*) extra+=" fc.$1" && shift ;;
        *) wrong_usage "guest start does not take '$1'" ;;
        esac
    done
    case $kind in
    idle | writer) : "${mem:=128}" ;;
    redis) : "${mem:=256}" && ramdisk=redis ;;
    *) wrong_usage "no guest of kind '$kind': idle, writer, redis" ;;
    esac
    : "${name:=$kind}"
    [[ $name =~ ^[a-z0-9][a-z0-9-]*$ ]] || wrong_usage "bad guest name '$name'"
    [[ ! -e $(guest_file "$name") ]] ||
        die "a guest '$name' exists already: lab guest stop $name"
    for ((number = 1; number < 100; number++)); do
        ip=$NET.$((100 + number))
        grep -qsw "$ip" "$RUN"/guest.* || break
    done
    cfg="name=\"$name\"
type=\"pvh\"
vcpus=1
memory=$mem
kernel=\"/lab/guest/vmlinux\"
ramdisk=\"/lab/guest/$ramdisk.cpio\"
extra=\"console=hvc0 mitigations=off quiet loglevel=4 fc.kind=$kind fc.ip=$ip$extra\"
vif=[\"mac=00:16:3e:fc:00:$(printf %02x "$number"),bridge=xenbr0\"]
on_crash=\"preserve\"
on_reboot=\"preserve\""
    echo "$ip $kind" >"$(guest_file "$name")"
    if ! host_run "$n" "mkdir -p /etc/xen/lab && cat >/etc/xen/lab/$name.cfg &&
        xl create -q /etc/xen/lab/$name.cfg" <<<"$cfg"; then
        rm -f "$(guest_file "$name")"
        die "host $n could not create guest '$name'"
    fi
}

guest_wait() {
    local seconds=${2:-90} port=8
    guest_open "${1:-}"
    [[ $GUEST_KIND = redis ]] && port=9
    net_exec "$BIN/fc-ask" "$GUEST_IP" "$port" status "$seconds" >/dev/null || {
        guest_obituary "$1"
        die "guest '$1' does not answer"
    }
}

guest_check() {
    local seconds=${2:-60} memory redis=null ok=true
    guest_open "${1:-}"
    memory=$(net_exec "$BIN/fc-ask" "$GUEST_IP" 8 check "$seconds") || {
        guest_obituary "$1"
        die "guest '$1' does not answer"
    }
    [[ $memory = '{"ok":true'* ]] || ok=false
    if [[ $GUEST_KIND = redis ]]; then
        redis=$(net_exec "$BIN/fc-ask" "$GUEST_IP" 9 check "$seconds") || {
            guest_obituary "$1"
            die "redis in guest '$1' does not answer"
        }
        [[ $redis = '{"ok":true'* ]] || ok=false
    fi
    echo "{\"guest\":\"$1\",\"kind\":\"$GUEST_KIND\",\"ok\":$ok,\"memory\":$memory,\"redis\":$redis}"
    [[ $ok = true ]] || exit 1
}

# Where a guest lives, by its name and state on each host that answers; one
# that is paused, or on its way in or out, does not count as running.
guest_where() {
    local n found=()
    guest_open "${1:-}"
    for ((n = 1; n <= HOSTS; n++)); do
        host_alive "$n" || continue
        if host_run "$n" "xl list $1 2>/dev/null | awk 'NR == 2 && \$5 !~ /[pscd]/ { exit 9 }'" </dev/null
        then
            continue
        else
            (($? == 9)) && found+=("$n")
        fi
    done
    ((${#found[@]})) || die "guest '$1' runs on no host"
    ((${#found[@]} == 1)) || die "guest '$1' runs on hosts ${found[*]}"
    echo "${found[0]}"
}

# Says of a silent guest what Xen knows of its end.
guest_obituary() {
    local n state
    for ((n = 1; n <= HOSTS; n++)); do
        host_alive "$n" || continue
        state=$(host_run "$n" "xl list | grep '^$1'; xl dmesg | grep -i 'triple fault' | tail -n 3" </dev/null) || true
        [[ -z $state ]] || say "host $n: $state"
    done
}

guest_console() {
    local n
    guest_open "${1:-}"
    for ((n = 1; n <= HOSTS; n++)); do
        host_alive "$n" || continue
        host_run "$n" "for f in /var/log/xen/console/guest-$1.log /var/log/xen/console/guest-$1--incoming.log; do if [ -s \$f ]; then echo \"--- host$n \$f\"; cat \$f; fi; done" </dev/null
    done
}

guest_stop() {
    local n
    guest_open "${1:-}"
    for ((n = 1; n <= HOSTS; n++)); do
        host_alive "$n" || continue
        host_run "$n" "for d in $1 $1--incoming; do xl destroy \$d 2>/dev/null || true; done" </dev/null
    done
    rm -f "$(guest_file "$1")"
}

guest_harm() {
    guest_open "${1:-}"
    [[ ${2:-} =~ ^[0-9]+$ ]] || wrong_usage "guest harm takes GUEST and PAGE"
    net_exec bash -c "printf 'harm %s' '$2' >/dev/udp/$GUEST_IP/8"
}
