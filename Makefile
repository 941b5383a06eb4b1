# Everything a developer or a CI needs. What is installed or built lies under target/; nothing else is touched, but for
# PostgreSQL's Debian package, which `make test` installs where it is missing and may.

CARGO_DENY := target/tools/bin/cargo-deny
CARGO_DENY_VERSION := 0.20.2
PYTHON ?= python3
# Integration tests that wait most of the time, for frozen processes and for time-outs.
WAITING := lambda posture
# All others: a file, or a folder with a main.rs. But not the one that needs the real parts.
IN_PROCESS := $(filter-out stack $(WAITING),$(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)))

.PHONY: test format lint docs unit fuzz fuzz-build fuzz-smoke real stack setup deny bench demo clean

## Everything that must hold, in the order in which it fails fastest.
test: format lint docs unit fuzz-smoke real browser deny templates

format:
	cargo fmt --check

lint:
	cargo clippy --locked --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

## The unit, property and in-process integration tests.
unit:
	cargo test --locked --lib --bins
	cargo test --locked $(IN_PROCESS:%=--test %)
	cargo test --locked $(WAITING:%=--test %) -- --test-threads=8

## Fuzzes each target for so many seconds; what is found anew is kept in target/fuzz. One of them: FUZZ=door.
FUZZ ?= $(patsubst fuzz/targets/%.rs,%,$(wildcard fuzz/targets/*.rs))
FUZZ_SECONDS ?= 60
fuzz: fuzz-build
	@$(MAKE) --no-print-directory -j2 $(FUZZ:%=fuzzed-%)

fuzzed-%:
	@mkdir -p target/fuzz/$*
	@target/debug/fuzz-$* target/fuzz/$* fuzz/seeds/$* -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=1024 \
		-artifact_prefix=target/fuzz/$*.found- >target/fuzz/$*.log 2>&1 || { tail -n 40 target/fuzz/$*.log; exit 1; }
	@echo "fuzzed $* for $(FUZZ_SECONDS) s: nothing found"

fuzz-build:
	@command -v c++ >/dev/null || { echo "fuzzing needs a C++ compiler, for libFuzzer: apt-get install g++"; exit 1; }
	cd fuzz && cargo build --locked --bins

## Every target still runs, on its seeds and a little beyond.
fuzz-smoke:
	$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=3

## The same behaviour on the real parts: Vault, OpenBao, PostgreSQL, an STS that checks signatures.
real: setup
	cargo test --locked --test stack -- --test-threads=8

## A real browser looks at the auditor's pages; one of them: PAGE=week. What it saw lies in target/browser/shots.
.PHONY: browser
PAGE ?=
REAL_LOGS := target/browser/real/vault/execution target/browser/real/openbao/execution
browser: $(REAL_LOGS)
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "the browser needs Node 20.19 or newer, and npm"; exit 1; }
	cargo build --locked --bin tenure
	node tests/browser/check.mjs $(PAGE)

# Of the real parts, as `make real` leaves them.
$(REAL_LOGS) &:
	$(MAKE) --no-print-directory setup
	cargo test --locked --test stack -- an_execution_is_traced_and_a_bypass_found

## Builds and installs the real parts, once.
setup:
	$(PYTHON) tests/stack/stack.py setup

## Starts the real parts and leaves them running, with a ready configuration, until Ctrl-C.
stack: setup
	$(PYTHON) tests/stack/stack.py up

## Licences, bans, duplicate versions and sources. Advisories need the advisory database: `make advisories`.
deny: $(CARGO_DENY)
	$(CARGO_DENY) --locked --all-features check --hide-inclusion-graph bans licenses sources

.PHONY: advisories
advisories: $(CARGO_DENY)
	$(CARGO_DENY) --locked check advisories

$(CARGO_DENY):
	cargo install cargo-deny --locked --version $(CARGO_DENY_VERSION) --root target/tools --target-dir target/tools/build
	rm -rf target/tools/build

## Measures beside a reference, in the same run, Vault Proxy among them where `make setup` has built Vault; and what
## readers see of each fault.
bench:
	cargo bench --locked --bench audit --bench lambda --bench leases --bench read --bench runs --bench trace
	cargo test --locked --test faults -- --nocapture

## The Lambda layers of both architectures, and that they are small; `deploy/lambda` says what to do with them.
.PHONY: lambda-layer
lambda-layer:
	$(PYTHON) deploy/lambda/layer.py

## The templates in deploy/lambda.
.PHONY: templates
templates:
	$(PYTHON) deploy/lambda/check.py

demo:
	cargo run --locked --release -- demo

clean:
	cargo clean
