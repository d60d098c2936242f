# Two commands do everything: `make demo` and `make test`. Both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files are shared out over this many processes; JOBS=0 runs them in one.
JOBS ?= 2
STAMP := $(VENV)/.installed
# Images often forbid Python to keep compiled modules. Every process would then compile over a thousand of them anew, which
# takes seconds. An empty value allows it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint style types bench docs setup clean

setup: $(STAMP)

# --no-compile: of 18,000 modules a few thousand are ever imported, and Python compiles those at first use.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/connectome demo demo

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(MAKE) --no-print-directory -j 2 style types

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/framework.py
	$(BIN)/python benchmarks/volumes.py
	test ! -d demo/data || $(BIN)/python benchmarks/stages.py demo

docs: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) demo site
