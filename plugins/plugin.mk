# The plugin and its tests; included by the Makefile of the project, from whose folder everything here is named.
.PHONY: FORCE plugin test-plugin test-plugin-host test-plugin-matrix test-gpu-plugin test-abi

NVCC ?= $(or $(shell command -v nvcc 2>&-),$(wildcard /usr/local/cuda/bin/nvcc))
PLUGIN := trt_blendmask/lib/libtrt_blendmask.so
PLUGIN_OUT := build/plugin

# The GPUs that machine code is made for, of those the toolkit knows: Turing to Blackwell, Jetson Orin and Thor among
# them; newer ones compile the newest one's PTX. For one GPU only: make plugin GPU_ARCHS=87.
GPU_ARCHS ?= $(filter 75 80 86 87 89 90 100 110 120,$(patsubst compute_%,%,$(if $(NVCC),$(shell $(NVCC) --list-gpu-arch))))
PTX_ARCH = $(shell printf '%s\n' $(GPU_ARCHS) | sort -n | tail -n 1)
GENCODE = $(foreach arch,$(GPU_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
          -gencode arch=compute_$(PTX_ARCH),code=compute_$(PTX_ARCH)

# TensorRT's own headers where they are installed (TENSORRT_INC= for none of them), else plugins/abi.
HEADER_PLACES := /usr/include/aarch64-linux-gnu /usr/include/x86_64-linux-gnu /usr/include /usr/local/tensorrt/include
TENSORRT_INC ?= $(patsubst %/NvInferRuntime.h,%,$(firstword $(wildcard $(HEADER_PLACES:=/NvInferRuntime.h))))
# (/usr/include is looked into anyway; named, it would come before the C++ library's own.)
THEIR_HEADERS = -std=c++20 -DTRT_BLENDMASK_NVIDIA_HEADERS $(addprefix -isystem ,$(filter-out /usr/include,$(TENSORRT_INC)))
OUR_HEADERS := -std=c++17
HEADERS = $(if $(TENSORRT_INC),$(THEIR_HEADERS),$(OUR_HEADERS))

PLUGIN_GLUE := $(wildcard plugins/*.cpp)
PLUGIN_FILES := $(wildcard plugins/*.h plugins/*.map plugins/abi/*.h) plugins/plugin.mk
HARNESS_CPP := $(wildcard plugins/tests/harness*.cpp) plugins/tests/host_twin.cpp
HARNESS_FILES := $(HARNESS_CPP) $(wildcard plugins/tests/*.h)
WARN := -Wall,-Wextra,-Wshadow
LINK_PLUGIN = $(NVCC) -O2 -shared -Xcompiler -fPIC,-fvisibility=hidden,$(WARN) -Iplugins \
              -Xlinker --version-script=plugins/libtrt_blendmask.map,--no-undefined
LINK_HARNESS = $(NVCC) -O2 -Xcompiler $(WARN) -Iplugins -Iplugins/tests

plugin: $(PLUGIN) ## libtrt_blendmask.so, the RoiAlignBlend layer for TensorRT 10 and newer (needs nvcc)

$(PLUGIN): $(PLUGIN_OUT)/kernel.o $(PLUGIN_OUT)/made_for $(PLUGIN_GLUE) $(PLUGIN_FILES)
	@mkdir -p $(@D)
	$(LINK_PLUGIN) $(HEADERS) $(PLUGIN_GLUE) $< -o $(PLUGIN_OUT)/linked.so
	plugins/tests/check_library.sh $(PLUGIN_OUT)/linked.so
	mv $(PLUGIN_OUT)/linked.so $@

$(PLUGIN_OUT)/kernel.o: plugins/roi_align_blend_kernel.cu $(wildcard plugins/roi_align_blend_kernel.*h) \
                        plugins/roi_align_blend_math.h plugins/plugin.mk $(PLUGIN_OUT)/made_for
	@test -n "$(NVCC)" || { echo 'nvcc was not found, and the plugin is made by it: install the CUDA toolkit, or set' \
	                             'NVCC; without it, `trt-blendmask surgery --tail native` needs no plugin.'; exit 1; }
	@mkdir -p $(@D)
	$(NVCC) -std=c++17 -O3 --threads 0 $(GENCODE) -Xcompiler -fPIC,-fvisibility=hidden,$(WARN) -c $< -o $@

# Other GPU_ARCHS or TENSORRT_INC than last time: the library is made anew.
$(PLUGIN_OUT)/made_for: FORCE
	@mkdir -p $(@D)
	@echo '$(NVCC) $(GENCODE) $(HEADERS)' | cmp -s - $@ || echo '$(NVCC) $(GENCODE) $(HEADERS)' > $@

FORCE:

# ----------------------------------------------------------------------------------------------------------------------
# Tests: the library in the hands of TensorRT's lean runtime, which comes from wheels and needs no GPU

TENSORRT_VERSIONS := 10.15.1 10.16.1 11.0 11.1 11.2 11.3 11.4

test-plugin: test-plugin-host $(addprefix test-plugin-,$(firstword $(TENSORRT_VERSIONS)) $(lastword $(TENSORRT_VERSIONS)) rtx) ## the plugin on the host, and in the hands of the oldest and the newest TensorRT that wheels have (installs them)

test-plugin-host: $(VENV)/.aot ## the plugin's arithmetic and kernel, compiled for the host (needs g++)
	$(BIN)/python -m pytest -n auto tests/plugin --ignore-glob='*_registry.py'

test-plugin-matrix: $(addprefix test-plugin-,$(TENSORRT_VERSIONS) rtx) ## the same with every TensorRT from 10.15 to 11.4 and TensorRT-RTX

$(addprefix test-plugin-,$(TENSORRT_VERSIONS) rtx): test-plugin-%: build/tensorrt/%/.installed $(PLUGIN) $(PLUGIN_OUT)/harness $(PLUGIN_OUT)/on_host.so
	build/tensorrt/$*/bin/python -m pytest tests/plugin/test_registry.py \
	    $(if $(filter rtx,$*),,tests/plugin/test_aot_registry.py)

build/tensorrt/%/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check numpy pytest \
	    '$(if $(filter rtx,$*),tensorrt-rtx-cu13,tensorrt-lean-cu13==$*.*)'
	@touch $@

.PRECIOUS: build/tensorrt/%/.installed

$(PLUGIN_OUT)/harness: $(HARNESS_FILES) $(PLUGIN_FILES)
	@mkdir -p $(@D)
	$(LINK_HARNESS) $(OUR_HEADERS) $(HARNESS_CPP) -o $@

# The same plugin around the same kernel, compiled for the host: masks are computed where there is no GPU.
$(PLUGIN_OUT)/on_host.so: $(PLUGIN_GLUE) $(PLUGIN_FILES) $(wildcard plugins/*.cu plugins/tests/pretend_cuda/*)
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -O1 -fPIC -fvisibility=hidden -pthread -Wno-unknown-pragmas -Iplugins/tests/pretend_cuda \
	    -c -x c++ plugins/roi_align_blend_kernel.cu -o $(PLUGIN_OUT)/kernel_on_host.o
	$(LINK_PLUGIN) $(OUR_HEADERS) $(PLUGIN_GLUE) $(PLUGIN_OUT)/kernel_on_host.o -o $@

# The shipped library's enqueue on a GPU, through the registry of any TensorRT library: TENSORRT_LIB, else the newest wheel's.
NEWEST_WHEEL := build/tensorrt/$(lastword $(TENSORRT_VERSIONS))
TENSORRT_LIB ?= $(shell find $(NEWEST_WHEEL)/lib -name 'libnvinfer_lean.so.*' 2>/dev/null | head -n 1)

test-gpu-plugin: $(PLUGIN) $(PLUGIN_OUT)/harness $(if $(TENSORRT_LIB),,$(NEWEST_WHEEL)/.installed)
	REQUIRE_GPU=1 $(PLUGIN_OUT)/harness $(TENSORRT_LIB) $(PLUGIN)

# Every call across two declarations: the harness with TensorRT's headers and the plugin with ours, and the reverse.
ABI_TENSORRT ?= $(wildcard build/tensorrt/*/lib/python*/site-packages/tensorrt_lean_libs/libnvinfer_lean.so.*)

test-abi: $(PLUGIN_OUT)/harness $(PLUGIN_OUT)/on_host.so $(addprefix build/tensorrt/,$(addsuffix /.installed,$(firstword $(TENSORRT_VERSIONS)) $(lastword $(TENSORRT_VERSIONS)))) ## plugins/abi against TensorRT's headers (TENSORRT_INC=folder)
	@test -f "$(TENSORRT_INC)/NvInferRuntime.h" || { echo 'No NvInferRuntime.h in "$(TENSORRT_INC)": give the' \
	    'folder of its headers, make test-abi TENSORRT_INC=.../include'; exit 1; }
	$(LINK_HARNESS) $(THEIR_HEADERS) plugins/tests/layout.cpp -o $(PLUGIN_OUT)/their_layout
	$(PLUGIN_OUT)/their_layout | diff plugins/tests/layout.txt -
	$(LINK_HARNESS) $(THEIR_HEADERS) $(HARNESS_CPP) -o $(PLUGIN_OUT)/their_harness
	$(LINK_PLUGIN) $(THEIR_HEADERS) $(PLUGIN_GLUE) $(PLUGIN_OUT)/kernel_on_host.o -o $(PLUGIN_OUT)/their_on_host.so
	set -e; for library in $(ABI_TENSORRT); do \
	    $(PLUGIN_OUT)/their_harness $$library $(PLUGIN_OUT)/on_host.so --kernel-on-host; \
	    $(PLUGIN_OUT)/harness $$library $(PLUGIN_OUT)/their_on_host.so --kernel-on-host; done
