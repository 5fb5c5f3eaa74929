"""`sample`: draw documents by keyed hash, either from the shards or from the records dropped for one reason."""

import heapq
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import UserError
from filters.reasons import DEAD_LETTERS, Reason
from manifests.display import format_quantity, safe, safe_line, shorten
from manifests.document import ID_BYTES, order_key
from manifests.manifest import ShardEntry, generation_of
from manifests.mirror import fetch, fetch_files, list_folder, place_of
from manifests.order import permute
from manifests.tools.corpus import CorpusReader, open_parquet, scan_parquet
from manifests.tools.duplicates import duplicates

# Maximum number of documents that are read to find those of a language or score. Without this limit, a query for a rare
# language would read the whole corpus.
MOST_DRAWN = 20_000
SIGNALS = ("language", "language_score", "perplexity", "bucket", "reference_score")
SCORES = {"reference": "reference_score", "language": "language_score", "perplexity": "perplexity"}
BY_DUPLICATES = (Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE, Reason.CONTAINED)
_PIECE = re.compile(r"@([0-9]{15})\.parquet$")


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """The settings of a sample. An empty string selects all values.

    Attributes:
        number: number of documents to draw.
        seed: seed of the keyed hash.
        source: draw only from this source.
        language: draw only documents in this language.
        side: "train" or "validation".
        reason: draw from the records dropped for this reason, instead of from the shards.
        score: (column of `clean/`, lowest, highest), both inclusive.
    """

    number: int = 5
    seed: int = 0
    source: str = ""
    language: str = ""
    side: str = ""
    reason: str = ""
    score: tuple[str, float, float] | None = None

    def matches(self, signals: dict[str, Any]) -> bool:
        """Return True if the signals of a document match `language` and `score`."""
        if self.language and signals.get("language") != self.language:
            return False
        if self.score is None:
            return True
        name, low, high = self.score
        return name in signals and low <= signals[name] <= high


@dataclass(frozen=True, slots=True)
class SampledDocument:
    """A drawn document or record.

    Attributes:
        facts: plain values to print.
        text: the text; None if only the location of the record is known.
    """

    facts: dict[str, Any]
    text: str | None

    def as_dict(self, characters: int) -> dict[str, Any]:
        """Return plain values, with the first `characters` characters of the text."""
        text = self.text
        return self.facts | ({} if text is None else {"text": text[:characters], "characters": len(text)})

    def lines(self, characters: int) -> Iterator[str]:
        """Yield lines for display, escaped for the terminal."""
        for name, value in self.facts.items():
            if value not in (None, ""):
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                yield f"{name:<16}{safe_line(shown)}"
        if self.text is not None:
            yield ""
            yield from safe(shorten(self.text, characters)).split("\n")


@dataclass(slots=True)
class Sample:
    """The result: the drawn documents, and a note for the user, which may be empty."""

    drawn: list[SampledDocument]
    note: str = ""


