# edgellm: one-shot setup and everyday tasks. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROGRAM := $(abspath $(BIN)/edgellm)
# Processes that test at once; each may have an engine with two threads.
TESTERS ?= 2
SUITE ?= bookworm
MACHINE ?= $(shell uname -m)
PROMPT ?= What is the capital of France?
export PROMPT

.DEFAULT_GOAL := help
.PHONY: help check engine setup run install uninstall chat doctor tools test kernels lint soak wheel wheel-arm64 wheel-pure wheel-check deb deb-check sdist clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ## Name what this machine lacks, before anything is downloaded
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; edgellm needs Python 3.10 or newer" >&2; echo "  try: sudo apt-get install python3 python3-venv" >&2; exit 7; }
	@$(PYTHON) -m edgellm.engine.builds.toolchain

# The virtual environment is made under a temporary name's stamp: without the stamp it is made again.
$(VENV)/.installed: pyproject.toml edgellm/version.py
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
	@$(BIN)/edgellm pull minilm >/dev/null

run: engine ## Answer PROMPT with the embedded model and show its numbers
	@$(BIN)/edgellm run smollm2 --temp 0 --stats -- "$$PROMPT" </dev/null
	@$(BIN)/python -m edgellm.machine.path_link hint "$(PROGRAM)"

install: $(VENV)/.installed ## Put `edgellm` on PATH: with pipx if it is there, else a link in ~/.local/bin
	@$(BIN)/python -m edgellm.machine.path_link install "$(PROGRAM)"

uninstall: ## Take `edgellm` from PATH again; engines, models and chats stay
	@$(PYTHON) -m edgellm.machine.path_link uninstall "$(PROGRAM)"

chat: engine ## Talk to the embedded model
	@$(BIN)/edgellm chat smollm2

doctor: setup ## Check this machine
	@$(BIN)/edgellm doctor

tools: $(VENV)/.installed ## Also build llama-server, llama-bench and the other tools
	@$(BIN)/edgellm engine build --tools >/dev/null

# Real servers, browsers and kills on a busy machine: a test that fails runs once more, and the summary names it.
test: setup tools $(VENV)/.developer ## Run the tests, linters and type checks included
	@$(BIN)/python -m pytest -m "not soak" -n $(TESTERS) --dist loadfile --reruns 1
	@$(MAKE) --no-print-directory lint

kernels: $(VENV)/.installed ## Compare every kernel level with the C truth; BENCH=1 times them
	@$(BIN)/python -m tests.kernels.checker $(if $(BENCH),--bench)

lint: $(VENV)/.developer ## Run ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

soak: setup tools $(VENV)/.developer ## Run the long tests: kills, fuzzing, load
	@$(BIN)/python -m pytest -m soak

wheel: engine $(VENV)/.developer ## Build the wheel with the engine inside, for this architecture
	@$(BIN)/python -m tests.packaging.wheel

wheel-arm64: engine $(VENV)/.developer ## The same for 64-bit ARM, with Debian's g++-aarch64-linux-gnu
	@$(BIN)/python -m tests.packaging.wheel --machine aarch64

wheel-pure: $(VENV)/.developer ## Build the wheel without an engine: sources, patches and recipes, for every platform
	@$(BIN)/python -m hatchling build --target wheel

wheel-check: $(VENV)/.installed ## Try the wheel in a Debian without a compiler: TREE=DIRECTORY [SUITE=bookworm MACHINE=aarch64]; needs root
	@$(BIN)/python -m tests.packaging.clean_system dist/edgellm-*-manylinux_*_$(MACHINE).whl --suite $(SUITE) --tree "$(TREE)"

deb: $(VENV)/.installed ## Make a Debian package of the wheel: [SUITE=bookworm], also trixie, jammy, noble
	@$(BIN)/python -m tests.packaging.deb dist/edgellm-*-manylinux_*_$(MACHINE).whl --suite $(SUITE)

deb-check: $(VENV)/.installed ## Install, use and remove the package in a Debian: TREE=DIRECTORY [SUITE=bookworm]; needs root
	@$(BIN)/python -m tests.packaging.clean_deb dist/edgellm_*+$(SUITE)_$$(dpkg --print-architecture).deb --suite $(SUITE) --tree "$(TREE)"

sdist: $(VENV)/.developer ## Build the source archive
	@$(BIN)/python -m hatchling build --target sdist

clean: ## Remove the environment and build products; engines and models stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
