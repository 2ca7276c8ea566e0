#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A real program under load, armed: every key that redis acknowledged is there
# with its last value after the migration.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_gone g
guest_at 1 r redis
arm 1 2 r 40
migrate 1 2 r
is "$RC" 0 'migrates'
guest_is_well r 2
cmp "$(json .reference_pages <<<"$REPORT")" -gt 0 'staged pages went as references'
guest_gone r
done_testing
