# make run    installs what is missing, builds, and runs the examples in manifests/
# make test   installs what is missing, builds, and runs every test
# make test-v2  runs those that need root also in a virtual machine that is all cgroup v2 (TESTVM=its harness,
#             FILTER=parts of their names)
# make test-systemd  tests the installed package, restarts and power cuts in such a machine (TESTVM likewise)
# make deb    makes the Debian package
# make bench  prints the figures and ratios of benches/

CARGO ?= cargo
# Everything of `make run` is below this directory: no other agent is touched.
PLIM_ROOT ?= $(CURDIR)/.plim
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run test test-v2 test-systemd deb bench check deps

run: deps
	$(CARGO) build --release --bins
	$(SUDO) "$${CARGO_TARGET_DIR:-target}/release/plim" --root "$(PLIM_ROOT)" up manifests

test:
	@deploy/deps test
	deploy/test

test-v2: deps
	deploy/test-v2 $(FILTER)

test-systemd: deps
	deploy/test-systemd

deb: deps
	deploy/deb

bench: deps
	$(CARGO) build --release --bins --benches
	deploy/bench

check: deps
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

# The C library of system call filters and what builds it in; nothing is done where both are there.
deps:
	@deploy/deps
