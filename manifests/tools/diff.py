"""`diff`: what changed from one corpus to another: documents, the ledger by source and reason, recipe, models, code.

Documents are compared by id, by merging the two sorted indexes piece by piece, so that memory does not grow with the
corpora; tokens are looked up in the shards only for documents that one side alone has.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from manifests.display import safe_line
from manifests.index import open_index
from manifests.ledger import STAGES, tally_from
from manifests.manifest import Manifest, load_manifest
from manifests.tools.merged import Count, only

UNITS = ("documents", "tokens")
SHOWN = 40
"""differences of recipe, models and inputs that are shown"""


@dataclass(slots=True)
class Difference:
    """What differs. `documents`: {source: {both, only_a, only_b}}, each with documents and tokens (of
    `both` those of B, and `tokens_a`).
    `ledger`: [stage, source, reason, records in A, records in B]; `recipe`, `models`, `code`, `other`: {key: [in A, in
    B]}, None where a side has none; `inputs`: {source: {"gone": …, "added": …}}; `parent`: how B descends from A."""

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
        """Whether the two are one corpus: a manifest's hash covers all it holds."""
        return self.a == self.b

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = ("a", "b", "equal", "parent", "documents", "ledger", "recipe", "models", "code", "other", "inputs")
        return {name: getattr(self, name) for name in names}

    def print(self, console: Console) -> None:
        """For people."""
        console.print(f"A {self.a}\nB {self.b}")
        if self.equal:
            console.print("the same corpus")
            return
        console.print(self.parent or "neither names the other as its parent")
        console.print(self._documents())
        if self.ledger:
            table = Table("stage", "source", "reason", title="Records dropped", title_justify="left", box=SIMPLE_HEAD)
            for heading in ("A", "B", "change"):
                table.add_column(heading, justify="right")
            for stage, source, reason, before, after in self.ledger:
                table.add_row(
                    stage, source, reason or "(records in)", f"{before:,}", f"{after:,}", f"{after - before:+,}"
                )
            console.print(table)
        for title in ("recipe", "models", "code", "other"):
            _print_pairs(console, title, getattr(self, title))
        for source, names in self.inputs.items():
            for change, files in names.items():
                for file in files[:SHOWN]:
                    console.print(safe_line(f"input {change:<6} {source}: {file}"), markup=False)
                if len(files) > SHOWN:
                    console.print(f"… and {len(files) - SHOWN:,} more inputs {change} of {source}")

    def _documents(self) -> Table:
        table = Table("source", title="Documents and tokens", title_justify="left", box=SIMPLE_HEAD)
        for heading in ("in both", "tokens", "only in A", "tokens", "only in B", "tokens"):
            table.add_column(heading, justify="right")
        for source, counts in self.documents.items():
            cells = [f"{counts[side][unit]:,}" for side in ("both", "only_a", "only_b") for unit in UNITS]
            if counts["both"]["tokens"] != counts["both"]["tokens_a"]:
                cells[1] = f"{counts['both']['tokens_a']:,} -> {cells[1]}"
            table.add_row(source, *cells)
        return table


def diff(a: Path, b: Path) -> Difference:
    """What changed from corpus `a` to corpus `b`. Raises UserError where either has no manifest or no index."""
    before, after = load_manifest(a), load_manifest(b)
    if before.manifest_sha == after.manifest_sha:
        return Difference(before.manifest_sha, after.manifest_sha, "", _documents(before, after, {}, {}))
    only_a, only_b = only(open_index(a), open_index(b))
    return Difference(
        a=before.manifest_sha,
        b=after.manifest_sha,
        parent=_parent(before, after),
        documents=_documents(before, after, only_a, only_b),
        ledger=list(_ledger(before, after)),
        recipe=_pairs(_without_inputs(before.recipe), _without_inputs(after.recipe)),
        models=_pairs(_models(before), _models(after)),
        code=_pairs(before.code, after.code),
        other=_pairs(_others(before), _others(after)),
        inputs=_inputs(before, after),
    )


