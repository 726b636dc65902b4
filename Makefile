# `make help` lists the targets. Every target builds the environment that it needs, in .venv.
PYTHON ?= python3
VENV := .venv
FLOOR := .venv-floor
BIN := $(VENV)/bin
PROFILE ?= full
DATASET ?= synthetic
LONG := --recipe synthetic_long --out runs/synthetic-long
TABLE = $(if $(filter study,$(PROFILE)),study,table1 $(if $(filter long,$(PROFILE)),$(LONG),--dataset $(DATASET) --profile $(PROFILE)))
JOBS ?= $(if $(filter synthetic metaworld,$(DATASET)),2,1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-floor test-slow test-faults test-gpu test-planted coverage dist reproduce-table1 lint typecheck check docs bench bench-boxes clean

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/pip.stamp: constraints.txt
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)  # Debian without python3-venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check -c constraints.txt pip
	@touch $@

$(VENV)/motionbox.stamp: $(VENV)/pip.stamp packages/motionbox/pyproject.toml
	$(BIN)/pip install --quiet -c constraints.txt -e "packages/motionbox[extract]"
	@touch $@

$(VENV)/all.stamp: $(VENV)/motionbox.stamp packages/mofo_train/pyproject.toml pyproject.toml
	$(BIN)/pip install --quiet -c constraints.txt -e "packages/motionbox[extract,cloud]" -e packages/mofo_train --group dev
	@touch $@

setup: $(VENV)/all.stamp  ## Create .venv with both packages and the development tools (pinned by constraints.txt)

demo: $(VENV)/motionbox.stamp  ## Generate a small data set, extract its boxes, score them, draw a video and a contact sheet
	$(BIN)/motionbox demo --out demo

reproduce-table1: $(VENV)/all.stamp  ## Table 1 from data to table (DATASET=synthetic|metaworld|ssv2|epic100, PROFILE=full|smoke, of synthetic also long and study); resumable
	$(if $(filter-out synthetic,$(DATASET)),$(if $(filter long study,$(PROFILE)),$(error PROFILE=$(PROFILE) is for DATASET=synthetic)))$(BIN)/mofo-train $(TABLE) --jobs $(JOBS)

test: $(VENV)/all.stamp  ## Run the test suite
	$(BIN)/pytest -n 2

test-floor: $(VENV)/all.stamp  ## Run the test suite on the oldest versions that the packages allow (PyTorch too: gigabytes)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(FLOOR)
	$(BIN)/uv pip install --quiet --python $(FLOOR)/bin/python --resolution lowest-direct -e "packages/motionbox[extract,cloud]" -e packages/mofo_train --group dev
	$(FLOOR)/bin/pytest -n 2

test-slow: $(VENV)/all.stamp  ## Run the tests that take minutes
	$(BIN)/pytest -m slow

test-faults: $(VENV)/all.stamp  ## Run the whole fault-injection sweep (kills, full disks, races, lost nodes); over an hour
	$(BIN)/pytest -m faults tests

test-gpu: $(VENV)/all.stamp  ## Run the tests that need a CUDA device
	$(BIN)/pytest -m gpu

test-planted: $(VENV)/all.stamp  ## Plant bugs in the functions that everything rests on; a test must catch each
	$(BIN)/pytest -n 2 -m planted tests/test_planted_bugs.py

bench: $(VENV)/all.stamp  ## Measure flow speed and accuracy beside OpenCV and scikit-image
	$(BIN)/motionbox bench

bench-boxes: $(VENV)/all.stamp  ## Score the presets' boxes on 60 generated clips
	$(BIN)/motionbox bench-boxes --synthetic 60 --seed 7 --flow dis

coverage: $(VENV)/all.stamp  ## Run the test suite and say how many lines and branches it reaches; fails below 90 % of lines
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort cover
	$(BIN)/coverage json --quiet
	$(BIN)/python tests/line_coverage.py coverage.json

dist: $(VENV)/all.stamp  ## Build wheels and sdists of both packages into dist/
	$(BIN)/python -m build --no-isolation --outdir dist packages/motionbox
	$(BIN)/python -m build --no-isolation --outdir dist packages/mofo_train

lint: $(VENV)/all.stamp  ## Check style (ruff), the order of the rooms (import-linter), workflows and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	! test -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

typecheck: $(VENV)/all.stamp  ## Check types (mypy strict)
	$(BIN)/mypy

$(VENV)/docs.stamp: $(VENV)/all.stamp
	$(BIN)/pip install --quiet -c constraints.txt --group docs
	@touch $@

docs: $(VENV)/docs.stamp  ## Build the documentation with the API reference into site/ (any warning or dead link is an error)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would hide warnings from --strict

check: lint typecheck test docs  ## Lint, types, tests and documentation

clean:  ## Remove the environment, caches and demo output
	rm -rf $(VENV) $(FLOOR) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* coverage.json demo dist site
