"""The data of a report: manifest, ledger, statistics, cards of models, and costs of runs, read from the corpus."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, model_validator

from filters.errors import UserError
from filters.reasons import DEAD_LETTERS
from manifests.ledger import STAGES
from manifests.manifest import Manifest, load_manifest
from manifests.mirror import fetch, fetch_files
from manifests.planning.rates import read_record

CARDS = 24  # Maximum number of cards that are shown.
CARD_BYTES = 256 << 10  # Maximum size of a card. Only the names of larger cards are shown.
RUNS = 200  # Maximum number of run records that are counted.
RUN_BYTES = 256 << 20  # Maximum size of a run record.

Unit = Literal["records", "characters", "tokens"]
FIRST_COUNTED: dict[
    Unit, tuple[str, str]
] = {  # For each unit, the first stage and the side of its tally that count it.
    "records": ("extract", "in"),
    "characters": ("extract", "out"),
    "tokens": ("tokenize", "out"),
}
LAST_STAGE = "tokenize"
STATISTICS = "statistics.json"


# `statistics.json`: distributions of the documents of a corpus, computed by the run. No hash covers this file.


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Bins(_Part):
    """A histogram. `counts[i]` is the number of values from `edges[i]` (inclusive) to `edges[i + 1]` (exclusive)."""

    edges: list[float] = []
    counts: list[NonNegativeInt] = []

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if self.counts and len(self.edges) != len(self.counts) + 1:
            raise ValueError("should have one edge more than counts")
        return self

    def total(self) -> int:
        """Return the number of values."""
        return sum(self.counts)

    def quantile(self, share: float) -> tuple[float, float]:
        """Return the edges of the bin that contains the quantile at `share`; (0, 0) for an empty histogram."""
        wanted = share * self.total()
        for place, reached in enumerate(itertools.accumulate(self.counts)):
            if reached >= wanted and reached > 0:
                return self.edges[place], self.edges[place + 1]
        return 0.0, 0.0


class Names(_Part):
    """The most frequent names.

    Attributes:
        top: (name, count), the most frequent first.
        total: the count of all names.
        error: maximum by which a count may be too low.
    """

    top: list[tuple[str, int]] = []
    total: int = 0
    error: int = 0


class Example(_Part):
    """An example of a dropped document or of a damaged record.

    A document has `id`, `url`, and the beginning of its text as `text`. A damaged record has `file`, `offset`,
    `length`, and a description of the damage as `text`.

    Attributes:
        key: keyed hash. The report shows the examples with the smallest keys.
    """

    key: int
    text: str
    id: str = ""
    url: str = ""
    file: str = ""
    offset: int = 0
    length: int = 0


class SourceStatistics(_Part):
    """The statistics of the documents of one source.

    Attributes:
        documents: number of documents.
        characters: histogram of their lengths in characters.
        tokens: histogram of their lengths in tokens.
        score: histogram of their similarity to cited pages.
        perplexity: histogram of their perplexity, by bucket.
        names: most frequent names by kind: domains, languages, years and licences.
        examples: examples by reason for which they were dropped.
    """

    documents: int
    characters: Bins
    tokens: Bins
    score: Bins
    perplexity: dict[str, Bins]
    names: dict[str, Names]
    examples: dict[str, list[Example]]


class Planted(_Part):
    """The measured recall of canaries at one similarity: `filters.dedup.recall.Level` with its 99 % interval."""

    level: float
    jaccard: float
    expected: float
    found: int
    planted: PositiveInt
    accepted: int
    right: int
    interval: tuple[float, float]


class Bands(_Part):
    """The MinHash bands of some sources, and their recall.

    Attributes:
        sources: names of the sources that use these settings.
        bands: number of bands.
        rows: rows per band.
        threshold: similarity from which on two documents are near-duplicates.
        curve: (similarity, expected share of pairs that become candidates).
        planted: measured recall of canaries.
    """

    sources: list[str]
    bands: int
    rows: int
    threshold: float
    curve: list[tuple[float, float]]
    planted: list[Planted]


class Statistics(_Part):
    """The content of `statistics.json`.

    Attributes:
        manifest_sha: hash of the corpus for which the statistics were computed.
        sources: statistics by source.
        clusters: histogram of the number of documents per cluster.
        bands: one entry for each setting of MinHash bands.
    """

    manifest_sha: str = ""
    sources: dict[str, SourceStatistics] = {}
    clusters: Bins = Bins()
    bands: list[Bands] = []


def load_statistics(corpus: Path) -> Statistics:
    """Read the statistics of a corpus. They are empty if there is no file.

    Raises:
        UserError: The file has other content.
    """
    path = fetch(corpus, STATISTICS)
    if not path.is_file():
        return Statistics()
    try:
        return Statistics.model_validate(json.loads(path.read_bytes()))
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({first}): remove it and give the run again") from error


# Cards of models, costs of runs, and the flow of records through the ledger.


@dataclass
class StepCost:
    """The cost of a step, summed over all runs. `peak_bytes` is the maximum memory of a process."""

    tasks: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    records: float = 0.0
    peak_bytes: float = 0.0

    def add(self, other: "StepCost") -> None:
        """Add the cost of another step or of a task."""
        self.tasks += other.tasks
        self.cpu_seconds += other.cpu_seconds
        self.wall_seconds += other.wall_seconds
        self.records += other.records
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


class ReportData:
    """The files of a corpus that a report shows. Each file is read on first use.

    Args:
        corpus: The folder of the corpus.

    Raises:
        UserError: The folder has no manifest. On first use: a file has the wrong content.
    """

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.manifest = corpus, load_manifest(corpus)

    @cached_property
    def statistics(self) -> Statistics:
        """Return the statistics of the documents."""
        return load_statistics(self.corpus)

    @cached_property
    def cards(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Return a dict from path to card, and the paths of cards that are too many, too large or unreadable."""
        paths = fetch_files(self.corpus, "models", ".card.json")
        read = {path.relative_to(self.corpus).as_posix(): _read_card(path) for path in paths[:CARDS]}
        left_out = [name for name, card in read.items() if card is None]
        left_out += [path.relative_to(self.corpus).as_posix() for path in paths[CARDS:]]
        return {name: card for name, card in read.items() if card is not None}, left_out

    @cached_property
    def costs(self) -> tuple[dict[str, StepCost], int, list[str]]:
        """Return the cost of each step, the number of runs, and the paths of run records that were left out.

        The steps are in the order of the first run.
        """
        files = fetch_files(self.corpus, "runs", ".json")
        paths = [path for path in files if path.parent.name == "runs" and path.name[:1].isdigit()]
        costs: dict[str, StepCost] = {}
        left_out = [f"runs/{path.name}" for path in paths[RUNS:]]
        for path in paths[:RUNS]:
            try:
                if path.stat().st_size > RUN_BYTES:
                    raise UserError(f"{path} is too large")
                run = read_record(path)
            except (OSError, UserError):
                left_out.append(f"runs/{path.name}")
                continue
            for task in run.tasks:
                step = costs.setdefault(task.stage, StepCost())
                step.add(StepCost(1, task.cpu_seconds, 0.0, task.records, task.peak_rss_bytes))
            for job in run.jobs:
                costs.setdefault(job.job, StepCost()).wall_seconds += job.seconds
        return costs, len(paths) - len(left_out), left_out


