.DEFAULT_GOAL := help
# Where rustup puts cargo.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help test quick demo demo-super lint bench bench-build bench-sinks bench-idle bench-latency bench-verify bench-amqp bench-instructions torture torture-cluster lag deb deploy-check book figures brokers brokers-down

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

test: ## Everything, against real brokers; sets up what is missing (minutes the first time)
	@scripts/test.sh

quick: ## Unit tests only: seconds, once built
	@scripts/setup.sh rust-build
	cargo test --lib

demo: ## A broker, three consumers and a load, to look at
	@scripts/demo.sh

demo-super: ## A super stream through two daemons, of which one is killed
	@scripts/demo-super.sh

lint: ## Formatting, clippy (also of the small build), shellcheck
	cargo fmt --check
	cargo clippy --all-targets --features otel -- -D warnings
	@scripts/lint-small.sh
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh scripts/lib/*.sh scripts/deploy/*.sh .ci/run; \
	else echo 'SKIPPED shellcheck: it is not installed (apt-get install shellcheck)'; fi

bench: ## Speed, beside a plain socket reader and the official client (ARGS='--spin 12x400')
	@scripts/bench.sh $(ARGS)

torture: ## Kills, freezes, outages, rolling restarts; a table of what was lost (KILLS=1000 ROUNDS=30)
	@scripts/torture.sh

torture-cluster: ## Faults of nodes of real clusters of 4.0 and 4.3, and a table (FAULTS=30 for each)
	@scripts/torture-cluster.sh

lag: ## What lag says, beside a second client, for ten minutes (LAG_SECONDS=600)
	@LAG_SECONDS=$${LAG_SECONDS:-600} scripts/test.sh --test all -- --nocapture \
	  lag::truth::another_client_sees_the_same_on_rabbitmq_4_3

bench-sinks: ## Each sink, beside the bulk loader of its destination (ARGS='--rounds 7 sqlite')
	@scripts/bench-sinks.sh $(ARGS)

bench-latency: ## From publish to durable, sink by sink (ARGS='10,1000,100000 10 file sqlite')
	@scripts/bench-latency.sh $(ARGS)

bench-verify: ## `rillway verify`, beside reading alone (ARGS='300000 3 file sqlite')
	@scripts/bench-verify.sh $(ARGS)

bench-amqp: ## Over AMQP 0.9.1, beside lapin and pika (ARGS='5 12 256x400000')
	@scripts/bench-amqp.sh $(ARGS)

bench-instructions: ## Instructions per message, whatever else runs (ARGS='parquet chunk-to-ndjson')
	@scripts/bench-instructions.sh $(ARGS)

bench-idle: ## A thousand idle consumers: connections, processor time, memory (ARGS='1000 4 30')
	@scripts/bench-idle.sh $(ARGS)

bench-build: ## Builds from nothing: to the demo's first line, release, tests (ARGS='demo release')
	@scripts/bench-build.sh $(ARGS)

deb: ## The Debian package, in target/deploy
	@scripts/deb.sh

deploy-check: ## Unit, package, image, manifests and rules, each tried for real (ARGS='systemd package')
	@scripts/deploy-check.sh $(ARGS)

book: ## The documentation as a book, in target/book; fails on warnings and dead links
	@scripts/book.sh

figures: ## Lengths of files and functions, comments, names used twice, crates in several versions
	@python3 scripts/lib/figures.py

brokers: ## Brokers that stay up, for `cargo test` to use again and again
	@scripts/test-brokers.sh up $(CURDIR)/target/brokers
	@echo 'They are used by: RILLWAY_TEST_BROKERS=$(CURDIR)/target/brokers cargo test'

brokers-down: ## Stops them
	@scripts/test-brokers.sh down $(CURDIR)/target/brokers
