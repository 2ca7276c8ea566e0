# SPDX-License-Identifier: LGPL-2.1-or-later
# The lab's network: a namespace with a bridge and a tap for each host, and
# the links between the hosts, which can be shaped, cut and counted.
#
# Every tap has an HTB with one class for each other host: IP packets from that
# host's address to this one's.  Class 1:1<i> on tap<j> is thus the link from
# host i to host j, and nothing else: guests, their heartbeats and this side's
# own connections pass through class 1:fff, unshaped and with a queue of their
# own.  A link's rate is a TBF inside its class, which cuts large offloaded
# segments into packets first; a cut link is a blackhole there.  The class's
# byte count is what went through, by the packet, headers included.
# shellcheck shell=bash

BRIDGE=fcbr0
UNLIMITED=40gbit

net_exec() { ip netns exec "$NS" "$@"; }

net_up() {
    local n=$1 i j
    ip netns add "$NS"
    net_exec sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || true
    net_exec ip link set lo up
    # Ten seconds of ageing: a guest whose first packet after a migration was
    # lost is flooded for soon, not after five minutes.
    net_exec ip link add "$BRIDGE" type bridge forward_delay 0 stp_state 0 \
        ageing_time 1000
    net_exec ip addr add "$CLIENT_IP/24" dev "$BRIDGE"
    net_exec ip link set "$BRIDGE" up
    for ((j = 1; j <= n; j++)); do
        net_exec ip tuntap add "tap$j" mode tap
        net_exec ip link set "tap$j" master "$BRIDGE" txqueuelen 2000
        net_exec ip link set "tap$j" up
        net_exec tc qdisc add dev "tap$j" root handle 1: htb default fff
        link_class "$j" 1:fff
        for ((i = 1; i <= n; i++)); do
            ((i == j)) && continue
            link_class "$j" "1:1$i"
            net_exec tc filter add dev "tap$j" parent 1: protocol ip prio 1 \
                u32 match ip src "$(host_ip "$i")/32" \
                match ip dst "$(host_ip "$j")/32" flowid "1:1$i"
            link_apply "$i" "$j"
        done
    done
}

link_class() {
    net_exec tc class add dev "tap$1" parent 1: classid "$2" htb \
        rate "$UNLIMITED" ceil "$UNLIMITED" burst 1m cburst 1m quantum 60000
}

net_down() {
    [[ -e /run/netns/$NS ]] || return 0
    ip netns del "$NS"
}

