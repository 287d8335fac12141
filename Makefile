# `make` shows what there is to do. Needs the Rust toolchain and a C compiler; `make test` installs what else it needs.

.DEFAULT_GOAL := help
.PHONY: help demo run test lint lint-deploy fmt proto clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: ## See a consent, a refresh, two users kept apart and a revoke; ends by itself
	cargo run --locked -- demo

run: ## The same, but it stays up and shows what to try next; Ctrl-C ends it
	cargo run --locked -- demo --stay

test: ## Run all tests
	tests/setup
	cargo test --locked

lint: ## Check format and lints
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

lint-deploy: ## Check the image, compose, Kubernetes and systemd files of deploy/
	deploy/lint

fmt: ## Format the code
	cargo fmt

proto: ## Generate src/gen anew from proto/
	TOKEN_BROKER_WRITE_GENERATED=1 cargo test --locked --test it proto_sync

clean: ## Delete everything that was built or installed here
	cargo clean
	rm -rf tests/oidc/node_modules tests/clients/node/node_modules
