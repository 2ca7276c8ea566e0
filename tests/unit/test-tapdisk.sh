#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A tapdisk would be asked in an order that loses requests, or left behind when
# something fails on the way.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${FC_BUILD:-build}
[[ $build == /* ]] || build=$PWD/$build
. tests/unit/tap.sh

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# tap-ctl: logs what it was asked, fails at the verb in "fail", and answers as
# the real one does. Like that one's tapdisk, something of it lives on with the
# output still open.
mkdir "$tmp/bin"
cat >"$tmp/bin/tap-ctl" <<'STAND_IN'
#!/bin/bash
echo "$*" >>"$FC_TEST/asked"
[[ -e /proc/$$/fd/9 ]] && echo "descriptor 9 is open" >>"$FC_TEST/asked"
[[ $* == "$(cat "$FC_TEST/fail" 2>/dev/null)"* && -s $FC_TEST/fail ]] && exit 1
case $1 in
allocate) cat "$FC_TEST/minor" ;;
spawn)
    sleep 60 &
    echo "$!" >"$FC_TEST/sleeper"
    cat "$FC_TEST/process"
    ;;
esac
exit 0
STAND_IN
chmod +x "$tmp/bin/tap-ctl"
export FC_TEST=$tmp
path=$PATH

asks() { # asks STATUS OUTPUT ASKED NAME ARGUMENT...
    local status=$1 output=$2 asked=$3 name=$4 got rc
    shift 4
    : >"$tmp/asked"
    got=$(PATH=$tmp/bin:$path "$build/forecopy-block" "$@" 2>"$tmp/err" \
        9>"$tmp/lock")
    rc=$?
    if [[ -s $tmp/sleeper ]]; then
        kill "$(cat "$tmp/sleeper")" 2>/dev/null
        rm -f "$tmp/sleeper"
    fi
    [[ $rc == "$status" && $got == "$output" &&
        $(paste -sd, "$tmp/asked") == "$asked" ]]
    result $? "$name" "status $rc, output \"$got\", asked:
$(cat "$tmp/asked")
$(cat "$tmp/err")"
}

echo /run/blktap-control/tapdisk/tapdisk-3 >"$tmp/minor"
echo 4194999 >"$tmp/process"
: >"$tmp/fail"
asks 0 '4194999 3 /run/blktap-control/nbd4194999.3' \
    'allocate,spawn,attach -p 4194999 -m 3,open -p 4194999 -m 3 -a aio:/dev/vg/a b' \
    'a disk is attached' tap-attach 'aio:/dev/vg/a b'
asks 0 '4194999 3 /run/blktap-control/nbd4194999.3' \
    'allocate,spawn,attach -p 4194999 -m 3,open -p 4194999 -m 3 -a nbd:/run/x -R' \
    'an engine, read-only' tap-attach --read-only nbd:/run/x
echo /dev/xen/blktap-2/tapdev12 >"$tmp/minor"
asks 0 '4194999 12 /run/blktap-control/nbd4194999.12' \
    'allocate,spawn,attach -p 4194999 -m 12,open -p 4194999 -m 12 -a aio:/x' \
    'as an older version names minors' tap-attach aio:/x
asks 0 '' 'pause -p 77 -m 0,unpause -p 77 -m 0 -a nbd:/run/x' \
    'the image is exchanged' tap-swap 77 0 nbd:/run/x
asks 0 '' 'destroy -p 77 -m 0' 'a disk is detached' tap-detach 77 0

echo open >"$tmp/fail"
asks 1 '' 'allocate,spawn,attach -p 4194999 -m 12,open -p 4194999 -m 12 -a aio:/x,detach -p 4194999 -m 12,free -m 12' \
    'an image that does not open leaves nothing' tap-attach aio:/x
echo attach >"$tmp/fail"
asks 1 '' 'allocate,spawn,attach -p 4194999 -m 12,free -m 12' \
    'nor a process that does not attach' tap-attach aio:/x
echo spawn >"$tmp/fail"
asks 1 '' 'allocate,spawn,free -m 12' 'nor one that does not start' \
    tap-attach aio:/x
echo 'unpause -p 77 -m 0 -a' >"$tmp/fail"
asks 1 '' 'pause -p 77 -m 0,unpause -p 77 -m 0 -a aio:/x,unpause -p 77 -m 0' \
    'after a swap that fails the old image goes on' tap-swap 77 0 aio:/x
echo pause >"$tmp/fail"
asks 1 '' 'pause -p 77 -m 0,unpause -p 77 -m 0' \
    'after a pause that fails, too' tap-swap 77 0 aio:/x
: >"$tmp/fail"

echo nonsense >"$tmp/minor"
asks 1 '' 'allocate' 'an answer without a minor is refused' tap-attach aio:/x
asks 2 '' '' 'an image of no known kind is wrong usage' tap-attach qcow:/x
asks 2 '' '' 'a path that depends on where one is, too' tap-attach aio:x
asks 2 '' '' 'a process that is none, too' tap-swap 1 0 aio:/x
path=$tmp/nothing
mkdir "$path"
rm "$tmp/bin/tap-ctl"
asks 1 '' '' 'without tap-ctl it says so' tap-detach 77 0
grep -q 'not installed' "$tmp/err"
result $? 'in these words' "$(cat "$tmp/err")"

tap_end
