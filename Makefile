# make demo, make demo-detection: see it work.  make test: all tests.  make test-numbers: those that compare numbers, with
# the instructions of an old processor.  make check: lint and types.  Each makes its environment first.

PYTHON ?= python3
BIN := .venv/bin
BENCH := .venv-bench/bin

.PHONY: demo demo-detection test test-numbers check cards bench bench-full clean

demo: .venv/installed
	$(BIN)/python -m zoo.tools.demo

demo-detection: .venv/installed
	$(BIN)/python -m zoo.tools.demo_detection

test: .venv/installed
	$(BIN)/python -m pytest -n auto

test-numbers: .venv/installed
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n auto -m numbers

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zoo tools

cards: .venv/installed
	$(BIN)/python -m zoo.tools.cards

bench: .venv-bench/installed
	set -e; for name in startup scaling heads_only yolo_heads full; do $(BENCH)/python benchmarks/$$name.py $(OPTIONS); done

bench-full: OPTIONS = --full
bench-full: bench

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,demo,detection,transformers]'
	touch $@

.venv-bench/installed: pyproject.toml
	test -x $(BENCH)/python || $(PYTHON) -m venv .venv-bench
	$(BENCH)/python -m pip install --quiet --editable '.[bench]'
	touch $@

clean:
	rm -rf .venv .venv-bench build dist *.egg-info
