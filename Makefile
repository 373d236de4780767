# `make chat` and `make test` are all a newcomer needs; each makes .venv and installs what it lacks.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The editable install maps modules to files, so that it is done anew when one comes, goes or moves.
STAMP := $(VENV)/.installed-$(shell find drift_edge cli models benchmarks -name '*.py' | LC_ALL=C sort | cksum | cut -d' ' -f1)
DEV_STAMP := $(VENV)/.installed-dev
NANO_STAMP := $(VENV)/.installed-nano
ARGS ?=
# Everything that tells what happens goes to stderr: stdout belongs to the program.
SAY = >&2 echo

# Older gccs (seen: 12) miscompile llama.cpp's AMX code, which then crashes (see has_amx in drift_edge/llama/library.py).
ifneq ($(shell grep -s -m1 -o amx_int8 /proc/cpuinfo),)
export CFLAGS := $(CFLAGS) -mno-amx-int8
export CXXFLAGS := $(CXXFLAGS) -mno-amx-int8
endif

.PHONY: chat test test-long lint sanitize bench experiments oracle nano nano-report vocabs docs dist clean help

help:
	@echo "make chat      talk to the built-in pair (ARGS='--weights concise=0.8' for flags)"
	@echo "make test      run the tests"
	@echo "make test-long run the slow tests too"
	@echo "make lint      ruff and mypy"
	@echo "make sanitize  kernel tests under ASan and UBSan"
	@echo "make bench     measure speed (ARGS='--made 8b+1b' for a large pair)"
	@echo "make experiments  what the methods achieve on people of known taste, into docs/evidence (DATA=folder: real ones too)"
	@echo "make oracle    compute the oracle values anew with transformers (installs torch)"
	@echo "make nano      train the built-in pair anew (QUICK=1 for a trial run; installs torch)"
	@echo "make nano-report  measure the built-in pair for its model card"
	@echo "make docs      build the docs into build/site"
	@echo "make dist      build the sdist and a wheel from it"

chat: $(STAMP)
	@$(BIN)/drift-edge chat $(ARGS)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest $(ARGS)

test-long: $(DEV_STAMP) vocabs
	$(BIN)/python -m pytest -m "" --timeout 1200 $(ARGS)

# mypy reads the built wheel: through the editable install it would not see drift_edge.cli and drift_edge.models.
lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint && $(BIN)/python -m pip wheel -q --no-deps -w build/lint . && \
		$(BIN)/python -m pip install -q --no-deps --target build/lint/site build/lint/*.whl
	cd build/lint/site && ../../../$(BIN)/python -m mypy --config-file ../../../pyproject.toml -p drift_edge

sanitize: $(DEV_STAMP)
	PYTHON=$(CURDIR)/$(BIN)/python bash tests/kernel/sanitize.sh

bench: $(STAMP)
	@$(BIN)/drift-edge bench $(ARGS)

# One thread of OpenBLAS: small systems are solved by the thousand, and a second thread only waits for the first.
experiments: $(DEV_STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[plot]' >&2
	export OPENBLAS_NUM_THREADS=1; for name in few_shot estimators kept changing choosing generation cost junk; do $(BIN)/python -m experiments.$$name $(ARGS) || exit; done
	$(if $(DATA),$(BIN)/python -m experiments.annotators --data $(DATA))

vocabs: $(DEV_STAMP)
	@$(BIN)/python tests/fetch_vocabs.py

oracle: $(NANO_STAMP)
	$(BIN)/python -m tests.oracle $(ARGS)

nano: $(NANO_STAMP)
	$(BIN)/python -m drift_edge.models.nano.make $(if $(QUICK),--quick) $(ARGS)

nano-report: $(DEV_STAMP)
	$(BIN)/python -m drift_edge.models.nano.report $(ARGS)

docs: $(DEV_STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[docs]' >&2
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

dist: $(DEV_STAMP)
	rm -rf dist && $(BIN)/python -m build

clean:
	rm -rf build dist $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { $(SAY) "drift-edge needs Python 3.11 or newer, and '$(PYTHON)' is not there: install it, or say PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { $(SAY) "drift-edge needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1): say PYTHON=/path/to/a/newer/one"; exit 1; }
	@command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 || { $(SAY) "drift-edge needs a C and C++ compiler and found none: install gcc and g++ (Debian: apt install build-essential, macOS: xcode-select --install)"; exit 1; }
	@command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 || { $(SAY) "llama.cpp needs a C++ compiler and there is none: install g++ (Debian: apt install build-essential)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) >&2 || { $(SAY) "cannot make $(VENV): on Debian, install python3-venv"; rm -rf $(VENV); exit 1; }

# The first build of llama-cpp-python compiles llama.cpp; pip keeps the wheel, so that later ones take seconds.
$(STAMP): pyproject.toml CMakeLists.txt $(wildcard drift_edge/kernel/*.c drift_edge/kernel/*.h) | $(BIN)/python
	@$(SAY) "Installing into $(VENV). The first time, llama.cpp is compiled: about 10 minutes on 2 cores."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e . >&2
	@rm -f $(VENV)/.installed*
	@touch $@

$(DEV_STAMP): $(STAMP)
	@$(SAY) "Installing the tools for tests and checks."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' >&2
	@touch $@

$(NANO_STAMP): $(DEV_STAMP)
	@$(SAY) "Installing torch, tokenizers and transformers, for training and oracles."
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(or $(TORCH),torch) >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[nano,oracle]' >&2
	@touch $@
