# `make` or `make help` lists the targets. Everything Python lives in .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(p)),$(p))))
VENV := .venv
BIN := $(VENV)/bin
#: Makes pip quiet, but not about what went wrong.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

PORT ?= 8443

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/run.stamp ## serve on https://127.0.0.1:8443 and show a pod rewritten; Ctrl-C ends it
	@$(BIN)/python hack/run.py --port $(PORT)

.PHONY: test
test: $(VENV)/dev.stamp ## run every test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-nightly
test-nightly: $(VENV)/dev.stamp ## run the property tests a hundred times longer
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m property $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/dev.stamp ## check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no python3 on PATH; InstaSlice needs Python 3.11 or later" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "InstaSlice needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: setup.cfg | $(VENV)/bin/python
	$(PIP) --editable '.[run]'
	@touch $@

$(VENV)/dev.stamp: setup.cfg | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/run.stamp

-include hack/*.mk