def _read_card(path: Path) -> dict[str, Any] | None:
    try:
        plain = json.loads(path.read_bytes()) if path.stat().st_size <= CARD_BYTES else None
    except (OSError, ValueError):
        return None
    return plain if isinstance(plain, dict) else None


@dataclass(frozen=True)
class Flow:
    """An amount of a unit that enters, leaves, or arrives under one name.

    Attributes:
        name: name of a source, of a reason, or of a side of a source.
        amount: the amount.
        kind: `source` for records of a source, `dropped` for dropped records, `damaged` for dead letters, `removed` for
            removed parts of kept records, `arrived` for records in shards.
    """

    name: str
    amount: int
    kind: Literal["source", "dropped", "damaged", "removed", "arrived"]

    @property
    def mark(self) -> str:
        """Return the footnote mark for damaged records and removed parts; empty for other kinds."""
        return {"damaged": " †", "removed": " ‡"}.get(self.kind, "")


@dataclass(frozen=True)
class LedgerFlow:
    """The flow of one unit through the ledger. The numbers are exact, so the flow balances if the ledger balances.

    Attributes:
        entered: The amounts that entered, by source.
        stages: (stage, amounts that were lost there by reason) of each stage.
        arrived: The amounts that arrived in shards.
    """

    unit: Unit
    entered: list[Flow]
    stages: list[tuple[str, list[Flow]]]
    arrived: list[Flow]

    @property
    def total(self) -> int:
        """Return the amount that entered."""
        return sum_flows(self.entered)

    @property
    def balance(self) -> int:
        """Return the amount that entered but was neither lost nor arrived. It is 0 if the ledger balances."""
        return self.total - sum(sum_flows(flows) for _, flows in self.stages) - sum_flows(self.arrived)


