#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest that was never armed: arrives whole, once, with fewer bytes than a
# plain migration would take, and xl says what it always says.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

lab heartbeat g --until-file "$WORK/stop" >"$WORK/beat" &
BACKGROUND+=($!)
beat=$!
migrate 1 2 g
touch "$WORK/stop"
wait "$beat" || true

is "$RC" 0 'exit code is xl'\''s'
like "$OUT" 'Migration successful\.' 'xl'\''s own sentence stands'
guest_is_well g 2
is "$(json .went_back <"$WORK/beat")" 0 'no client saw the guest go back in time'
is "$(json .mode <<<"$REPORT")" predictive 'the encoded stream was used'
cmp "$(json .zero_pages <<<"$REPORT")" -gt 0 'zero pages cost no bytes'
is "$(json .reference_pages <<<"$REPORT")" 0 'nothing was staged, nothing referenced'
cmp "$(json .bytes_sent <<<"$REPORT")" -lt "$(($(json .bytes_plain <<<"$REPORT") / 2))" \
    'fewer than half the bytes of the same records unencoded'
done_testing
