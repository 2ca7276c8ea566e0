#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An armed guest: what is staged crosses as references, the dry run says so
# beforehand, and the guest arrives whole.
. "$(dirname "$0")/lib.sh"
lab_ready
guest_at 1 g writer

cold=$(on 1 'xl migrate --predictive --dry-run --json -s fc-rsh g host2')
arm 1 2 g 70
like "$(on 1 'forecopy status')" ' g .*host2' 'status names guest and destination'
dry=$(on 1 'xl migrate --predictive --dry-run --json -s fc-rsh g host2')
cmp "$(json .estimate.bytes <<<"$dry")" -gt 0 'the dry run estimates bytes'
cmp "$(json .estimate.bytes <<<"$dry")" -lt "$(json .estimate.bytes <<<"$cold")" \
    'and fewer than before anything was staged'
is "$(lab guest where g)" 1 'the dry run moved nothing'

migrate 1 2 g
is "$RC" 0 'migrates'
like "$OUT" 'Migration successful\.' 'and xl says so'
guest_is_well g 2
cmp "$(json .reference_pages <<<"$REPORT")" -gt 5000 'staged pages went as references'
cmp "$(json .bytes_sent <<<"$REPORT")" -lt "$(($(json .bytes_plain <<<"$REPORT") / 4))" \
    'a quarter of the bytes at most'
is "$(on 1 'forecopy status --json' | json '[.guests[] | select(.name == "g")][0].armed')" '' \
    'the source forgets a guest that has left'

# home again, cold, with the receiver that was the sender
migrate 2 1 g
is "$RC" 0 'migrates back'
guest_is_well g 1
done_testing
