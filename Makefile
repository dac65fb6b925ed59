# `make search` makes a run, exports its network and writes its report; ARGS are options of `nas search`:
#   make search ARGS="--data cifar10 --download" RUN=runs/mine

PYTHON := $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := runs/$(shell date +%Y%m%d-%H%M%S)
export OMP_WAIT_POLICY := PASSIVE

.PHONY: search test lint bench clean

search: $(STAMP)
	$(BIN)/nas search --run $(RUN) $(ARGS)
	$(BIN)/nas export $(RUN)
	$(BIN)/nas report $(RUN)
	@echo "run      $(RUN)"
	@echo "network  $(RUN)/export"
	@echo "report   $(RUN)/report.md"

test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/everything.py

clean:
	rm -rf dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find nas baselines benchmarks examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
