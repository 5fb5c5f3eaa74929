"""line_dedup: which lines occur elsewhere in the crawl, as one verdict file per split (CCNet, section 3.1).

Two exchanges, and never a line in either: hashes go by hash range to where they are compared, and the places of
duplicates go back by split. Each document sends a line's hash once; repeats within a document are found in its own
split.

`extract` writes a file of line hashes per split, in the order of the documents, so that no text is read again only to
be hashed.
"""

import glob
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup.paragraphs import NO_PARAGRAPH, Lines, later_copy_mask, paragraph_hashes, repeat_mask
from filters.hashing import duplicate_mask, group_keys
from filters.quality.c4 import C4, clean, line_keys
from manifests.document import ID_BYTES, order_key
from manifests.files import write_atomic
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.exchange import Mapped, by_range, by_split, join_blocks, ranges_for
from pipeline.beam.tables import id_halves, read_ipc, write_ipc
from pipeline.beam.task import Receipts, Result, Step, Unit, source_of
from pipeline.stages import url_dedup

STAGE = "line_dedup"
KEYS, DUPLICATES, PLACES, VERDICTS = (f"{STAGE}/{step}" for step in ("keys", "duplicates", "places", "verdicts"))

RANGE_BYTES = 128 << 20  # packed keys that one reducer holds; it needs some four times as much while it sorts
LINE_BITS = 36  # a place is split number << 36 | line of the split
KEY = np.dtype([("key", "<u8"), ("place", "<i8")])
ORDERED_KEY = np.dtype([*KEY.descr, ("identity", "<u8")])  # the identity decides which copy stays
CCNET_PARTS = 32  # CCNet compares 50 of a dump's 1,600 files at a time: one part in 32 (cc_net, mine.py, hash_in_mem)
HASH_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("hashes", pa.large_list(pa.uint64()))])
VERDICT_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("removed", pa.large_list(pa.bool_()))])
OLDER = np.empty(0, bool)  # the mask of a document that is an older copy
_CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}")

Mask = npt.NDArray[np.bool_]


class LineHashes:
    """The line hashes of a split's documents, by the rules of their source."""

    def __init__(self, source: Source | None = None) -> None:
        """Take the rules of a source; none means those of CCNet's paragraphs."""
        self.rules = page_rules(source) if source is not None else None
        self.ids: list[bytes] = []
        self.hashes: list[npt.NDArray[np.uint64]] = []

    def append(self, identity: bytes, text: str) -> None:
        """Add one document."""
        self.ids.append(identity)
        self.hashes.append(paragraph_hashes(text) if self.rules is None else _page_hashes(text, self.rules))

    def write(self, path: Path) -> int:
        """Write the file and return the number of lines that it holds."""
        offsets = np.cumsum([0, *(len(hashes) for hashes in self.hashes)], dtype=np.int64)
        values = np.concatenate([np.empty(0, np.uint64), *self.hashes])
        column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
        write_ipc(path, HASH_SCHEMA, [pa.array(self.ids, pa.binary(ID_BYTES)), column])
        return len(values)


def page_rules(source: Source) -> C4 | None:
    """Return C4's page rules without bad words where a source compares the lines that these leave; None elsewhere."""
    if source.lines is None or source.lines.normalise != "c4":
        return None
    assert source.c4 is not None, "the recipe was checked"
    return source.c4


def _page_hashes(text: str, rules: C4) -> npt.NDArray[np.uint64]:
    """Return the keys of the lines that the page rules leave; NO_PARAGRAPH for a page that they drop."""
    cleaned = clean(text, rules)
    return line_keys(cleaned.text.split("\n")) if cleaned.reason is None else np.array([NO_PARAGRAPH])


def find_duplicates(recipe: Recipe, extracted: Receipts, older: Receipts) -> tuple[Step, Step]:
    """Return the steps that find duplicate lines: a mapper per split of the sources that ask for it.

    Args:
        recipe: the run's.
        extracted: receipts of documents by split.
        older: verdicts of `url_dedup` by split: older copies take no part.
    """
    groups = _groups(recipe, extracted)
    ordered = any(group.rules.keep == "first" for group in groups.values())
    lines = {split: extracted[split].facts["lines"] for split in groups}
    ranges = ranges_for(sum(lines.values()) * (ORDERED_KEY if ordered else KEY).itemsize, RANGE_BYTES)
    units = []
    for number, (split, group) in enumerate(groups.items()):
        arguments = {"number": number, "group": group.number, "by_url": group.rules.normalise == "c4"}
        reads = [extracted[split], *([older[split]] if split in older else [])]
        units.append(Unit(split, {**arguments, "older": split in older}, reads, lines[split] * 8))
    first = [group.rules.keep == "first" for group in groups.values()]
    settings = {"ordered": ordered, "first": first, "part": [group.part for group in groups.values()]}
    reducing = Step(DUPLICATES, reduce_duplicates, [Unit(f"{r:05d}") for r in range(ranges)], settings)
    return Step(KEYS, map_keys, units, {"ranges": ranges, "ordered": ordered}), reducing


