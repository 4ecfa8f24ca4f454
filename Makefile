# SPDX-License-Identifier: MIT
#
# Thin on purpose: every folder is picked up by wildcard, so a new file needs
# no line here. `make` builds all that this machine can build, `make install`
# installs it, `make check-unit` and `make check-sim` run the tests that need
# no privilege. `tools/check` is the whole proof, `tools/demo` the whole show.
#
#   BUILD=dir    where everything goes (default: build)
#   CC=clang     another compiler (gcc and clang are both supported)
#   SANITIZE=1   userspace with ASAN and UBSAN

BUILD    ?= build
DESTDIR  ?=
PREFIX   ?= /usr/local
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG    ?= clang
BPFTOOL  ?= bpftool
VERSION  := 0.1.0

PKGS     := libbpf liburing libnl-3.0 libnl-genl-3.0 devmapper libcurl libcrypto \
	    libsodium libzstd jansson libfyaml expat sqlite3 libsystemd blkid
CPPFLAGS += -D_GNU_SOURCE -DCH_VERSION='"$(VERSION)"' -I$(BUILD)/gen -I. -Iinclude -Iinclude/uapi -Iuserspace \
	    $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
CFLAGS   ?= -O2 -g
CFLAGS   += -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wmissing-prototypes \
	    -Wstrict-prototypes -Wpointer-arith -Wwrite-strings -fno-strict-aliasing
LDFLAGS  += -Wl,--as-needed
LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread -lm
ifdef SANITIZE
CFLAGS   += -fsanitize=address,undefined -fno-omit-frame-pointer
LDFLAGS  += -fsanitize=address,undefined
endif

O        := $(BUILD)/obj
# The pure core is one set of sources for the module, the tests and the tools.
core_src := $(wildcard kmod/core/*.c)
lib_src  := $(wildcard userspace/lib/*.c userspace/lib/*/*.c)
# All of cohostd but its main() is an archive, so that tests can link it.
d_src    := $(filter-out userspace/cohostd/main.c,$(wildcard userspace/cohostd/*.c userspace/cohostd/*/*.c))
ctl_src  := $(wildcard userspace/cohostctl/*.c)
objs      = $(patsubst %.c,$(O)/%.o,$(1))

bins     := $(BUILD)/bin/cohostd $(BUILD)/bin/cohostctl
units    := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
sims     := $(patsubst tests/sim/%.c,$(BUILD)/tests/sim/%,$(wildcard tests/sim/sim_*.c))
# What the simulators share: the device, the model, the driver of the core.
sim_src  := $(filter-out $(wildcard tests/sim/sim_*.c),$(wildcard tests/sim/*.c))
bpftests := $(patsubst tests/bpf/%.c,$(BUILD)/tests/bpf/%,$(wildcard tests/bpf/test_*.c))
helpers  := $(patsubst tests/helpers/%.c,$(BUILD)/tests/helpers/%,$(wildcard tests/helpers/*.c))
fuzzers  := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
skel     := $(BUILD)/gen/cohost.skel.h
archives := $(BUILD)/libcohostd.a $(BUILD)/libcohost.a $(BUILD)/libcore.a

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all userspace bpf kmod tests test-kmod fuzz check-unit check-sim install clean
all: userspace bpf kmod

userspace: $(bins) $(helpers)
bpf: $(BUILD)/bpf/cohost.bpf.o
tests: $(units) $(sims) $(bpftests) $(helpers)
fuzz: $(fuzzers)

$(BUILD)/libcore.a: $(call objs,$(core_src))
$(BUILD)/libcohost.a: $(call objs,$(lib_src))
$(BUILD)/libcohostd.a: $(call objs,$(d_src))
%.a:
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/bin/cohostd: $(O)/userspace/cohostd/main.o $(archives)
$(BUILD)/bin/cohostctl: $(call objs,$(ctl_src)) $(BUILD)/libcohost.a $(BUILD)/libcore.a
$(units): $(BUILD)/tests/unit/%: $(O)/tests/unit/%.o $(archives)
$(sims): $(BUILD)/tests/sim/%: $(O)/tests/sim/%.o $(call objs,$(sim_src)) $(BUILD)/libcohost.a $(BUILD)/libcore.a
$(bpftests): $(BUILD)/tests/bpf/%: $(O)/tests/bpf/%.o $(archives)
$(helpers): $(BUILD)/tests/helpers/%: $(O)/tests/helpers/%.o $(archives)
# Tests of the command line get its files too, all but main().
$(foreach u,$(units),$(if $(findstring /test_ctl_,$(u)),$(u))): $(filter-out %/cohostctl/main.o,$(call objs,$(ctl_src)))
$(units) $(bpftests): LDLIBS += -lcmocka
$(bins) $(units) $(sims) $(bpftests) $(helpers):
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS)

$(O)/%.o: %.c | $(skel)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Fuzzers: coverage and sanitizers over all that they reach, compiled once for all of
# them, and of the archives only what each one needs.
fuzz_flags := -fsanitize=address,undefined
fuzz_libs  := $(BUILD)/fuzz/libcohostd.a $(BUILD)/fuzz/libcohost.a $(BUILD)/fuzz/libcore.a
fuzz_objs   = $(patsubst %.c,$(O)/fuzz/%.o,$(1))
$(BUILD)/fuzz/libcore.a: $(call fuzz_objs,$(core_src))
$(BUILD)/fuzz/libcohost.a: $(call fuzz_objs,$(lib_src))
$(BUILD)/fuzz/libcohostd.a: $(call fuzz_objs,$(d_src))
$(O)/fuzz/%.o: %.c | $(skel)
	@mkdir -p $(@D)
	$(CLANG) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer-no-link $(fuzz_flags) -MMD -MP -c -o $@ $<
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(fuzz_libs) | $(skel)
	@mkdir -p $(@D)
	$(CLANG) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer $(fuzz_flags) -o $@ $< \
		-Wl,--start-group $(fuzz_libs) -Wl,--end-group $(LDLIBS)

# BPF: one object for every kernel (CO-RE), and its skeleton for the loader.
$(BUILD)/bpf/cohost.bpf.o: bpf/cohost.bpf.c $(wildcard bpf/*.h include/cohost/*.h)
	@mkdir -p $(@D)
	$(CLANG) -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter \
		-D__TARGET_ARCH_x86 -I. -Iinclude -idirafter /usr/include/$(shell uname -m)-linux-gnu -c -o $@ $<
$(skel): $(BUILD)/bpf/cohost.bpf.o
	@mkdir -p $(@D)
	$(BPFTOOL) gen skeleton $< name cohost_bpf > $@

# The module, for every kernel whose headers are installed, or fetched by tools/kernel.
# Kbuild writes beside its sources, so it gets a copy of them.
headers   := $(patsubst %/,%,$(wildcard /lib/modules/*/build/ $(BUILD)/kernels/*/lib/modules/*/build/))
kvers      = $(sort $(notdir $(patsubst %/build,%,$(1))))
kvers_here = $(call kvers,$(filter /lib/modules/%,$(headers)))
kmod: $(foreach v,$(call kvers,$(headers)),$(BUILD)/kmod/$(v)/cohost.ko)
$(BUILD)/kmod/%/cohost.ko: Kbuild $(shell find kmod include -name '*.[ch]' 2>/dev/null)
	@mkdir -p $(@D)
	@cp -r --preserve=timestamps Kbuild kmod include $(@D)/
	@cd $(@D) && for f in $$(find kmod include -name '*.[ch]' ! -name '*.mod.c'); do \
		[ -e $(CURDIR)/$$f ] || rm -f $$f $${f%.c}.o; done
	$(MAKE) -C $(firstword $(filter %/lib/modules/$*/build,$(headers))) M=$(abspath $(@D)) modules
	@touch $@

