# headloom: everything from a clean clone. VENV chooses the environment: make test VENV=/tmp/env
VENV ?= .venv
PYTHON ?= python3
PY = $(VENV)/bin/python
DONE = $(VENV)/.installed

.PHONY: install demo test test-all lint bench docs clean

install: $(DONE)

$(DONE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25"
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@# face-alignment asks for opencv-python, which writes over the headless wheel's files: the rest of its needs are in dev.
	$(PY) -m pip install --quiet --constraint constraints.txt --no-deps face-alignment
	touch $@

demo: install
	$(VENV)/bin/headloom demo --out build/demo

# Two processes at a time, a file of tests in one of them, with a thread each.
test test-all: export OMP_NUM_THREADS = 1
test: install
	$(PY) -m pytest -n 2 --dist loadfile

test-all: install
	$(PY) -m pytest -n 2 --dist loadfile -m ""

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: install
	$(PY) -m tests.bench $(ONLY)

docs: install
	$(PY) -m manifests.reference
	$(PY) -m docs.pictures

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
