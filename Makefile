# Everything a person or a machine runs here has a target. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# How many tests run at once, each with one thread.
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-fast test-kernels long-test kill-test fuzz lint format docs bench bench-quick clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create a virtual environment with the tested versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## sample domains, SE-GAN and self-training beside source-only, SEAN and target-trained, report (at most 8 minutes on 2 cores)
	$(BIN)/segadapt data sample $(DEMO)/data
	$(BIN)/segadapt run demo data.source.root=$(DEMO)/data/gta5 data.target.root=$(DEMO)/data/cityscapes --out $(DEMO)/run
	@echo "open $(DEMO)/run/report.html"

test: $(STAMP) ## all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal

test-fast: $(STAMP) ## the tests that take less than a second each, for use while you work (under 2 minutes on 2 cores; TESTS=… options)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow" $(TESTS)

# Kernels of other CPUs: ATen's, oneDNN's, and threads. KERNELS=avx2:AVX2:1 is one run of them alone.
KERNELS ?= avx2:AVX2:1 default:SSE41:2 avx2:AVX2:4

test-kernels: $(STAMP) ## the numeric tests as on CPUs without AVX-512 (AVX2 alone) and without AVX (SSE), with 1, 2 and 4 threads
	@for kernels in $(KERNELS); do \
		echo "kernels and threads: $$kernels"; threads=$${kernels##*:}; onednn=$${kernels#*:}; \
		ATEN_CPU_CAPABILITY=$${kernels%%:*} ONEDNN_MAX_CPU_ISA=$${onednn%:*} \
			OMP_NUM_THREADS=$$threads SEGADAPT_TEST_THREADS=$$threads $(BIN)/pytest -m numeric -n $(JOBS) || exit 1; \
	done

long-test: $(STAMP) ## the recorded pseudo-labels at full size (about five minutes on 2 cores)
	$(BIN)/pytest tests/long_pseudo_labels.py

kill-test: $(STAMP) ## kill a pipeline of seven stages 100 times and resume it: the results must not change (minutes)
	$(BIN)/python tests/kill_test.py

fuzz: $(STAMP) ## broken inputs for everything that reads: each must be refused with a message within five seconds (FUZZ=… options)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_readers.py $(FUZZ)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs ## the documentation as a site, build/site/index.html; a link or an anchor that leads nowhere is an error
	$(BIN)/python -m zensical build --clean --strict

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[docs]'
	@touch $@

bench: $(STAMP) ## the cost of everything, compared with bare networks and the published way (BENCH=… options; an hour)
	$(BIN)/python benchmarks/bench.py --reference $(BENCH)

bench-quick: $(STAMP) ## the same in bf16 at a quarter of the sizes (under 5 minutes on 2 cores)
	$(BIN)/python benchmarks/bench.py --reference --quick $(BENCH)

clean: ## remove everything made by the targets above
	rm -rf $(VENV) $(DEMO) fuzz-failures build .cache
