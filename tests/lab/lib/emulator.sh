# SPDX-License-Identifier: LGPL-2.1-or-later
# Two faults of the emulator, mended in the lab's own copy of it.
#
# 1. helper_vmrun() of QEMU (seen in 7.2 to 10.0, target/i386/tcg/system/
# svm_helper.c) injects an interrupt into a nested guest like this:
#     cs->exception_index = vector;
#     ...
#     do_interrupt_x86_hardirq(env, vector, 1);
# and leaves exception_index set.  If the emulated processor is then asked to
# leave its loop (a kick from another thread) before the next interrupt or
# exception has reset it, the main loop takes the value for an exception still
# to be delivered, and the guest gets the interrupt a second time, with
# interrupts off, at the first instruction of its handler: a triple fault or a
# panic in an interrupt entry.  Xen injects most where event delivery meets
# nested page faults, which is when a guest's dirty log is on.
#
# The store is of no use to what follows, so it is replaced by a no-op.  It is
# found by what it stands among, which is the same in Debian's 7.2 and 10.0: the
# vector (%esi) is stored, exception_next_eip is set to -1, and
# do_interrupt_x86_hardirq() is called, all within a dozen instructions.
#
# 2. cpu_clear_ignne() (target/i386/tcg/system/fpu_helper.c), called by each
# FXRSTOR, XRSTOR and FLDENV of any processor, does
#     first_cpu->env.hflags2 &= ~HF2_IGNNE_MASK;
# without a lock.  The thread of processor 0 changes the same word at every
# VMRUN and #VMEXIT; where the two meet, processor 0 loses its change.  With
# HF2_NPT lost a guest's page tables are read as the host's: a triple fault.
# With HF2_NPT kept after a #VMEXIT, the host's next instruction is looked up in
# the guest's nested tables, and the host's registers are saved as the guest's:
# Xen then reports a triple fault with an RIP of its own (cs e008).
#
# The line IGNNE# serves only kernels with CR0.NE clear; none is in the lab.  So
# the function returns at once.
#
# Whether it worked is what `lab soak` is for.
# shellcheck shell=bash

NOP6='\x66\x0f\x1f\x44\x00\x00' # one no-op of six bytes
RET='\xc3'

# mend_emulator ROOT
mend_emulator() {
    local binary=$1/usr/bin/qemu-system-x86_64 found injection ignne bias
    # The address of the store, and that of cpu_clear_ignne()'s first
    # instruction after its ENDBR64.
    found=$(objdump -d --insn-width=16 "$binary" | awk '
        /mov +%esi,-0x[0-9a-f]+\(%r/ && $2 == "89" && NF == 9 {
            at = $1; line = NR; next_eip = 0
        }
        /movq +\$0xffffffffffffffff,0x[0-9a-f]+\(%r/ { next_eip = 1 }
        /call .*<do_interrupt_x86_hardirq/ && NR - line <= 12 && next_eip {
            n++; hit = at
        }
        /^[0-9a-f]+ <cpu_clear_ignne/ { inside = 1; first = ""; next }
        /^$/ { inside = 0 }
        inside && first == "" && !/endbr64/ { first = $1 }
        inside && /andl +\$0xffffff7f,/ { ignne = first }
        END { if (n == 1 && ignne) { gsub(":", "", hit); sub(":", "", ignne); print hit, ignne } }')
    # Addresses and file offsets of the code differ by a constant, often 0.
    bias=$(readelf -SW "$binary" | awk '
        { for (i = 1; i < NF; i++) if ($i == ".text") print $(i + 2), $(i + 3) }')
    if [[ -z $found || -z $bias ]]; then
        say "warning: QEMU's code is not as known: its faults stay, guests may die"
        return
    fi
    read -r injection ignne <<<"$found"
    bias=$((0x${bias#* } - 0x${bias% *}))
    # A new file, as the old one may be running; the old one stays, to compare.
    cp -p "$binary" "$binary.mended"
    overwrite "$binary.mended" $((0x$injection + bias)) "$NOP6"
    overwrite "$binary.mended" $((0x$ignne + bias)) "$RET"
    mv "$binary" "$binary.orig"
    mv "$binary.mended" "$binary"
    say "mended QEMU: interrupt injection at 0x$injection, IGNNE# at 0x$ignne"
}

# overwrite FILE OFFSET BYTES: BYTES as printf writes them
overwrite() {
    # shellcheck disable=SC2059 # bytes, by intention
    printf "$3" | dd of="$1" bs=1 conv=notrunc status=none seek="$2"
}
