# The manual of this project: `make` alone lists the verbs. Every verb installs what it needs into .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help demo test test-train lint format types check wheel bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Flags for the virtual environment; a Jetson uses VENV_FLAGS=--system-site-packages to keep its own OpenCV.
VENV_FLAGS ?=
OUT ?= out

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(VENV)/.runtime ## the whole pipeline on the bundled model and video; writes out/
	$(BIN)/trt-blendmask demo -o $(OUT)

test: $(VENV)/.dev ## all tests but those of the training sample (no torch)
	$(BIN)/python -m pytest -n auto --ignore=tests/training

test-train: $(VENV)/.train ## the tests of the training sample (installs torch)
	$(BIN)/python -m pytest tests/training

lint: $(VENV)/.dev ## style of Python and C++, and the size budget
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_sizes.py

format: $(VENV)/.dev ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

check: lint types test ## all that a change must pass

bench: $(VENV)/.dev ## timing ratios, printed
	$(BIN)/python benchmarks/overlay.py
	$(BIN)/python benchmarks/end_to_end.py

wheel: $(VENV)/.dev ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean: ## remove what the verbs made, .venv included
	rm -rf $(VENV) $(OUT) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# A stamp per set of dependencies: quick when it is there, made anew when pyproject.toml changes.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.train: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train]' $(TORCH)
	@touch $@
