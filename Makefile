# Every target sets up what it needs; a set-up is redone only when its pinned requirements change.
# Needs: make and Python (PYTHON=python3.11, say, picks another one).
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# Not `?=`: shells and package managers export HOST, and it would be listened on. The command line still sets them.
HOST := 127.0.0.1
PORT := 8000
# Empty means the shipped bundle, and for DATA the drawn frames.
BUNDLE :=
DATA :=
# Where the environments stand. Override to keep them elsewhere.
VENV ?= .venv
VENV_TEST ?= .venv-test
VENV_TRAIN ?= .venv-train
VENV_LLM ?= .venv-llm
VENV_DOCS ?= .venv-docs
VENV_RAY ?= .venv-ray
PYTEST_ARGS ?=
BENCH_ARGS ?=
DOCKER ?= docker

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help serve test test-service test-llm test-ray train check audit bench bench-check soak format lock page-tools docs docs-serve images dashboards monitoring clean

help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Settings: PORT=$(PORT) HOST=$(HOST) BUNDLE=<folder> DATA=<folder> PYTHON=$(PYTHON) PYTEST_ARGS=<arguments>"

# $(1) environment, $(2) pinned requirements. The dependencies are checked against their hashes; the project itself
# cannot carry one and is linked in afterwards. The stamp is written last, so an interrupted set-up is done again.
# Nothing is compiled ahead: Python does it at the first import, for what is imported, and two fifths of the time are saved.
define set_up
	@echo "Setting up $(1) from $(2) (a minute; with torch several)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, found {sys.version.split()[0]}; name one with PYTHON=")'
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip install --quiet --no-compile --require-hashes --requirement $(2)
	@$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(1)/.stamp
endef

$(VENV)/.stamp: requirements/service.txt
	$(call set_up,$(VENV),requirements/service.txt)

$(VENV_TEST)/.stamp: requirements/test.txt
	$(call set_up,$(VENV_TEST),requirements/test.txt)

$(VENV_TRAIN)/.stamp: requirements/train.txt
	$(call set_up,$(VENV_TRAIN),requirements/train.txt)

serve: $(VENV)/.stamp  ## Serve the shipped bundle on PORT (BUNDLE= serves another)
	@ENDOCLIP_HOST=$(HOST) ENDOCLIP_PORT=$(PORT) $(if $(BUNDLE),ENDOCLIP_BUNDLE="$(BUNDLE)") exec $(VENV)/bin/python -m service --log-format text

test: $(VENV_TRAIN)/.stamp  ## Run all tests in the training environment (torch: several GB)
	$(VENV_TRAIN)/bin/python -m pytest $(PYTEST_ARGS)

test-service: $(VENV_TEST)/.stamp  ## Run the tests of model_store and service without torch
	@$(VENV_TEST)/bin/python -c 'import importlib.util as u, sys; sys.exit("torch is installed here; this job proves that nothing needs it" if u.find_spec("torch") else 0)'
	$(VENV_TEST)/bin/python -m pytest tests/model_store tests/service $(PYTEST_ARGS)

# The model runs in a process of its own; only its server's requirements are in there, not the project.
$(VENV_LLM)/.stamp: requirements/llm.txt
	@echo "Setting up $(VENV_LLM): the server of the language model is compiled (about 10 minutes)"
	@$(PYTHON) -m venv --clear $(VENV_LLM)
	@$(VENV_LLM)/bin/python -m pip install --quiet --require-hashes --requirement requirements/llm.txt
	@touch $(VENV_LLM)/.stamp

test-llm: $(VENV_TRAIN)/.stamp $(VENV_LLM)/.stamp  ## Run the tests that ask a real language model
	LLM_PYTHON=$(VENV_LLM)/bin/python $(VENV_TRAIN)/bin/python -m pytest -m llm $(PYTEST_ARGS)

# What a cluster runs on, and what tests it; each was compiled under the other's constraints.
$(VENV_RAY)/.stamp: requirements/test.txt requirements/ray.txt
	$(call set_up,$(VENV_RAY),requirements/test.txt --requirement requirements/ray.txt)

test-ray: $(VENV_RAY)/.stamp  ## Run the tests of the service on a Ray cluster of two nodes
	$(VENV_RAY)/bin/python -m pytest tests/cluster $(PYTEST_ARGS)

train: $(VENV_TRAIN)/.stamp  ## Train the default bundle from DATA= (without it: the phantom recipe)
	$(if $(DATA),,@echo "No DATA= given: training the smoke recipe on drawn frames. Its figures mean nothing.")
	$(VENV_TRAIN)/bin/python -m training run --recipe $(if $(DATA),default --data "$(DATA)",smoke)

# What the tests of the page take from npm: axe and the type checker. The page itself is served as it stands.
PAGE_TOOLS := tests/page/node_modules/.stamp
$(PAGE_TOOLS): tests/page/package-lock.json
	@npm ci --prefix tests/page --ignore-scripts --no-audit --no-fund --silent
	@touch $@

page-tools: $(PAGE_TOOLS)  ## Install what the tests of the page take from npm (accessibility rules, type checker)

