# Every target sets the environment up by itself; nothing is typed before `make demo` or `make test`.
# `make PYTHON=/path/to/python3.12 …` chooses the interpreter; otherwise the first fit one of this list is taken.
PYTHON ?=
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
VENV := .venv
BIN := $(VENV)/bin
USE := $(VENV)/.set-up
DEV := $(VENV)/.set-up-dev
# uv where it is there; modules are compiled when they are first imported, since most never are.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALL := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,$(PIP)) -c constraints.txt -e
TO_DEVELOP := text,openvino,servers,dev,docs
# All at once where more is asked for than the demo.
FIRST := $(if $(filter-out demo,$(MAKECMDGOALS)),$(TO_DEVELOP),text)

# Some images set it: each of hundreds of processes would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check format docs bench clean

help:
	@echo "make demo    run the pipeline on the built-in shop"
	@echo "make test    run the tests"
	@echo "make check   formatting, lint, types, layering, documentation"
	@echo "make format  put formatting and imports right"
	@echo "make docs    build the documentation as a site, in docs/html"
	@echo "make bench   measure speed and memory beside the usual implementation (DATA=FOLDER)"
	@echo "make setup   create $(VENV) with all that developing needs (every target installs what it needs)"
	@echo "make clean   remove $(VENV) and caches; artifacts/ stays"

setup: $(DEV)

demo: $(USE)
	$(BIN)/prorec run demo

# A process that dies ends the run and is named; where it is replaced, the run never ends.
test: $(DEV)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layering.py
	$(BIN)/python -m docsite

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV)
	$(BIN)/python -m docsite

bench: $(DEV)
	$(BIN)/python -m benchmarks $(if $(DATA),--data "$(DATA)")

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is the last thing written: without the first the environment is built from nothing, so that an interrupted
# first set-up leaves no trace; with old ones, only what changed is installed.
$(USE): pyproject.toml constraints.txt
	@set -eu; \
	if [ ! -f $@ ]; then \
	  python=; \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      python=$$candidate; break; \
	    fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "PRORec needs Python 3.11 or newer; tried: $(if $(PYTHON),$(PYTHON),$(PYTHONS))." >&2; \
	    echo "Install it, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	    exit 2; \
	  fi; \
	  if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "$$python lacks the venv module; install it (Debian, Ubuntu: the package python3-venv)." >&2; \
	    exit 2; \
	  fi; \
	  echo "Creating $(VENV) with $$($$python --version); a few minutes, once."; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@$(INSTALL) '.[$(FIRST)]'
	@touch $@ $(if $(filter-out text,$(FIRST)),$(DEV))

# The recipe above may have made this one too.
$(DEV): $(USE)
	@if [ ! -f $@ ] || [ $@ -ot $< ]; then $(INSTALL) '.[$(TO_DEVELOP)]' && touch $@; fi
