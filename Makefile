# `make help` lists the targets. `make demo` and `make test` set up by themselves what the machine lacks.

SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin

GO   ?= go
BIN  := bin
TEST := $(GO) test -count=1

# Packages whose tests mount something; all others need no privilege and no /dev/fuse.
MOUNTING := ./bench/... ./cmd/... ./internal/uniontest/... ./runtime/... ./unionfs/...

# How long each fuzz target runs under `make fuzz`.
FUZZTIME ?= 1m

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## The static binaries, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/...

.PHONY: setup
setup: ## Install what build and tests need on Debian (as root, or by sudo)
	@bash scripts/setup-debian.sh

.PHONY: demo
demo: setup build ## An image of several layers is run rootless, under limits, and what it changed is shown
	@bash scripts/demo-lamina.sh $(BIN)

.PHONY: demo-laminafs
demo-laminafs: setup build ## A merge, a copy-up and a whiteout on a real mount, as an ordinary user
	@bash scripts/demo.sh $(BIN)/laminafs

# -p 1: the packages that mount share the machine with their servers, and their own tests run in parallel already.
# The tag "faults" compiles the points in at which a test makes a copy-up fail.
.PHONY: test
test: setup lint ## Everything that fits in 20 minutes
	$(TEST) -tags faults ./internal/fault ./copyup
	$(TEST) -tags faults -run TestCrash ./runtime/image
	$(TEST) -p 1 -timeout 20m ./...
	@bash scripts/test-transports.sh $(TEST)

.PHONY: test-unit
test-unit: ## Tests that need no privilege and no mount
	$(TEST) -race $$($(GO) list ./... | grep -vxF "$$($(GO) list $(MOUNTING))")

.PHONY: test-mount
test-mount: build ## Tests on real mounts, with the rights the caller has
	$(TEST) -p 1 -timeout 20m $(MOUNTING)

.PHONY: test-root
test-root: setup build ## The same as root: nothing may be skipped for want of privilege
	@[ "$$(id -u)" = 0 ] || { echo 'make test-root: be root' >&2; exit 1; }
	$(TEST) -p 1 -timeout 20m $(MOUNTING)

.PHONY: test-vm
test-vm: ## The cgroup tests on cgroup v2 with systemd, in a virtual machine, as root: minutes
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
		CGO_ENABLED=0 $(GO) test -c -o "$$dir/cgroup.test" ./runtime/cgroup && \
		bash scripts/vm-test.sh "$$dir/cgroup.test" -test.v

.PHONY: test-long
test-long: setup lint ## Everything, with the long runs: hours
	$(TEST) -race -tags faults ./internal/fault ./copyup ./runtime/image
	LAMINA_LONG=1 LAMINA_RACE=1 $(TEST) -race -p 1 -timeout 6h ./...
	@LAMINA_LONG=1 bash scripts/test-transports.sh $(TEST) -timeout 6h

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (1m) each
	@bash scripts/fuzz.sh $(FUZZTIME)

# What changed since the last entry of bench/RESULTS.md, for bench-ledger.
CHANGED ?=

.PHONY: bench
bench: setup build ## Everything beside its peers, as root: an hour or more, in bench/out
	$(BIN)/lamina-bench run --user lamina-test

.PHONY: bench-ledger
bench-ledger: setup build ## An entry for bench/RESULTS.md (CHANGED='what changed') and the chart of README.md, as root: 10 minutes
	@[ -n '$(CHANGED)' ] || { echo "make bench-ledger: say what changed: CHANGED='...'" >&2; exit 1; }
	$(BIN)/lamina-bench run --user lamina-test --scale small --reps 6 --ledger '$(CHANGED)'
	cp bench/out/chart.svg docs/bench.svg

.PHONY: bench-memory
bench-memory: setup build ## Memory and descriptors on a tree of a million files, as root
	$(BIN)/lamina-bench run --workloads memory-1m --reps 1

# gofmt lists what it would change; the rules of our own are tests of internal/lint.
.PHONY: lint
lint: ## gofmt, go vet, staticcheck, import arrows, bans
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags faults ./...
	$(GO) run $(STATICCHECK) ./...
	$(TEST) ./internal/lint

.PHONY: check
check: ## What CI runs
	bash .ci/run
