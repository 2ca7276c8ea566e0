#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The sampler cleans the dirty log that a plain migration of the same guest
# lives on: were it not to keep away, the guest would lose pages.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

arm 1 2 g 30
on 1 'forecopy set sample_interval_ms 100'
FC_PREDICTIVE='' migrate 1 2 g
is "$RC" 0 'a plain migration of an armed guest succeeds'
guest_is_well g 2
guest_gone g
guest_at 1 g writer
arm 1 2 g 30
on 1 'xl save g /tmp/g.save && xl restore /tmp/g.save && rm /tmp/g.save' >"$WORK/out" 2>&1 ||
    diag "$(cat "$WORK/out")"
guest_is_well g 1
on 1 'forecopy set sample_interval_ms 250'
done_testing
