# `make demo` finds faces in the pictures of examples/; `make test` runs the whole test suite.
PYTHON ?= python3
VENV ?= .venv
FUZZ_SECONDS ?= 60
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow test-gpu lint types fuzz clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps keep a second call from installing again until the declared dependencies change.
$(VENV)/detect.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

# insightface is installed without its dependencies: it asks for opencv-python, whose files would overwrite
# those of opencv-python-headless. What it really needs is in the extra `test`.
$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[all,test,lint]'
	$(PIP) --no-deps 'insightface>=2.1,<3'
	touch $@

demo: $(VENV)/detect.stamp
	$(BIN)/scrfd detect examples/astronaut.jpg examples/solvay_1927.jpg --json - --save-dir demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --numprocesses auto

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

fuzz: $(VENV)/test.stamp
	$(BIN)/python tests/fuzz/fuzz_bytes.py -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 tests/fuzz/corpus

clean:
	rm -rf $(VENV) demo build dist
