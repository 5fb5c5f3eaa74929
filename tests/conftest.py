"""Configuration for all tests: marks for the tests that `make test-fast` leaves out."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH", "")]))  # for Beam's workers

# What a user has set for terminals would colour and wrap the output that the tests read.
_TERMINALS = ("FORCE_COLOR", "PYTHON_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "COLUMNS", "PYTHONIOENCODING")
for _name in _TERMINALS:
    os.environ.pop(_name, None)

# An example may take as long as a slow or busy machine needs for it, and so may the drawing of examples.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Modules whose tests build corpora, run jobs on several workers, or train on several ranks: most of the suite's time.
CORPUS_MODULES = {
    "test_append", "test_benchmark_clusters", "test_benchmark_sources", "test_c4_books_built", "test_ccnet",
    "test_checkpoint", "test_cli", "test_cluster_steps", "test_containment", "test_diff", "test_duplicates",
    "test_duplicates_at_scale", "test_filter_lists", "test_fingerprint", "test_generations", "test_github_corpus",
    "test_join", "test_launch", "test_llama_sample", "test_neardup", "test_pipeline", "test_plan_corpus",
    "test_quarantine", "test_real_archives", "test_recall", "test_remove", "test_report", "test_sample", "test_samples",
    "test_samples_anywhere", "test_samples_ccnet", "test_statistics", "test_storage_faults", "test_task",
    "test_trainer_run", "test_trainer_spikes", "test_verify", "test_worker_faults",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out."""
    for item in items:
        if item.path.stem in CORPUS_MODULES:
            item.add_marker(pytest.mark.corpus)
