# SPDX-License-Identifier: LGPL-2.1-or-later
# Guests: started, found, asked and stopped.
# shellcheck shell=bash disable=SC2153

help_guest() {
    cat <<'TEXT'
usage: lab guest start N KIND [--name GUEST] [--mem MB] [--disk SIZE[,SIZE]
                 [--script SCRIPT] [--keep]] [--ramdisk NAME] [PARAMETER=VALUE...]
       lab guest wait GUEST [SECONDS]
       lab guest check GUEST [SECONDS]
       lab guest disk | ip | where | console GUEST
       lab guest stop GUEST [--keep]
       lab guest harm GUEST PAGE
       lab guest harm-disk GUEST SECTOR
       lab guest list

KIND is idle (40 MB of cold memory), writer (64 random 8-byte writes each 4 ms
over 8 MB hot of 42 MB), redis (a redis server under load that checks its
answers), disk (writes and verifies its disks) or sqlite (transactions on a file
system on its disk).  PARAMETERs go to the guest's init: hot_mb, total_mb, writes,
period_ms, compress, scan; redis_keys, redis_bytes, redis_ops; disk_mode
(idle|writer|reader), disk_writes, disk_reads, disk_period_ms, disk_hot,
disk_holes, disk_flush, disk_adopt; sqlite_rows, sqlite_journal.
  start    creates it on host N; GUEST is KIND unless --name says otherwise
    --disk    sparse files /var/guests/GUEST-xvda.img (xvdb, ...) on host N;
              disk and sqlite guests have one of 64M unless told otherwise
    --script  the hotplug script (block-forecopy); `none`: a plain loop device
    --keep    the disks' files, uuid and address of the guest of that name
              that was stopped with --keep
    --ramdisk /lab/guest/NAME.cpio of host N instead of the kind's own; `lab put`
              puts it there
  wait     until it answers on the network
  check    has it verify all its memory (redis: all its keys; disk: all
           sectors; sqlite: all rows) and prints the verdict as JSON; exits 0
           only when all is right
  disk     what it knows of its disks right now, as JSON, without a pass
  where    the number of the host it runs on
  stop     destroys it; its disks' files go on every host, unless --keep
  harm     damages one page of it, to see a check fail; harm-disk: 4 KiB of a disk
TEXT
}

guest_file() { echo "$RUN/guest.$1"; }
# What outlives a guest that was stopped with --keep.
kept_file() { echo "$RUN/kept.$1"; }

guest_open() {
    [[ ${1:-} ]] || wrong_usage "which guest"
    [[ -s $(guest_file "$1") ]] || die "no guest named '$1' in lab '$NAME'"
    read -r GUEST_IP GUEST_KIND GUEST_UUID GUEST_DISKS <"$(guest_file "$1")"
}

cmd_guest() {
    local verb=${1:-}
    shift || true
    lab_open
    case $verb in
    start | wait | check | disk | where | console | stop | harm | harm-disk) "guest_${verb/-/_}" "$@" ;;
    ip) guest_open "${1:-}" && echo "$GUEST_IP" ;;
    list) (cd "$RUN" && for f in guest.*; do
        [[ -e $f ]] && echo "${f#guest.} $(<"$f")"
    done) || true ;;
    *) wrong_usage "guest does not know '$verb'" ;;
    esac
}

guest_start() {
    local n=${1:-} kind=${2:-} name='' mem='' extra='' ip cfg ramdisk=small
    local disks='' script=block-forecopy keep='' uuid stanza='' other=''
    host_number "$n"
    shift 2 || wrong_usage "guest start takes N and KIND"
    while (($#)); do
        case $1 in
        --name) name=${2:-} && shift 2 ;;
        --mem) mem=${2:-} && shift 2 ;;
        --disk) disks=${2:-} && shift 2 ;;
        --script) script=${2:-} && shift 2 ;;
        --keep) keep=1 extra+=" fc.keep=1" && shift ;;
        --ramdisk) other=${2:-} && shift 2 ;;
        *=*) extra+=" fc.$1" && shift ;;
        *) wrong_usage "guest start does not take '$1'" ;;
        esac
    done
    case $kind in
    idle | writer) : "${mem:=128}" ;;
    disk | sqlite) : "${mem:=128}" "${disks:=64M}" && ramdisk=$kind ;;
    redis) : "${mem:=256}" && ramdisk=redis ;;
    *) wrong_usage "no guest of kind '$kind': idle, writer, redis, disk, sqlite" ;;
    esac
    : "${name:=$kind}"
    [[ $name =~ ^[a-z0-9][a-z0-9-]*$ ]] || wrong_usage "bad guest name '$name'"
    [[ ! $other || $other =~ ^[a-z0-9][a-z0-9-]*$ ]] || wrong_usage "bad ramdisk '$other'"
    [[ ! $disks || $disks =~ ^[0-9]+[KMG](,[0-9]+[KMG]){0,3}$ ]] ||
        wrong_usage "--disk takes one to four sizes: 64M,16M"
    [[ ! -e $(guest_file "$name") ]] ||
        die "a guest '$name' exists already: lab guest stop $name"
    if [[ $keep ]]; then
        [[ -s $(kept_file "$name") ]] || die "nothing was kept of a guest '$name'"
        read -r ip _ uuid disks <"$(kept_file "$name")"
    else
        ip=$(guest_new_ip)
        uuid=$(</proc/sys/kernel/random/uuid)
    fi
    [[ ! $disks ]] || stanza=$(guest_disks "$n" "$name" "$disks" "$script" "$keep")
    cfg="name=\"$name\"
