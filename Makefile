# make search retrain export: from labelled data to a verified model.onnx. `make` alone lists the targets.

PRESET  ?= quick
# The space for deployment, unless the preset is what somebody published.
SPACE   ?= $(if $(filter paper reference,$(PRESET)),micro,stages)
DEVICE  ?= auto
SEED    ?= 0
DATASET ?=
LATENCY ?=
# FLIP=no where left and right matter: pictures are not mirrored in training. FLIP=yes mirrors them in any case.
FLIP    ?=
# A larger network's run or model.onnx, from which retraining learns beside the labels.
TEACHER ?=
RUN     ?=

PYTHON ?= python3
VENV   := .venv
ENAS   := $(VENV)/bin/enas
READY  := $(VENV)/.ready

ifeq ($(FLIP),yes)
FLIP_OPTION := --flip
else ifeq ($(FLIP),no)
FLIP_OPTION := --no-flip
else ifneq ($(FLIP),)
$(error FLIP is '$(FLIP)'; expected yes, no, or nothing for what the pictures say)
endif

# A run's name is that of its space, data set and preset. The default data set is the preset's own, which enas is asked
# for once, when a recipe first needs the name. Of a preset that does not exist the search tells.
OWN_DATASET = $(eval OWN_DATASET := $$(shell $(ENAS) data default --space $(SPACE) --preset $(PRESET) 2> /dev/null))$(OWN_DATASET)
RUN_DIR = runs/$(or $(RUN),$(SPACE)-$(call stem,$(or $(DATASET),$(OWN_DATASET),$(PRESET)))-$(PRESET))
# A file's name without its ending. make takes a path with spaces for several, so | stands for a space meanwhile.
BLANK := $() $()
stem = $(subst |,$(BLANK),$(patsubst %.h5,%,$(notdir $(subst $(BLANK),|,$1))))

# `make search retrain export` keeps its order under -j.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help install search retrain export verify evaluate benchmark serve report test test-avx2 test-slow test-gpu test-clients test-interop gpu-check lint bench recipes bench-gpu bench-serving bench-attacks clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: SPACE=$(SPACE) DATASET=$(or $(DATASET),<the preset's>) PRESET=$(PRESET) RUN=$(or $(RUN),<space>-<dataset>-<preset>) DEVICE=$(DEVICE) SEED=$(SEED) LATENCY=$(LATENCY) FLIP=$(FLIP) TEACHER=$(TEACHER)"

install: $(READY) ## Make .venv and install the pinned packages

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

search: $(READY) ## Find an architecture with ENAS and write the run's spec.json
	$(ENAS) search --space $(SPACE) --preset $(PRESET) $(if $(DATASET),--dataset '$(DATASET)') --run '$(RUN_DIR)' --seed $(SEED) --device $(DEVICE) $(if $(LATENCY),--latency '$(LATENCY)') $(FLIP_OPTION) --resume
	@# By training, where the search has a latency target.
	if grep -q '^\[latency\]' '$(RUN_DIR)/search/config.toml'; then $(ENAS) derive '$(RUN_DIR)' --device $(DEVICE) --resume; fi

retrain: $(READY) ## Train the network of the run's spec.json from scratch
	$(ENAS) retrain '$(RUN_DIR)' --device $(DEVICE) $(if $(TEACHER),--teacher '$(TEACHER)') $(FLIP_OPTION) --resume

export: $(READY) ## Convert the retrained network to ONNX and verify it
	$(ENAS) export '$(RUN_DIR)' --resume

verify: $(READY) ## Compare the run's model.onnx with its torch network again
	$(ENAS) verify '$(RUN_DIR)'

evaluate: $(READY) ## Score the run's model.onnx on the test split
	$(ENAS) evaluate '$(RUN_DIR)' --provider $(DEVICE)

benchmark: $(READY) ## Measure the run's latency, beside torch
	$(ENAS) benchmark '$(RUN_DIR)' --provider $(DEVICE) --compare-torch

