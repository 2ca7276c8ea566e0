#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What forecopy needs is missing at one end: one line says so, and xl migrates
# as it always did, or not at all when that was asked for.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 small idle total_mb=8

on 1 '/lab/daemon stop'
migrate 1 2 small --fallback fail
is "$RC" 1 'daemon down here, --fallback fail: exit code 1'
like "$OUT" 'forecopy: .*forecopyd' 'the daemon is named'
guest_is_well small 1
migrate 1 2 small
is "$RC" 0 'daemon down here: migrates'
is "$(grep -c '^forecopy: ' <<<"$OUT")" 1 'one line of ours'
guest_is_well small 2
on 1 '/lab/daemon start' >/dev/null

# an older protocol at the destination
on 1 'mv /usr/sbin/forecopy /usr/sbin/forecopy.new && cat >/usr/sbin/forecopy <<"X"
#!/bin/sh
echo "{\"ok\":true,\"version\":\"0.0.1\",\"protocol\":0,\"removed\":0}"
X
chmod +x /usr/sbin/forecopy'
migrate 2 1 small
on 1 'mv /usr/sbin/forecopy.new /usr/sbin/forecopy'
is "$RC" 0 'an older protocol there: migrates'
like "$OUT" 'forecopy: .*protocol' 'and says why it is a plain migration'
guest_is_well small 1

# no forecopy at all at the destination
on 2 'mv /usr/sbin/forecopy /usr/sbin/forecopy.off; mv /usr/sbin/xl /usr/sbin/xl.ours
    ln -s /usr/lib/xen-*/bin/xl /usr/sbin/xl'
migrate 1 2 small --fallback fail
is "$RC" 1 'no forecopy there, --fallback fail: exit code 1'
guest_is_well small 1
migrate 1 2 small
on 2 'rm /usr/sbin/xl; mv /usr/sbin/xl.ours /usr/sbin/xl; mv /usr/sbin/forecopy.off /usr/sbin/forecopy'
is "$RC" 0 'no forecopy there: migrates'
like "$OUT" 'forecopy: ' 'and says so'
guest_is_well small 2
guest_gone small
done_testing