def send_verdicts(keys: Receipts, duplicates: Receipts) -> tuple[Step, Step]:
    """Return the steps that send the places of duplicates back: a mapper per range, a reducer per split."""
    maps = [Unit(name, {}, [receipt], receipt.bytes) for name, receipt in sorted(duplicates.items())]
    reduces = [Unit(split, {}, [receipt]) for split, receipt in keys.items()]
    owned = (f"verdicts/{STAGE}",)
    return Step(PLACES, map_verdicts, maps), Step(VERDICTS, reduce_verdicts, reduces, owns=owned)


def map_keys(
    corpus: Path, split: str, *, number: int, group: int, by_url: bool, older: bool, ranges: int, ordered: bool
) -> Mapped:
    """Send each document's distinct lines, by range, as packed (key, place) or (key, place, identity).

    The identity is the first half of the document's id, or with `by_url` of its URL's hash.
    """
    ids, hashes, offsets = read_line_hashes(corpus / line_hash_path(split))
    documents = _documents(offsets)
    sending = (hashes != NO_PARAGRAPH) & ~repeat_mask(hashes, documents)
    if older:
        sending &= ~url_dedup.read_older(corpus, split)[documents]
    sent = np.flatnonzero(sending)
    packed = np.empty(len(sent), ORDERED_KEY if ordered else KEY)
    packed["key"] = group_keys(hashes[sent], group)
    packed["place"] = (np.int64(number) << LINE_BITS) + sent
    if ordered and len(sent):
        identities = url_dedup.read_url_keys(corpus, split)["url"] if by_url else id_halves(ids)[0]
        packed["identity"] = identities[documents[sent]]
    return Mapped(by_range(packed["key"], packed, ranges))


def reduce_duplicates(
    corpus: Path, name: str, blocks: list[bytes], *, ordered: bool, first: list[bool], part: list[int]
) -> Result:
    """Write the places of one range's duplicates, sorted.

    Args:
        corpus: the corpus.
        name: of the range.
        blocks: keys.
        ordered: True if the keys have identities.
        first: by split number, whether the first copy of a line stays.
        part: by split number, the part of the files in which CCNet would have compared it.

    Returns:
        Facts: lines compared, lines that are duplicates, and how many of these CCNet's scope would have found.
    """
    pairs = join_blocks(blocks, ORDERED_KEY if ordered else KEY)
    lines = len(pairs)
    pairs = pairs[duplicate_mask(pairs["key"])]
    split = pairs["place"] >> LINE_BITS
    narrow = duplicate_mask(group_keys(pairs["key"], np.array(part, np.uint64)[split]))
    gone = np.ones(len(pairs), bool)
    if ordered:
        gone = ~np.array(first, bool)[split] | later_copy_mask(pairs["key"], pairs["identity"], pairs["place"])
    path = f"blocks/{DUPLICATES}/{name}"
    write_atomic(corpus / path, np.sort(pairs["place"][gone]).tobytes())
    return Result([path], {}, {"lines": lines, "duplicates": len(pairs), "ccnet": int(narrow.sum())})


def map_verdicts(corpus: Path, part: str) -> Mapped:
    """Send a range's places, by split."""
    return Mapped(by_split(np.fromfile(corpus / f"blocks/{DUPLICATES}/{part}", np.int64), LINE_BITS))


def reduce_verdicts(corpus: Path, split: str, blocks: list[bytes]) -> Result:
    """Write one split's verdicts: for each document, which of its lines are removed."""
    ids, hashes, offsets = read_line_hashes(corpus / line_hash_path(split))
    removed = repeat_mask(hashes, _documents(offsets))
    removed[join_blocks(blocks, np.dtype(np.int64))] = True
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(removed))
    write_ipc(corpus / verdict_path(split), VERDICT_SCHEMA, [ids, column])
    return Result([verdict_path(split)], {}, {"removed": int(removed.sum())})


