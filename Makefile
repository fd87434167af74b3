# make alone lists the targets. Whatever CI runs, make runs.

GO       ?= go
BIN      := bin/wpfs
TOOLS    := $(CURDIR)/.tools
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Pinned: the same versions everywhere.
VERSITYGW_VERSION   := v1.8.0
STATICCHECK_VERSION := v0.7.0

# Packages with locks and goroutines of their own; the others gain nothing from
# the race detector and lose minutes.
RACE_PKGS := ./cache/... ./cluster/... ./fs/bulk/... ./fs/fuse/... ./fs/object/... ./fs/vfs/... ./lb/... ./cmd/...
UNIT_PKGS := ./cache/... ./cluster/... ./cmd/... ./fs/... ./lb/...

FUZZTIME  ?= 20s
SIM_SEEDS ?= 20000
DEMO_DIR  ?= /tmp/wpfs-demo

export PATH := $(TOOLS):$(PATH)
# make test must not pass because something was not there to test with.
test unit race integration: export WPFS_REQUIRE_S3 = 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: ## a 3-node cluster with a real tree in it, until Ctrl-C
	@.ci/setup demo
	@$(MAKE) --no-print-directory build
	@BIN=$(CURDIR)/$(BIN) .ci/demo $(DEMO_DIR)

.PHONY: test
test: ## everything: unit, simulation, race, real mounts, a real S3 server
	@.ci/setup test
	@$(MAKE) --no-print-directory tools unit race integration

.PHONY: build
build: ## the wpfs binary, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN) ./cmd/wpfs

.PHONY: unit
unit: ## unit tests and the short simulation
	$(GO) test -timeout 10m $(UNIT_PKGS)

.PHONY: race
race: ## the packages with goroutines, under the race detector
	CGO_ENABLED=1 $(GO) test -race -short -timeout 15m $(RACE_PKGS)

.PHONY: integration
integration: ## real processes, real mounts, a real S3 server (root)
	$(GO) test -count=1 -timeout 50m ./integration/...

.PHONY: posix
posix: ## the POSIX suite on a real mount (root)
	$(GO) test -count=1 -timeout 10m -run 'Posix' -v ./fs/fuse/... ./integration/...

.PHONY: sim
sim: ## the simulation of the consistency core, at length
	WPFS_SIM_SEEDS=$(SIM_SEEDS) $(GO) test -count=1 -timeout 120m -run 'TestProtocolHolds' -v ./cluster/protocol/sim

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

.PHONY: bench
bench: build ## latencies against ext4 and bare raft, in one run (root)
	$(GO) run ./integration/bench

.PHONY: lint
lint: $(TOOLS)/staticcheck ## gofmt, vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	  if [ -n "$$bad" ]; then echo "gofmt wants:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	staticcheck ./...

.PHONY: docs
docs: ## write the documents that are made from the program
	$(GO) test ./cmd/wpfs -run TestDocuments -update

.PHONY: tools
tools: $(TOOLS)/staticcheck $(TOOLS)/versitygw ## the pinned tools, in .tools/

$(TOOLS)/staticcheck:
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(TOOLS)/versitygw:
	GOBIN=$(TOOLS) $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin $(TOOLS)
