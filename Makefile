# changeover: `make demo` shows it at work, `make test` proves it. Both do all their own set-up.
# Needed beforehand on Debian 12: apt install git make python3-venv

PYTHON ?= python3
BIN    := .venv/bin
ROOT   := $(if $(filter 0,$(shell id -u)),,sudo)
CODE   := agent probes runbooks drills
PIP    := tools/quiet $(BIN)/python -m pip --quiet --disable-pip-version-check install

.PHONY: help demo test check pytest bench dist wheel-test clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    the agent on this machine and on a simulated branch; needs no privilege; ARGS="--for 30"'
	@echo 'make test    installs the real peers by apt, then runs every check and every test; needs root or sudo'
	@echo 'make check   format, lint, types, imports, duplicates, tidiness'
	@echo 'make bench   time and memory against their limits'
	@echo 'make dist    the archive that a branch is installed from, wheel and sdist, in dist/'
	@echo 'make clean   removes everything that was made here'

demo: .venv/run.stamp
	@$(BIN)/changeover demo $(ARGS)

test: .venv/dev.stamp
	@tools/peers
	@$(MAKE) --no-print-directory check pytest

pytest: .venv/dev.stamp
	@echo '== tests (as root: they make network namespaces and open raw sockets)'
	@test -z '$(ROOT)' || command -v sudo > /dev/null || { echo 'there is no sudo here; as root, run: make $@'; exit 1; }
	@$(ROOT) $(BIN)/python -m pytest $(ARGS)

check: .venv/dev.stamp
	@echo '== format and lint'
	@$(BIN)/ruff format --quiet --check --output-format concise . || { echo 'cure: $(BIN)/ruff format .'; exit 1; }
	@$(BIN)/ruff check --quiet --output-format concise .
	@echo '== types'
	@$(BIN)/mypy
	@echo '== imports'
	@tools/quiet $(BIN)/lint-imports
	@echo '== duplicates'
	@$(BIN)/pylint --score=n --disable=all --enable=duplicate-code $(CODE)
	@echo '== tidiness'
	@$(BIN)/python -m pytest tests/test_tidy.py

bench: .venv/run.stamp
	@$(BIN)/python tools/bench.py

dist: .venv/dev.stamp
	@rm -rf build dist
	@tools/quiet $(BIN)/python -m build --no-isolation
	@tools/quiet $(BIN)/python tools/pack.py dist
	@ls dist

wheel-test: dist
	@tools/try-wheel dist/*.whl

clean:
	rm -rf .venv build dist *.egg-info .coverage htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) tests tools -name __pycache__ -prune -exec rm -rf {} +

# The environment comes in two steps, so that the demo waits for no tool that only a developer needs.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'changeover needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'this Python cannot make environments; cure: apt install python3-venv'; exit 1; }
	@echo '== .venv'
	@$(PYTHON) -m venv .venv

.venv/run.stamp: constraints-run.txt setup.cfg pyproject.toml agent/__init__.py | .venv/bin/python
	@echo '== what runs the program (constraints-run.txt)'
	@$(PIP) --require-hashes -r constraints-run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: constraints.txt .venv/run.stamp
	@echo '== what tests the program (constraints.txt)'
	@$(PIP) --require-hashes --no-build-isolation --use-pep517 -r constraints.txt
	@touch $@
