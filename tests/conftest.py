"""Configure all tests: mark the tests that `make test-fast` leaves out, and define fixtures for many test modules.

The bundled sample and the corpora built from it are made once for all processes of a test run. Tests change only copies
of them.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
# Otherwise every process would compile all modules again, and pytest would rewrite the assertions of all tests again.
sys.dont_write_bytecode = False
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH", "")]))  # for Beam's workers

# These environment variables of a user would colour and wrap the output that tests read.
_TERMINALS = ("FORCE_COLOR", "PYTHON_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "COLUMNS", "PYTHONIOENCODING")
for _name in _TERMINALS:
    os.environ.pop(_name, None)

# There is no time limit for an example or for the generation of examples, because a machine may be slow or busy. If the
# environment variable CI is set, each run has the same examples, so that only a change of the code can change the
# result. Otherwise each run has new examples.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("any machine")
settings.register_profile("quick", settings.get_profile("any machine"))  # `make test-fast`: a fifth of the examples

# Modules whose tests build corpora, run jobs on several workers, or train on several ranks. They take most of the time.
CORPUS_MODULES = {
    "test_append", "test_benchmark_clusters", "test_benchmark_sources", "test_c4_books_built", "test_ccnet",
    "test_checkpoint", "test_cli", "test_cluster_size", "test_cluster_steps", "test_containment", "test_diff",
    "test_duplicates", "test_duplicates_at_scale", "test_extend_docs", "test_filter_lists", "test_fingerprint",
    "test_generations", "test_github_corpus", "test_join", "test_kills", "test_launch", "test_llama_sample",
    "test_neardup", "test_object_stores", "test_pipeline", "test_plan_corpus", "test_quarantine",
    "test_real_archives", "test_recall", "test_reference_positives", "test_remove", "test_report", "test_sample",
    "test_samples", "test_samples_anywhere", "test_samples_ccnet", "test_setup", "test_statistics",
    "test_storage_faults", "test_task", "test_trainer_run", "test_trainer_spikes", "test_verify",
    "test_worker_faults",
}  # fmt: skip
CORPUS_FIXTURES = {"demo_corpus", "demo_without_dropped", "first_corpus", "llama_corpus"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out, and run their modules first.

    Each process runs one module after the other. If the short modules come last, all processes end at about the same
    time.
    """
    for item in items:
        if settings.get_current_profile_name() == "quick" and hasattr(item, "obj"):
            _draw_fewer_examples(item.obj)
        if item.path.stem in CORPUS_MODULES or CORPUS_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.corpus)
    long = {item.path for item in items if item.get_closest_marker("corpus")}
    items.sort(key=lambda item: item.path not in long)


def _draw_fewer_examples(test: Any) -> None:
    """Reduce the number of examples of a property test to a fifth. Hypothesis has no option that limits all tests."""
    given = getattr(test, "_hypothesis_internal_use_settings", None)
    if given is not None:
        test._hypothesis_internal_use_settings = settings(given, max_examples=max(10, given.max_examples // 5))


def pytest_runtest_setup() -> None:
    """Patch Beam to be faster if a test has imported it. Importing Beam here would cost other tests a second."""
    if "apache_beam.transforms.userstate" in sys.modules:
        import quick_beam  # noqa: F401


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of the test run share. With xdist, it is beside the processes' own folders."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


def _unchanged(folder: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Make a folder unless another process has made it, and yield it. At the end, fail if a test has changed a file."""
    from corpus import file_times, make_once

    before = file_times(make_once(folder, make))
    yield folder
    assert file_times(folder) == before, f"a test has changed {folder}, which other tests read"


@pytest.fixture(scope="session")
def sample(shared_folder: Path) -> Iterator[Path]:
    """Yield the folder of the small bundled sample."""
    from corpus import make_sample

    yield from _unchanged(shared_folder / "sample", make_sample)


@pytest.fixture(scope="session")
def demo_corpus(shared_folder: Path, sample: Path) -> Iterator[Path]:
    """Yield a corpus of the demo's recipe and the sample. The texts of three dropped documents per reason are kept."""

    def make(folder: Path) -> None:
        from corpus import build, demo_recipe
        from executed import covered_by_versions

        with covered_by_versions():
            build(demo_recipe(sample), folder, keep_dropped=3)

    yield from _unchanged(shared_folder / "demo", make)


@pytest.fixture(scope="session")
def demo_without_dropped(shared_folder: Path, sample: Path) -> Iterator[Path]:
    """Yield the same corpus from a run that kept no texts of dropped documents."""
    from corpus import build, demo_recipe

    yield from _unchanged(shared_folder / "demo-without-dropped", lambda folder: build(demo_recipe(sample), folder))


@pytest.fixture(scope="session")
def first_corpus(shared_folder: Path, sample: Path) -> Iterator[Path]:
    """Yield a small corpus of two sources. The texts of two dropped documents per reason are kept."""
    from corpus import build, first_recipe

    recipe = first_recipe(sample)
    yield from _unchanged(shared_folder / "first", lambda folder: build(recipe, folder, keep_dropped=2))
