# Every command a newcomer needs. `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
DEMO   ?= build/demo
PEERS  := build/peers
PEERST := build/peers-trainer
# One process per core, and module after module in the order of tests/conftest.py.
SHARED := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo ablation test test-fast test-matrix lint bench peers peers-trainer prism lmplz clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt .ci/setup_venv.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Teratoken needs Python 3.11 or newer, and $(PYTHON) is %d.%d: give another, as in make PYTHON=python3.12 setup" % sys.version_info[:2])'
	@$(PYTHON) .ci/setup_venv.py $(VENV)
	@touch $@

demo: setup
	$(PY) samples/demo.py $(DEMO)

# Two comparisons of recipes on small models: a planted fault, and a difference that does not matter (docs/ablation.md).
ablation: setup
	$(PY) samples/ablation.py

test: setup
	$(PY) -m pytest $(SHARED)

# The tests that build no corpus, with a fifth of the random examples.
test-fast: setup
	$(PY) -m pytest $(SHARED) --hypothesis-profile quick -m 'not corpus and not slow and not gpu and not cluster'

# Set-up, demo and tests on every interpreter from 3.11 on that is found here, each in a clone of its own.
test-matrix:
	$(PYTHON) .ci/matrix.py

lint: setup
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: setup
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(PY) -m benchmarks all

# The pipeline that `python -m benchmarks crawl` compares with, in an environment of its own: its pins are not ours.
peers: $(PEERS)/.ready

$(PEERS)/.ready: benchmarks/peers-constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers-constraints.txt
	touch $@

# The loader that `python -m benchmarks loader` compares with. Its pins are not ours either: an environment of its own,
# in which torch, numpy and the like are those of $(VENV).
peers-trainer: setup $(PEERST)/.ready

$(PEERST)/.ready: benchmarks/peers-trainer-constraints.txt
	test -x $(PEERST)/bin/python || $(PYTHON) -m venv $(PEERST)
	$(PEERST)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers-trainer-constraints.txt
	$(PEERST)/bin/python -c 'import pathlib, subprocess, sysconfig; \
	  ours = subprocess.check_output(["$(PY)", "-c", "import sysconfig; print(sysconfig.get_path(\"purelib\"))"], text=True); \
	  pathlib.Path(sysconfig.get_path("purelib"), "ours.pth").write_text(ours)'
	touch $@

# Beam's runner in Go, for `--engine portable`: Beam's own command, built at the version of its Python package.
prism: build/bin/prism

build/bin/prism: | setup
	@command -v go >/dev/null || { echo "make prism needs Go: see https://go.dev/dl" >&2; exit 1; }
	@version=$$($(PY) -c 'from importlib.metadata import version; print(version("apache-beam"))'); \
	  GOBIN=$(CURDIR)/build/bin go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$$version
	@echo "built $@: start it with --job_port=8073"

# kenlm's own estimator, for recipes that say `estimator: lmplz` and to test ours against. It needs Boost's headers.
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
