# SPDX-License-Identifier: LGPL-2.1-or-later
# The emulated hosts: up, down, boot, and running things on them.
# shellcheck shell=bash

BOOT_S=${FC_LAB_BOOT_S:-240}
HOST_MB=${FC_LAB_HOST_MB:-2048}
DOM0_MB=${FC_LAB_DOM0_MB:-768}

lab_paths() {
    [[ $NAME =~ ^[a-z0-9][a-z0-9-]{0,19}$ ]] ||
        wrong_usage "'$NAME' is no name for a lab: a-z, 0-9, '-', at most 20"
    RUN=$OUT/run/$NAME
    # Two checkouts may each have a lab of one name.
    NS=fclab-$(key_of "$OUT" | cut -c1-4)-$NAME
}

# Reads the state of the lab that is up.
lab_open() {
    local key value
    lab_paths
    [[ -e $RUN/lab.env ]] || die "no lab named '$NAME' is up (lab up --name $NAME)"
    while IFS='=' read -r key value; do
        case $key in
        hosts) HOSTS=$value ;;
        image) IMAGE=$value ;;
        pair) use_pair "$value" ;;
        bin) BIN=$value ;;
        tools | emulator) TOOLS=$value ;;
        esac
    done <"$RUN/lab.env"
}

host_number() {
    [[ ${1:-} =~ ^[1-9]$ && ${1:-} -le $HOSTS ]] ||
        wrong_usage "'${1:-}' is no host of this lab: 1 to $HOSTS"
}

# Is the recorded process still ours?  Its command line names its overlay.
host_alive() {
    local pid
    [[ -s $RUN/host$1.pid ]] || return 1
    pid=$(<"$RUN/host$1.pid")
    [[ -r /proc/$pid/cmdline ]] &&
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null |
        grep -qF "run/$NAME/host$1.qcow2"
}

host_kill() {
    local n=$1 pid
    if host_alive "$n"; then
        pid=$(<"$RUN/host$n.pid")
        kill -9 "$pid" 2>/dev/null || true
        wait_for 20 "the end of host $n's QEMU (pid $pid)" host_dead "$n" || true
    fi
    rm -f "$RUN/host$n.pid"
}
host_dead() { ! host_alive "$1"; }

host_start() {
    local n=$1 args xen
    xen="dom0_mem=${DOM0_MB}M,max:${DOM0_MB}M spec-ctrl=no xpti=no noreboot"
    xen+=" console=com1 com1=115200,8n1 loglvl=info guest_loglvl=info ${FC_LAB_XEN_ARGS:-}"
    args="/mnt/${IMAGE##*/}"
    args="${args%.img}"
    args="$args.vmlinux console=hvc0 net.ifnames=0 mitigations=off quiet \
loglevel=4 audit=0 selinux=0 apparmor=0 random.trust_cpu=on lab.host=$n,$args.cpio"
    rm -f "$RUN/host$n.serial"
    # Mounts are private to the emulator's own mount namespace: nothing has to
    # be unmounted, whatever happens.
    # shellcheck disable=SC2016 # the inner shell's variables
    (
        trap - ERR EXIT
        exec setsid ip netns exec "$NS" unshare --mount sh -c '
            root=$1 out=$2
            shift 2
            mount --bind /dev "$root/dev" && mount --bind "$out" "$root/mnt" &&
                exec chroot "$root" "$@"' sh "$TOOLS" "$OUT" \
            "${FC_LAB_QEMU:-qemu-system-x86_64}" -name "forecopy-lab-$NAME-$n" \
            -accel tcg,thread=multi,tb-size=512 \
            -cpu "${FC_LAB_CPU:-qemu64,+svm,+npt,+rdrand,+aes,+pclmulqdq,+ssse3,+sse4.1,+sse4.2}" \
            -m "$HOST_MB" -smp 2 -display none -nodefaults -no-reboot \
            -serial "file:/mnt/run/$NAME/host$n.serial" \
            -monitor "unix:/mnt/run/$NAME/host$n.monitor,server=on,wait=off" \
            -kernel "/mnt/$(basename "${IMAGE%.img}.xen")" -append "$xen" \
            -initrd "$args" \
            -drive "file=/mnt/run/$NAME/host$n.qcow2,if=virtio,format=qcow2" \
            -netdev "tap,id=net0,ifname=tap$n,script=no,downscript=no" \
            -device "virtio-net-pci,netdev=net0,mac=52:54:00:fc:00:0$n,romfile=" \
            -object rng-random,filename=/dev/urandom,id=rng0 \
            -device virtio-rng-pci,rng=rng0 \
            </dev/null
    ) >"$RUN/host$n.qemu.log" 2>&1 9>&- &
    echo $! >"$RUN/host$n.pid"
    # Until then the process is still this script.
    wait_for 20 "host $n's QEMU to start" host_alive "$n" || {
        cat "$RUN/host$n.qemu.log" >&2
        die "host $n's QEMU does not start"
    }
}

