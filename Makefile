# Everything that one does with the source. `make` alone lists it.

SHELL       := /bin/bash
GO          ?= go
FUZZTIME    ?= 10s
BENCHFLAGS  ?=
UPGRADEFLAGS ?=
DESTDIR     ?=
PREFIX      ?= /usr/local
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := $(GO) tool staticcheck
TESTAGAIN   := $(GO) tool gotestsum --format standard-quiet --hide-summary skipped --rerun-fails=1 --rerun-fails-max-failures=4 \
	--rerun-fails-run-root-test --rerun-fails-abort-on-data-race
# The rules of the tree, first among the tests so that a breach is told at once.
ARCHTESTS   := ^Test(Imports|LoopSide|SizesAndNames|NoMutablePackageVariables|ExportedIsDocumented)$$

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check build install uninstall deb fuzz bench bench-options bench-upgrade bench-deps test-deps systemd-test fmt lint race allocs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: build ## start the gateway on a demo configuration, with two upstreams, on 127.0.0.1:8080
	@demo/run.sh bin/sluice

test: test-deps ## run all tests
	$(GO) test -timeout 15m ./...

check: test-deps lint build race allocs ## exactly what CI runs: lint, build, all tests with the race detector, short fuzzing
	@.ci/fuzz 5s
	@echo "check: all passed"

build: ## make bin/sluice, static and stamped with the version
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/sluice ./cmd/sluice

install: ## install bin/sluice, units, manual, completions and a first configuration; DESTDIR= PREFIX=/usr/local
	@test -x bin/sluice || $(MAKE) build
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" systemd/install bin/sluice

uninstall: ## remove what install has installed, but not the configuration
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" systemd/install -remove

deb: build ## make a Debian package of bin/sluice in bin
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null) systemd/deb/build bin/sluice "$(VERSION)" bin

fuzz: ## run every fuzzer for FUZZTIME (10s)
	@.ci/fuzz $(FUZZTIME)

bench: build ## compare with nginx and HAProxy; BENCHFLAGS="-rounds 5 -scenario h1-64" chooses
	$(GO) run ./bench $(BENCHFLAGS)

bench-options: build ## what each socket option, and busy polling, costs or saves; BENCHFLAGS="-rounds 5 -scenario option-steer-new" chooses
	$(GO) run ./bench -options $(BENCHFLAGS)

bench-upgrade: build ## replace and reload Sluice, nginx and HAProxy under load, and count failures; UPGRADEFLAGS="-n 50 -reloads 0 -peers sluice" chooses
	$(GO) run ./bench/upgrade $(UPGRADEFLAGS)

bench-deps: ## install what the bench needs: nginx, haproxy, wrk, nghttp2-client
	@.ci/install nginx haproxy wrk h2load:nghttp2-client

test-deps: ## install what some tests need; without a package manager they are skipped
	@.ci/install -optional redis-server nginx haproxy wrk curl openssl h2load:nghttp2-client systemctl:systemd systemd-analyze:systemd dpkg-deb:dpkg

systemd-test: test-deps ## have a real systemd run the service in namespaces; fails where make test skips that: it takes root
	SLUICE_SYSTEMD_TEST=required $(GO) test -count=1 -timeout 3m -v -run '^TestSystemdRunsTheGateway$$' ./systemd

fmt: ## format the source
	gofmt -w .

lint: ## gofmt, vet, staticcheck and the rules of the tree
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then printf 'not formatted, run make fmt:\n%s\n' "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test -count=1 -run '$(ARCHTESTS)' ./core

# The race detector needs a C compiler. Where there is none the tests run without it, and say so. Packages begin in the order in which
# they are named: core/server takes as long as all others together, which are done on the other processor meanwhile. Vet is lint's.
# Thousands of tests with real sockets and processes meet a neighbour's pause now and then: where one or two fail, and nothing raced,
# panicked or hung, they are run once more by themselves, and what they have said stands at the end. A test that fails twice has failed.
race:
	@flag=-race; if ! command -v "$$($(GO) env CC)" >/dev/null; then flag=; echo "check: no C compiler, so no race detector" >&2; fi; \
	set -x; SLUICE_SOAK=60s $(TESTAGAIN) --packages "./core/server ./..." -- $$flag -vet=off -shuffle=on -timeout 30m

# The race detector allocates and computes, so the tests that count allocations, what is kept of many tokens, or the processor's time, are
# run once more without it.
allocs:
	SLUICE_SOAK=60s $(TESTAGAIN) --packages ./core/... -- -vet=off -count=1 -timeout 5m -run 'Alloc|^TestJWTLoad$$|^TestHTTP2(Floods|Stalls|SlowReader|RapidReset)$$'

clean: ## remove what was built
	rm -rf bin
	$(GO) clean -testcache
