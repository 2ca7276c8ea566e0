# SPDX-License-Identifier: LGPL-2.1-or-later
# Paths, messages, waits.  Sourced by lab.
# shellcheck shell=bash disable=SC2034

TOP=$(cd "$LAB/../.." && pwd)
OUT=${FC_LAB_OUT:-$TOP/build/lab}
NAME=default
PAIR=4.20

# The lab's addresses; every lab has a network namespace of its own, so they
# may be the same in all of them.
NET=10.77.0
CLIENT_IP=$NET.1

say() { printf 'lab: %s\n' "$*" >&2; }
die() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}
wrong_usage() {
    printf "lab: %s (see 'lab help')\n" "$*" >&2
    exit 2
}

host_ip() { echo "$NET.$((10 + $1))"; }

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds; says what was
# waited for when it never does.
wait_for() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@"; do
        if ((SECONDS >= end)); then
            say "gave up after $seconds s waiting for $what"
            return 1
        fi
        sleep 0.1
    done
}

# Which Debian package has the command that is missing.
need_commands() {
    local missing=() c p
    while read -r c p; do
        command -v "$c" >/dev/null || missing+=("$c (package $p)")
    done <<'LIST'
mmdebstrap mmdebstrap
ip iproute2
tc iproute2
ssh openssh-client
ssh-keygen openssh-client
mke2fs e2fsprogs
cpio cpio
zstd zstd
xz xz-utils
busybox busybox-static
gcc gcc
objcopy binutils
flock util-linux
unshare util-linux
setsid util-linux
LIST
    if ((${#missing[@]})); then
        printf 'lab: missing command: %s\n' "${missing[@]}" >&2
        die "install them: apt-get install \$(grep -v '^#' tests/lab/host.packages)"
    fi
    [[ $(id -u) = 0 ]] || die "needs root: namespaces, taps and chroots"
    [[ -c /dev/net/tun ]] || die "needs /dev/net/tun"
}

# The package names of a list file, joined by commas.
package_list() {
    sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@" | paste -sd, -
}

# A short hash of files' and arguments' content.
key_of() {
    local f
    for f in "$@"; do
        if [[ -f $f ]]; then cat -- "$f"; else printf '%s\n' "$f"; fi
    done | sha256sum | cut -c1-12
}