host_is_up() {
    grep -q "lab: host $1 is up" "$RUN/host$1.serial" 2>/dev/null && return
    host_alive "$1" || {
        tail -n 5 "$RUN/host$1.qemu.log" "$RUN/host$1.serial" >&2 || true
        die "host $1's emulator has ended"
    }
    return 1
}

host_wait() {
    local n=$1
    wait_for "$BOOT_S" "host $n to boot" host_is_up "$n" || {
        tail -n 20 "$RUN/host$n.serial" >&2
        die "host $n did not come up; its console: $RUN/host$n.serial"
    }
    wait_for 20 "host $n to answer" host_answers "$n" ||
        die "host $n is up but cannot be reached"
}
host_answers() { host_run "$1" true </dev/null >/dev/null 2>&1; }

# host_run N COMMAND...: as ssh would, but over the lab's plain TCP.
host_run() {
    local n=$1
    shift
    net_exec "$BIN/fc-rsh" "$(host_ip "$n")" "$*"
}

help_up() {
    cat <<'TEXT'
usage: lab up [-n HOSTS] [--name NAME] [--deb FILE] [--pair 4.20|4.17]

Boots HOSTS (2; at most 4) Xen hosts in a network namespace of their own and
returns when all of them answer.  Builds what is not built yet.
  --name NAME  more than one lab may be up, each with a name (`default`);
               every command takes --name, or the variable FC_LAB
  --deb FILE   installs this package on every host and starts forecopyd
  --pair P     the Xen release: 4.20 (Debian 13) or 4.17 (Debian 12)
TEXT
}

cmd_up() {
    local hosts=2 deb='' n
    while (($#)); do
        case $1 in
        -n) hosts=${2:-} && shift 2 ;;
        --deb) deb=${2:-} && shift 2 ;;
        *) wrong_usage "up does not take '$1'" ;;
        esac
    done
    [[ $hosts =~ ^[1-4]$ ]] || wrong_usage "-n takes 1 to 4 hosts"
    [[ -z $deb || -f $deb ]] || die "no such package: $deb"
    need_commands
    lab_paths
    build_all
    mkdir -p "$OUT/run"
    mkdir "$RUN" 2>/dev/null ||
        die "a lab named '$NAME' is up already (or was left half down): lab down --name $NAME"
    # shellcheck disable=SC2064 # NAME of now
    trap "trap - EXIT; say 'up failed: taking the lab down'; keep_serials; lab_down" EXIT
    trap 'exit 130' INT TERM HUP
    HOSTS=$hosts IMAGE=$(image_path) BIN=$(bin_dir) TOOLS=$(tools_root)
    printf '%s\n' "hosts=$HOSTS" "image=$IMAGE" "pair=$PAIR" "bin=$BIN" \
        "tools=$TOOLS" >"$RUN/lab.env"
    net_up "$HOSTS"
    for ((n = 1; n <= HOSTS; n++)); do
        chroot "$TOOLS" qemu-img --version >/dev/null || die "the tools root is broken: lab clean"
        host_disk "$n"
        host_start "$n"
    done
    for ((n = 1; n <= HOSTS; n++)); do host_wait "$n"; done
    if [[ $deb ]]; then
        for ((n = 1; n <= HOSTS; n++)); do host_install "$n" "$deb"; done
    fi
    trap - EXIT INT TERM HUP
    say "'$NAME' is up: $HOSTS hosts, Xen $PAIR"
}

