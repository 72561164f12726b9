# What a developer types. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(TRAINYARD_CACHE),$(HOME)/.cache/trainyard)
DENY_VERSION := 0.20.2
DENY := $(CACHE)/cargo/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

.PHONY: help demo test lint unit api e2e generate check-generated deny up down clean bench bench-retries bench-logs flood images

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## set everything up on this machine and run the main jobs
	dev/demo

test: ## run everything: lint, unit, API server, end to end on a real node
	dev/test

lint: ## formatting, clippy, vet of the local cluster, licences and bans
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cd dev/cluster && test -z "$$(gofmt -l .)" && go vet ./...
	$(MAKE) deny

deny: $(DENY) ## licences, bans and sources of all dependencies
	$(DENY) check licenses bans sources

$(DENY):
	cargo install --locked --no-default-features --root $(CACHE)/cargo/cargo-deny-$(DENY_VERSION) cargo-deny@$(DENY_VERSION)

generate: ## write the generated files: crds/
	cargo run --quiet --bin trainyard -- crds crds

unit: ## tests that need nothing
	cargo test --lib --bins --test crash --test corpus --test lake --test logs --test s3 --test chart
	cd dev/cluster && go test ./...

api: ## tests against a real API server
	dev/test api

e2e: ## tests on real nodes
	dev/test e2e

flood: ## 20 pods write 5 MB/s for 2 minutes while everything is killed: is every line accounted for?
	TRAINYARD_FLOOD_SECONDS=120 TRAINYARD_E2E_PROGRAM=$(CURDIR)/target/release/trainyard dev/test e2e flood:: --nocapture

images: ## build the images into the cache and print their archives
	cargo build --release --bins
	images/build trainyard python pytorch busybox loggen

up: ## start the local cluster and load the images
	dev/up

down: ## end the local clusters of this checkout, leaving nothing
	dev/cluster/cluster down
	dev/cluster/cluster --name "$$(dev/api-cluster-name)" down

bench: ## jobs per second, writes, memory, restart; prints and asserts nothing
	dev/bench

bench-logs: ## the collector beside stern, VictoriaLogs and rsyslog; prints and asserts nothing
	dev/bench-logs

bench-retries: ## what the failure policy is worth: published failures replayed; needs no cluster
	cargo bench --bench retries

clean: down ## down, and remove the build
	cargo clean
