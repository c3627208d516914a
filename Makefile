# make demo, make demo-detection: see it work.  make test: all tests.  make test-numbers: those that compare numbers, with
# the instructions of an old processor.  make check: lint and types.  Each makes its environment first.
# make docs: the documentation as a site, site/index.html.
# make gpu-check: is a machine with a GPU right, and how fast; no network.  make gpu-wheels: what that machine lacks.

PYTHON ?= python3
BIN := .venv/bin
BENCH := .venv-bench/bin

.PHONY: demo demo-detection docs test test-numbers check cards bench bench-full gpu-wheels gpu-check clean

demo: .venv/installed
	$(BIN)/python -m zoo.tools.demo

demo-detection: .venv/installed
	$(BIN)/python -m zoo.tools.demo_detection

test: .venv/installed
	$(BIN)/python -m pytest -n auto --durations=30

test-numbers: .venv/installed
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n auto -m numbers

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zoo tools
	$(BIN)/lint-imports

docs: .venv/docs-installed
	$(BIN)/python docs/build_site.py

cards: .venv/installed
	$(BIN)/python -m zoo.tools.cards

bench: .venv-bench/installed
	set -e; for name in startup scaling heads_only yolo_heads full; do $(BENCH)/python benchmarks/$$name.py $(OPTIONS); done

bench-full: OPTIONS = --full
bench-full: bench

# What a machine with torch, torchvision, timm, accelerate, transformers, torchmetrics, typer and rich may lack: 58 MB for
# Python 3.12 on x86-64 Linux. PyAV (35 MB; videos) and imagehash (near-duplicates) stay away: nothing checked needs them.
WHEELS = matplotlib contourpy cycler fonttools kiwisolver pyparsing python-dateutil six psutil scipy supervision \
	defusedxml 'pydeprecate<0.14' faster-coco-eval pytest iniconfig pluggy requests certifi idna urllib3 charset-normalizer
FOR_GPU = --quiet --only-binary=:all: --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 \
	--platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest wheels

gpu-wheels:
	mkdir -p wheels
	$(PYTHON) -m pip download $(FOR_GPU) 'pydantic>=2.10'
	$(PYTHON) -m pip download $(FOR_GPU) --no-deps $(WHEELS)
	du -sh wheels

gpu-check: .gpu-site/installed
	PYTHONPATH=$(CURDIR):$(CURDIR)/.gpu-site $(PYTHON) benchmarks/gpu.py $(OPTIONS)

.gpu-site/installed: $(wildcard wheels/*.whl)
	mkdir -p .gpu-site
	set -e; missing=$$($(PYTHON) benchmarks/_missing_wheels.py wheels); test -z "$$missing" || $(PYTHON) -m pip install --quiet \
		--no-index --no-deps --upgrade --target .gpu-site $$missing
	touch $@

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,demo,detection,transformers]'
	touch $@

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

.venv-bench/installed: pyproject.toml
	test -x $(BENCH)/python || $(PYTHON) -m venv .venv-bench
	$(BENCH)/python -m pip install --quiet --editable '.[bench]'
	touch $@

clean:
	rm -rf .venv .venv-bench .gpu-site build dist site .cache *.egg-info
