# Every target does its own set-up; a second run finds it done.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup demo lint format types test test-fast coverage test-services test-projects test-without-data chaos mutants bench lock pages licences sbom

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY)  ## the virtual environment, as the lock file pins it

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -c 'import tailrace.scorer.processor'  # compiles what looks at every byte, once for all services
	@touch $@

demo: setup  ## a credit model's life in about two minutes
	$(BIN)/tailrace demo

# Two at a time, each told of when it is over; what kills things, and the demo, have the machine to themselves.
test: setup  ## every test
	@$(MAKE) --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) test-services test-projects
	$(BIN)/python -m pytest $(ALONE)

ALONE = tests/chaos tests/e2e/test_demo.py
test-services: setup
	$(BIN)/python -m pytest tests/integration tests/security
test-projects: setup
	$(BIN)/python -m pytest tests/unit tests/contract tests/static tests/simulation tests/e2e $(ALONE:%=--ignore=%)

# What reads real data from beside the project, as a clone sees it that has none there.
test-without-data: setup
	TAILRACE_REAL_DATA=/nonexistent $(BIN)/python -m pytest $(shell grep -rlF --include='test_*.py' 'from tests.support.real_data' tests)

lint: setup  ## style, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports

format: setup  ## the code in its one form
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

types: setup  ## mypy, strict
	$(BIN)/mypy

# tests/support/needs.py says what is slow; ruff, import-linter and mypy are, and have targets of their own.
test-fast: setup  ## unit, contract and static tests, without those marked slow
	$(BIN)/python -m pytest -n 2 -m "not slow" tests/unit tests/contract tests/static

# What is left at the end stands in files and lines; a test that fails does not keep it back.
coverage: setup  ## what no unit, contract or simulation test touches
	-$(BIN)/coverage run -m pytest --quiet tests/unit tests/contract tests/simulation
	$(BIN)/coverage report

chaos: setup  ## the long forms of what is killed and simulated
	TAILRACE_CHAOS=long $(BIN)/python -m pytest $(ALONE) tests/simulation tests/security $(LONGER) -s
LONGER = $(shell grep -rlE --include='test_*.py' 'TAILRACE_CHAOS|import LONG' tests/integration)

# Whether the tests notice faults, each put into a copy of the tree: some minutes. One part: make mutants FAULTS=joiner
mutants: setup  ## whether the tests notice faults
	$(BIN)/python -m tools.mutants $(FAULTS)

bench: setup  ## how fast the scorer is
	$(BIN)/python -m benchmarks.scorer --json

# They name no index and no host, unlike the lock files of the tools themselves. The second is the image's, the third
# builds the wheel in it.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes
lock: setup  ## the lock files, from pyproject.toml
	$(COMPILE) pyproject.toml --all-extras --group dev -o requirements.txt
	$(COMPILE) pyproject.toml --extra services --extra train -c requirements.txt -o services/requirements.txt
	$(COMPILE) --group build -c requirements.txt -o services/build-requirements.txt

# Whose work is installed and under which licence, for people; and for machines (CycloneDX, in dist/).
pages: setup  ## documents and schemas that are made from tables in the code
	$(BIN)/python -m tools.service_files
	$(BIN)/python -m tools.record_types
	$(BIN)/python -m tools.rooms_picture > docs/rooms.svg
	$(BIN)/python -m tailrace.contracts.language.json_schema > contracts/model-contract.schema.json
	$(BIN)/python -m tailrace.statistics.page > docs/statistics.md
	$(BIN)/python -m tailrace.contracts.language.guards.page > docs/guards.md
	$(BIN)/python -m tailrace.templates.page > docs/templates.md
	$(BIN)/python -m tests.support.published_models > docs/published-models.md
	$(BIN)/python -m tailrace.kafka_access.matrix > docs/kafka-users.md
	$(BIN)/python -m tests.support.file_kinds > docs/files.md
	$(BIN)/python -m tailrace.control.asyncapi contracts/models/credit.yaml > contracts/asyncapi.yaml

licences: setup  ## docs/licences.md
	$(BIN)/python -m tools.licences docs/licences.md

sbom: setup  ## a bill of materials, in dist/
	$(BIN)/python -m tools.sbom dist/tailrace.cdx.json
