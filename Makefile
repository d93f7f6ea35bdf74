# make demo | make test | make lint: each sets itself up on a fresh machine; a second run reuses .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test slow lint bench real clean
setup: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/truemorph demo --out demo

test: setup
	$(BIN)/pytest

# What takes minutes and changes rarely: the errors of the tree-based estimator over many catalogues.
slow: setup
	$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/statistics_speed.py

# The tables of docs/statistics.md, where the real data are.
real: setup
	$(BIN)/python benchmarks/real_galaxies.py

clean:
	rm -rf .venv demo
