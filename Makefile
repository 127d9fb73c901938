# Everything a developer or CI does starts here; `make` alone explains it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := .build/setup.stamp
STACK := $(PY) -m deploy.local
PACKAGES := .build/console-packages.stamp
CONSOLE := .build/console.stamp
PLUGINS := .build/plugins.stamp
FUZZ := .build/fuzz/environment/complete
# Node is a wheel in the environment; nobody needs one of their own.
WITH_NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
# What mypy reads: those of the roots that are there.
TYPED := $(wildcard services servicekit clients/python deploy tools tests db/tests bench)

# A registry that stumbles is asked again.
APT := apt-get -o Acquire::Retries=5

# Five services start much faster from compiled modules.
unexport PYTHONDONTWRITEBYTECODE

# npm trusts its own list of authorities; where this machine keeps one, that is the one to trust.
export NODE_EXTRA_CA_CERTS ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)

export SIGNGATE_RUN_DIR ?= .run
export SIGNGATE_PORT_SHIFT ?= 0

.PHONY: help setup up down status logs reconcile check demo test fuzz chaos attack bench loadtools fmt gen clean browser engine console sbom release
.PHONY: check-sbom check-style check-types check-imports check-protos check-sql check-gen check-edge check-unit check-console

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1mmake %-9s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv (every target does it when it is needed)

$(STAMP): requirements.lock pyproject.toml tools/setup.sh
	@sh tools/setup.sh $(VENV)
	@touch $@

up: $(STAMP) $(CONSOLE) ## Start the whole stack on this machine and wait until it serves
	@$(STACK) up

down: $(STAMP) ## Stop the stack; its data stays in .run
	@$(STACK) down

status: $(STAMP) ## Show what runs, and where
	@$(STACK) status

logs: $(STAMP) ## Follow the logs (S=keys for one service)
	@$(STACK) logs $(S)

reconcile: $(STAMP) ## Hold acknowledged signatures, rows, counts and counters against each other
	@$(STACK) exec logger services.logger.reconcile $(if $(DAY),--day $(DAY))

check: $(STAMP) ## Lint, types, import rules, protos, SQL, generated code, unit tests
	@$(MAKE) -j2 -k --output-sync=target check-types check-unit check-style check-imports check-protos check-sql check-gen check-edge check-console check-sbom
	@echo "check: all good"

check-style: $(STAMP)
	@echo "· ruff" && $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@echo "· hadolint" && $(BIN)/hadolint deploy/docker/Dockerfile tests/containers/standins/Dockerfile

check-types: $(STAMP)
	@echo "· mypy" && $(BIN)/mypy --no-error-summary $(TYPED)

check-imports: $(STAMP)
	@echo "· import rules" && $(BIN)/lint-imports --no-logo --cache-dir .build/import-linter >.build/import-linter.txt \
	  || { cat .build/import-linter.txt; exit 1; }

check-protos: $(STAMP)
	@echo "· buf" && $(BIN)/buf lint && $(BIN)/buf format --diff --exit-code protos

check-sql: $(STAMP)
	@echo "· squawk" && $(BIN)/squawk --no-error-on-unmatched-pattern 'db/migrations/*.sql' 'db/contract/*.sql' 2>.build/squawk.txt \
	  || { cat .build/squawk.txt; exit 1; }

check-gen: $(STAMP) $(CONSOLE) $(PLUGINS)
	@for name in inflight message; do cmp .build/$$name.wasm deploy/envoy/plugins/$$name.wasm \
	  || { echo "deploy/envoy/plugins/$$name.wasm is not what $$name.ts gives: run \`make gen\`" >&2; exit 1; }; done
	@echo "· generated code" && $(PY) -m tools.generate --check && $(PY) -m tools.metrics --check && $(PY) -m deploy.rendered --check

check-edge: $(STAMP)
	@echo "· envoy" && $(PY) -m deploy.envoy --check

check-sbom: $(STAMP)
	@echo "· bill of materials" && $(PY) -m tools.sbom >.build/sbom.txt || { cat .build/sbom.txt; exit 1; }
	@$(PY) -m deploy.images

check-unit: $(STAMP) $(CONSOLE)
	@echo "· unit tests" && $(BIN)/pytest -q tests/unit

check-console: $(STAMP) $(CONSOLE)
	@echo "· console" && cd console && $(WITH_NODE) node_modules/.bin/tsc && $(WITH_NODE) node --test --test-reporter=dot 'tests/*.test.mjs'

sbom: $(STAMP) ## Write what Signgate is made of, as CycloneDX, to .build/sbom
	@$(PY) -m tools.sbom

release: check ## Everything that a release needs: all checks, bills of materials, images pinned by digest
	@$(PY) -m deploy.images --pinned

demo: up ## Watch a real user sign up, get a key and have room URLs signed
	@$(PY) -m deploy.local.demo

