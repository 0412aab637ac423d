# cliffsteer: everything runs in .venv, which is made on first use and again when pyproject.toml or constraints.txt change.
# Variables: PYTHON (interpreter for .venv, 3.11 or newer), PIP_FLAGS (extra flags for pip), ARGS (extra arguments for
# `make demo` and `make test`).

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

.PHONY: help venv install demo test test-slow lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

venv install: $(STAMP) ## make the virtual environment .venv and install the pinned dependencies into it

demo: $(STAMP) ## simulate, train, compare and couple; writes runs/demo/report.html (about 10 minutes on 2 cores)
	@$(BIN)/cliffsteer demo $(ARGS)

test: $(STAMP) ## run the tests (a few minutes)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile $(ARGS)

test-slow: $(STAMP) ## run the tests that take minutes each
	@$(BIN)/pytest -m slow $(ARGS)

lint: $(STAMP) ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP) ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove .venv, builds and caches; data/ and runs/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "cliffsteer needs Python 3.11 or newer, and none was found: install one, or name it with \`make PYTHON=/path/to/python\`." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "cliffsteer needs Python 3.11 or newer, but \`$(PYTHON)\` is $$("$(PYTHON)" --version 2>&1 | head -n 1 || true): install one, or name it with \`make PYTHON=/path/to/python\`." >&2; exit 2; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "\`$(PYTHON)\` has no venv with pip: install that package of your system (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV) (a minute or two) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@
