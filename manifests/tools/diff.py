"""`diff`: the differences of two corpora in documents, ledger, recipe, models, code and inputs.

Documents are compared by id, range by range of the two sorted indexes, so that memory does not grow with the corpora.
Shards are read only to count the tokens of documents that are in only one corpus.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manifests.display import number_table, safe_line, shorten
from manifests.index import Index, Part
from manifests.ledger import STAGES, tally_from
from manifests.manifest import Manifest
from manifests.tools.corpus import CorpusReader

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

UNITS = ("documents", "tokens")
SHOWN = 40  # Maximum number of differences printed for each of recipe, models, code and inputs.
SHOWN_CHARACTERS = 80  # Maximum number of characters printed of a value.
ENTRIES_AT_ONCE = 1 << 18  # Number of entries of each index file in memory at a time.

Count = dict[str, int]  # Dict from each of `UNITS` to a number.


@dataclass(slots=True)
class Difference:
    """The differences between corpus A and corpus B.

    Attributes:
        a: manifest_sha of A.
        b: manifest_sha of B.
        parent: a sentence on how one corpus was made from the other; empty if it was not.
        documents: {source: {"both": …, "only_a": …, "only_b": …}} with counts of documents and tokens. `both` has the
            tokens in B as `tokens`, and the tokens in A as `tokens_a`.
        ledger: [stage, source, reason, records in A, records in B] of each difference.
        recipe: {dotted key: [value in A, value in B]}, with None for a missing value; likewise for `models`, `code` and
            `other`.
        inputs: {source: {"gone": names, "added": names}}.
    """

    a: str
    b: str
    parent: str
    documents: dict[str, dict[str, Count]]
    ledger: list[list[Any]] = field(default_factory=list)
    recipe: dict[str, list[Any]] = field(default_factory=dict)
    models: dict[str, list[Any]] = field(default_factory=dict)
    code: dict[str, list[Any]] = field(default_factory=dict)
    other: dict[str, list[Any]] = field(default_factory=dict)
    inputs: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Return True if both corpora have the same manifest hash, which covers the whole corpus."""
        return self.a == self.b

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "equal": self.equal}

    def parts(self) -> "Iterator[RenderableType]":
        """Yield tables and lines for display."""
        yield f"A {self.a}\nB {self.b}"
        if self.equal:
            yield "the same corpus"
            return
        yield self.parent or "neither names the other as its parent"
        yield self._document_table()
        if self.ledger:
            yield self._ledger_table()
        for title in ("recipe", "models", "code", "other"):
            pairs = getattr(self, title).items()
            lines = [
                f"{title:<8} {key}: {_format_value(here)} -> {_format_value(there)}" for key, (here, there) in pairs
            ]
            yield from _first_lines(lines, title)
        for source, names in self.inputs.items():
            for change, files in names.items():
                lines = [f"input {change:<6} {source}: {file}" for file in files]
                yield from _first_lines(lines, f"inputs {change} of {source}")

    def _ledger_table(self) -> "Table":
        table = number_table("Records dropped", "stage")
        for heading in ("source", "reason"):
            table.add_column(heading)
        for heading in ("A", "B", "change"):
            table.add_column(heading, justify="right")
        for stage, source, reason, before, after in self.ledger:
            numbers = (f"{before:,}", f"{after:,}", f"{after - before:+,}")
            table.add_row(stage, source, reason or "(records in)", *numbers)
        return table

    def _document_table(self) -> "Table":
        columns = ("in both", "tokens", "only in A", "tokens", "only in B", "tokens")
        table = number_table("Documents and tokens", "source", *columns)
        for source, counts in self.documents.items():
            cells = [f"{counts[side][unit]:,}" for side in ("both", "only_a", "only_b") for unit in UNITS]
            if counts["both"]["tokens"] != counts["both"]["tokens_a"]:
                cells[1] = f"{counts['both']['tokens_a']:,} -> {cells[1]}"
            table.add_row(source, *cells)
        return table


def diff(a: Path, b: Path) -> Difference:
    """Return the differences between two corpora.

    Raises:
        UserError: a corpus has no manifest or no index.
    """
    readers = CorpusReader(a), CorpusReader(b)
    before, after = (reader.manifest for reader in readers)
    if before.manifest_sha == after.manifest_sha:
        return Difference(before.manifest_sha, after.manifest_sha, "", _compare_documents(before, after, {}, {}))
    only_a, only_b = compare_indexes(readers[0].index, readers[1].index)
    return Difference(
        a=before.manifest_sha,
        b=after.manifest_sha,
        parent=_describe_descent(before, after),
        documents=_compare_documents(before, after, only_a, only_b),
        ledger=list(_compare_ledgers(before, after)),
        recipe=_compare_values(_without_inputs(before.recipe), _without_inputs(after.recipe)),
        models=_compare_values(_list_models(before), _list_models(after)),
        code=_compare_values(before.code, after.code),
        other=_compare_values(_list_others(before), _list_others(after)),
        inputs=_compare_inputs(before, after),
    )


def compare_indexes(a: Index, b: Index) -> tuple[dict[str, Count], dict[str, Count]]:
    """Count the documents, and their tokens, that only one of two corpora contains.

    Two documents are considered equal if the first 64 bits of their ids are equal. The indexes are compared by ranges
    of keys with at most `ENTRIES_AT_ONCE` entries per index file, so memory does not grow with the corpora.

    Returns:
        The counts by shard of the documents that only `a` contains, and of those that only `b` contains.

    Raises:
        UserError: an index file or a shard cannot be read.
    """
    indexes = (a, b)
    found: tuple[dict[str, Count], dict[str, Count]] = ({}, {})
    starts = [part.keys[::ENTRIES_AT_ONCE] for index in indexes for part in index.parts("ids")]
    bounds = np.unique(np.concatenate([np.empty(0, np.uint64), *starts])).tolist()
    for low, high in itertools.pairwise([*bounds, 1 << 64]):
        pieces = [
            [(part, part.find_range(low, high - 1)) for part in index.parts("ids", low, high - 1)] for index in indexes
        ]
        keys = [np.concatenate([np.empty(0, np.uint64), *(p.keys[place] for p, place in side)]) for side in pieces]
        for index, side, theirs, counts in zip(indexes, pieces, reversed(keys), found, strict=True):
            for part, place in side:
                alone = np.flatnonzero(~np.isin(part.keys[place], theirs, kind="sort")) + place.start
                _count_entries(index, part, alone, counts)
    return found


