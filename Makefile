# The manual of this project: `make` alone lists the verbs. Every verb installs what it needs into .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help demo test test-train test-rtx test-stream soak test-gpu lint format types check wheel bench parity fuzz clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Flags for the virtual environment; a Jetson uses VENV_FLAGS=--system-site-packages to keep its own OpenCV.
VENV_FLAGS ?=
OUT ?= out
CPP_FILES = $(shell find plugins -name '*.h' -o -name '*.cuh' -o -name '*.cu' -o -name '*.cpp')

include plugins/plugin.mk

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(VENV)/.runtime ## the whole pipeline on the bundled model and video; writes out/
	$(BIN)/trt-blendmask demo -o $(OUT)

test: $(VENV)/.dev ## all tests of the Python package; what needs torch, TensorRT or a compiler has a verb of its own
	$(BIN)/python -m pytest -n auto --ignore=tests/training --ignore=tests/rtx --ignore=tests/plugin \
	    --ignore=tests/browser

test-train: $(VENV)/.train ## the tests of the training sample (installs torch)
	$(BIN)/python -m pytest tests/training

test-rtx: $(VENV)/.rtx ## build engines with TensorRT-RTX, no GPU needed (installs its wheel)
	$(BIN)/python -m pytest tests/rtx

# Debian: chromium gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly mosquitto
# openssl faketime; root, for a small disk that fills up.
test-stream: $(VENV)/.browser ## outages of a camera, kills, signals, clocks, disks, brokers, the page in Chromium (minutes)
	$(BIN)/python -m tests.stream.outages --outages 100 --reconnects 200
	$(BIN)/python -m tests.stream.kills
	$(BIN)/python -m tests.stream.signals
	$(BIN)/python -m tests.stream.faults
	REQUIRE_GST_RTSP_SERVER=1 REQUIRE_MOSQUITTO=1 $(BIN)/python -m pytest tests/stream/test_gst.py tests/stream/test_mqtt.py
	$(BIN)/python -m tests.preview.fuzz --requests 20000
	$(BIN)/python -m tests.preview.dead_clients
	$(BIN)/python -m pytest tests/browser

soak: $(VENV)/.dev ## an hour with a camera that breaks down again and again; MINUTES=15 is shorter
	$(BIN)/python -m tests.soak.soak --minutes $(or $(MINUTES),60)

parity: $(VENV)/.dev ## how far every number is from AdelaiDet's, as a table
	$(BIN)/python tests/parity/table.py

fuzz: $(VENV)/.dev ## 2,000 damaged and hostile files through export, surgery and predict
	$(BIN)/python tests/fuzz/drive.py --seed 1 --cases 2000

test-gpu: $(VENV)/.gpu ## what only a GPU can prove (needs one, nvcc and compute-sanitizer)
	PATH="$$PATH:$(dir $(NVCC))" REQUIRE_GPU=1 REQUIRE_NVCC=1 REQUIRE_COMPUTE_SANITIZER=1 REQUIRE_CUDA_CORE=1 \
	    REQUIRE_TENSORRT_RTX=1 REQUIRE_PYCUDA=1 $(BIN)/python -m pytest tests/gpu; failed=$$?; $(MAKE) test-gpu-plugin && exit $$failed

lint: $(VENV)/.dev ## style of Python and C++, and the size budget
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_sizes.py
	$(BIN)/python tests/check_layers.py
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

format: $(VENV)/.dev ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

check: lint types test ## all that a change must pass

bench: $(VENV)/.dev ## timing ratios, printed
	$(BIN)/python benchmarks/overlay.py
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/export.py
	$(BIN)/python -m benchmarks.surgery
	$(BIN)/python -m benchmarks.stream_pipeline

wheel: $(VENV)/.dev ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean: ## remove what the verbs made, .venv included
	rm -rf $(VENV) $(OUT) dist build trt_blendmask/lib *.egg-info .mypy_cache .ruff_cache .pytest_cache

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

$(VENV)/.browser: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.45' # drives Debian's chromium
	@touch $@

$(VENV)/.rtx: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[rtx]'
	@touch $@

$(VENV)/.aot: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[aot]'
	@touch $@

$(VENV)/.gpu: $(VENV)/.aot $(VENV)/.rtx
	PATH="$$PATH:$(dir $(NVCC))" $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[pycuda]'
	@touch $@
