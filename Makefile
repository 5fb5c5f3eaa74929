# The commands for newcomers. `make demo` and `make test` need only Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
DEMO   ?= build/demo
PEERS  := build/peers
PEERST := build/peers-trainer
# At most four test processes, which take whole test files in the order of tests/conftest.py.
SHARED := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo ablation test test-fast test-matrix lint bench peers peers-trainer prism lmplz clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt .ci/setup_venv.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Teratoken needs Python 3.11 or newer, and $(PYTHON) is %d.%d: give another, as in make PYTHON=python3.12 setup" % sys.version_info[:2])'
	@$(PYTHON) .ci/setup_venv.py $(VENV)
	@touch $@

demo: setup
	$(PY) samples/demo.py $(DEMO)

# Compare recipes on small models: one with a planted fault, and one without a real difference (docs/ablation.md).
ablation: setup
	$(PY) samples/ablation.py

test: setup
	$(PY) -m pytest $(SHARED)

# Only the tests that build no corpus, with a fifth of the random examples.
test-fast: setup
	$(PY) -m pytest $(SHARED) --hypothesis-profile quick -m 'not corpus and not slow and not gpu and not cluster'

# Run setup, demo and tests on every installed Python from 3.11 on, each in its own clone.
test-matrix:
	$(PYTHON) .ci/matrix.py

lint: setup
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: setup
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(PY) -m benchmarks all

# datatrove, with which `python -m benchmarks crawl` compares. It needs other package versions, so it has its own environment.
peers: $(PEERS)/.ready

$(PEERS)/.ready: benchmarks/peers-constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers-constraints.txt
	touch $@

# mosaicml-streaming, with which `python -m benchmarks loader` compares. It needs other package versions, so it has its own
# environment; torch, numpy and other common packages are those of $(VENV).
peers-trainer: setup $(PEERST)/.ready

$(PEERST)/.ready: benchmarks/peers-trainer-constraints.txt
	test -x $(PEERST)/bin/python || $(PYTHON) -m venv $(PEERST)
	$(PEERST)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers-trainer-constraints.txt
	$(PEERST)/bin/python -c 'import pathlib, subprocess, sysconfig; \
	  ours = subprocess.check_output(["$(PY)", "-c", "import sysconfig; print(sysconfig.get_path(\"purelib\"))"], text=True); \
	  pathlib.Path(sysconfig.get_path("purelib"), "ours.pth").write_text(ours)'
	touch $@

# Prism, Beam's runner in Go, for `--engine portable`, in the version of Beam's Python package.
prism: build/bin/prism

build/bin/prism: | setup
	@command -v go >/dev/null || { echo "make prism needs Go: see https://go.dev/dl" >&2; exit 1; }
	@version=$$($(PY) -c 'from importlib.metadata import version; print(version("apache-beam"))'); \
	  GOBIN=$(CURDIR)/build/bin go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$$version
	@echo "built $@: start it with --job_port=8073"

# kenlm's estimator, for recipes with `estimator: lmplz` and for tests of our own estimator. It needs Boost's headers.
KENLM := 0.3.0
BOOST := libboost-program-options-dev libboost-system-dev libboost-thread-dev libboost-test-dev

lmplz: build/lmplz/bin/lmplz

build/lmplz/bin/lmplz:
	@for program in cmake c++ make; do command -v $$program >/dev/null \
	  || { echo "make lmplz needs $$program: on Debian, apt-get install cmake g++ make $(BOOST)" >&2; exit 1; }; done
	@printf '#include <boost/%s.hpp>\n' program_options system/error_code thread test/unit_test \
	  | c++ -E -x c++ - >/dev/null 2>&1 \
	  || { echo "make lmplz needs Boost's headers: on Debian, apt-get install $(BOOST) zlib1g-dev" >&2; exit 1; }
	mkdir -p build/kenlm build/lmplz
	$(PYTHON) -m pip download -q --disable-pip-version-check --no-deps --no-binary kenlm -d build/kenlm kenlm==$(KENLM)
	tar -xzf build/kenlm/kenlm-$(KENLM).tar.gz -C build/kenlm --strip-components 1
	cmake -S build/kenlm -B build/lmplz -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-w >build/lmplz/cmake.log
	nice $(MAKE) -j1 -C build/lmplz lmplz build_binary >build/lmplz/make.log

clean:
	rm -rf build $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache
