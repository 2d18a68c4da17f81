# httpowerd. `make help` lists what can be made.

GO       ?= go
BIN      ?= bin/httpowerd
FUZZTIME ?= 5s
STAGES   := ^Benchmark(TotalAndAttempt|Success|Closed|Stage|Nothing|AtOnce|NotHedgeable|Leader)$$
STAGE_PACKAGES := $(addprefix ./internal/policy/,timeout retry breaker ratelimit concurrency hedge dedup)
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS  := -s -w -X main.release=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help run build test deps vet lint unit e2e standard standard-all fuzz snippets vuln sbom bench bench-resilience bench-peers bench-growth bench-hostile soak kill observability pgo clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-17s %s\n", $$1, $$2}'

run: ## start the proxy on its defaults
	$(GO) run ./cmd/httpowerd

build: ## build a static binary into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/httpowerd

test: deps vet lint vuln unit e2e standard fuzz ## everything that must hold; installs for itself what it needs

deps: ## install what the tests need and this machine lacks
	@./test/deps.sh

vet: ## go vet, gofmt, go mod tidy, and modules that are what go.sum says
	$(GO) vet ./...
	$(GO) vet -tags hostile,observability ./test
	@test -z "$$(gofmt -l cmd internal configs test)" || { gofmt -l cmd internal configs test; echo 'run gofmt -w on these'; exit 1; }
	$(GO) mod tidy -diff
	$(GO) mod verify

lint: ## run the linters
	@./test/lint.sh

unit: ## unit tests with the race detector, the snippets of the documentation, and what a request may allocate
	CGO_ENABLED=1 $(GO) test -race ./cmd/... ./internal/... ./configs/...
	$(GO) test -run '^$$' -bench '^BenchmarkAllocationBudget$$' -benchtime 3000x ./internal/daemon

e2e: deps build ## the built binary with real clients
	HTTPOWERD_BINARY=$(abspath $(BIN)) $(GO) test -count=1 ./test/...

standard: ## the door and the upstream side once more, where net/http speaks HTTP/1.1 (proxy.wire: standard)
	HTTPOWERD_WIRE=standard $(GO) test -skip '^TestWarm' ./internal/proxy ./internal/proxy/egress # it makes connections when they are needed

standard-all: deps build ## all that depends on the wire once more on net/http's; by hand
	HTTPOWERD_WIRE=standard CGO_ENABLED=1 $(GO) test -race ./internal/daemon ./internal/proxy ./internal/proxy/egress
	HTTPOWERD_WIRE=standard HTTPOWERD_BINARY=$(abspath $(BIN)) $(GO) test -count=1 ./test

fuzz: ## each fuzz target for FUZZTIME (5s), two at once
	@./test/fuzz.sh $(FUZZTIME)

snippets: ## load every YAML snippet of the documentation (a part of unit)
	$(GO) test -count=1 -run Documentation ./internal/house

sbom: ## what the binary is made of, as CycloneDX JSON: bin/httpowerd.cdx.json
	@mkdir -p bin
	$(GO) run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 app -json -licenses -main cmd/httpowerd -output bin/httpowerd.cdx.json .

vuln: ## look for known vulnerabilities in what the binary uses; VULN=require fails where their database cannot be reached
	@./test/vuln.sh

bench: bench-peers ## the proxy's CPU beside others, what it adds to direct requests, and the benchmarks of the code
	$(BIN) bench
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

bench-peers: build ## CPU of each request beside a bare ReverseProxy, and squid where it is installed (a minute)
	$(GO) run ./test/bench -httpowerd $(BIN)

bench-growth: build ## CPU and memory as connections, host blocks and bodies grow (three minutes)
	$(GO) run ./test/bench -httpowerd $(BIN) -duration 4s -growth

bench-resilience: build ## what retries, budgets, breakers and limits come to, and what each stage costs
	$(BIN) bench --resilience
	$(GO) test -run '^$$' -bench '$(STAGES)' -benchmem $(STAGE_PACKAGES)

soak: build ## ten minutes of traffic in all modes with faults, reloads and clients that leave; by hand (half a minute of it is a part of e2e)
	SOAK=10m HTTPOWERD_BINARY=$(abspath $(BIN)) $(GO) test -count=1 -timeout 30m -v -run Soak ./test/...

observability: build ## Prometheus with the rules, alerts and dashboard before daemons with faults (a minute or two); PICTURES=docs/images renews the pictures there, with chromium; by hand
	HTTPOWERD_BINARY=$(abspath $(BIN)) PICTURES=$(if $(PICTURES),$(abspath $(PICTURES))) $(GO) test -count=1 -tags observability -timeout 10m -v -run Observability ./test/...

kill: ## kill a daemon 50 times in the middle of writing audit records, and verify the trail each time; by hand (5 times are a part of unit)
	KILLS=50 $(GO) test -count=1 -timeout 20m -v -run '^TestKill$$' ./internal/proxy/audit

bench-hostile: build ## a healthy client among 5,000 slow and 10,000 resting ones (a minute); by hand
	HTTPOWERD_BINARY=$(abspath $(BIN)) $(GO) test -count=1 -tags hostile -timeout 10m -v -run HealthyClient ./test/...

pgo: ## make cmd/httpowerd/default.pgo, the compiler's profile, for the builds that follow in this tree; by hand (HACKING.md says why there is none)
	./test/pgo.sh

clean: ## remove what was built
	rm -rf bin
