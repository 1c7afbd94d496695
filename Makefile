# Everything that people do here. Works on a fresh clone: it makes the virtual environment itself.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP_LOG := .venv/pip.log
PROCESSES ?= 4
CHOSEN ?= not long
# A machine may say that no bytecode is kept: each of some thousand processes would compile all of ours anew.
export PYTHONDONTWRITEBYTECODE :=

PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes --quiet --progress-bar on
# The same packages by the same hashes in a third of the time; and what one clone has fetched another one need not. Where
# uv gets nowhere, which does not know all of pip's settings, pip does it.
UV_INSTALL = sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.venv/uv.lock && $(PIP_INSTALL) -r .venv/uv.lock 2>$(PIP_LOG) \
	&& SSL_CERT_FILE=$${SSL_CERT_FILE:-$$PIP_CERT} UV_DEFAULT_INDEX=$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL} \
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r requirements.lock \
	2> >(grep -v '^ [+~-] ' >&2)

.PHONY: help up down status test test-all test-unit check docs bench bench-peers bench-retrieval chaos chaos-long lora lock clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "making the virtual environment"; $(PYTHON) -m venv .venv; }
	@echo "installing packages (about 1.3 GB on disk, once)"
	@$(UV_INSTALL) || $(PIP_INSTALL) -r requirements.lock 2>>$(PIP_LOG) \
		|| { echo "the packages could not be installed: this machine needs its Python package registry once (pip's own words are in $(PIP_LOG))"; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --no-index --quiet -e . 2>>$(PIP_LOG)
	@touch $(STAMP)

up: $(STAMP) ## Start everything here; returns when it is ready
	@$(BIN)/assistant up --detach

down: ## Stop it; the data is kept
	@if test -x $(BIN)/assistant; then $(BIN)/assistant down; else echo "nothing is running here"; fi

status: $(STAMP) ## Show what runs
	@$(BIN)/assistant status

test: $(STAMP) ## The tests, on a real Kafka, Postgres and model: PROCESSES=4, one Kafka for all
	@$(BIN)/python -m pytest -m "$(CHOSEN)" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-all: ## Those, and the long ones: the same at length
	@$(MAKE) --no-print-directory test CHOSEN=

test-unit: $(STAMP) ## Tests that need no services; seconds
	@$(BIN)/python -m pytest -m "not integration"

check: $(STAMP) ## Format, lint, types, import rules, the lock file
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports
	@! grep -nE '://|--index|--extra-index|--find-links' requirements.lock requirements-runtime.lock requirements-lora.lock

docs: $(STAMP) ## Write docs/asyncapi.yaml and docs/topics.md anew
	@$(BIN)/python -m schemas.asyncapi

bench: $(STAMP) ## Measure speed, latency and memory; several minutes
	@$(BIN)/python -m bench

bench-peers: $(STAMP) ## Ours beside Celery, taskiq, arq, FastStream and LiteLLM on this machine; needs redis-server, and 650 MB on disk
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@$(BIN)/uv pip sync -q --python .venv-peers/bin/python --require-hashes bench/peers/requirements.lock
	@$(BIN)/python -m bench.peers

bench-retrieval: $(STAMP) ## How well documents are found; needs the manuals of Debian's manpages and manpages-ru
	@$(BIN)/python -m bench.retrieval_quality $(if $(ENGLISH),--english $(ENGLISH)) $(if $(RUSSIAN),--russian $(RUSSIAN)) $(if $(TUNE),--tune)

CHAOS = $(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(CONSUMER),--consumer $(CONSUMER)) $(if $(FAULTS),--faults $(FAULTS))

chaos: $(STAMP) ## Break it on purpose and count: JOBS=n DURATION_S=n SEED=n CONSUMER=ours|stock FAULTS=1,3
	@$(CHAOS) $(if $(JOBS),--jobs $(JOBS)) $(if $(DURATION_S),--duration-s $(DURATION_S))

chaos-long: $(STAMP) ## The same for as long as it takes: JOBS=1000000
	@$(CHAOS) --jobs $(or $(JOBS),1000000) --duration-s 0

lora: ## Install what trains adapters of the local model: torch, in .venv-lora (about 5 GB on disk on Linux with x86, 1 GB elsewhere)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; choose one with: make lora PYTHON=python3.12"; exit 1; }
	@test -x .venv-lora/bin/python || { echo "making a virtual environment for training"; $(PYTHON) -m venv .venv-lora; }
	@echo "installing torch, transformers and peft into .venv-lora (up to 2.5 GB to fetch and 5 GB on disk, once)"
	@.venv-lora/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes --quiet --progress-bar on -r requirements-lora.lock 2>.venv-lora/pip.log \
		|| { echo "the packages could not be installed (pip's own words are in .venv-lora/pip.log)"; exit 1; }
	@echo "adapters of the local model can be trained now: assistant train NAME"

lock: $(STAMP) ## Compile the lock files anew
	@$(BIN)/uv pip compile -q pyproject.toml --extra embedded --extra dev --universal --python-version 3.11 \
		--no-annotate --no-header --no-emit-index-url --generate-hashes -o requirements.lock
	@$(BIN)/uv pip compile -q pyproject.toml --extra embeddings --universal --python-version 3.11 \
		--no-annotate --no-header --no-emit-index-url --generate-hashes -o requirements-runtime.lock
	@$(BIN)/uv pip compile -q bench/peers/requirements.in --overrides bench/peers/overrides.txt --python-version 3.11 \
		--no-annotate --no-header --no-emit-index-url --generate-hashes -o bench/peers/requirements.lock
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lora"], sep="\n")' \
		| $(BIN)/uv pip compile -q - --universal --python-version 3.11 \
		--no-annotate --no-header --no-emit-index-url --generate-hashes -o requirements-lora.lock

clean: down ## Stop it, and remove data, environment and caches
	@if test -x $(BIN)/assistant; then $(BIN)/assistant down --delete-data; fi
	@rm -rf .venv .venv-lora .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build
