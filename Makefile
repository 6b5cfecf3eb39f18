# The everyday commands; `make help` lists them.
UV ?= uv
VLLM ?= 0.32.0
NAME ?= lorafleet
RUN = $(UV) run --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-clean test check unit e2e contract generate cluster-up cluster-down bench

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## everything that a checkout needs: Debian packages, Python packages, Kubernetes, images, vLLM, a tiny model
	@bash scripts/setup

demo: setup ## the main job, from nothing to served versions, on a real cluster with a real vLLM
	@$(RUN) python -m e2e.demo

demo-clean: ## removes what the demo made; the cluster stays (make cluster-down takes it down)
	@$(RUN) python -m e2e.demo --clean

test: setup check unit contract e2e ## all tests; what CI runs

check: ## ruff, mypy --strict, import-linter, generated files up to date: seconds
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(RUN) python -m lorafleet.api.crd --check crds charts/lorafleet/files/crds

unit: ## tests without a node: pure code, fakes, the volume, and the control plane of a real Kubernetes
	@$(RUN) pytest tests

contract: ## the engine contract against a real vLLM, as plain process; VLLM=0.27.1 for the oldest supported
	@VLLM="$(VLLM)" $(RUN) pytest tests/contract

e2e: ## the scenarios on a real cluster with a real vLLM
	@$(RUN) pytest e2e -x --color=yes

generate: ## writes the CRDs from the models
	@$(RUN) python -m lorafleet.api.crd crds charts/lorafleet/files/crds

cluster-up: ## a working cluster; prints the KUBECONFIG line
	@$(RUN) python -m e2e.cluster --name $(NAME) up

cluster-down: ## leaves no process, mount, network namespace or address behind
	@$(RUN) python -m e2e.cluster --name $(NAME) down

bench: ## all benchmarks, one JSON line each
	@for name in fanout hung converge repair idle objects sync bulk publish dedupe rollback split router routes; do $(RUN) python -m bench $$name || exit 1; done
