# edgellm: one-shot setup and everyday tasks. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROMPT ?= What is the capital of France?
export PROMPT

.DEFAULT_GOAL := help
.PHONY: help check engine setup run chat doctor tools test lint soak wheel clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ## Name what this machine lacks, before anything is downloaded
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; edgellm needs Python 3.10 or newer" >&2; echo "  try: sudo apt-get install python3 python3-venv" >&2; exit 7; }
	@$(PYTHON) -m edgellm.engine.toolchain

# The virtual environment is made under a temporary name's stamp: without the stamp it is made again.
$(VENV)/.installed: pyproject.toml edgellm/__init__.py
	@$(MAKE) --no-print-directory check
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developer: $(VENV)/.installed
	@echo "installing the development tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

engine: $(VENV)/.installed ## Build the engine, unless that is done
	@$(BIN)/edgellm engine build >/dev/null

setup: engine ## Set up everything: environment, engine, embedded model
	@$(BIN)/edgellm pull smollm2 >/dev/null

run: engine ## Answer PROMPT with the embedded model and show its numbers
	@$(BIN)/edgellm run smollm2 --temp 0 --stats -- "$$PROMPT" </dev/null

chat: engine ## Talk to the embedded model
	@$(BIN)/edgellm chat smollm2

doctor: setup ## Check this machine
	@$(BIN)/edgellm doctor

tools: $(VENV)/.installed ## Also build llama-server, llama-bench and the other tools
	@$(BIN)/edgellm engine build --tools >/dev/null

test: setup tools $(VENV)/.developer ## Run the tests, linters and type checks included
	@$(BIN)/python -m pytest -m "not soak"
	@$(MAKE) --no-print-directory lint

lint: $(VENV)/.developer ## Run ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

soak: setup tools $(VENV)/.developer ## Run the long tests: kills, fuzzing, load
	@$(BIN)/python -m pytest -m soak

wheel: $(VENV)/.developer ## Build the wheel, with recipes, patches and native sources inside
	@$(BIN)/python -m hatchling build --target wheel

clean: ## Remove the environment and build products; engines and models stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