def _count_entries(index: Index, part: Part, entries: npt.NDArray[np.int64], counts: dict[str, Count]) -> None:
    """Add the documents of some entries of an index file, and their tokens, to the counts by shard."""
    for number in np.unique(part.shards[entries]).tolist():
        rows = part.rows[entries[part.shards[entries] == number]].astype(np.int64)
        count = counts.setdefault(part.paths[number], dict.fromkeys(UNITS, 0))
        count["documents"] += len(rows)
        count["tokens"] += index.shard(part.paths[number]).count_tokens(rows)


def _compare_documents(
    before: Manifest, after: Manifest, only_a: Mapping[str, Count], only_b: Mapping[str, Count]
) -> dict[str, dict[str, Count]]:
    found = {}
    for source in sorted({*before.sources, *after.sources}):
        alone_a, alone_b = (
            {unit: sum(count[unit] for path, count in only.items() if path.startswith(f"{source}/")) for unit in UNITS}
            for only in (only_a, only_b)
        )
        here, there = (_sum_shards(manifest, source) for manifest in (before, after))
        both = {unit: there[unit] - alone_b[unit] for unit in UNITS} | {"tokens_a": here["tokens"] - alone_a["tokens"]}
        found[source] = {"both": both, "only_a": alone_a, "only_b": alone_b}
    return found


def _sum_shards(manifest: Manifest, source: str) -> Count:
    shards = manifest.sources[source].shards() if source in manifest.sources else []
    return {unit: sum(getattr(shard, unit) for shard in shards) for unit in UNITS}


def _compare_ledgers(before: Manifest, after: Manifest) -> Iterator[list[Any]]:
    """Yield a row for each reason whose number of dropped records differs.

    A row with an empty reason contains the numbers of records at the input of the stage.
    """
    for stage in STAGES:
        for source in sorted({*before.sources, *after.sources}):
            counts = [_count_records(manifest, stage, source) for manifest in (before, after)]
            for reason in sorted({*counts[0], *counts[1]}):
                if counts[0][reason] != counts[1][reason]:
                    yield [stage, source, reason, counts[0][reason], counts[1][reason]]


def _count_records(manifest: Manifest, stage: str, source: str) -> Counter[str]:
    plain = manifest.ledger.get(stage, {}).get(source)
    if plain is None:
        return Counter()
    tally = tally_from(plain)
    return Counter({"": tally.entered["records"]} | {reason: u["records"] for reason, u in tally.dropped.items()})


def _compare_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Compare two nested mappings.

    Returns:
        {dotted key: [value in a, value in b]} for each key whose values differ, with None for a missing value.
    """
    found: dict[str, list[Any]] = {}
    for key in sorted({*a, *b}):
        here, there = a.get(key), b.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in _compare_values(here, there).items()}
        elif here != there:
            found[key] = [here, there]
    return found


def _without_inputs(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without inputs, and with filters in a form that can be compared by key.

    The list of filters of each source becomes a dict from rule to settings, with the order of the rules under `order`.
    """
    sources = {}
    for name, plain in recipe["sources"].items():
        filters: dict[str, Any] = {"order": []}
        for entry in plain.get("filters", ()):
            for rule, settings in entry.items():
                label = f"{rule}{filters['order'].count(rule) + 1}" if rule in filters else rule
                filters["order"].append(rule)
                filters[label] = settings
        sources[name] = {**{key: value for key, value in plain.items() if key != "inputs"}, "filters": filters}
    return {**recipe, "sources": sources}


def _compare_inputs(before: Manifest, after: Manifest) -> dict[str, dict[str, list[str]]]:
    found = {}
    for source in sorted({*before.recipe["sources"], *after.recipe["sources"]}):
        here, there = before.input_names(source), after.input_names(source)
        changes = {"gone": sorted(here - there), "added": sorted(there - here)}
        if here != there:
            found[source] = {change: files for change, files in changes.items() if files}
    return found


def _list_models(manifest: Manifest) -> dict[str, Any]:
    given = {name: model.sha256 for name, model in manifest.models.items()}
    return given | {f"tokenizer.{key}": value for key, value in manifest.tokenizer.model_dump().items()}


def _list_others(manifest: Manifest) -> dict[str, Any]:
    plain = {name: getattr(manifest, name) for name in ("seed", "goal_tokens", "signatures")}
    return {"generations": len(manifest.generations), **plain}


def _describe_descent(before: Manifest, after: Manifest) -> str:
    for child, parent, names in ((after, before, "AB"), (before, after, "BA")):
        if child.parent and child.parent == parent.manifest_sha:
            removal = child.removal
            how = f"by removing what the list {removal.list_sha256} names" if removal else "by appending to it"
            return f"{names[1]} was made from {names[0]} {how}"
    return ""


def _first_lines(lines: list[str], title: str) -> Iterator[str]:
    yield from map(safe_line, lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"… and {len(lines) - SHOWN:,} more {title}"


def _format_value(value: Any) -> str:
    return "none" if value is None else shorten(str(value), SHOWN_CHARACTERS)
