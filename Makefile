# Every target first makes .venv if it is missing or older than the dependency lists.
#   make demo    align a small chat model twice and report        make test    run the tests
#   make check   static checks                                    make setup   only make .venv
# pip's own settings apply (a mirror, a CPU-only index for torch): pip.conf or PIP_* variables.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IS_311 := import sys; sys.exit(sys.version_info[:2] != (3, 11))
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(shell $(name) -c '$(IS_311)' 2>/dev/null && echo $(name))))
ARGS ?=

export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export RAY_USAGE_STATS_ENABLED := 0
export TRL_EXPERIMENTAL_SILENCE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check format setup
.DELETE_ON_ERROR:

demo: setup
	@$(BIN)/workbench demo $(ARGS)

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/deptry .

format: setup
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(IS_311)' 2>/dev/null || { \
	  echo "Python 3.11 is needed, and '$(or $(PYTHON),python3.11)' is not it. Install Python 3.11, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON): up to 1 GB of packages (more where torch comes with CUDA), a few minutes, once."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu install python3.11-venv, then run make again." >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || { \
	  echo "Installing failed, for the reason pip gives above; once it is removed, run make again: it goes on from here." >&2; exit 1; }
	@touch $@
