# latticed. A machine with python3 (3.11 or newer), its venv module and make needs two commands: make run, make test.
#
#   make run      set up if needed, then start the daemon        make run ARGS='--port 8701'
#   make test     set up if needed, then run the tests           make test ARGS='tests/unit -k states' JOBS=4
#   make check    format, lint, types, layers, sizes
#   make fuzz     the long form of the fuzzing tests             make fuzz ARGS='--hypothesis-seed=1'
#   make crash    the long form of the crash tests                make crash SEED=7 KILLS=500 JOBS=2
#   make systemd  the service in a Debian that is booted for it   make systemd SUITE=trixie (needs root, see tests/booted)
#   make bench    the benchmark                                  make bench ARGS='…' (see bench/README.md)
#   make docs     write again what is generated from the code
#   make lock     write requirements.lock again                  make lock ARGS=--upgrade
#   make clean    remove all that make made; never the daemon's state

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named after where the checkout lies: a copy of it must not use the venv that the original made.
STAMP := $(VENV)/installed$(subst /,-,$(CURDIR))
ARGS ?=
JOBS ?= 3

# Without bytecode every process compiles all that it imports, and the tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help setup run test check fuzz crash systemd bench docs lock clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# The stamp is newer than the lock and pyproject.toml for as long as neither changes, and then this does nothing.
# A venv that is broken, or whose scripts point to where the checkout lay before, is made anew.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'latticed needs Python 3.11 or newer; name one with make PYTHON=python3.12' >&2; exit 1; }
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	  head -n 1 $(BIN)/pip | grep -qF '$(CURDIR)/' || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup
	@exec $(BIN)/latticed serve --banner --config config/latticed.toml $(ARGS)

# The tests wait as well as compute: on two cores three workers keep both busy.
test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py

# The long forms have no limit on the time one test takes.
fuzz: setup
	$(BIN)/python -m pytest -m fuzz_long -o faulthandler_timeout=0 $(ARGS)

crash: setup
	$(BIN)/python -m pytest -m crash_long -o faulthandler_timeout=0 -s $(ARGS)

systemd: setup
	$(BIN)/python -m pytest -m systemd_long -o faulthandler_timeout=0 $(ARGS)

bench: setup
	$(BIN)/python -m bench $(ARGS)

docs: setup
	$(BIN)/python tools/state_machine.py

# uv resolves for every platform at once; it lives in a venv of its own since nothing else needs it.
lock:
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install uv; }
	.venv-lock/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --python-version 3.11 --group dev pyproject.toml -o requirements.lock --quiet $(ARGS)

clean:
	rm -rf $(VENV) .venv-lock dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
