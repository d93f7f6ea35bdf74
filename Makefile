# make demo | make test | make slow | make check | make lint | make docs | make wheel: each sets itself up on a fresh machine; a second run reuses .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test slow check fuzz matrix covered lint docs wheel numbers clean
setup: .venv/.installed

# Python may compile what is imported, once; uv compiles nothing, and most of what is installed is never imported.
unexport PYTHONDONTWRITEBYTECODE
# uv installs five times faster than pip, and looks for wheels where pip is told to.
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
# In the versions that were tested (constraints.txt); pip alone installs what pyproject.toml allows.
# A new commit is a new version, also of an editable install.
.venv/.installed: pyproject.toml constraints.txt $(wildcard .git/logs/HEAD)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/truemorph demo --out demo

# One process a core, one thread each: threads of two processes on the same cores wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# Tests that take more than a second or two: they train networks, kill processes, fit many catalogues. A file is run by one process, because
# its tests share what was trained; files with slow tests go first (tests/conftest.py), not those with many tests.
slow: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m slow

# Both in one run, which keeps the cores busy to the end.
check: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "slow or not slow"

# Damaged files, thousands for each reader.
fuzz: setup
	TRUEMORPH_FUZZ=2000 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto tests/test_fuzz.py

# The default tests with the lowest versions that pyproject.toml allows, and with the newest. Needs Python 3.11 and 3.13;
# torch stays in the range of constraints.txt. Old packages warn about their own dependencies.
matrix: matrix-3.11-lowest-direct matrix-3.13-highest
matrix-%: setup
	mkdir -p .matrix
	grep -E '^torch(vision)?[<>=]' constraints.txt > .matrix/constraints.txt
	$(BIN)/uv venv --quiet --clear --python $(firstword $(subst -, ,$*)) .matrix/$*
	VIRTUAL_ENV=.matrix/$* $(BIN)/uv pip install --quiet --resolution $(patsubst 3.11-%,%,$(patsubst 3.13-%,%,$*)) \
		--constraint .matrix/constraints.txt --editable ".[dev]"
	OMP_NUM_THREADS=1 .matrix/$*/bin/pytest -n auto --dist worksteal $(if $(findstring lowest,$*),-W default)

# The default tests, and which lines they run.
covered: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --cov truemorph --cov-report term:skip-covered

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# docs/_build/html/VERSION (dev between releases), with a list of versions beside it; no network. The notebooks run, two at a time.
docs: setup
	rm -rf docs/reference/generated
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --jobs 2 --fail-on-warning --keep-going --quiet -d docs/_build/doctrees \
		docs docs/_build/html/$$($(BIN)/python -c "from truemorph import __version__ as v; print('dev' if 'dev' in v else v)")

# The sdist, the wheel built from it, and the README's first example in an empty environment that has only the wheel.
wheel: setup
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/python tests/follow_wheel.py dist

# Every table of numbers in docs/numbers/ that is not current, a night on two idle cores; if interrupted, run it again to
# resume. `python benchmarks/all_numbers.py --list` says which, and what they need.
numbers: setup
	$(BIN)/python benchmarks/all_numbers.py

clean:
	rm -rf .venv .matrix demo dist docs/_build docs/generated docs/reference/generated
