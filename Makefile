# Two commands for newcomers: `make run` starts the broker, `make test` passes every test. `make deb`
# packs it.

# Runs one command between two lines that name it and say how long it took.
STEP = @bash -c 'echo "==> $$*"; "$$@" || { code=$$?; \
	echo "==> FAILED after $$SECONDS s: $$*" >&2; exit $$code; }; \
	echo "==> $$SECONDS s: $$*"' step

.PHONY: run build test deb deb-check

run:
	cargo run --release --locked -p polymq-server -- server --dev

build:
	cargo build --release --locked -p polymq-server

# The package for Debian, in target/debian.
deb: build
	packaging/deb/build target/release/polymq

# Installs it in a Debian of its own, runs, upgrades and purges it there. Needs root and debootstrap.
deb-check: deb
	packaging/deb/check target/debian/polymq_*.deb

# In the order in which a mistake is cheapest to learn of.
test:
	$(STEP) cargo fmt --check
	$(STEP) cargo lint
	$(STEP) cargo test --locked
	$(STEP) env POLYMQ_SIM_SEEDS=100000 cargo test --locked -p polymq-log --lib answered_batches
	$(STEP) env PROPTEST_CASES=2200 cargo test --locked -p polymq-broker --test queue_model -- --nocapture
	$(STEP) cargo fuzz-replay
	$(STEP) cargo build --release --locked -p polymq-server
	$(STEP) tests/interop/setup.sh
	$(STEP) cargo interop
	$(STEP) cargo faults