def line_hash_path(split: str) -> str:
    """Return the path of a split's line hashes, below the corpus."""
    return f"blocks/line-hashes/{split}.arrow"


def read_line_hashes(path: Path) -> tuple[pa.Array, npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return a split's document ids, (lines,) hashes and (documents + 1,) offsets, memory-mapped."""
    batch = read_ipc(path)
    column = batch.column("hashes")
    return batch.column("id"), np.asarray(column.values.to_numpy()), np.asarray(column.offsets.to_numpy())


def verdict_path(split: str) -> str:
    """Return the path of a split's line verdicts, below the corpus."""
    return f"verdicts/{STAGE}/{split}.arrow"


def read_verdicts(corpus: Path, split: str) -> Iterator[Mask]:
    """Yield for each document of a split, in order, which of its lines are removed."""
    column = read_ipc(corpus / verdict_path(split)).column("removed")
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    for start, end in itertools.pairwise(offsets.tolist()):
        yield values[start:end]


def find_verdict(corpus: Path, source: str, file: str, document: bytes) -> Mask | None:
    """Return which lines of one document are removed, by its id; None if no verdict file of that input holds it."""
    whole = corpus / verdict_path(f"{source}/{file}")
    for path in [whole, *sorted(whole.parent.glob(f"{glob.escape(whole.name.removesuffix('.arrow'))}@*.arrow"))]:
        if path.exists():
            batch = read_ipc(path)
            row = pc.index(batch.column("id"), pa.scalar(document, pa.binary(ID_BYTES))).as_py()
            if row >= 0:
                return np.array(batch.column("removed")[row].as_py(), bool)
    return None


def read_masks(corpus: Path, split: str, source: Source) -> Iterator[Mask | None]:
    """Yield for each document of a split, in order, which of its lines are removed.

    It is None for every document of a source that compares no lines, and OLDER for a copy that `url_dedup` removes.
    """
    found = read_verdicts(corpus, split) if source.lines is not None else itertools.repeat(None)
    if not source.newest_per_url:
        return found
    older = url_dedup.read_older(corpus, split).tolist()
    return (OLDER if gone else mask for mask, gone in zip(found, older, strict=False))


def findings(duplicates: Receipts) -> dict[str, int]:
    """Return the counts for the manifest: lines, duplicates, and how many of these CCNet's scope would have missed."""
    names = ("lines", "duplicates", "ccnet")
    lines, found, ccnet = (sum(receipt.facts[name] for receipt in duplicates.values()) for name in names)
    return {"lines": lines, "duplicates": found, "missed_by_ccnet_scope": found - ccnet}


def dump_of(name: str) -> str:
    """Return the crawl that an input belongs to: the CC-MAIN-YYYY-WW in its name, else its first folder."""
    crawl = _CRAWL.search(name)
    return crawl.group() if crawl else name.rpartition("/")[0].partition("/")[0]


def _documents(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of the document that each line belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


class _Group(NamedTuple):
    """The lines that a split's lines are compared with: the number of its group, and its part of CCNet's files."""

    number: int
    part: int
    rules: Lines


def _groups(recipe: Recipe, extracted: Receipts) -> dict[str, _Group]:
    """Return the group of each split whose source compares lines, in the order of the splits."""
    rules = {name: source.lines for name, source in recipe.sources.items() if source.lines is not None}
    splits = {split: extracted[split].facts["file"] for split in sorted(extracted) if source_of(split) in rules}
    files: dict[str, dict[str, int]] = {}
    for split, file in splits.items():
        key = order_key(recipe.seed, "lines", f"{source_of(split)}/{file}".encode())
        files.setdefault(source_of(split), {})[file] = key
    scopes: dict[tuple[str, str], str] = {}
    for source, keys in files.items():
        for place, file in enumerate(sorted(keys, key=lambda name: (keys[name], name))):
            named = {"files": str(place // rules[source].files), "dump": dump_of(file), "all": ""}[rules[source].scope]
            scopes[source, file] = f"{source} {named}"
    numbers = {scope: number for number, scope in enumerate(sorted(set(scopes.values())))}
    found = {}
    for split, file in splits.items():
        source = source_of(split)
        found[split] = _Group(numbers[scopes[source, file]], files[source][file] % CCNET_PARTS, rules[source])
    return found