class Signals:
    """Looks up the signals of documents in the `clean/` folder of a run.

    The locator of a document determines the file: `clean/<source>/<input>.parquet`, or, for an input that was split,
    the last piece that begins at or before the offset. The id determines the row. Only the columns of ids and signals
    are read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._columns = lru_cache(maxsize=32)(_read_signals)
        self._pieces = lru_cache(maxsize=1024)(_find_pieces)

    @cached_property
    def present(self) -> bool:
        """Return True if the run still has a `clean/` folder with files."""
        return bool(list_folder(self.folder, "clean"))

    def find(self, source: str, file: str, offset: int, document: bytes) -> dict[str, Any]:
        """Return the signals of a document that are not null; an empty dict if its file or row is missing.

        Args:
            source: the source of the document.
            file: the name of its input.
            offset: its offset in the input, in stored bytes.
            document: its id.
        """
        path = fetch(self.folder, f"clean/{source}/{file}.parquet")
        if not path.is_file():
            begun = [piece for start, piece in self._pieces(self.folder, source, file) if start <= offset]
            if not begun:
                return {}
            path = fetch(self.folder, begun[-1])
        table = self._columns(path)
        row = pc.index(table["id"], pa.scalar(document, pa.binary(ID_BYTES))).as_py()
        found = table.slice(row, 1).select(SIGNALS).to_pylist()[0] if row >= 0 else {}
        return {name: value for name, value in found.items() if value is not None}


def _read_signals(path: Path) -> pa.Table:
    with open_parquet(path) as file:
        return file.read(["id", *SIGNALS])


def _find_pieces(folder: Path, source: str, file: str) -> list[tuple[int, str]]:
    """Return (first offset, path below the folder) of each piece of an input, sorted by offset."""
    parent = f"clean/{source}/{file}".rpartition("/")[0]
    names = [f"{parent}/{name}" for name in list_folder(folder, parent)]
    found = [(_PIECE.search(name), name) for name in names if name.startswith(f"clean/{source}/{file}@")]
    return sorted((int(match[1]), name) for match, name in found if match)


def sample(corpus: Path, query: SampleQuery) -> Sample:
    """Draw documents. The same corpus and query always give the same documents.

    Raises:
        UserError: the corpus has no such source, reason or signal.
    """
    reader = CorpusReader(corpus)
    manifest = reader.manifest
    if query.source and query.source not in manifest.sources:
        raise UserError(f"{corpus} has no source {query.source!r}: it has {', '.join(sorted(manifest.sources))}")
    if not query.reason:
        return _draw_kept(reader, query)
    if query.language or query.score or query.side:
        raise UserError("--reason selects dropped records: leave out --language, --score and --side")
    by_source = Counter[str]()
    for tallies in manifest.ledger.values():
        for name, tally in tallies.items():
            by_source[name] += tally["dropped"].get(query.reason, {}).get("records", 0)
    dropped = by_source[query.source] if query.source else by_source.total()
    if not dropped:
        others = ", ".join(f"{count:,} in {name}" for name, count in sorted(by_source.items()) if count)
        where = f" in {query.source}, but {others}" if others else ""
        raise UserError(
            f"the ledger of {place_of(corpus)} has nothing dropped as {query.reason}{where}: "
            "`show` lists the reasons it has"
        )
    note = f"{format_quantity(dropped, 'records')} dropped as {query.reason}"
    if query.reason in DEAD_LETTERS:  # Dead letters have a location and a description of the damage, but no text.
        return Sample(_draw_lines(reader, query, "deadletters"), note)
    return (_draw_duplicates if query.reason in BY_DUPLICATES else _draw_dropped)(reader, query, note)


def parse_score(text: str) -> tuple[str, float, float]:
    """Parse `--score [NAME=]LOW:HIGH` into (column, lowest, highest). Either bound may be empty.

    Raises:
        UserError: the text does not have this form.
    """
    name, _, bounds = text.rpartition("=")
    low, colon, high = bounds.partition(":")
    try:
        values = float(low or "-inf"), float(high or "inf")
    except ValueError:
        values = (1.0, 0.0)
    if name not in ("", *SCORES) or not colon or not values[0] <= values[1]:
        raise UserError(f"--score {text}: give [NAME=]LOW:HIGH, where NAME is one of {', '.join(SCORES)}")
    return SCORES[name or "reference"], *values


def _draw_kept(reader: CorpusReader, query: SampleQuery) -> Sample:
    """Draw from the documents in shards."""
    shards = [
        (side, shard)
        for name, source in sorted(reader.manifest.sources.items())
        for side in ("train", "validation")
        for shard in getattr(source, side)
        if shard.documents and query.source in ("", name) and query.side in ("", side)
    ]
    signals = [Signals(folder) for folder in reader.run_folders]
    filtered, known = bool(query.language or query.score), any(one.present for one in signals)
    if filtered and not known:
        raise UserError(
            f"{reader.folder} has no clean/, which holds languages and scores: leave out --language and --score"
        )
    drawn: list[SampledDocument] = []
    looked, asked = 0, {name for name in (query.language and "language", query.score and query.score[0]) if name}
    for side, entry, row in _draw_rows(shards, query.seed, MOST_DRAWN if filtered else query.number):
        looked += 1
        one = reader.document(entry.path, row)
        place, identity = one.locator, bytes.fromhex(one.document)
        found = signals[generation_of(entry.path)].find(one.source, place.file, place.offset, identity)
        asked -= found.keys()
        if query.matches(found):
            facts = {name: getattr(one, name) for name in ("document", "source", "url")}
            facts |= {"side": side, "shard": one.shard, "row": row, "token": one.start, "tokens": one.stop - one.start}
            facts |= {"cluster_size": one.cluster_size}
            (text,) = reader.decode(reader.shard(one.shard), [(one.start, one.stop)])
            drawn.append(SampledDocument(facts | found, text))
        if len(drawn) == query.number:
            break
    note = "" if known else "this corpus has no clean/: languages and scores are not known"
    if filtered and len(drawn) < query.number:
        more = looked < sum(entry.documents for _, entry in shards)
        note = f"{len(drawn):,} of the {looked:,} documents that were drawn fit the filters"
        note += ", and there are more that were not looked at" if more else ""
        note += f": none of them has a {' or a '.join(sorted(asked))}" if asked else ""
    elif not drawn:
        note = "there is no such document in the shards"
    return Sample(drawn, note)


def _draw_rows(shards: list[tuple[str, ShardEntry]], seed: int, most: int) -> Iterator[tuple[str, ShardEntry, int]]:
    """Draw up to `most` different documents uniformly, without reading the shards.

    Args:
        shards: (side, shard) of all shards to draw from.
        seed: the seed.
        most: the maximum number of documents.

    Yields:
        (side, shard, row).
    """
    ends = np.cumsum([shard.documents for _, shard in shards], dtype=np.int64)
    count = int(ends[-1]) if len(ends) else 0
    for number in permute(np.arange(min(count, most)), count, order_key(seed, "sample row", b"")).tolist():
        place = int(np.searchsorted(ends, number, side="right"))
        side, shard = shards[place]
        yield side, shard, number - int(ends[place]) + shard.documents


def _draw_dropped(reader: CorpusReader, query: SampleQuery, note: str) -> Sample:
    """Draw from the dropped documents whose text the run kept."""
    offered = []
    chosen = (pc.field("reason") == query.reason) & pc.field("text").is_valid()
    for source, path in reader.run_files("dropped", ".parquet", query.source):
        for _, group, table in scan_parquet([path], ["reason", "id", "text"], chosen):
            ids = table["id"].to_pylist()
            offered += [(order_key(query.seed, "sample", identity), source, path, group, identity) for identity in ids]
    if not offered:  # The records were dropped by `extract`, which keeps only locations, or their text was not kept.
        places = _draw_lines(reader, query, "skipped")
        if places:
            return Sample(places, f"{note} by extract, which keeps their places, but never their text")
        return Sample([], f"{note}, and the run kept none: give --keep-dropped N, which keeps what filters drop")
    drawn = []
    for _, source, path, group, identity in heapq.nsmallest(query.number, offered):
        with open_parquet(path) as file:
            table = file.read_row_group(group).filter(pc.field("id") == pa.scalar(identity, pa.binary(ID_BYTES)))
        plain = table.to_pylist()[0]
        facts = {name: plain[name] for name in ("url", "reason", "file", "offset", "member")}
        drawn.append(SampledDocument({"document": plain["id"].hex(), "source": source, **facts}, plain["text"]))
    return Sample(drawn, f"{note}, of which the run kept {len(offered):,}")


def _draw_duplicates(reader: CorpusReader, query: SampleQuery, note: str) -> Sample:
    """Draw from the documents that were removed as duplicates. Their texts are in `clean/`."""
    if not any(list_folder(folder, "clean") for folder in reader.run_folders):
        return Sample([], f"{note}, but there is no clean/ with their texts")
    ids = []
    for folder in reader.run_folders:
        paths = fetch_files(folder, "duplicates", ".parquet")
        for _, _, table in scan_parquet(paths, ["removed", "reason"], pc.field("reason") == query.reason):
            removed = table["removed"].to_pylist()
            ids += [(order_key(query.seed, "sample", identity), identity.hex(), folder) for identity in removed]
    drawn = []
    for _, identity, folder in sorted(ids):
        cluster = duplicates(folder, identity, 1)
        member = next(one for one in cluster.removed if one.id == identity)
        if query.source in ("", member.source):
            facts = {**member.as_dict(), "kept": cluster.kept.id, "kept_url": cluster.kept.url}
            drawn.append(SampledDocument(facts, member.text))
        if len(drawn) == query.number:
            break
    return Sample(drawn, note)


def _draw_lines(reader: CorpusReader, query: SampleQuery, kind: str) -> list[SampledDocument]:
    """Draw from the lines of `skipped` or `deadletters` that have the reason of the query."""
    keyed = (
        (order_key(query.seed, "sample", source.encode() + line), source, line, values)
        for source, line, values in reader.read_letters(kind, query.reason.encode(), query.source)
        if values["reason"] == query.reason
    )
    chosen = heapq.nsmallest(query.number, keyed, key=lambda one: one[:3])
    return [SampledDocument({"source": source, **values}, None) for _, source, _, values in chosen]