# What the consoles said outlives a lab that did not come up.
keep_serials() {
    mkdir -p "$OUT/failed-$NAME"
    cp "$RUN"/host*.serial "$RUN"/host*.qemu.log "$OUT/failed-$NAME/" \
        2>/dev/null || true
    say "consoles kept in $OUT/failed-$NAME"
}

# The overlay's backing file is named as the emulator sees it.
host_disk() {
    # shellcheck disable=SC2016 # the inner shell's variables
    unshare --mount sh -c 'mount --bind "$2" "$1/mnt" &&
        exec chroot "$1" qemu-img create -q -f qcow2 -F raw -b "$3" "$4"' \
        sh "$TOOLS" "$OUT" "/mnt/${IMAGE##*/}" "/mnt/run/$NAME/host$1.qcow2"
}

host_install() {
    local n=$1 deb=$2
    host_run "$n" "cat >/root/forecopy.deb" <"$deb"
    host_run "$n" "dpkg -i /root/forecopy.deb </dev/null 2>&1 &&
        /lab/daemon start" </dev/null >"$RUN/host$n.install.log" 2>&1 || {
        tail -n 30 "$RUN/host$n.install.log" >&2
        die "host $n: the package does not install or start"
    }
}

help_install() {
    cat <<'TEXT'
usage: lab install FILE

Installs a package on every host of the lab that is up, in place of the one
that may be there, and starts forecopyd anew.
TEXT
}

cmd_install() {
    local n
    lab_open
    [[ -f ${1:-} ]] || wrong_usage "install takes a package file"
    for ((n = 1; n <= HOSTS; n++)); do
        host_run "$n" "/lab/daemon stop" </dev/null || true
        host_install "$n" "$1"
    done
}

help_down() {
    cat <<'TEXT'
usage: lab down [--name NAME | --all]

Ends the lab's hosts and removes its namespace and its state.
TEXT
}

