# SPDX-License-Identifier: LGPL-2.1-or-later
# forecopy: build, tests, lab, benches. `make help` lists the targets.

VERSION := 0.1.0
prefix ?= /usr
DESTDIR ?=
CC ?= gcc
CLANG ?= clang
B := build

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n'
endif

# ---- what Debian calls what we need ----------------------------------------
# pkg-config module, then the Debian package that has it
NEEDS := \
	xencontrol:libxen-dev liblz4:liblz4-dev libxxhash:libxxhash-dev \
	libevent:libevent-dev libevent_pthreads:libevent-dev \
	json-c:libjson-c-dev lmdb:liblmdb-dev libseccomp:libseccomp-dev \
	libsystemd:libsystemd-dev libzstd:libzstd-dev \
	libnbd:libnbd-dev nbdkit:nbdkit-plugin-dev devmapper:libdevmapper-dev \
	libnl-genl-3.0:libnl-genl-3-dev libbpf:libbpf-dev
TEST_NEEDS := cmocka:libcmocka-dev
# libaio-dev has no pkg-config module
BUILD_PACKAGES := gcc clang make pkg-config perl libc6-dev libaio-dev \
	$(sort $(foreach n,$(NEEDS),$(lastword $(subst :, ,$(n)))))
TEST_PACKAGES := libclang-rt-dev libcmocka-dev lz4 dpkg-dev debhelper \
	fakeroot git jq procps nbdkit fio
LAB_PACKAGES = $(shell sed 's/\#.*//' tests/lab/host.packages 2>/dev/null)

MODULES := $(foreach n,$(NEEDS),$(firstword $(subst :, ,$(n))))
ifneq ($(filter-out help deps clean,$(or $(MAKECMDGOALS),all)),)
ifeq ($(filter deps check check-long demo lab bench%,$(MAKECMDGOALS)),)
missing := $(foreach n,$(NEEDS),$(if $(shell pkg-config --exists \
	$(firstword $(subst :, ,$(n))) || echo no),$(lastword $(subst :, ,$(n)))))
ifneq ($(strip $(missing)),)
$(error missing Debian package(s): $(sort $(missing)) -- `make deps` installs them)
endif
endif
endif

# Xen's own release, which the versioned programs are bound to: "4.17"
XEN_VERSION ?= $(shell pkg-config --modversion xencontrol 2>/dev/null | \
	cut -d. -f1,2)

# ---- flags -----------------------------------------------------------------
# gcc 12 to 14 see an overflow in wire.h's writer where it has just checked for
# the room
WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Werror \
	-Wno-unknown-warning-option -Wno-stringop-overflow
CPPFLAGS += -D_GNU_SOURCE -DFC_VERSION='"$(VERSION)"' \
	-DFC_XEN_VERSION='"$(XEN_VERSION)"' \
	-Icommon -Ipredictor -Ixl-ext -Idom0d -Iblkback-hook \
	-I/usr/include/libnl3
# one set of objects for programs and the nbdkit plugin
BASE_CFLAGS := -std=gnu11 -g $(WARN) -fno-strict-aliasing -pthread \
	-fPIC -fvisibility=hidden
CFLAGS ?= -O2
XEN_LIBS := -lxenguest -lxenctrl -lxenforeignmemory -lxendevicemodel \
	-lxenstore -lxentoollog -lxlutil
LIBS := -levent -levent_pthreads -ljson-c -llmdb -lseccomp -lsystemd \
	-llz4 -lxxhash -lzstd -lm
BLOCK_LIBS := -lnbd -laio -ldevmapper -lnl-genl-3 -lnl-3 -lbpf
LDFLAGS += -Wl,--as-needed -pthread

# A variant has its own objects: release (ours), asan, tsan, fuzz.
asan_flags := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
tsan_flags := -O1 -fsanitize=thread
fuzz_flags := -O1 -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all
release_flags = $(CFLAGS)
fuzz_cc := $(CLANG)
cc_of = $(if $(filter fuzz,$(1)),$(fuzz_cc),$(CC))