uuid=\"$uuid\"
type=\"pvh\"
vcpus=1
memory=$mem
kernel=\"/lab/guest/vmlinux\"
ramdisk=\"/lab/guest/${other:-$ramdisk}.cpio\"
extra=\"console=hvc0 mitigations=off quiet loglevel=4 fc.kind=$kind fc.ip=$ip$extra\"
vif=[\"mac=00:16:3e:fc:00:$(printf %02x $((${ip##*.} - 100))),bridge=xenbr0\"]
disk=[$stanza]
on_crash=\"preserve\"
on_reboot=\"preserve\""
    echo "$ip $kind $uuid $disks" >"$(guest_file "$name")"
    if ! host_run "$n" "mkdir -p /etc/xen/lab && cat >/etc/xen/lab/$name.cfg &&
        xl create -q /etc/xen/lab/$name.cfg" <<<"$cfg"; then
        rm -f "$(guest_file "$name")"
        die "host $n could not create guest '$name'"
    fi
    rm -f "$(kept_file "$name")"
}

guest_new_ip() {
    local number
    for ((number = 1; number < 100; number++)); do
        grep -qsw "$NET.$((100 + number))" "$RUN"/{guest,kept}.* || break
    done
    echo "$NET.$((100 + number))"
}

# guest_disks HOST NAME SIZES SCRIPT KEEP: makes the files; prints what goes
# into the guest's disk=[...].
guest_disks() {
    local n=$1 name=$2 script=$4 keep=$5 size sizes vdev file list='' letters=abcd
    local make='mkdir -p /var/guests'
    IFS=, read -ra sizes <<<"$3"
    for size in "${sizes[@]}"; do
        vdev=xvd${letters:0:1}
        letters=${letters:1}
        file=/var/guests/$name-$vdev.img
        [[ $keep ]] || make+=" && rm -f $file && truncate -s $size $file"
        if [[ $script = none ]]; then
            make+=" && echo \"'format=raw,vdev=$vdev,access=rw,target=\$(losetup -f --show $file)',\""
        else
            list+="'format=raw,vdev=$vdev,access=rw,script=$script,target=$file',"
        fi
    done
    host_run "$n" "$make" </dev/null || die "host $n cannot make the disks of '$name'"
    echo "$list"
}

guest_wait() {
    local seconds=${2:-90} port=8
    guest_open "${1:-}"
    case $GUEST_KIND in
    redis) port=9 ;;
    disk | sqlite) port=10 ;;
    esac
    net_exec "$BIN/fc-ask" "$GUEST_IP" "$port" status "$seconds" >/dev/null || {
        guest_obituary "$1"
        die "guest '$1' does not answer"
    }
}

guest_check() {
    local seconds=${2:-60} memory redis=null disk=null ok=true
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
    if [[ $GUEST_KIND = disk || $GUEST_KIND = sqlite ]]; then
        disk=$(net_exec "$BIN/fc-ask" "$GUEST_IP" 10 check "$seconds") || {
            guest_obituary "$1"
            die "the disks of guest '$1' do not answer: $(guest_disk "$1" 2>&1)"
        }
        [[ $disk = '{"ok":true'* ]] || ok=false
    fi
    echo "{\"guest\":\"$1\",\"kind\":\"$GUEST_KIND\",\"ok\":$ok,\"memory\":$memory,\"redis\":$redis,\"disk\":$disk}"
    [[ $ok = true ]] || exit 1
}

guest_disk() {
    guest_open "${1:-}"
    net_exec "$BIN/fc-ask" "$GUEST_IP" 10 status 5 || exit
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
    local n remove=''
    guest_open "${1:-}"
    [[ $# -le 1 || $2 = --keep ]] || wrong_usage "guest stop does not take '$2'"
    [[ ${2:-} ]] || remove="rm -f /var/guests/$1-*.img"
    for ((n = 1; n <= HOSTS; n++)); do
        host_alive "$n" || continue
        host_run "$n" "for d in $1 $1--incoming; do xl destroy \$d 2>/dev/null || true; done
            losetup -n -O NAME,BACK-FILE | while read -r dev file; do
                case \$file in /var/guests/$1-*.img*) losetup -d \$dev ;; esac
            done
            $remove" </dev/null
    done
    if [[ $remove ]]; then
        rm -f "$(guest_file "$1")" "$(kept_file "$1")"
    else
        mv "$(guest_file "$1")" "$(kept_file "$1")"
    fi
}

guest_harm() {
    guest_open "${1:-}"
    [[ ${2:-} =~ ^[0-9]+$ ]] || wrong_usage "guest harm takes GUEST and PAGE"
    net_exec bash -c "printf 'harm %s' '$2' >/dev/udp/$GUEST_IP/8"
}

guest_harm_disk() {
    guest_open "${1:-}"
    [[ ${2:-} =~ ^[0-9]+$ ]] || wrong_usage "guest harm-disk takes GUEST and SECTOR"
    net_exec bash -c "printf 'harm %s' '$2' >/dev/udp/$GUEST_IP/10"
}
