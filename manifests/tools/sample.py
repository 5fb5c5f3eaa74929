"""`sample`: documents to look at, drawn by keyed hash: of the shards, decoded, or of what was dropped, by reason."""

import heapq
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sentencepiece

from filters.errors import UserError
from filters.reasons import DEAD_LETTERS, Reason
from manifests.display import safe, safe_line, shorten
from manifests.document import order_key
from manifests.files import canonical_json
from manifests.manifest import Manifest, ShardEntry, generation_folder, generation_of, load_manifest
from manifests.tools.duplicates import duplicates
from manifests.tools.signals import Signals
from manifests.tools.trace import find_shard

MOST_DRAWN = 20_000
"""documents that are looked at for a language or score, so that a rare one does not read the whole corpus"""
SCORES = {"reference": "reference_score", "language": "language_score", "perplexity": "perplexity"}
BY_DUPLICATES = (Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE, Reason.CONTAINED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to draw. `score`: (column of `clean/`, lowest, highest), both inclusive; `reason`: of what was dropped
    instead of what stayed; `side`: "train", "validation" or empty for both."""

    number: int = 5
    seed: int = 0
    source: str = ""
    language: str = ""
    side: str = ""
    reason: str = ""
    score: tuple[str, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One document or dead letter: plain values, and its text, None where only its place is kept."""

    facts: dict[str, Any]
    text: str | None

    def as_dict(self, characters: int) -> dict[str, Any]:
        """Plain values; the text as it is, but cut."""
        return self.facts | (
            {} if self.text is None else {"text": self.text[:characters], "characters": len(self.text)}
        )

    def lines(self, characters: int) -> Iterator[str]:
        """For people, whatever the text holds."""
        for name, value in self.facts.items():
            if value not in (None, ""):
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                yield f"{name:<16}{safe_line(shown)}"
        if self.text is not None:
            yield ""
            yield from safe(shorten(self.text, characters)).split("\n")


@dataclass(slots=True)
class Sample:
    """What was drawn, and a sentence on what to know of it, empty if nothing."""

    drawn: list[Drawn]
    note: str = ""


def sample(corpus: Path, wanted: Wanted) -> Sample:
    """Draw documents. The same corpus, wish and seed always give the same. Raises UserError for a source, reason or
    signal that the corpus does not have."""
    manifest = load_manifest(corpus)
    if wanted.source and wanted.source not in manifest.sources:
        raise UserError(f"{corpus} has no source {wanted.source!r}: it has {', '.join(sorted(manifest.sources))}")
    if not wanted.reason:
        return _kept(corpus, manifest, wanted)
    if wanted.language or wanted.score or wanted.side:
        raise UserError("--reason is of what was dropped: leave out --language, --score and --side")
    try:
        reason = Reason(wanted.reason)
    except ValueError as error:
        raise UserError(f"{wanted.reason!r} is no reason: see filters/reasons.py for the catalogue") from error
    dropped = _dropped_by(manifest, reason, wanted.source)
    if not dropped:
        raise UserError(f"the ledger of {corpus} has nothing dropped as {reason}: `show` lists the reasons it has")
    folders = _folders(corpus, manifest)
    if reason in DEAD_LETTERS:
        return _letters(folders, wanted, dropped)
    if reason in BY_DUPLICATES:
        return _duplicates(folders, wanted, dropped)
    return _dropped(folders, wanted, dropped)


def parse_score(text: str) -> tuple[str, float, float]:
    """What `--score [NAME=]LOW:HIGH` asks for; either bound may be left out. Raises UserError."""
    name, _, bounds = text.rpartition("=")
    low, colon, high = bounds.partition(":")
    try:
        values = float(low or "-inf"), float(high or "inf")
    except ValueError:
        values = (1.0, 0.0)
    if name not in ("", *SCORES) or not colon or not values[0] <= values[1]:
        raise UserError(f"--score {text}: give [NAME=]LOW:HIGH, where NAME is one of {', '.join(SCORES)}")
    return SCORES[name or "reference"], *values


def _kept(corpus: Path, manifest: Manifest, wanted: Wanted) -> Sample:
    shards = [
        (side, shard)
        for name, source in sorted(manifest.sources.items())
        for side in ("train", "validation")
        for shard in getattr(source, side)
        if shard.documents and wanted.source in ("", name) and wanted.side in ("", side)
    ]
    signals = [Signals(folder) for folder in _folders(corpus, manifest)]
    filtered, there = bool(wanted.language or wanted.score), any(one.there() for one in signals)
    if filtered and not there:
        raise UserError(f"{corpus} has no clean/, where languages and scores stand: leave out --language and --score")
    model = open_tokenizer(corpus, manifest)
    drawn: list[Drawn] = []
    looked = 0
    for side, entry, row in _rows(shards, wanted.seed, MOST_DRAWN if filtered else wanted.number):
        looked += 1
        shard = find_shard(corpus, entry.path)
        columns = shard.row(row)
        held = signals[generation_of(entry.path)]
        found = held.of(columns["source"], columns["file"], columns["offset"], columns["document"])
        if not _meets(found, wanted):
            continue
        start, end = int(shard.offsets[row]), int(shard.offsets[row + 1])
        facts = {
            "document": columns["document"].hex(),
            "source": columns["source"],
            "url": columns["url"],
            "side": side,
            "shard": entry.path,
            "row": row,
            "token": start,
            "tokens": end - start,
            **found,
        }
        drawn.append(Drawn(facts, model.decode(shard.tokens[start:end].tolist())))
        if len(drawn) == wanted.number:
            break
    note = "" if there else "this corpus has no clean/: languages and scores are not known"
    if filtered and len(drawn) < wanted.number:
        note = f"of {looked:,} documents drawn, {len(drawn):,} are as asked"
        note += (
            ", and there are more that were not looked at"
            if looked < sum(entry.documents for _, entry in shards)
            else ""
        )
    elif not drawn:
        note = "there is no such document in the shards"
    return Sample(drawn, note)


def _rows(shards: list[tuple[str, ShardEntry]], seed: int, most: int) -> Iterator[tuple[str, ShardEntry, int]]:
    """Up to `most` different documents, each as likely as any: (side, shard, row). A shard is picked by its documents,
    then the row, so that no shard is read to draw from it."""
    ends = np.cumsum([shard.documents for _, shard in shards])
    count = int(ends[-1]) if len(ends) else 0
    if count <= 4 * most:
        numbers = range(count)
        order: Iterator[int] = iter(sorted(numbers, key=lambda n: order_key(seed, "sample row", n.to_bytes(8, "big"))))
    else:
        keys = (order_key(seed, "sample draw", n.to_bytes(8, "big")) for n in itertools.count())
        order = _once(key * count >> 64 for key in keys)
    for number in itertools.islice(order, most):
        place = int(np.searchsorted(ends, number, side="right"))
        side, shard = shards[place]
        yield side, shard, number - int(ends[place]) + shard.documents


def _once(numbers: Iterator[int]) -> Iterator[int]:
    seen: set[int] = set()
    for number in numbers:
        if number not in seen:
            seen.add(number)
            yield number


def _meets(found: dict[str, Any], wanted: Wanted) -> bool:
    if wanted.language and found.get("language") != wanted.language:
        return False
    if wanted.score is None:
        return True
    name, low, high = wanted.score
    return name in found and low <= found[name] <= high


def _dropped(folders: list[Path], wanted: Wanted, dropped: int) -> Sample:
    """Of the documents that the run kept of those it dropped."""
    offered = []
    for source, path in _files(folders, "dropped", wanted.source, "*.parquet"):
        table = pq.read_table(path, columns=["reason", "id"])
        mine = np.flatnonzero(pc.equal(table["reason"], wanted.reason).to_numpy())
        offered += [
            (order_key(wanted.seed, "sample", table["id"][row].as_py()), source, path, row) for row in mine.tolist()
        ]
    if not offered:
        return Sample([], f"{dropped:,} were dropped as {wanted.reason}, and the run kept none: give --keep-dropped N")
    drawn = []
    for _, source, path, row in heapq.nsmallest(wanted.number, offered):
        plain = pq.read_table(path).slice(row, 1).to_pylist()[0]
        facts = {"document": plain["id"].hex(), "source": source}
        facts |= {name: plain[name] for name in ("url", "reason", "file", "offset", "member")}
        drawn.append(Drawn(facts, plain["text"]))
    return Sample(drawn, f"{dropped:,} were dropped as {wanted.reason}, of which the run kept {len(offered):,}")


def _duplicates(folders: list[Path], wanted: Wanted, dropped: int) -> Sample:
    """Of the documents that went for another's sake; their texts are in `clean/`."""
    ids = []
    for folder in folders:
        for path in sorted((folder / "duplicates").rglob("*.parquet")):
            table = pq.read_table(path, columns=["removed", "reason"])
            mine = table.filter(pc.equal(table["reason"], wanted.reason))["removed"].to_pylist()
            ids += [(order_key(wanted.seed, "sample", identity), identity.hex(), folder) for identity in mine]
    if not any((folder / "clean").is_dir() for folder in folders):
        return Sample([], f"{dropped:,} were dropped as {wanted.reason}, but there is no clean/ with their texts")
    drawn = []
    for _, identity, folder in sorted(ids):
        cluster = duplicates(folder, identity, 1)
        member = next(one for one in cluster.removed if one.id == identity)
        if wanted.source in ("", member.source):
            drawn.append(
                Drawn({**member.as_dict(), "kept": cluster.kept.id, "kept_url": cluster.kept.url}, member.text)
            )
        if len(drawn) == wanted.number:
            break
    return Sample(drawn, f"{dropped:,} were dropped as {wanted.reason}")


def _letters(folders: list[Path], wanted: Wanted, dropped: int) -> Sample:
    """Of the dead letters: where a record lies that could not be read, and why."""

    def offered() -> Iterator[tuple[int, str, dict[str, Any]]]:
        for source, path in _files(folders, "deadletters", wanted.source, "*.jsonl"):
            with path.open("rb") as file:
                for line in file:
                    letter = json.loads(line)
                    if letter["reason"] == wanted.reason:
                        yield order_key(wanted.seed, "sample", source.encode() + line), source, letter

    first = heapq.nsmallest(wanted.number, offered(), key=lambda one: (one[0], one[1], canonical_json(one[2])))
    note = f"{dropped:,} were dropped as {wanted.reason}"
    return Sample([Drawn({"source": source, **letter}, None) for _, source, letter in first], note)


def _dropped_by(manifest: Manifest, reason: Reason, source: str) -> int:
    """How many records the ledger has dropped for a reason."""
    return sum(
        tally["dropped"].get(reason.value, {}).get("records", 0)
        for tallies in manifest.ledger.values()
        for name, tally in tallies.items()
        if source in ("", name)
    )


def _folders(corpus: Path, manifest: Manifest) -> list[Path]:
    """The folders that the first run and every appended dump left their files in."""
    return [generation_folder(corpus, number) for number in range(len(manifest.generations) + 1)]


def _files(folders: list[Path], kind: str, source: str, pattern: str) -> list[tuple[str, Path]]:
    """(source, file) of every file of a kind, by name."""
    found = [(folder / kind, path) for folder in folders for path in sorted((folder / kind / source).rglob(pattern))]
    return [(path.relative_to(root).parts[0], path) for root, path in found]


def open_tokenizer(corpus: Path, manifest: Manifest) -> sentencepiece.SentencePieceProcessor:
    """The corpus's tokenizer. Raises UserError for one that cannot be read or is another."""
    path = corpus / "models/tokenizer.model"
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is no tokenizer: run `python -m manifests verify {corpus}`") from error
    if model.get_piece_size() != manifest.tokenizer.vocabulary:
        raise UserError(f"{path} is not the manifest's: run `python -m manifests verify {corpus}`")
    return model
