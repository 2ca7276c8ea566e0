#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A ^C, or a `timeout` that runs out, would cut the stream between the suspend
# and the hand-over; or an attempt that only asks for a password could not be
# ended.
set -u
cd "$(dirname "$0")/../.." || exit 1
transport=$PWD/${FC_BUILD:-build}/forecopy-transport
[[ ${FC_BUILD:-} == /* ]] && transport=$FC_BUILD/forecopy-transport
. tests/unit/tap.sh

is() { # is GOT WANTED NAME
    local same=1
    [[ $1 != "$2" ]] || same=0
    result $same "$3" "got \"$1\", wanted \"$2\""
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

run() { # run COMMAND: as xl does, with descriptor 5 as the back channel
    "$transport" --back-fd 5 -- sh -c "$1" 5>"$tmp/back"
}

# shellcheck disable=SC2016 # the command's variable
is "$(echo up | run 'read x; echo "$x down"')" 'up down' 'carries both ways'
run 'exit 7' </dev/null
is $? 7 "ends with the command's status"

# the whole group is signalled, as by a terminal, all deaf as below the front
# end
for signal in INT TERM HUP QUIT; do
    out=$(setsid sh -c 'trap "" INT TERM HUP QUIT
        (sleep 0.3; kill -'$signal' 0) &
        exec "$@"' sh "$transport" --back-fd 5 -- \
        sh -c 'sleep 0.8; echo finished' 5>/dev/null </dev/null)
    is "$out" finished "SIG$signal to all does not cut the stream"
done

(trap '' INT TERM HUP QUIT
    exec "$transport" --back-fd 5 -- sleep 20 5>/dev/null) </dev/null &
pid=$!
sleep 0.3
kill -ALRM $pid
start=$SECONDS
wait $pid
is $? $((128 + 14)) 'ended by the front end: the command dies of it'
is $((SECONDS - start < 10)) 1 'at once'

tap_end
