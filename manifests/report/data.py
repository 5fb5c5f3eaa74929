"""What a report is made of, read from the corpus alone: manifest, statistics, models' cards, times of its runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests.ledger import imbalances
from manifests.manifest import Manifest, load_manifest
from manifests.statistics import Statistics, load_statistics

CARDS = 24
CARD_BYTES = 256 << 10
"""larger cards are named, not shown"""
RUNS = 200
RUN_BYTES = 256 << 20
"""larger records of a run are left out of the times: they do not fit a person's memory, either"""


@dataclass
class Cost:
    """What a step took over all runs: tasks done, seconds of all workers, of their processors, and from start to end;
    stored bytes and records read; the largest memory of a process."""

    tasks: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    bytes: int = 0
    records: int = 0
    peak_bytes: int = 0

    def add(self, other: "Cost") -> None:
        """Add another step's."""
        for name in ("tasks", "seconds", "cpu_seconds", "wall_seconds", "bytes", "records"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


@dataclass(frozen=True)
class Facts:
    """Everything that a report shows. `cards`: (path below the corpus, what it says); `costs`: by step, in the order of
    the first run; `left_out`: what was too large to be read."""

    manifest: Manifest
    statistics: Statistics
    cards: list[tuple[str, dict[str, Any]]]
    costs: dict[str, Cost]
    runs: int
    imbalances: list[str]
    left_out: list[str] = field(default_factory=list)


def gather(corpus: Path) -> Facts:
    """Read a corpus's files. Raises UserError where it has no manifest, or files that are not what they should be."""
    manifest, left_out = load_manifest(corpus), list[str]()
    cards = list(_cards(corpus, left_out))
    costs, runs = _costs(corpus, left_out)
    return Facts(manifest, load_statistics(corpus), cards, costs, runs, imbalances(manifest.ledger), left_out)


def _cards(corpus: Path, left_out: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Models' cards, in the order of their paths."""
    found = sorted((corpus / "models").rglob("*.card.json"))
    for path in found[:CARDS]:
        name = path.relative_to(corpus).as_posix()
        plain = _object(path, CARD_BYTES)
        if plain is None:
            left_out.append(name)
        else:
            yield name, plain
    left_out.extend(path.relative_to(corpus).as_posix() for path in found[CARDS:])


def _costs(corpus: Path, left_out: list[str]) -> tuple[dict[str, Cost], int]:
    """What each step took, over the corpus's runs, and how many these are."""
    costs: dict[str, Cost] = {}
    found = sorted(path for path in (corpus / "runs").glob("*.json") if path.name[:1].isdigit())
    left_out.extend(f"runs/{path.name}" for path in found[RUNS:])
    read = 0
    for path in found[:RUNS]:
        plain = _object(path, RUN_BYTES)
        try:
            _add(costs, plain or {"tasks": None})
            read += 1
        except (KeyError, TypeError, AttributeError):
            left_out.append(f"runs/{path.name}")
    return costs, read


def _add(costs: dict[str, Cost], run: dict[str, Any]) -> None:
    """Add one run's times. Raises KeyError, TypeError or AttributeError for what is no record of a run."""
    for task in run["tasks"]:
        cost = costs.setdefault(task["stage"], Cost())
        cost.tasks += 1
        cost.seconds += task["seconds"]
        cost.cpu_seconds += task["cpu_seconds"]
        cost.bytes += task["bytes"]
        cost.records += task["records"]
        cost.peak_bytes = max(cost.peak_bytes, task["peak_rss_bytes"])
    for job in run["jobs"]:
        costs.setdefault(job["job"], Cost()).wall_seconds += job["seconds"]


def _object(path: Path, most: int) -> dict[str, Any] | None:
    """A JSON object; None for what is too large or no such thing."""
    try:
        if path.stat().st_size > most:
            return None
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return plain if isinstance(plain, dict) else None