cmd_down() {
    local dir
    if [[ ${1:-} = --all ]]; then
        for dir in "$OUT"/run/*/; do
            [[ -d $dir ]] || continue
            NAME=$(basename "$dir")
            lab_paths
            lab_down
        done
        return
    fi
    (($# == 0)) || wrong_usage "down does not take '$1'"
    lab_paths
    if [[ ! -d $RUN && ! -e /run/netns/$NS ]]; then
        die "no lab named '$NAME' is up"
    fi
    lab_down
}

lab_down() {
    local n pid
    for n in 1 2 3 4; do host_kill "$n"; done
    # Clients of this lab (heartbeats) that still run in its namespace.
    if [[ -e /run/netns/$NS ]]; then
        for pid in $(ip netns pids "$NS" 2>/dev/null); do
            kill "$pid" 2>/dev/null || true
        done
    fi
    net_down
    rm -rf "$RUN"
}

help_boot() {
    cat <<'TEXT'
usage: lab boot N

Starts host N again after `lab cut power N` (or its own shutdown), with the
disk it had, and waits for it.
TEXT
}

cmd_boot() {
    lab_open
    host_number "${1:-}"
    host_dead "$1" || die "host $1 is running"
    host_start "$1"
    host_wait "$1"
    local delay='' loss=''
    [[ -s $RUN/shape ]] && read -r _ delay loss <"$RUN/shape"
    [[ -z $delay ]] || delay_apply "$delay" "$loss"
}

help_ssh() {
    cat <<'TEXT'
usage: lab ssh N [COMMAND...]

Runs COMMAND on host N as root (arguments joined by spaces, as ssh does), over
the lab's plain TCP, which is quick; exits as it does.  Without COMMAND: a shell
on a terminal by ssh itself.  Between the hosts, `ssh host2` and
`fc-rsh host2 COMMAND` both work without asking.
TEXT
}

cmd_ssh() {
    local n=${1:-}
    lab_open
    host_number "$n"
    shift
    host_alive "$n" || die "host $n is not running"
    if (($#)); then
        host_run "$n" "$@" || exit
        return
    fi
    net_exec ssh -q -i "$OUT/ssh_key" -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes \
        "root@$(host_ip "$n")" || exit
}

help_put() { echo "usage: lab put N FILE DEST: copies FILE to host N"; }
help_get() { echo "usage: lab get N FILE DEST: copies host N's FILE here"; }

cmd_put() {
    local mode base
    lab_open
    (($# == 3)) || wrong_usage "put takes N FILE DEST"
    host_number "$1"
    [[ -f $2 ]] || die "no such file: $2"
    mode=$(stat -c %a "$2")
    base=$(printf %q "$(basename "$2")")
    host_run "$1" "d=$(printf %q "$3"); [ -d \"\$d\" ] && d=\$d/$base
        cat >\"\$d\" && chmod $mode \"\$d\"" <"$2"
}

cmd_get() {
    local dest
    lab_open
    (($# == 3)) || wrong_usage "get takes N FILE DEST"
    host_number "$1"
    dest=$3
    [[ -d $dest ]] && dest=$dest/$(basename "$2")
    host_run "$1" "cat $(printf %q "$2")" </dev/null >"$dest.part" || {
        rm -f "$dest.part"
        die "cannot get $2 from host $1"
    }
    mv "$dest.part" "$dest"
}

help_exec() {
    echo "usage: lab exec COMMAND...: runs COMMAND in the lab's network namespace ($CLIENT_IP)"
}

cmd_exec() {
    lab_open
    (($#)) || wrong_usage "exec what"
    net_exec "$@" || exit
}

help_status() { echo "usage: lab status: every lab that is up, its hosts and guests"; }

cmd_status() {
    local dir n link any=0
    for dir in "$OUT"/run/*/; do
        [[ -e $dir/lab.env ]] || continue
        any=1
        NAME=$(basename "$dir")
        lab_open
        link=unshaped
        [[ ! -s $RUN/shape ]] || link=$(<"$RUN/shape")
        ! compgen -G "$RUN/cut.*" >/dev/null || link+=', cut'
        echo "$NAME: Xen $PAIR, namespace $NS, link $link"
        for ((n = 1; n <= HOSTS; n++)); do
            if host_alive "$n" && host_answers "$n"; then
                echo "  host$n $(host_ip "$n") pid $(<"$RUN/host$n.pid"): $(host_run "$n" "xl list | awk 'NR > 2 { printf \"%s(%s) \", \$1, \$5 }'" </dev/null)"
            elif host_alive "$n"; then
                echo "  host$n $(host_ip "$n") pid $(<"$RUN/host$n.pid"): does not answer"
            else
                echo "  host$n: off"
            fi
        done
    done
    ((any)) || echo "no lab is up"
}

help_logs() {
    cat <<'TEXT'
usage: lab logs [DIR]

Collects from every host into DIR (build/lab/logs-NAME): its console, xl dmesg,
dmesg, /var/log/xen with the guests' consoles, forecopyd's log, cores' names.
TEXT
}

cmd_logs() {
    local dir n
    lab_open
    dir=${1:-$OUT/logs-$NAME}
    mkdir -p "$dir"
    for ((n = 1; n <= HOSTS; n++)); do
        cp "$RUN/host$n.serial" "$dir/host$n.serial" 2>/dev/null || true
        cp "$RUN/host$n.qemu.log" "$dir/host$n.qemu.log" 2>/dev/null || true
        if ! host_alive "$n" || ! host_answers "$n"; then
            say "host $n does not answer: only its console"
            continue
        fi
        host_run "$n" "xl dmesg" </dev/null >"$dir/host$n.xl-dmesg" || true
        host_run "$n" "xl list; xenstore-ls -f /local/domain; ls -l /var/log" \
            </dev/null >"$dir/host$n.state" 2>&1 || true
        host_run "$n" "dmesg" </dev/null >"$dir/host$n.dmesg" || true
        mkdir -p "$dir/host$n"
        host_run "$n" "tar -C /var/log -cf - --exclude='core.*' ." </dev/null |
            tar -C "$dir/host$n" -xf - || true
    done
    echo "$dir"
}