def _documents(
    before: Manifest, after: Manifest, only_a: Mapping[str, Count], only_b: Mapping[str, Count]
) -> dict[str, dict[str, Count]]:
    found = {}
    for source in sorted({*before.sources, *after.sources}):
        alone = [_of_source(source, counts) for counts in (only_a, only_b)]
        there, here = _whole(after, source), _whole(before, source)
        both = {unit: there[unit] - alone[1][unit] for unit in there}
        both["tokens_a"] = here["tokens"] - alone[0]["tokens"]
        found[source] = {"both": both, "only_a": alone[0], "only_b": alone[1]}
    return found


def _of_source(source: str, counts: Mapping[str, Count]) -> Count:
    mine = [count for path, count in counts.items() if path.partition("/")[0] == source]
    return {unit: sum(count[unit] for count in mine) for unit in UNITS}


def _whole(manifest: Manifest, source: str) -> Count:
    entry = manifest.sources.get(source)
    shards = [*entry.train, *entry.validation] if entry else []
    return {"documents": sum(shard.documents for shard in shards), "tokens": sum(shard.tokens for shard in shards)}


def _ledger(before: Manifest, after: Manifest) -> Iterator[list[Any]]:
    """Reasons for which another number of records was dropped; the rows without a reason are what came in and out."""
    for stage in STAGES:
        for source in sorted({*before.sources, *after.sources}):
            counts = [_records(manifest, stage, source) for manifest in (before, after)]
            for reason in sorted({*counts[0], *counts[1]}):
                if counts[0][reason] != counts[1][reason]:
                    yield [stage, source, reason, counts[0][reason], counts[1][reason]]


def _records(manifest: Manifest, stage: str, source: str) -> Counter[str]:
    plain = manifest.ledger.get(stage, {}).get(source)
    if plain is None:
        return Counter()
    tally = tally_from(plain)
    dropped = {reason: units["records"] for reason, units in tally.dropped.items()}
    return Counter({"": tally.entered["records"], **dropped})


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Keys under which two nested mappings differ, by their path."""
    found: dict[str, list[Any]] = {}
    for key in sorted({*a, *b}):
        here, there = a.get(key), b.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in _pairs(here, there).items()}
        elif here != there:
            found[key] = [here, there]
    return found


def _without_inputs(recipe: Mapping[str, Any]) -> dict[str, Any]:
    sources = {
        name: {key: value for key, value in source.items() if key != "inputs"}
        for name, source in recipe["sources"].items()
    }
    return {**recipe, "sources": sources}


def _inputs(before: Manifest, after: Manifest) -> dict[str, dict[str, list[str]]]:
    found = {}
    for source in sorted({*before.recipe["sources"], *after.recipe["sources"]}):
        here, there = _input_names(before, source), _input_names(after, source)
        changes = {"gone": sorted(here - there), "added": sorted(there - here)}
        if here != there:
            found[source] = {change: files for change, files in changes.items() if files}
    return found


def _input_names(manifest: Manifest, source: str) -> set[str]:
    """Of the first run and of every dump that was appended."""
    recipes = [manifest.recipe, *(generation.recipe for generation in manifest.generations)]
    return {file for recipe in recipes for file in recipe["sources"].get(source, {"inputs": []})["inputs"]}


def _models(manifest: Manifest) -> dict[str, Any]:
    given = {name: model.sha256 for name, model in manifest.models.items()}
    return {**given, **{f"tokenizer.{key}": value for key, value in manifest.tokenizer.model_dump().items()}}


def _others(manifest: Manifest) -> dict[str, Any]:
    return {
        "generations": len(manifest.generations),
        "seed": manifest.seed,
        "goal_tokens": manifest.goal_tokens,
        "signatures": manifest.signatures,
    }


def _parent(before: Manifest, after: Manifest) -> str:
    for child, parent, names in ((after, before, "AB"), (before, after, "BA")):
        if child.parent and child.parent == parent.manifest_sha:
            removal = child.removal
            how = f"by removing what the list {removal.list_sha256} names" if removal else "by appending to it"
            return f"{names[1]} was made from {names[0]} {how}"
    return ""


def _print_pairs(console: Console, title: str, pairs: Mapping[str, list[Any]]) -> None:
    for key, (here, there) in list(pairs.items())[:SHOWN]:
        console.print(safe_line(f"{title:<8} {key}: {_short(here)} -> {_short(there)}"), markup=False)
    if len(pairs) > SHOWN:
        console.print(f"… and {len(pairs) - SHOWN:,} more of {title}")


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