$(VENV_DOCS)/.stamp: requirements/docs.txt
	$(call set_up,$(VENV_DOCS),requirements/docs.txt)

# The theme's own notice, about a successor of mkdocs, on every build: DESIGN.md says what we make of it.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV_DOCS)/.stamp  ## Build the documentation site into build/docs; a dead link or anchor fails
	$(VENV_DOCS)/bin/python -m mkdocs build --strict

docs-serve: $(VENV_DOCS)/.stamp  ## Show the site on port 8000 while its pages are edited
	$(VENV_DOCS)/bin/python -m mkdocs serve

# Programs that have no wheel for every platform: $(1) is run on the files $(2), or said to be missing.
if_there = @if [ -x $(VENV_TEST)/bin/$(1) ]; then echo $(1) $(2); $(VENV_TEST)/bin/$(1) $(2); else echo "$(1) is not to be had for this platform"; fi

check: $(VENV_TEST)/.stamp  ## Lint (code, Dockerfiles, shell), formatting, types, security scan; changes nothing
	$(VENV_TEST)/bin/python -m ruff check .
	$(VENV_TEST)/bin/python -m ruff format --check .
	$(VENV_TEST)/bin/python -m mypy
	$(VENV_TEST)/bin/python -m bandit -q -c pyproject.toml -r model_store service training clients
	$(call if_there,hadolint,docker/*.Dockerfile)
	$(call if_there,shellcheck,.ci/run .ci/service-image)

audit:  ## Ask the public advisories about every pinned requirement (needs a network)
	@$(PYTHON) -m bench.audit

# Each ends with an error when a target is missed; the others are run all the same.
SOAK_MINUTES ?= 30
soak: $(VENV_TEST)/.stamp  ## Prove the service at length (2 hours; wants a quiet machine; SOAK_MINUTES= of the last part)
	@failed=0; for part in "fuzz --inputs 200000" "mixed --requests 10000" "contract --examples 200" "overload" "soak --minutes $(SOAK_MINUTES)"; do \
		echo "== bench.$$part"; $(VENV_TEST)/bin/python -m bench.$$part || failed=1; done; exit $$failed

bench: $(VENV_TEST)/.stamp  ## Measure the service beside the limit loop (5 minutes; BENCH_ARGS=--write keeps the table)
	@$(VENV_TEST)/bin/python -m bench $(BENCH_ARGS)

bench-check: $(VENV_TEST)/.stamp  ## Fail if a ratio of bench/RESULTS.md has fallen by more than 15 %
	@$(VENV_TEST)/bin/python -m bench --check $(BENCH_ARGS)

format: $(VENV_TEST)/.stamp  ## Rewrite the code in the project's format
	$(VENV_TEST)/bin/python -m ruff check --fix .
	$(VENV_TEST)/bin/python -m ruff format .

# uv resolves for every platform at once; it is the one tool here that is not pinned by what it writes.
COMPILE = uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --quiet

lock:  ## Compile requirements/ anew from pyproject.toml (needs uv)
	$(COMPILE) --output-file requirements/service.txt
	$(COMPILE) --extra gpu --constraints requirements/service.txt --output-file requirements/gpu.txt
	$(COMPILE) --extra dicom --constraints requirements/service.txt --output-file requirements/dicom.txt
	$(COMPILE) --extra postgres --constraints requirements/service.txt --output-file requirements/postgres.txt
	$(COMPILE) --group dev --extra dicom --extra postgres --extra traces --constraints requirements/service.txt --output-file requirements/test.txt
	$(COMPILE) --extra ray --extra dicom --extra postgres --extra traces --constraints requirements/test.txt --output-file requirements/ray.txt
	$(COMPILE) --group dev --group docs --extra dicom --extra postgres --extra traces --extra train --constraints requirements/test.txt --output-file requirements/train.txt
	$(COMPILE) --group docs --constraints requirements/train.txt --output-file requirements/docs.txt
	$(subst pyproject.toml --group build,--group llm,$(COMPILE)) --output-file requirements/llm.txt

images:  ## Build the images of service and training (several GB); DOCKER=buildah builds without Docker
	$(DOCKER) build -f docker/service.Dockerfile -t endo-clip .
	$(DOCKER) build -f docker/training.Dockerfile -t endo-clip-training .

dashboards: $(VENV_TEST)/.stamp  ## Write the dashboards' JSON anew from docker/grafana/dashboards.py
	$(VENV_TEST)/bin/python docker/grafana/dashboards.py

monitoring: $(VENV_TRAIN)/.stamp  ## Set off every alert by its fault, plot every panel (Debian package prometheus; 8 minutes)
	@$(VENV_TRAIN)/bin/python -m bench.monitoring --out runs/monitoring $(if $(BUNDLE),--bundle "$(BUNDLE)")

clean:  ## Remove environments and caches (runs/ stays)
	rm -rf $(VENV) $(VENV_TEST) $(VENV_TRAIN) $(VENV_LLM) $(VENV_DOCS) $(VENV_RAY) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find model_store service training tests -name __pycache__ -type d -prune -exec rm -rf {} +
