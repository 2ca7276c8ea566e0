#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Arming: who cannot be armed is told why, who is not armed costs no dirty
# logging, and disarming ends it.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 small idle total_mb=8

cleans() { on 1 'forecopy stat --json' | json '.counters.log_cleans // .counters.dirtylog_cleans // 0'; }
refuse() { on 1 "forecopy arm $1 host2 2>&1" || echo "exit $?"; }

like "$(refuse no-such-guest)" 'no-such-guest.*exit 1' 'an unknown guest is refused, by name'

on 1 "printf '%s\n' 'name=\"pv\"' 'type=\"pv\"' 'memory=128' 'kernel=\"/lab/guest/vmlinux\"' \
    'ramdisk=\"/lab/guest/small.cpio\"' 'extra=\"console=hvc0 fc.kind=idle\"' 'on_crash=\"preserve\"' \
    >/tmp/pv.cfg && xl create -qp /tmp/pv.cfg"
like "$(refuse pv)" 'PV guest.*exit 1' 'a PV guest is refused, and it says why'
on 1 'xl destroy pv'

before=$(cleans)
sleep 3
is "$(cleans)" "$before" 'nobody armed: no dirty log is read'
arm 1 2 small 50
cmp "$(cleans)" -gt "$before" 'armed: it is'
on 1 'forecopy disarm small'
before=$(cleans)
sleep 3
is "$(cleans)" "$before" 'disarmed: it is not any more'
is "$(status_of 1 small armed)" false 'and status says so'
guest_is_well small 1
guest_gone small
done_testing