test: $(STAMP) $(CONSOLE) browser engine ## Run every test against the real parts (ARGS: for pytest)
	@$(BIN)/pytest $(ARGS)

fuzz: $(FUZZ) ## Fuzz parsers and bodies by coverage (T=20: seconds for each target)
	@PYTHONPATH="$(CURDIR):$(CURDIR)/gen:$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  $(dir $(FUZZ))bin/python tests/fuzz/run.py key credential token claims body form -max_total_time=$(or $(T),20)

chaos: $(STAMP) ## Kill, pause and cut everything under load, then prove that nothing was lost (SEED=7, MINUTES=60)
	@$(PY) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(BROKEN),--broken $(BROKEN)) $(if $(SHORT),--short)

attack: $(STAMP) $(CONSOLE) ## Attack the stack as strangers would, beside users (ONLY=S2, MINUTES=60)
	@$(PY) -m tests.attack $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only "$(ONLY)") $(if $(QUICK),--quick)

bench: $(STAMP) loadtools ## Measure everything against its baselines (SHORT=1: 3 minutes; ONLY=quota: a part)
	@$(PY) -m bench $(ONLY) $(if $(SHORT),--short)

loadtools: # h2load: installed where we may, asked for where we may not
	@command -v h2load >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    || { echo "The benchmark needs h2load (Debian: nghttp2-client): ask an administrator to install it" >&2; exit 1; }; \
	  echo "Installing h2load for the benchmark"; \
	  $(APT) update -qq && DEBIAN_FRONTEND=noninteractive $(APT) install -qq -y --no-install-recommends nghttp2-client >/dev/null; }

# The fuzzer's own environment; of ours it only borrows the packages.
$(FUZZ): tests/fuzz/fuzz.lock | $(STAMP)
	@$(BIN)/uv venv --quiet --clear --python $(PY) $(dir $@)
	@$(if $(wildcard /etc/ssl/certs/ca-certificates.crt),UV_SYSTEM_CERTS=true) $(BIN)/uv pip install --quiet \
	  --require-hashes --python $(dir $@)bin/python -r $<
	@touch $@

browser: # Chromium, for the browser tests: installed where we may, asked for where we may not
	@command -v chromium >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    || { echo "The browser tests need Chromium at /usr/bin/chromium: ask an administrator to install it" >&2; exit 1; }; \
	  echo "Installing Chromium for the browser tests"; \
	  $(APT) update -qq && DEBIAN_FRONTEND=noninteractive $(APT) install -qq -y --no-install-recommends chromium >/dev/null; }

engine: # Docker, for the tests of containers: the engine that is there, or installed where we may
	@docker version >/dev/null 2>&1 || { command -v dockerd && command -v mmdebstrap; } >/dev/null \
	  || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	  echo "Installing a Docker engine for the tests of containers"; \
	  $(APT) update -qq && DEBIAN_FRONTEND=noninteractive $(APT) install -qq -y --no-install-recommends \
	    docker.io mmdebstrap >/dev/null; }

fmt: $(STAMP) ## Format Python and protos
	@$(BIN)/ruff check --quiet --fix-only . ; $(BIN)/ruff format --quiet . && $(BIN)/buf format -w protos

console: $(CONSOLE) ## Build the browser console, which the edge serves under /console/

$(PACKAGES): console/package.json console/package-lock.json console/.npmrc | $(STAMP)
	@echo "Installing what the console is built with" && cd console && $(WITH_NODE) npm ci --silent
	@touch $@

$(CONSOLE): $(PACKAGES) gen/signgate.binpb console/buf.gen.yaml console/build.mjs \
  $(shell find console/src -path console/src/gen -prune -o -type f -print)
	@echo "Building the console" && cd console && $(WITH_NODE) buf generate && $(WITH_NODE) node build.mjs
	@touch $@

# The edge's plug-ins, for WebAssembly.
$(PLUGINS): $(addprefix deploy/envoy/plugins/,inflight.ts message.ts package.json package-lock.json) | $(STAMP)
	@cd deploy/envoy/plugins && $(WITH_NODE) npm ci --silent && OUT="$(CURDIR)/.build" $(WITH_NODE) npm run --silent build
	@touch $@

gen: $(STAMP) $(CONSOLE) $(PLUGINS) ## Generate gen/, docs/metrics.md, and what containers read from deploy/settings.toml
	@cp .build/inflight.wasm .build/message.wasm deploy/envoy/plugins/
	@$(PY) -m tools.generate
	@$(PY) -m tools.metrics
	@$(PY) -m deploy.rendered

clean: ## Stop the stack; remove its data, the environment and all caches
	@[ ! -x $(PY) ] || $(STACK) destroy
	@rm -rf $(VENV) .build .ruff_cache .mypy_cache .pytest_cache .hypothesis
	@rm -rf deploy/envoy/plugins/node_modules console/node_modules console/dist console/src/gen