# "16mbit" in bits a second.
rate_bits() {
    local n=${1%%[a-zA-Z]*} unit=${1##*[0-9.]}
    case ${unit,,} in
    bit) unit=1 ;;
    kbit) unit=1000 ;;
    mbit) unit=1000000 ;;
    gbit) unit=1000000000 ;;
    *) wrong_usage "'$1' is no rate: say 16mbit, 500kbit, 1gbit" ;;
    esac
    [[ $n =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
        wrong_usage "'$1' is no rate: say 16mbit, 500kbit, 1gbit"
    awk -v n="$n" -v u="$unit" 'BEGIN { printf "%.0f\n", n * u }'
}

# Puts the state files' will into effect for the link from host i to host j.
link_apply() {
    local i=$1 j=$2 rate=off bits limit burst
    local where=(dev "tap$j" parent "1:1$i" handle "1$i:")
    [[ -s $RUN/shape ]] && read -r rate _ <"$RUN/shape"
    net_exec tc qdisc del dev "tap$j" parent "1:1$i" 2>/dev/null || true
    if [[ -e $RUN/cut.$i || -e $RUN/cut.$j ]]; then
        net_exec tc qdisc add "${where[@]}" blackhole
    elif [[ $rate = off ]]; then
        net_exec tc qdisc add "${where[@]}" bfifo limit 4m
    else
        # A queue of 50 ms, or 64 KB where that is less: enough for TCP to
        # fill the link, little enough not to be what downtime is made of.
        bits=$(rate_bits "$rate")
        limit=$((bits / 8 / 20))
        burst=$((bits / 8 / 250))
        ((limit >= 65536)) || limit=65536
        ((burst >= 8192)) || burst=8192
        net_exec tc qdisc add "${where[@]}" tbf rate "${bits}bit" \
            burst "$burst" limit "$limit"
    fi
}

links_apply() {
    local i j
    for ((j = 1; j <= HOSTS; j++)); do
        for ((i = 1; i <= HOSTS; i++)); do
            ((i == j)) || link_apply "$i" "$j"
        done
    done
}

# Delay and loss are the sending host's: its kernel is known to have netem,
# the one outside need not.  With loss, large segments are switched off first,
# so that packets are lost one by one.
delay_apply() {
    local n delay=$1 loss=$2 script i
    for ((n = 1; n <= HOSTS; n++)); do
        host_alive "$n" || continue
        script="tc qdisc del dev eth0 root 2>/dev/null; ethtool -K eth0 tso on gso on >/dev/null 2>&1; ethtool -K xenbr0 tso on gso on >/dev/null 2>&1"
        if [[ $delay$loss ]]; then
            script+="; set -e; modprobe -a sch_netem sch_prio cls_u32"
            if [[ $loss ]]; then
                script+="; ethtool -K xenbr0 tso off gso off >/dev/null; ethtool -K eth0 tso off gso off >/dev/null"
            fi
            script+="; tc qdisc add dev eth0 root handle 1: prio bands 3 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
            script+="; tc qdisc add dev eth0 parent 1:3 handle 13: netem limit 20000 ${delay:+delay $delay} ${loss:+loss $loss}"
            for ((i = 1; i <= HOSTS; i++)); do
                ((i == n)) && continue
                script+="; tc filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip src $(host_ip "$n")/32 match ip dst $(host_ip "$i")/32 flowid 1:3"
            done
        fi
        host_run "$n" "$script" </dev/null ||
            die "host $n refused the delay or loss"
    done
}

help_shape() {
    cat <<'TEXT'
usage: lab shape [RATE [DELAY [LOSS]]] | lab shape off

Shapes the link between the hosts, each direction on its own: IP packets from
one host's address to another's, and no others.  Guests' traffic, heartbeats
and `lab ssh` are never behind it.
  RATE   16mbit, 500kbit, 1gbit: token bucket with a queue of 50 ms
         (at least 64 KB), or `max` for none
  DELAY  10ms, one way, added by the sending host
  LOSS   0.1%, of single packets, dropped by the sending host
Without arguments: prints what is set.
TEXT
}

cmd_shape() {
    local rate=${1:-} delay=${2:-} loss=${3:-}
    lab_open
    if [[ -z $rate ]]; then
        if [[ -s $RUN/shape ]]; then cat "$RUN/shape"; else echo off; fi
        return
    fi
    [[ $# -le 3 ]] || wrong_usage "shape takes RATE, DELAY and LOSS"
    case $rate in off | max) rate=off ;; *) rate_bits "$rate" >/dev/null ;; esac
    [[ -z $delay || $delay =~ ^[0-9.]+(us|ms|s)$ ]] ||
        wrong_usage "'$delay' is no delay: say 10ms"
    [[ -z $loss || $loss =~ ^[0-9.]+%$ ]] ||
        wrong_usage "'$loss' is no loss: say 0.1%"
    if [[ $rate = off && -z $delay$loss ]]; then
        local had_delay=
        [[ -s $RUN/shape ]] && read -r _ had_delay _ <"$RUN/shape"
        rm -f "$RUN/shape"
        links_apply
        [[ -z $had_delay ]] || delay_apply "" ""
        return
    fi
    local had_delay=
    [[ -s $RUN/shape ]] && read -r _ had_delay _ <"$RUN/shape"
    echo "$rate${delay:+ $delay}${loss:+ $loss}" >"$RUN/shape"
    links_apply
    [[ $delay = 0ms || $delay = 0s ]] && delay=
    if [[ $delay$loss || $had_delay ]]; then
        delay_apply "$delay" "$loss"
    fi
}

help_counters() {
    cat <<'TEXT'
usage: lab counters [N]

Bytes that went over the links between the hosts since `up`: Ethernet frames of
IP packets between the hosts' own addresses, as they left the link (what a
shaped link dropped, or a cut one, is not in it).  As JSON; with N, of host N
only: {"host":N,"sent_bytes":...,"received_bytes":...}.
TEXT
}

link_bytes() {
    net_exec tc -s class show dev "tap$2" classid "1:1$1" |
        awk '$1 == "Sent" { print $2; exit }'
}

cmd_counters() {
    local i j sent=0 received=0 first=1 n=${1:-}
    lab_open
    if [[ $n ]]; then
        host_number "$n"
        for ((i = 1; i <= HOSTS; i++)); do
            ((i == n)) && continue
            sent=$((sent + $(link_bytes "$n" "$i")))
            received=$((received + $(link_bytes "$i" "$n")))
        done
        echo "{\"host\":$n,\"sent_bytes\":$sent,\"received_bytes\":$received}"
        return
    fi
    printf '['
    for ((i = 1; i <= HOSTS; i++)); do
        for ((j = 1; j <= HOSTS; j++)); do
            ((i == j)) && continue
            ((first)) || printf ','
            first=0
            printf '{"from":%d,"to":%d,"bytes":%s}' "$i" "$j" "$(link_bytes "$i" "$j")"
        done
    done
    printf ']\n'
}

help_cut() {
    cat <<'TEXT'
usage: lab cut link [N] | lab cut power N

link   drops everything between host N (every host) and the other hosts, both
       ways, without a word to either; guests and `lab ssh` still get through
power  ends host N's QEMU at once, as pulling the plug would; what its disk was
       given is kept, `lab boot N` starts it again
TEXT
}

help_mend() {
    cat <<'TEXT'
usage: lab mend link [N]

Undoes `lab cut link`; the shape set before is back in force.
TEXT
}

cmd_cut() {
    local i
    lab_open
    case ${1:-} in
    link)
        for ((i = 1; i <= HOSTS; i++)); do
            [[ -n ${2:-} && $i != "$2" ]] || : >"$RUN/cut.$i"
        done
        [[ -z ${2:-} ]] || host_number "$2"
        links_apply
        ;;
    power)
        host_number "${2:-}"
        host_alive "$2" || die "host $2 is not running"
        host_kill "$2"
        ;;
    *) wrong_usage "cut what: link or power" ;;
    esac
}

cmd_mend() {
    lab_open
    [[ ${1:-} = link ]] || wrong_usage "mend what: link"
    if [[ ${2:-} ]]; then
        host_number "$2"
        rm -f "$RUN/cut.$2"
    else
        rm -f "$RUN"/cut.*
    fi
    links_apply
}
