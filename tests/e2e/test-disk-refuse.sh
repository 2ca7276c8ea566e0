#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What lies at the destination under the disk's path and is not known as its
# copy is not written to, unless that is asked for; without disks asked for,
# xl is as ever.
. "$(dirname "$0")/lib.sh"
disks_ready
guest_at 1 d disk --disk 8M disk_mode=idle

on 2 'rm -f /var/guests/d-xvda.img; yes somebody | head -c 8388608 >/var/guests/d-xvda.img'
sum=$(on 2 'md5sum </var/guests/d-xvda.img')
migrate 1 2 d --with-disks
is "$RC" 1 'a volume that is not ours: refused'
like "$OUT" 'forecopy: .*d-xvda\.img' 'which one is said'
is "$(on 2 'md5sum </var/guests/d-xvda.img')" "$sum" 'and not a byte of it is changed'
guest_is_well d 1
disks_are_plain 1 d

on 2 'truncate -s 4M /var/guests/d-xvda.img'
migrate 1 2 d --with-disks --overwrite-disk
is "$RC" 1 'one of too small a size: refused even so'
guest_is_well d 1

on 2 'truncate -s 8M /var/guests/d-xvda.img'
migrate 1 2 d --with-disks --overwrite-disk
is "$RC" 0 'taken when that is asked for'
guest_is_well d 2
disks_are_plain 2 d
guest_gone d
done_testing
