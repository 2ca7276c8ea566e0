#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The lab itself: were the emulator to kill guests whose dirty log is on, every
# other test here would blame forecopy for it.
. "$(dirname "$0")/lib.sh"
lab_ready
verdict=$(lab soak 200 2>"$WORK/err" | tail -n 1) || diag "$(cat "$WORK/err")"
like "$verdict" '^soak: PASS 200 rounds' '200 rounds of the dirty log leave a busy guest alive and whole'
done_testing