# The disk that loses power, for tests alone: nothing installs it.
test-kmod: $(foreach v,$(call kvers,$(headers)),$(BUILD)/test-kmod/$(v)/powerfail.ko)
$(BUILD)/test-kmod/%/powerfail.ko: $(wildcard tests/kmod/*)
	@mkdir -p $(@D)
	@cp --preserve=timestamps $^ $(@D)/
	$(MAKE) -C $(firstword $(filter %/lib/modules/$*/build,$(headers))) M=$(abspath $(@D)) modules
	@touch $@

check-unit: $(units)
	@for t in $(units); do echo "# $$t"; $$t || exit 1; done
check-sim: $(sims)
	@for t in $(sims) $(wildcard tests/sim/*.sh tests/model/*.sh); do echo "# $$t"; $$t || exit 1; done

install: all
	install -Dm755 $(BUILD)/bin/cohostd $(DESTDIR)$(PREFIX)/sbin/cohostd
	install -Dm755 $(BUILD)/bin/cohostctl $(DESTDIR)$(PREFIX)/sbin/cohostctl
	sed 's|@SBINDIR@|$(PREFIX)/sbin|' userspace/cohostd/cohostd.service >$(BUILD)/cohostd.service
	install -Dm644 $(BUILD)/cohostd.service $(DESTDIR)$(PREFIX)/lib/systemd/system/cohostd.service
	install -Dm644 $(BUILD)/bpf/cohost.bpf.o $(DESTDIR)$(PREFIX)/lib/cohost/cohost.bpf.o
	@for v in $(kvers_here); do \
		install -Dm644 $(BUILD)/kmod/$$v/cohost.ko $(DESTDIR)/lib/modules/$$v/extra/cohost.ko; \
		[ -n "$(DESTDIR)" ] || depmod $$v; \
	done
	@for m in $(wildcard Documentation/man/*.[158]); do \
		install -Dm644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$$(basename $$m); \
	done
	$(BUILD)/bin/cohostctl help --completion > $(BUILD)/cohostctl.bash
	install -Dm644 $(BUILD)/cohostctl.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cohostctl

clean:
	rm -rf $(BUILD)

-include $(shell find $(O) -name '*.d' 2>/dev/null)
