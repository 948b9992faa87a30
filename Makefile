# The entry points: make demo, test, lint, types, docs, notebooks, bench. Each sets up .venv first when it has to.
SHELL  := /bin/bash
PYTHON ?= python3.11
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := dev,astro,manifold,docs,tutorials

# Hot loops are single-threaded; more BLAS threads than cores only slow the tests down.
export OMP_NUM_THREADS ?= 1
export NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba
export RUFF_CACHE_DIR ?= $(CURDIR)/.cache/ruff
export JUPYTER_PLATFORM_DIRS ?= 1
export MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

DEMO_OUT   ?= demo_report
DEMO_FLAGS ?= --kernels sho,drw,matern32 --draws 1500 --tune 500 --chains 4 --seed 0

.PHONY: help demo test lint format types docs notebooks tutorials bench geometric clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo       set up, then fit, sample and report on a real light curve"
	@echo "make test       set up, then run the whole test suite"
	@echo "make lint       ruff and the import contracts         make types   mypy, strict"
	@echo "make docs       the documentation site                make format  rewrite the code's layout"
	@echo "make notebooks  run the tutorials at smoke size       make tutorials  run them in full, in place"
	@echo "make bench      measure against public peers          make clean / distclean"
	@echo "make geometric  test the adapter for GeometricKernels in an environment of its own"

$(VENV): $(STAMP)
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install it, or run make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[$(EXTRAS)]"
	@touch $@

$(VENV)/.installed-bench: $(STAMP)
	$(PIP_INSTALL) -e ".[bench]"
	@touch $@

demo: $(STAMP)
	$(BIN)/gpkit lightcurve "$$($(BIN)/python -c 'from gpkit.datasets import example_path; print(example_path("macho-58.6272.729-B"))')" \
	    $(DEMO_FLAGS) --out $(DEMO_OUT)
	@echo "The report is at $(CURDIR)/$(DEMO_OUT)/report.html"

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --cache-dir .cache/import-linter

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -q -d .cache/doctrees -b html docs docs/_build/html
	@echo "The documentation is at docs/_build/html/index.html"

# Executed copies go to .cache: the notebooks in the repository hold the outputs of a full run.
notebooks: $(patsubst tutorials/%.ipynb,notebook-%,$(wildcard tutorials/*.ipynb))

notebook-%: $(STAMP)
	GPKIT_SMOKE=1 $(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --output-dir .cache/notebooks tutorials/$*.ipynb

tutorials: $(STAMP)
	@shopt -s nullglob; for script in tutorials/*.py; do \
	    $(BIN)/jupytext --sync "$$script" && \
	    $(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute --inplace "$${script%.py}.ipynb" || exit 1; \
	done

bench: $(VENV)/.installed-bench
	@shopt -s nullglob; for benchmark in benchmarks/*.py; do \
	    case "$$benchmark" in benchmarks/_*) continue;; esac; \
	    echo "$$benchmark"; $(BIN)/python "$$benchmark" $(BENCH_FLAGS) || exit 1; \
	done

# GeometricKernels needs a numpy below 2.4: the same pins with that one exchanged, in another environment.
.venv-geometric/.installed: setup.cfg pyproject.toml constraints.txt
	test -x .venv-geometric/bin/python || $(PYTHON) -m venv .venv-geometric
	mkdir -p .cache && sed 's/^numpy==.*/numpy==2.3.5/' constraints.txt > .cache/constraints-geometric.txt
	.venv-geometric/bin/python -m pip install --quiet --disable-pip-version-check -c .cache/constraints-geometric.txt -e ".[geometric,dev]"
	@touch $@

geometric: .venv-geometric/.installed
	.venv-geometric/bin/python -m pytest -n0 tests/kernels/test_geometric_kernels.py $(PYTEST_FLAGS)

clean:
	rm -rf .cache docs/_build docs/api/generated build dist $(DEMO_OUT)
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-geometric *.egg-info