serve: $(READY) ## Serve the run's model over HTTP, on port 8000 of this machine
	$(ENAS) serve '$(or $(MODELS),$(RUN_DIR))' --provider $(DEVICE)

report: $(READY) ## Write the run's HTML page
	$(ENAS) report '$(RUN_DIR)'

# A process a core; a file's tests stay together, for they share what they set up. In the order of folders, which has
# the long files early: a long one at the end would leave the other cores idle.
TESTS_SIDE_BY_SIDE := $(VENV)/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(READY) ## Run the tests
	$(TESTS_SIDE_BY_SIDE)

# What depends on kernels: what layers and networks compute, what training does, and that it goes on exactly.
NUMERICAL := $(addprefix tests/end_to_end/test_,kill_and_resume.py stopped_at_any_step.py long_runs.py) \
	$(addprefix tests/searcher/nn/test_,operations.py networks.py loss_traces.py) \
	$(addprefix tests/searcher/nn/kernels/test_,dense.py fast_layers.py) \
	tests/searcher/training/optimizers/test_flat_sgd.py tests/test_parity.py

test-avx2: $(READY) ## Run the numerical tests with the kernels of a CPU without AVX-512
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(TESTS_SIDE_BY_SIDE) $(NUMERICAL)

test-slow: $(READY) ## Run the tests that take minutes
	$(VENV)/bin/python -m pytest --run-slow -m slow

test-gpu: $(READY) ## Run the tests that need a CUDA device
	$(VENV)/bin/python -m pytest --run-gpu -m gpu

# Takes .venv if it is there and installs nothing: a machine with a GPU may have no package registry.
gpu-check: ## Prove the GPU path on a CUDA device, in ten minutes (OUT=folder, ARGS=--full)
	$(or $(wildcard $(VENV)/bin/python),$(PYTHON)) -m tests.gpu_check $(if $(OUT),--out '$(OUT)') $(ARGS)

test-clients: $(READY) .venv-clients/.ready .venv-triton/.ready ## Try the server with tritonclient and schemathesis
	$(VENV)/bin/python -m pytest tests/runtime/serving/test_real_clients.py tests/exporter/delivery/test_triton.py

INTEROP := opencv4 opencv5 openvino onnxruntime-oldest onnxruntime-newest

test-interop: $(READY) $(INTEROP:%=.venv-%/.ready) .npm-interop/.ready ## Try exported models in other programs, and in Chromium
	$(VENV)/bin/python -m pytest tests/interop

lint: $(READY) ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY) ## Measure what docs/results.md claims is fast
	$(VENV)/bin/python -m tests.benchmarks $(ONLY)

recipes: $(READY) ## Try ingredients of a training one at a time, which may take nights (DATASET=name, ARGS=--seeds 3)
	$(VENV)/bin/python -m tests.benchmarks.recipes $(if $(DATASET),--dataset '$(DATASET)') $(ARGS)

bench-gpu: $(READY) ## Measure what each lever is worth on a CUDA device
	$(VENV)/bin/python -m tests.benchmarks.gpu

bench-serving: $(READY) .venv-litserve/.ready .venv-mlserver/.ready ## Measure the server beside LitServe and MLServer
	$(VENV)/bin/python -m tests.benchmarks.serving '$(or $(MODELS),$(RUN_DIR))'

bench-attacks: $(READY) ## Measure what an honest client of the server notices of ten minutes of attacks
	$(VENV)/bin/python -m tests.benchmarks.serving.attacked '$(or $(MODELS),$(RUN_DIR))'

# Programs that want other versions of our own packages.
.venv-%/.ready: tests/others/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Without npm the tests that need it are reported as skipped. Install scripts would fetch CUDA.
.npm-interop/.ready: tests/others/npm/package.json
	mkdir -p $(@D)
	cp $< $(@D)
	if command -v npm > /dev/null; then npm install --prefix $(@D) --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel error; fi
	@touch $@

clean: ## Remove .venv; runs stay
	rm -rf $(VENV) .venv-* .npm-* *.egg-info
