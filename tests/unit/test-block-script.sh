#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest would not get its disk, get another guest's, or leave a device behind:
# the hotplug script, with stand-ins for what it calls.
# shellcheck disable=SC2016,SC2034,SC2317 # conditions are expanded by check()
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/unit/tap.sh

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Two block devices that are never opened: any will do.
mapfile -t nodes < <(find /dev -maxdepth 1 -type b | sort | head -n 2)
if ((${#nodes[@]} < 2)); then
    nodes=("$tmp/node1" "$tmp/node2")
    if ! mknod "$tmp/node1" b 7 201 2>/dev/null ||
        ! mknod "$tmp/node2" b 7 202 2>/dev/null; then
        echo '1..0 # SKIP no two block devices in /dev'
        exit 0
    fi
fi

mkdir "$tmp/bin" "$tmp/scripts" "$tmp/store"
cp blkback-hook/block-forecopy "$tmp/scripts/"

# The functions of Xen's block-common.sh that the script uses, and its way to
# treat what fails.
cat >"$tmp/scripts/block-common.sh" <<'STAND_IN'
set -e
command=$1
XENBUS_PATH="${XENBUS_PATH:?}"
fatal() {
    xenstore-write "$XENBUS_PATH/hotplug-error" "$*" \
        "$XENBUS_PATH/hotplug-status" error
    exit 1
}
ebusy() {
    xenstore-write "$XENBUS_PATH/hotplug-error" "$*" \
        "$XENBUS_PATH/hotplug-status" busy
    exit 1
}
trap 'fatal "line $LINENO failed"' ERR
success() { xenstore_write "$XENBUS_PATH/hotplug-status" connected; }
xenstore_read() {
    local v
    v=$(xenstore-read "$@" || true)
    [ "$v" != "" ] || fatal "xenstore-read $* failed"
    echo "$v"
}
xenstore_read_default() { xenstore-read "$1" 2>/dev/null || echo "$2"; }
xenstore_write() { xenstore-write "$@" || fatal "writing $*"; }
device_major_minor() {
    case $1 in
    /dev/mapper/*) echo fd:7 ;;
    *) stat -L -c %t:%T "$1" ;;
    esac
}
write_dev() {
    xenstore_write "$XENBUS_PATH/physical-device" "$(device_major_minor "$1")"
    xenstore_write "$XENBUS_PATH/physical-device-path" "$1"
    success
}
claim_lock() { echo "lock $1" >>"$FC_TEST/asked"; }
release_lock() { :; }
STAND_IN
cat >"$tmp/bin/xenstore-read" <<'STAND_IN'
#!/bin/bash
cat "$FC_TEST/store/$1/value"
STAND_IN
cat >"$tmp/bin/xenstore-write" <<'STAND_IN'
#!/bin/bash
while (($#)); do
    mkdir -p "$FC_TEST/store/$1"
    echo "$2" >"$FC_TEST/store/$1/value"
    shift 2
done
STAND_IN
cat >"$tmp/bin/xenstore-list" <<'STAND_IN'
#!/bin/bash
cd "$FC_TEST/store/$1" 2>/dev/null || exit 1
for d in */; do [[ -d $d ]] && echo "${d%/}"; done
STAND_IN
cat >"$tmp/bin/losetup" <<'STAND_IN'
#!/bin/bash
echo "losetup $*" >>"$FC_TEST/asked"
[[ $1 == -f ]] && cat "$FC_TEST/free"
exit 0
STAND_IN
cat >"$tmp/bin/forecopy-block" <<'STAND_IN'
#!/bin/bash
echo "$*" >>"$FC_TEST/asked"
if [[ -s $FC_TEST/fail && $* == "$(cat "$FC_TEST/fail")"* ]]; then
    echo "forecopy-block: it will not" >&2
    exit 1
fi
[[ $1 == tap-attach ]] && echo "$PPID 3 /run/tap.sock"
exit 0
STAND_IN
printf '#!/bin/sh\nexit 0\n' >"$tmp/bin/modprobe"
chmod +x "$tmp/bin/"*
export FC_TEST=$tmp PATH=$tmp/bin:$PATH
export FORECOPY_DISKS=$tmp/disks FORECOPY_BLOCK=$tmp/bin/forecopy-block
: >"$tmp/fail"
echo "${nodes[1]}" >"$tmp/free"

uuid=0c6ac5ae-8f1a-4b6c-9d0e-0123456789ab
disk=$uuid-xvda
dir=$tmp/disks/$disk
name=forecopy-$disk

guest() { # guest DOMID TARGET [MODE [UUID [TYPE]]]: what libxl writes
    local be=backend/${5:-vbd}/$1/51712
    xenstore-write "$be/frontend-id" "$1" "$be/params" "$2" "$be/dev" xvda \
        "$be/mode" "${3:-w}" "/local/domain/$1/vm" "/vm/${4:-$uuid}"
}
gone() { # gone DOMID [TYPE]
    rm -rf "$tmp/store/backend/${2:-vbd}/$1"
}
script() { # script add|remove DOMID [TYPE]
    : >"$tmp/asked"
    XENBUS_TYPE=${3:-vbd} XENBUS_BASE_PATH=backend \
        XENBUS_PATH=backend/${3:-vbd}/$2/51712 \
        "$tmp/scripts/block-forecopy" "$1" >"$tmp/out" 2>&1
}
told() { # told DOMID NODE [TYPE]
    xenstore-read "backend/${3:-vbd}/$1/51712/$2" 2>/dev/null
}
asked() { grep -v '^lock' "$tmp/asked" | paste -sd,; }
all() {
    echo "asked: $(asked)"
    cat "$tmp/out"
    grep -r . "$tmp/store/backend" "$tmp/disks" 2>/dev/null
}
check() { # check NAME CONDITION...: each a [[ ]] expression in one word
    local what=$1 status=0 c
    shift
    for c; do eval "[[ $c ]]" || status=1; done
    result $status "$what" "$(all)"
}

guest 5 "${nodes[0]}"
script add 5
check 'a volume is mapped' "$? == 0" \
    '$(asked) == "dm-remove --timeout 10 $name,dm-create $name ${nodes[0]}"' \
    '$(told 5 physical-device) == fd:7' \
    '$(told 5 physical-device-path) == /dev/mapper/$name' \
    '$(told 5 hotplug-status) == connected' \
    '$(<"$dir/target") == "${nodes[0]}"' '$(<"$dir/backing") == "${nodes[0]}"' \
    '$(<"$dir/dm") == "$name"' '$(<"$dir/mode") == w' '! -e $dir/loop'
grep -qx 'lock block' "$tmp/asked"
result $? 'under the lock of the other scripts' "$(cat "$tmp/asked")"
[[ $(stat -c %a "$dir") == 700 ]]
result $? 'nobody else can look'

script add 5
check 'a second call does nothing' "$? == 0" '! $(asked)'

guest 6 "${nodes[0]}"
script add 6
check 'a migration within the host shares the device' "$? == 0" \
    '$(asked) == "dm-create $name ${nodes[0]}"' \
    '$(told 6 hotplug-status) == connected'
script remove 5
check 'which stays while one uses it' "$? == 0" '! $(asked)' '-e $dir/dm'
gone 5
gone /local
rm -rf "$tmp/store/local/domain/6" # libxl may have taken the guest's entries
script remove 6
check 'the last user takes it away' "$? == 0" \
    '$(asked) == "dm-remove --timeout 20 $name"' '! -e $dir'
script remove 6
check 'removing again does nothing' "$? == 0" '! $(asked)'
gone 6

guest 7 "${nodes[0]}"
script add 7
gone 7 # a dom0 that lost it with no "remove"
guest 8 "${nodes[0]}"
script add 8
check 'a user that is gone does not count' "$? == 0" \
    '$(asked) == dm-remove*' '! -e $dir/users/vbd-7-51712'

other=11111111-2222-3333-4444-555555555555
guest 9 "${nodes[0]}" w $other
script add 9
check "another guest's disk is refused" "$? == 1" '! $(asked)' \
    '$(told 9 hotplug-status) == busy' '$(told 9 hotplug-error) == *$disk*'
script remove 9
gone 9
guest 9 "${nodes[0]}" r $other
script add 9
check 'also for reading while it is written' "$? == 1" '! $(asked)'
script remove 9
check 'and what was refused leaves nothing' "$? == 0" \
    '! -e $tmp/disks/$other-xvda'
gone 9
gone 8 # with no "remove"
guest 9 "${nodes[0]}" w $other
script add 9
check 'a disk whose guest is gone is nobody'\''s' "$? == 0" \
    '$(told 9 hotplug-status) == connected'
script remove 9
script remove 8
gone 9

guest 8 "${nodes[0]}" r
guest 9 "${nodes[0]}" r $other
script add 8
script add 9
check 'two readers share' "$? == 0" '$(told 9 hotplug-status) == connected'
script remove 8
script remove 9
gone 8
gone 9

guest 5 "${nodes[0]}"
xenstore-write backend/vbd/12/51712/physical-device \
    "$(stat -L -c %t:%T "${nodes[0]}")" backend/vbd/12/51712/mode w
script add 5
check 'a volume that a guest has without forecopy is refused' "$? == 1" \
    '! $(asked)' '$(told 5 hotplug-status) == busy' \
    '$(told 5 hotplug-error) == *"domain 12"*'
gone 12
script remove 5
gone 5

truncate -s 1M "$tmp/disk image"
guest 5 "$tmp/disk image"
script add 5
check 'a file gets a loop device' "$? == 0" \
    '$(asked) == "losetup -f,losetup ${nodes[1]} $tmp/disk image,dm-remove --timeout 10 $name,dm-create $name ${nodes[1]}"' \
    '$(<"$dir/loop") == "${nodes[1]}"' '$(<"$dir/backing") == "${nodes[1]}"' \
    '$(<"$dir/target") == "$tmp/disk image"'
script remove 5
check 'and loses it' "$? == 0" \
    '$(asked) == "dm-remove --timeout 20 $name,losetup -d ${nodes[1]}"' \
    '! -e $dir'
gone 5

guest 5 "$tmp/disk image" r
script add 5
check 'a read-only one too' "$? == 0" \
    '$(asked) == "losetup -f,losetup -r ${nodes[1]} "*'
script remove 5
gone 5

mkdir -p "$dir"
echo "${nodes[1]}" >"$dir/incoming"
guest 5 "${nodes[0]}"
script add 5
check 'an arriving disk is mapped where forecopyd says' "$? == 0" \
    '$(asked) == *"dm-create $name ${nodes[1]}"' \
    '$(<"$dir/backing") == "${nodes[0]}"'
rm "$dir/incoming"
echo held >"$dir/hold"
script remove 5
check 'a disk that is held keeps its device' "$? == 0" '! $(asked)' \
    '-e $dir/backing' '! -e $dir/users/vbd-5-51712'
gone 5
guest 6 "${nodes[0]}"
script add 6
check 'and is not given to its old guest' "$? == 1" '! $(asked)' \
    '$(told 6 hotplug-status) == error' \
    '$(told 6 hotplug-error) == *"moved to another host"*'
gone 6
guest 9 "${nodes[0]}" w $other
script add 9
check 'nor to another' "$? == 1" '! $(asked)' '$(told 9 hotplug-status) == busy'
gone 9
echo "${nodes[1]}" >"$dir/incoming"
guest 6 "${nodes[0]}"
script add 6
check 'it may come back' "$? == 0" \
    '$(asked) == "dm-remove --timeout 10 $name,dm-create $name ${nodes[1]}"'
rm -f "$dir/incoming" "$dir/hold"
script remove 6
gone 6

echo dm-create >"$tmp/fail"
guest 5 "$tmp/disk image"
script add 5
check 'what fails is said' "$? == 1" '$(told 5 hotplug-status) == error' \
    '$(told 5 hotplug-error) == *"it will not"*'
: >"$tmp/fail"
script remove 5
check 'and cleaned up by the remove that follows' "$? == 0" \
    '$(asked) == *"losetup -d ${nodes[1]}"' '! -e $dir'
gone 5

for target in "$tmp/none" "$tmp"; do
    guest 5 "$target"
    script add 5
    check "no disk: ${target#"$tmp"}" "$? == 1" '! $(asked)' \
        '$(told 5 hotplug-status) == error'
    script remove 5
    gone 5
done
guest 5 "${nodes[0]}" w ../../../../etc
script add 5
check 'a name that is none becomes no path' "$? == 1" '! $(asked)' \
    '$(told 5 hotplug-error) == *"which disk"*'
gone 5

guest 0 "${nodes[0]}"
rm -r "$tmp/store/local/domain/0"
script add 0
check 'dom0 gets it for a boot loader' "$? == 0" \
    '$(asked) == *"dm-create forecopy-00000000-0000-0000-0000-000000000000-xvda ${nodes[0]}"'
script remove 0
gone 0

guest 5 "aio:$tmp/disk image" w $uuid vbd3
script add 5 vbd3
check 'with tapback the image is tapdisk'\''s' "$? == 0" \
    '$(asked) == "tap-attach aio:$tmp/disk image"' \
    '$(told 5 physical-device-path vbd3) == /run/tap.sock' \
    '! $(told 5 physical-device vbd3)' \
    '$(told 5 hotplug-status vbd3) == connected'
echo "$$ 3 /run/tap.sock" >"$dir/tap"
script remove 5 vbd3
check 'which ends with it' "$? == 0" '$(asked) == "tap-detach $$ 3"' \
    '! -e $dir'
gone 5 vbd3
mkdir -p "$dir"
echo nbd:/run/engine.sock >"$dir/incoming"
guest 5 "aio:$tmp/disk image" w $uuid vbd3
script add 5 vbd3
check 'an arriving one is on the engine' "$? == 0" \
    '$(asked) == "tap-attach nbd:/run/engine.sock"'

tap_end
