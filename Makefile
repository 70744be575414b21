# The environment is .venv; a target that needs it makes it. PYTHON picks the interpreter it is made from.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true

.PHONY: setup demo test quick check bench nano clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
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

# Rebuild the embedded model from the docstrings of pinned packages (an hour on a laptop's CPU).
nano: setup
	$(BIN)/python -m pip install --quiet --no-deps --target .cache/corpus -r recipes/nano/corpus.txt
	$(BIN)/python -m tools.nano recipes/nano/pretrain.toml --root .cache/corpus --work .cache/nano --out .cache/nano/model

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
