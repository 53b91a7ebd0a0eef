# Everything installs itself into .venv; `make demo` and `make test` need nothing but Python >= 3.10.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= .bench/data-200mb
DIM ?= 1024

.PHONY: help demo test test-long check bench proof proof-short mutants schemas clean

help:
	@echo "make demo       move the example database from JSON files to an embedded Postgres"
	@echo "make test       run the tests (minutes); make test-long adds the slow proofs"
	@echo "make check      lint, types, import rules, generated files, wheel contents"
	@echo "make bench      measure: copy, index, verification, against raw COPY and LightRAG's own path"
	@echo "make proof      try to break every promise, for hours, and write docs/reliability.md; make proof-short: a few runs of each"
	@echo "make mutants    change planner, journal and migrate a little, count what no test notices, write docs/mutation.md (hours)"
	@echo "make schemas    write the JSON Schemas from the models"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/.all: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,test,check]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/.all
	$(BIN)/python -m pytest -q -m "not slow and not long" -n 2 --dist loadscope --no-loadscope-reorder

test-long: $(VENV)/.all
	$(BIN)/python -m pytest -q

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/support/check_generated.py
	$(BIN)/python tests/support/check_wheel.py

schemas: $(VENV)/.all
	$(BIN)/python tests/support/check_generated.py --write

bench: $(VENV)/.all
	@test -d $(DATA) || $(BIN)/python -m tests.support.big_database $(DATA) --mb 200 --dim $(DIM)
	$(BIN)/python -m benchmarks.copy_speed $(DATA) --dim $(DIM)
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.start_up

proof: $(VENV)/.all
	$(BIN)/python -m tests.proof

proof-short: $(VENV)/.all
	$(BIN)/python -m tests.proof --short --seed 1

mutants: $(VENV)/.all
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,test,mutants]'
	$(BIN)/python -m tests.support.mutation --write docs/mutation.md

clean:
	rm -rf $(VENV) .demo .bench .mutants dist