def sum_flows(flows: Iterable[Flow]) -> int:
    """Return the sum of the amounts."""
    return sum(flow.amount for flow in flows)


def read_flow(manifest: Manifest, unit: Unit) -> LedgerFlow:
    """Return the flow of records (from the dumps), characters (from extraction) or tokens to the shards."""
    first, side = FIRST_COUNTED[unit]
    ledger = manifest.ledger
    entered = [Flow(name, tally[side].get(unit, 0), "source") for name, tally in ledger.get(first, {}).items()]
    counted = STAGES[STAGES.index(first) + (side == "out") :]
    stages = [(stage, _read_losses(ledger.get(stage, {}).values(), unit)) for stage in counted]
    if unit == "characters":
        tallies = ledger.get(LAST_STAGE, {}).items()
        arrived = [Flow(name, tally["out"].get(unit, 0), "arrived") for name, tally in tallies]
    else:
        kind = "documents" if unit == "records" else "tokens"
        arrived = [
            Flow(f"{name}, {side}", sum(getattr(shard, kind) for shard in shards), "arrived")
            for name, entry in manifest.sources.items()
            for side, shards in (("train", entry.train), ("held out", entry.validation))
        ]
    return LedgerFlow(unit, _sort(entered), stages, _sort(arrived))


def fold_flows(flows: list[Flow], limit: int) -> list[Flow]:
    """Return at most `limit` flows: the first ones, which are the largest, and the sum of all others as one flow."""
    if len(flows) <= limit:
        return flows
    rest = flows[limit - 1 :]
    kind = rest[0].kind if len({flow.kind for flow in rest}) == 1 else "dropped"
    return [*flows[: limit - 1], Flow(f"{len(rest):,} others", sum_flows(rest), kind)]


def _read_losses(tallies: Iterable[Any], unit: Unit) -> list[Flow]:
    """Return the amounts that were lost at one stage by reason, summed over all sources."""
    losses: Counter[tuple[str, Literal["dropped", "damaged", "removed"]]] = Counter()
    for tally in tallies:
        for reason, units in tally["dropped"].items():
            losses[reason, "damaged" if reason in DEAD_LETTERS else "dropped"] += units.get(unit, 0)
        for reason, units in tally["removed"].items():
            losses[reason, "removed"] += units.get(unit, 0)
    return _sort(Flow(name, size, kind) for (name, kind), size in losses.items())


def _sort(flows: Iterable[Flow]) -> list[Flow]:
    """Return the nonzero flows, sorted by descending amount, then by name."""
    return sorted((flow for flow in flows if flow.amount), key=lambda flow: (-flow.amount, flow.name))
