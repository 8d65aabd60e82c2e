# `make demo` and `make test` each make the environment from nothing and do their job.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/fb_*))
EDITABLE := -e '.[test,docs]' $(foreach plugin,$(PLUGINS),-e ./$(plugin))
# On a machine without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu saves some gigabytes.
TORCH_INDEX ?=
# One intra-op thread a process: tests and merges bring their own parallelism.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo baselines test test-slow fix check docs bench parity clean

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# pip would compile what it installs on one processor; all of them do so afterwards.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true

$(VENV)/.installed: pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(INSTALL) $(EDITABLE)
	$(COMPILE)
	touch $@

$(VENV)/.checkers: $(VENV)/.installed
	$(INSTALL) -e '.[dev]'
	$(COMPILE)
	touch $@

demo: $(VENV)/.installed ## Fuse the embedded experts, evaluate the result, write the report.
	$(BIN)/fb run

baselines: $(VENV)/.installed ## Run the first methods over both embedded benchmarks and compare them.
	$(BIN)/fb run --config-name baselines

test: $(VENV)/.installed ## Run the tests.
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: $(VENV)/.installed ## Run the slow tests as well.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m ""

fix: $(VENV)/.installed ## Format, and mend what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(VENV)/.checkers ## Lint, check types and layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: $(VENV)/.installed ## Generate the reference pages and build the site.
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed ## Measure against the physical limit and the peers.
	$(BIN)/python benchmarks/merge.py

parity: $(VENV)/.installed ## Compare the merging methods with those of the peers.
	$(BIN)/python benchmarks/parity.py

clean: ## Remove the environment and everything that was built.
	rm -rf $(VENV) build dist site plugins/*/dist .pytest_cache .ruff_cache
