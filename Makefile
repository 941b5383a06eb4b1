# Everything a developer or a CI needs. What is installed or built lies under target/; nothing else is touched, but for
# PostgreSQL's Debian package, which `make test` installs where it is missing and may.

CARGO_DENY := target/tools/bin/cargo-deny
CARGO_DENY_VERSION := 0.20.2
PYTHON ?= python3
# Every integration test but the one that needs the real parts: a file, or a folder with a main.rs.
IN_PROCESS := $(filter-out stack,$(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)))

.PHONY: test format lint docs unit real stack setup deny bench demo clean

## Everything that must hold, in the order in which it fails fastest.
test: format lint docs unit real deny templates

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

## The same behaviour on the real parts: Vault, OpenBao, PostgreSQL, an STS that checks signatures.
real: setup
	cargo test --locked --test stack -- --test-threads=8

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

## Measures beside a reference, in the same run.
bench:
	cargo bench --locked --bench audit --bench read --bench runs

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
