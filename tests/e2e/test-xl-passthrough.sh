#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Whatever is not ours is xl's own: output, exit codes, streams from and to
# hosts that know nothing of forecopy.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g idle

is "$(on 1 "xl list | sed 's/[0-9.]*$//'")" "$(on 1 "$STOCK_XL list | sed 's/[0-9.]*$//'")" \
    'xl list prints what it prints'
mine=0 theirs=0
on 1 'xl destroy no-such-guest' >"$WORK/mine" 2>&1 || mine=$?
on 1 "$STOCK_XL destroy no-such-guest" >"$WORK/theirs" 2>&1 || theirs=$?
is "$mine" "$theirs" 'a failing command has xl'\''s exit code'
is "$(cat "$WORK/mine")" "$(cat "$WORK/theirs")" 'and xl'\''s words'

on 1 'xl save g /tmp/g.save' >/dev/null 2>&1
on 1 'xl restore /tmp/g.save && rm /tmp/g.save' >/dev/null 2>&1
guest_is_well g 1

FC_XL=$STOCK_XL FC_PREDICTIVE='' migrate 1 2 g
is "$RC" 0 'a stock sender migrates to our receiver'
guest_is_well g 2
on 1 'mv /usr/sbin/xl /usr/sbin/xl.ours && ln -s /usr/lib/xen-*/bin/xl /usr/sbin/xl'
migrate 2 1 g
on 1 'rm /usr/sbin/xl && mv /usr/sbin/xl.ours /usr/sbin/xl'
is "$RC" 0 'our sender migrates to a stock receiver'
like "$OUT" 'forecopy: .*plain' 'and says that it does so plainly'
guest_is_well g 1
done_testing