# ---- sources ---------------------------------------------------------------
DIRS := common predictor xl-ext dom0d blkback-hook
# a directory's library: all but its programs, the nbdkit plugin and what runs
# in the kernel
sources = $(filter-out %_main.c %_plugin.c %.bpf.c,$(wildcard $(1)/*.c))
MAINS := $(wildcard $(DIRS:%=%/*_main.c))
name_common := fc-common
name_predictor := fc-predictor
name_xl-ext := fc-xl
name_dom0d := fc-dom0
name_blkback-hook := fc-block
# in link order: users before the used
ARCHIVES := fc-dom0 fc-xl fc-block fc-predictor fc-common

bin_predictor/eval_main.c := forecopy-eval
bin_predictor/train_main.c := forecopy-train
bin_xl-ext/helper_main.c := forecopy-save-helper
bin_xl-ext/transport_main.c := forecopy-transport
bin_xl-ext/xl_main.c := xl
bin_dom0d/forecopyd_main.c := forecopyd
bin_dom0d/forecopy_main.c := forecopy
bin_blkback-hook/block_main.c := forecopy-block
PROGRAMS := $(foreach m,$(MAINS),$(B)/$(bin_$(m)))
PLUGINS := $(patsubst blkback-hook/%_plugin.c,$(B)/nbdkit-%-plugin.so,\
	$(wildcard blkback-hook/*_plugin.c))

UNIT := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
# tests of code with threads run under the thread sanitizer as well
TSAN := $(filter test_encoder% test_decoder% test_stream% test_worker% \
	test_daemon% test_recorder% test_adapt% test_shadow% test_source% test_direct% \
	test_feed%,$(UNIT))
FUZZ := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH := $(patsubst tests/bench/%.c,%,$(wildcard tests/bench/bench_*.c))
PREDICTOR_BENCHES := $(wildcard tests/bench/bench_gru.c tests/bench/bench_engine.c)
MAN := $(patsubst docs/man/%.pod,$(B)/man/%,$(wildcard docs/man/*.pod))

.PHONY: all
all: $(PROGRAMS) $(PLUGINS) $(MAN)

# $(1) variant
define variant
$(B)/$(1)/obj/%.o: %.c
	$$(say) CC $$<
	@mkdir -p $$(@D)
	$$(Q)$(call cc_of,$(1)) $$(CPPFLAGS) $$(BASE_CFLAGS) $$($(1)_flags) -MMD -MP \
		-c $$< -o $$@
$(foreach d,$(DIRS),
$(B)/$(1)/lib$(name_$(d)).a: $(patsubst %.c,$(B)/$(1)/obj/%.o,$(call sources,$(d)))
	$$(say) AR $$(@F)
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^)
-include $(shell find $(B)/$(1)/obj -name '*.d' 2>/dev/null)
endef
$(foreach v,release asan tsan fuzz,$(eval $(call variant,$(v))))
$(foreach v,release asan tsan fuzz,$(B)/$(v)/obj/predictor/shipped.o): \
	$(wildcard predictor/weights/*.fcm)
# tracing's part in the kernel, which the part outside contains
$(B)/bpf/%.bpf.o: blkback-hook/%.bpf.c $(wildcard blkback-hook/*_bpf.h)
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CLANG) --target=bpf -O2 -g -Wall -Werror \
		-I/usr/include/$(shell $(CC) -print-multiarch) \
		-Iblkback-hook -c $< -o $@
$(foreach v,release asan tsan fuzz,$(B)/$(v)/obj/blkback-hook/btrace_bpf.o): \
	$(B)/bpf/btrace.bpf.o
libs_of = $(foreach a,$(ARCHIVES),$(B)/$(1)/lib$(a).a)

define program
$(B)/$(bin_$(1)): $(B)/release/obj/$(1:.c=.o) $(call libs_of,release)
	$$(say) LD $$(@F)
	$$(Q)$$(CC) $$(CFLAGS) $$(LDFLAGS) -o $$@ $$^ $$(LIBS) $$(BLOCK_LIBS) $$(XEN_LIBS)
endef
$(foreach m,$(MAINS),$(eval $(call program,$(m))))

$(B)/nbdkit-%-plugin.so: $(B)/release/obj/blkback-hook/%_plugin.o \
		$(B)/release/libfc-block.a $(B)/release/libfc-predictor.a \
		$(B)/release/libfc-common.a
	$(say) LD $(@F)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ $(LIBS) $(BLOCK_LIBS)

$(B)/asan/bin/%: $(B)/asan/obj/tests/unit/%.o $(call libs_of,asan)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(asan_flags) $(LDFLAGS) -o $@ $^ $(LIBS) $(BLOCK_LIBS) $(XEN_LIBS) -lcmocka
$(B)/tsan/bin/%: $(B)/tsan/obj/tests/unit/%.o $(call libs_of,tsan)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(tsan_flags) $(LDFLAGS) -o $@ $^ $(LIBS) $(BLOCK_LIBS) $(XEN_LIBS) -lcmocka
$(B)/fuzz/bin/%: $(B)/fuzz/obj/tests/fuzz/%.o $(call libs_of,fuzz)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CLANG) -fsanitize=fuzzer,address,undefined $(LDFLAGS) -o $@ $^ \
		$(LIBS) $(BLOCK_LIBS) $(XEN_LIBS)
# a bench of several files: stream_*.c are bench_stream's
$(B)/bench/bench_stream: $(patsubst %.c,$(B)/release/obj/%.o,\
	$(wildcard tests/bench/stream_*.c))
# flip_*.c are bench_shadow's; it has no use for the daemon's and xl's parts
$(B)/bench/bench_shadow: $(B)/release/obj/tests/bench/bench_shadow.o \
		$(patsubst %.c,$(B)/release/obj/%.o,$(wildcard tests/bench/flip_*.c)) \
		$(patsubst %,$(B)/release/libfc-%.a,predictor block common)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) $(BLOCK_LIBS)
$(B)/bench/%: $(B)/release/obj/tests/bench/%.o $(call libs_of,release)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) \
		$(LIBS) $(BLOCK_LIBS) $(XEN_LIBS)
# these run the plugin
$(B)/asan/bin/test_plugin $(B)/asan/bin/test_tapdisk_handshake: | $(PLUGINS)

.SECONDARY:

section = $(patsubst .%,%,$(suffix $(1)))
$(B)/man/%: docs/man/%.pod
	$(say) MAN $(@F)
	@mkdir -p $(@D)
	$(Q)pod2man -c forecopy -r $(VERSION) -s $(call section,$*) \
		-n $(basename $*) $< $@

# ---- tests -----------------------------------------------------------------
.PHONY: deps check check-fast check-long test-programs
test-programs: all $(UNIT:%=$(B)/asan/bin/%) $(TSAN:%=$(B)/tsan/bin/%) \
	$(FUZZ:%=$(B)/fuzz/bin/%) $(BENCH:%=$(B)/bench/%)

check-fast: all $(UNIT:%=$(B)/asan/bin/%) $(TSAN:%=$(B)/tsan/bin/%) \
	$(B)/bench/bench_stream
	$(Q)tests/check fast

check: deps
	$(Q)$(MAKE) -s --no-print-directory test-programs
	$(Q)tests/check all

check-long: deps
	$(Q)$(MAKE) -s --no-print-directory all
	$(Q)tests/check long

deps:
	$(Q)tests/install-packages $(BUILD_PACKAGES) $(TEST_PACKAGES) $(LAB_PACKAGES)

# ---- the lab and what runs on it -------------------------------------------
.PHONY: lab demo bench bench-lab bench-stream bench-overhead bench-rss bench-predictor \
	bench-shadow
lab: deps
	$(Q)$(MAKE) -s --no-print-directory all
	$(Q)tests/lab/lab up --deb "$$(tests/lab/lab deb | tail -n 1)"

demo: deps
	$(Q)tests/demo

# traces for training and evaluation: those in the tree, or others
TRACES ?= $(wildcard tests/traces/*.trace)

# the weights that ship: what this makes of the traces in the tree
.PHONY: train
train: $(B)/forecopy-train
	@mkdir -p predictor/weights
	$(Q)$(B)/forecopy-train --output predictor/weights/memory-50ms.fcm $(TRACES)
	$(Q)$(B)/forecopy-train --tick 1000 \
		--output predictor/weights/memory-1s.fcm $(TRACES)

bench: bench-stream bench-rss bench-predictor bench-shadow bench-lab bench-overhead
bench-shadow: deps
	$(Q)$(MAKE) -s --no-print-directory $(PLUGINS) $(B)/bench/bench_shadow
	$(Q)TRACES="$(TRACES)" tests/bench/bench-shadow
bench-predictor: deps
	$(Q)$(MAKE) -s --no-print-directory $(B)/forecopy-eval \
		$(patsubst tests/bench/%.c,$(B)/bench/%,$(PREDICTOR_BENCHES))
	$(Q)TRACES="$(TRACES)" tests/bench/bench-predictor
bench-stream: deps
	$(Q)$(MAKE) -s --no-print-directory $(B)/bench/bench_stream
	$(Q)$(B)/bench/bench_stream $(if $(STREAM),'$(STREAM)')
bench-rss: deps
	$(Q)$(MAKE) -s --no-print-directory $(B)/bench/bench_rss
	$(Q)$(B)/bench/bench_rss
bench-lab bench-overhead: deps
	$(Q)tests/bench/$@

# ---- installing ------------------------------------------------------------
XENBIN := $(prefix)/lib/xen-$(XEN_VERSION)/bin
# where nbdkit looks: below usr/lib/x86_64-linux-gnu on Debian
NBDKIT_PLUGINS := $(shell pkg-config --variable=plugindir nbdkit 2>/dev/null)
.PHONY: install deb
install: all
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/sbin \
		$(DESTDIR)$(prefix)/lib/forecopy \
		$(DESTDIR)$(XENBIN) $(DESTDIR)/etc/forecopy \
		$(DESTDIR)/etc/xen/scripts $(DESTDIR)$(NBDKIT_PLUGINS) \
		$(DESTDIR)$(prefix)/lib/modprobe.d
	install -m 755 $(B)/forecopyd $(B)/forecopy $(B)/xl \
		$(DESTDIR)$(prefix)/sbin
	install -m 755 $(B)/forecopy-eval $(B)/forecopy-train \
		$(DESTDIR)$(prefix)/bin
	install -m 755 $(B)/forecopy-transport $(B)/forecopy-block \
		$(DESTDIR)$(prefix)/lib/forecopy
	install -m 755 blkback-hook/block-forecopy $(DESTDIR)/etc/xen/scripts
	install -m 644 blkback-hook/modprobe.conf \
		$(DESTDIR)$(prefix)/lib/modprobe.d/forecopy.conf
	for plugin in $(PLUGINS); do \
		install -m 644 $$plugin $(DESTDIR)$(NBDKIT_PLUGINS) || exit 1; \
	done
	install -m 755 $(B)/forecopy-save-helper $(DESTDIR)$(XENBIN)
	install -m 644 dom0d/forecopy.conf $(DESTDIR)/etc/forecopy
	for page in $(MAN); do \
		install -D -m 644 $$page $(DESTDIR)$(prefix)/share/man/man$${page##*.}/$${page##*/} \
			|| exit 1; \
	done

deb:
	$(Q)dpkg-buildpackage -us -uc -b

# ---- the rest --------------------------------------------------------------
.PHONY: help clean
help:
	@printf '%s\n' \
	'make            build everything into build/' \
	'make check      install what is missing, build, run every test, lab too' \
	'make check-fast unit tests only, under the sanitizers' \
	'make check-long what make check leaves out: more faults under disks' \
	'make demo       two Xen hosts, one guest, plain beside predictive' \
	'make lab        boot the two hosts and leave them up (tests/lab/lab help)' \
	'make bench      all benches; bench-lab, bench-overhead, bench-stream,' \
	'                bench-rss, bench-predictor, bench-shadow: one' \
	'                (bench-stream STREAM=FILE: on a guest that `xl save` saved)' \
	'make train      the GRU'\''s weights anew, of TRACES' \
	'make install    into DESTDIR and prefix' \
	'make deb        the Debian package, in the directory above' \
	'make deps       install the Debian packages that all this needs (root)' \
	'make clean      remove build/ but for the lab'\''s images' \
	'' 'V=1 shows the commands.'
clean:
	rm -rf $(B)/release $(B)/asan $(B)/tsan $(B)/fuzz $(B)/bench $(B)/bpf $(B)/man \
		$(PROGRAMS)
