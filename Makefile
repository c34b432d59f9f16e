# `make demo` and `make test` do their own set-up in .venv; a second run does nothing twice.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A file of tests stays on one of the processes: its fixtures are made once.
PARALLEL := -n 2 --dist loadfile

.PHONY: help setup demo test test-slow test-wheel test-minimum lint type bench hypotheses results record clean

help:
	@echo "make demo       the whole tool on the embedded model, in a minute"
	@echo "make test       ruff, mypy, import contracts, tests"
	@echo "make test-slow  the minutes-long tests too"
	@echo "make test-wheel    the wheel, installed into a clean environment; EXTRA=serve with that extra"
	@echo "make test-minimum  the same with the lowest allowed version of every dependency"
	@echo "make lint type  one of them alone"
	@echo "make bench      every benchmark under bench/"
	@echo "make hypotheses what others claim of local inference, tested here"
	@echo "make results    README's table and this machine's report from the recorded results"
	@echo "make record     record these anew on a quiet machine: MODELS='a.gguf b.gguf' [LARGE=7b.gguf] [LLAMA_SERVER=PROGRAM] [ONLY=load,...]"
	@echo "make clean      remove .venv and caches"

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	touch $@

# llama-cpp-python first and by itself: what follows then finds it installed and does not build it again.
$(VENV)/.llama: $(VENV)/.made scripts/build_llama.py pyproject.toml
	$(BIN)/python scripts/build_llama.py
	touch $@

$(VENV)/.installed: $(VENV)/.llama pyproject.toml
	$(PIP) install --editable ".[all]" --group dev
	touch $@

# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, Python would compile every module at each start.
setup: $(VENV)/.installed
	@$(BIN)/python -m compileall -q ggufphys refengine server bench

demo: setup
	$(BIN)/ggufphys demo

test: lint type
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: lint type
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow"

test-wheel: setup
	$(BIN)/python -m scripts.test_wheel $(addprefix --extra ,$(EXTRA))

test-minimum: setup
	$(BIN)/python -m scripts.test_wheel --lowest --extra serve

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m bench.reader
	$(BIN)/python -m bench.dequant
	$(BIN)/python -m bench.estimate
	$(BIN)/python -m bench.mmproj
	-$(BIN)/python -m bench.predict
	$(BIN)/python -m bench.engine

hypotheses: setup
	$(BIN)/ggufphys bench hypotheses

results: setup
	$(BIN)/python -m bench.report.readme
	$(BIN)/ggufphys bench report -o docs/this-machine/report.html --markdown docs/this-machine/report.md

record: setup
	$(BIN)/python -m bench.results.everything $(MODELS) $(addprefix --large ,$(LARGE)) $(addprefix --llama-server ,$(LLAMA_SERVER)) $(addprefix --only ,$(ONLY))
	$(MAKE) results

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
