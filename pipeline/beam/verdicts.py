"""The tasks of a verdict's way: keys go out by hash range, and what is found there comes back to each split."""

from manifests.files import sha256_json
from pipeline.beam.task import Receipt, Task


def found_tasks(step: str, code: str, maps: list[Task]) -> list[Task]:
    """One reducer a hash range. `code`: the version of the stage's code."""
    fingerprint = sha256_json([code, [(task.name, task.fingerprint) for task in maps]])
    return [Task(step, f"{r:05d}", fingerprint) for r in range(maps[0].arguments["ranges"])]


def place_tasks(step: str, code: str, found: dict[str, Receipt]) -> list[Task]:
    """One mapper a range, on the way back."""
    return [
        Task(step, name, sha256_json([code, receipt.sha()]), receipt.outputs[0].bytes)
        for name, receipt in sorted(found.items())
    ]


def verdict_tasks(step: str, maps: list[Task], found: dict[str, Receipt]) -> list[Task]:
    """One reducer a split."""
    shas = [(name, receipt.sha()) for name, receipt in sorted(found.items())]
    return [Task(step, task.name, sha256_json([task.fingerprint, shas]), task.size) for task in maps]
