# make demo, make demo-detection: see it work.  make test: all tests.  make check: lint and types.  Each makes its environment first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-detection test check cards bench clean

demo: .venv/installed
	$(BIN)/python -m zoo.tools.demo

demo-detection: .venv/installed
	$(BIN)/python -m zoo.tools.demo_detection

test: .venv/installed
	$(BIN)/python -m pytest -n auto

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zoo tools

cards: .venv/installed
	$(BIN)/python -m zoo.tools.cards

bench: .venv/installed
	$(BIN)/python benchmarks/loop_overhead.py

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,demo,detection,transformers]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
