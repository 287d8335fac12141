# `make` shows what there is to do. Needs the Rust toolchain and a C compiler; `make test` installs what else it needs.

.DEFAULT_GOAL := help
.PHONY: help demo run test fuzz mutate sbom simulate chaos cluster bench model lint lint-deploy fmt proto clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: ## See a consent, a refresh, two users kept apart and a revoke; ends by itself
	cargo run --locked -- demo

run: ## The same, but it stays up and shows what to try next; Ctrl-C ends it
	cargo run --locked -- demo --stay

test: ## Run all tests
	tests/setup
	cargo test --locked

# How long `make chaos` deals faults, in seconds; its seed; NAIVE=1 for the build that must fail; further ARGS.
DURATION = 300
chaos: ## Break everything around three replicas and check the history: DURATION=300 SEED=… NAIVE=1
	tests/setup
	cargo test --locked --test chaos -- --duration $(DURATION) $(if $(SEED),--seed $(SEED)) $(if $(NAIVE),--naive) $(ARGS)

cluster: ## See three replicas over Postgres and Redis share their work; ends by itself
	tests/setup
	cargo test --locked --test chaos -- --cluster

# How many credentials are due and how many rows there are at last, where `make bench` measures refresh ahead of expiry.
CREDENTIALS = 100000
ROWS = 1000000
bench: ## Measure what replicas cost and bear: all, or ONLY=storm, restart, outage, ahead or keys
	tests/setup
	for measurement in $(or $(ONLY),storm restart outage ahead keys); do \
		cargo test --locked --profile measure --test chaos -- --measure $$measurement \
			--credentials $(CREDENTIALS) --rows $(ROWS) || exit 1; \
	done

model: ## Explore the model of the refresh protocol with three replicas
	cargo test --locked -p refresh-model -- --ignored --nocapture

simulate: ## Simulate the refresh protocol with more seeds: make simulate SEEDS=100000 FIRST_SEED=10000
	SEEDS=$(or $(SEEDS),100000) FIRST_SEED=$(or $(FIRST_SEED),10000) \
		cargo test --locked --test simulate the_invariants -- --nocapture

fuzz: ## Fuzz one TARGET with RUNS inputs, new ones by what they reach; without a TARGET: the list
	fuzz/run $(TARGET) $(if $(TARGET),$(or $(RUNS),1000000))

mutate: ## The same without instrumented code: RUNS inputs made of the known ones, by SEED; all targets or one TARGET
	TARGET=$(TARGET) RUNS=$(RUNS) SEED=$(SEED) cargo test --locked --test it fuzz_corpus::many -- --ignored --nocapture

lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

sbom: ## Write a bill of materials (CycloneDX) of the binary to target/token-broker.cdx.json
	deploy/sbom

lint-deploy: ## Check the image, compose, Kubernetes and systemd files of deploy/
	deploy/lint

fmt: ## Format the code
	cargo fmt --all

proto: ## Generate src/gen anew from proto/
	TOKEN_BROKER_WRITE_GENERATED=1 cargo test --locked --test it proto_sync

clean: ## Delete everything that was built or installed here
	cargo clean
	rm -rf tests/browser/node_modules tests/oidc/node_modules tests/clients/node/node_modules
