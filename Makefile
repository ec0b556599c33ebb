# The two commands: `make demo` and `make test`. `make help` lists the rest.
#
# Build artefacts live outside the checkout, so that every clone shares them; nothing depends on what is there.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/flumen/target
PROFILE ?= release
profile_dir = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
FLUMEN = $(CARGO_TARGET_DIR)/$(profile_dir)/flumen

.PHONY: demo test chaos simulate build setup lint fmt dist install bench help

demo: build ## bring three months of taxi trips into a lake over HTTP, and look at them
	@FLUMEN="$(FLUMEN)" scripts/demo.sh

test: setup ## run every test
	cargo test --locked --workspace --all-targets --no-fail-fast

chaos: setup ## kill servers two hundred times while they load (FLUMEN_SEED=n for another story)
	FLUMEN_CHAOS=200 cargo test --locked --workspace --test it months_are_loaded_once -- --nocapture

SEEDS ?= 20000
simulate: setup ## play SEEDS=n histories of runs, then of schedules, with everything that goes wrong (FLUMEN_SEED=n plays one again)
	FLUMEN_SEEDS=$(SEEDS) cargo test --locked --workspace --test simulation nothing_goes_wrong -- --nocapture
	FLUMEN_SEEDS=$(SEEDS) cargo test --locked --workspace --test services every_interval_is_run -- --nocapture

build: ## build the binary (PROFILE=release by default, or dev, or dist)
	@scripts/setup.sh build
	@echo "building flumen ($(PROFILE)): a first build takes some minutes"
	cargo build --locked --profile $(PROFILE) --package flumen

setup: ## install what the tests start and connect with: postgresql, azurite (Azure), moto (S3), SQL clients
	@scripts/setup.sh test

lint: setup ## formatting, clippy, layering, one version of everything that matters
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo test --workspace --test architecture

fmt: ## format the code
	cargo fmt --all

dist: ## build what is shipped: thin LTO, stripped
	$(MAKE) build PROFILE=dist

install: ## install flumen for this user
	cargo install --locked --path crates/flumen

bench: ## compare with the peers (two hours; see docs/benchmarks.md)
	bench/run.sh

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16
