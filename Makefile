# The commands of the README. Each does all the set-up that it needs.

.PHONY: help setup demo kafka loop test torture soak bench fuzz encoder model clean

CORPORA ?= ../shared/corpora/aioner
OUT ?= runs/biored-minilm

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: ## libtorch, Apache Kafka, a schema registry and system packages (CUDA=1: the CUDA libraries too)
	@scripts/setup

demo: setup ## the whole system on real articles, with a broker of its own
	cargo build --release --package litflow
	target/release/litflow demo $(ARGS)

kafka: setup ## a local Apache Kafka in the foreground, until Ctrl-C
	@scripts/kafka/serve $(ARGS)

loop: setup encoder ## labels, training, a worker, a better version swapped in, and back: about five minutes
	cargo build --release --workspace
	@scripts/loop

test: setup ## all tests, those on a real Kafka included
	cargo test --workspace --features litflow/failpoints

torture: setup ## exactly-once at length: three brokers, two workers, 40 faults, then the shipped model; half an hour
	cargo test --release --package litflow --test exactly_once -- --ignored --nocapture

soak: setup ## an hour of faults at random; memory and open files stay flat (MINUTES=…, SEED=…)
	MINUTES=$(or $(MINUTES),60) SEED=$(or $(SEED),1) cargo test --release --package litflow --test soak -- --ignored --nocapture

bench: setup ## real tokens per second of the engine and the tagger; articles per second of a worker on a real Kafka
	cargo build --release --workspace
	cargo bench --bench throughput -- $(ARGS)
	cargo bench --bench bus

fuzz: setup ## the decoders of foreign bytes, fuzzed (TIME=60: seconds each, TARGET: only these); needs nightly Rust
	@scripts/fuzz

encoder: setup ## the encoder that training starts from
	@python3 scripts/fetch.py encoder

model: encoder ## trains the shipped model again, into OUT (CORPORA: the AIONER sets)
	training/recipes/biored-minilm.sh $(CORPORA) encoders/minilm-l6 $(OUT)

clean: ## what was built (not what was fetched)
	cargo clean
