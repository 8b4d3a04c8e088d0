# `make demo` finds faces in the pictures of examples/; `make test` runs the whole test suite.
PYTHON ?= python3
VENV ?= .venv
FUZZ_SECONDS ?= 60
TRITON_VENV ?= .venv-triton
TRITON_PYTHON ?= /usr/bin/python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow test-gpu test-triton lint types fuzz clean

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

# The tritonserver inside nvidia-pytriton loads the library of a Python that a Linux distribution built, and no other. Its
# own dependencies are for its interface in Python, which is not used; it cannot work with numpy 2, nor opencv with the
# version in constraints.txt without it.
$(TRITON_VENV)/server.stamp: pyproject.toml
	$(TRITON_PYTHON) -c 'import ctypes, ensurepip, sys; ctypes.CDLL("libpython%d.%d.so.1.0" % sys.version_info[:2])' \
	  || (apt-get update && apt-get install --yes python3-venv "lib$$(basename $$(realpath $(TRITON_PYTHON)))")
	$(TRITON_PYTHON) -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'numpy<2' --editable .
	$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps nvidia-pytriton==0.7.0
	touch $@

test-triton: $(VENV)/test.stamp $(TRITON_VENV)/server.stamp
	TRITON_VENV=$(TRITON_VENV) $(BIN)/python -m pytest -m triton tests/triton

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

fuzz: $(VENV)/test.stamp
	$(BIN)/python tests/fuzz/fuzz_bytes.py -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 tests/fuzz/corpus

clean:
	rm -rf $(VENV) $(TRITON_VENV) demo build dist
