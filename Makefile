# Everything runs in .venv; each target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export PIP_NO_INPUT := 1
export RAY_USAGE_STATS_ENABLED := 0
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# Also where the environment forbids it: hundreds of processes of the tests read the same code.
export PYTHONDONTWRITEBYTECODE :=

# Two processes for a CPU, as half of the time is waiting for servers; four at most, as each starts servers of its own.
# A file's tests share theirs. In the order of their names the long files do not come last, when nothing is beside them.
SIDE_BY_SIDE := -n $(shell echo $$(( $$(nproc) < 2 ? 2 : 4 ))) --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit promise histories chaos scale serve bench gpu pictures clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

demo: $(VENV)/.runs ## From nothing to cutouts, lake, withdrawal and purge, with real photos (a minute after the install)
	$(BIN)/bgbatch demo

# Side by side: Debian's packages with PyPI's, and mypy, which keeps one CPU busy, with tests that wait for servers.
test: ## Set everything up and run every check and test
	@$(MAKE) --no-print-directory --jobs=2 lint unit || { echo "Not all passed: ruff, mypy, lint-imports or pytest says above what did not." >&2; exit 1; }

lint: $(VENV)/.tests ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.tests system ## Every test, against real servers (pass ARGS=… to pytest)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

histories: $(VENV)/.tests system ## A million random histories of consent against a ten-line reference (half an hour)
	HISTORIES=1000000 $(BIN)/python -m pytest tests/consent/test_histories.py --durations=5 $(ARGS)

promise: $(VENV)/.tests ## 10,000 random lives of the store under crashes, faults and wrong clocks (SEEDS=…; seeds are printed)
	$(BIN)/python -m tests.promise.walk --seeds $(or $(SEEDS),10000)

chaos: $(VENV)/.tests system ## 200 batches on several hosts, each with a kill -9 at a random moment (TRIALS=…, PHOTOS=…)
	$(BIN)/python -m bench.chaos --trials $(or $(TRIALS),200) --photos $(or $(PHOTOS),2000)

scale: $(VENV)/.tests system ## What distributing costs; writes bench/RESULTS.md
	$(BIN)/python -m bench.scale

bench: $(VENV)/.benches system ## Speed, quality, lake, gate and purge beside their peers; writes bench/RESULTS.md
	$(BIN)/python -m bench.gate
	$(BIN)/python -m bench.rembg
	$(BIN)/python -m bench.masks
	$(BIN)/python -m bench.quality
	$(BIN)/python -m bench.lake
	$(BIN)/python -m bench.purge

gpu: $(VENV)/.tests ## Where there is a GPU: its tests, and photos per second; writes bench/RESULTS.md
	@$(PIP) install -c constraints.txt -e '.[gpu]'
	$(BIN)/python -m pytest tests/workers/test_on_gpu.py tests/workers/test_kernels.py
	$(BIN)/python -m bench.gpu --mps

pictures: $(VENV)/.tests system ## The pictures of pages in docs/img, anew
	$(BIN)/python -m scripts.picture_pages

serve: $(VENV)/.runs ## The portal at http://127.0.0.1:8080
	$(BIN)/bgbatch serve

clean: ## Remove what make made
	rm -rf $(VENV) .venv-bench build demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: system
system: ## Debian packages that tests need: a browser, PostgreSQL, S3 servers
	@scripts/install-system-packages deploy/test-packages.txt

$(VENV)/.pip: constraints.txt
	@echo "Setting up $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -U 'pip>=25.1'
	@touch $@

$(VENV)/.runs: $(VENV)/.pip pyproject.toml
	@$(PIP) install -c constraints.txt "$$(grep '^torch==' constraints.txt)" -e .
	@touch $@

$(VENV)/.tests: $(VENV)/.runs
	@$(PIP) install -c constraints.txt --group test
	@touch $@

$(VENV)/.benches: $(VENV)/.tests
	@$(PIP) install -c constraints.txt --group bench
	@touch $@
