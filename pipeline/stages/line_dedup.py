"""lines: which lines are also elsewhere in the crawl, as one verdict file a split (CCNet, section 3.1).

Two exchanges, and never a line in either: hashes go by hash range to where they are compared, and the places of
duplicates go back by split. Each document sends a line's hash once; what a document repeats within itself is found in
its own split.
"""

import glob
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup.paragraphs import NO_PARAGRAPH, Lines, later_copy_mask, repeat_mask
from filters.hashing import duplicate_mask, group_keys
from manifests.document import ID_BYTES, order_key
from manifests.files import atomic_path, sha256_json
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam import verdicts
from pipeline.beam.exchange import Mapped, by_range
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task
from pipeline.stages import url_dedup as urls
from pipeline.stages.line_hashes import line_hash_path, read_line_hashes
from pipeline.stages.signatures import halves
from pipeline.stages.url_keys import read_url_keys, url_key_path

STAGE = "lines"
HASHES, FOUND, PLACES, VERDICTS = (f"{STAGE}/{step}" for step in ("hashes", "found", "places", "verdicts"))
OWNED = {
    HASHES: (f"blocks/{HASHES}",),
    FOUND: (f"blocks/{FOUND}",),
    PLACES: (f"blocks/{PLACES}",),
    VERDICTS: (f"verdicts/{STAGE}",),
}

RANGE_BYTES = 128 << 20
"""packed keys that one reducer holds; it needs some four times as much while it sorts"""
LINE_BITS = 36
"""a place is split number << 36 | line of the split"""
KEY = np.dtype([("key", "<u8"), ("place", "<i8")])
ORDERED_KEY = np.dtype([("key", "<u8"), ("place", "<i8"), ("identity", "<u8")])
"""where a copy stays, the first 64 bits of the document's id, or of its URL's hash, say which"""
CCNET_PARTS = 32
"""CCNet compares 50 of a dump's 1,600 files at a time: one part in 32 (cc_net, mine.py, hash_in_mem)"""
VERDICT_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("removed", pa.large_list(pa.bool_()))])
OLDER = np.empty(0, bool)
_CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}")


def splits_of(recipe: Recipe, extracted: dict[str, Receipt]) -> list[str]:
    """The splits whose sources ask for this stage, sorted."""
    return [split for split in sorted(extracted) if recipe.sources[split.partition("/")[0]].lines is not None]


def map_tasks(recipe: Recipe, extracted: dict[str, Receipt], older: dict[str, Receipt] | None = None) -> list[Task]:
    """One mapper a split. `older`: by split, the verdicts of `urls`: older copies take no part."""
    groups, older = _groups(recipe, extracted), older or {}
    ordered = any(keep == "first" for _, _, keep in groups.values())
    ranges = _ranges(extracted, groups, ordered)
    made = []
    for number, (split, (group, part, keep)) in enumerate(groups.items()):
        arguments = {"number": number, "ranges": ranges, "group": group, "ordered": ordered}
        arguments |= {"part": part, "first": keep == "first", "older": split in older}
        arguments |= {"by_url": _rules(recipe, split.partition("/")[0]).normalise == "c4"}
        used = [extracted[split].sha(), *([older[split].sha()] if split in older else [])]
        fingerprint = sha256_json([code_version(__name__), arguments, used])
        made.append(Task(HASHES, split, fingerprint, extracted[split].facts["lines"] * 8, arguments))
    return made


def reduce_tasks(maps: list[Task]) -> list[Task]:
    """One reducer a hash range."""
    return verdicts.found_tasks(FOUND, code_version(__name__), maps)


def place_tasks(found: dict[str, Receipt]) -> list[Task]:
    """One mapper a range, on the way back."""
    return verdicts.place_tasks(PLACES, code_version(__name__), found)


def verdict_tasks(maps: list[Task], found: dict[str, Receipt]) -> list[Task]:
    """One reducer a split."""
    return verdicts.verdict_tasks(VERDICTS, maps, found)


def cut(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The keys of one split, by range: each document's distinct lines as packed (key, place) or (…, identity)."""
    where = task.arguments
    ids, hashes, offsets = read_line_hashes(corpus / line_hash_path(task.name))
    documents = _documents(offsets)
    sending = (hashes != NO_PARAGRAPH) & ~repeat_mask(hashes, documents)
    if where["older"]:
        sending &= ~urls.read_older(corpus, task.name)[documents]
    sent = np.flatnonzero(sending)
    packed = np.empty(len(sent), ORDERED_KEY if where["ordered"] else KEY)
    packed["key"] = group_keys(hashes[sent], where["group"])
    packed["place"] = (np.int64(where["number"]) << LINE_BITS) + sent
    if where["ordered"] and len(sent):
        by_url = where["by_url"]
        identities = read_url_keys(corpus / url_key_path(task.name))["url"] if by_url else halves(ids)[0]
        packed["identity"] = identities[documents[sent]]
    return Mapped(by_range(packed["key"], packed, where["ranges"]), {}, {})


def find(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """The places of one range's duplicates, sorted. `settings`: `ordered`; `first` and `part`, by split number.

    Facts: lines compared, lines that are duplicates, and how many of these CCNet's scope, one part in 32 of the files,
    would have found.
    """
    kind = ORDERED_KEY if settings["ordered"] else KEY
    pairs = np.concatenate([np.empty(0, kind), *(np.frombuffer(block, kind) for block in blocks)])
    lines = len(pairs)
    pairs = pairs[duplicate_mask(pairs["key"])]
    split = pairs["place"] >> LINE_BITS
    narrow = duplicate_mask(group_keys(pairs["key"], np.array(settings["part"], np.uint64)[split]))
    gone = np.ones(len(pairs), bool)
    if settings["ordered"]:
        gone = ~np.array(settings["first"], bool)[split]
        gone |= later_copy_mask(pairs["key"], pairs["identity"], pairs["place"])
    path = f"blocks/{FOUND}/{task.name}"
    with atomic_path(corpus / path) as temporary:
        temporary.write_bytes(np.sort(pairs["place"][gone]).tobytes())
    return Result([path], {}, {"lines": lines, "duplicates": len(pairs), "ccnet": int(narrow.sum())})


def send_back(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """A range's places, by split."""
    places = np.fromfile(corpus / f"blocks/{FOUND}/{task.name}", np.int64)
    numbers = places >> LINE_BITS
    edges = np.searchsorted(numbers, np.arange(len(settings["first"]) + 1))
    blocks = (
        (number, (places[edges[number] : edges[number + 1]] & ((1 << LINE_BITS) - 1)).tobytes())
        for number in np.unique(numbers).tolist()
    )
    return Mapped(blocks, {}, {})


def judge(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """One split's verdicts: for each document, which of its lines go."""
    ids, hashes, offsets = read_line_hashes(corpus / line_hash_path(task.name))
    removed = repeat_mask(hashes, _documents(offsets))
    for block in blocks:
        removed[np.frombuffer(block, np.int64)] = True
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(removed))
    path = verdict_path(task.name)
    with atomic_path(corpus / path) as temporary, pa.ipc.new_file(str(temporary), VERDICT_SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([ids, column], schema=VERDICT_SCHEMA))
    return Result([path], {}, {"removed": int(removed.sum())})


def verdict_path(split: str) -> str:
    """Where a split's line verdicts lie, below the corpus."""
    return f"verdicts/{STAGE}/{split}.arrow"


def read_verdicts(corpus: Path, split: str) -> Iterator[npt.NDArray[np.bool_]]:
    """For each document of a split, in order, which of its lines go."""
    with pa.memory_map(str(corpus / verdict_path(split))) as mapped:
        column = pa.ipc.open_file(mapped).get_batch(0).column("removed")
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield values[start:end]


def find_verdict(corpus: Path, source: str, file: str, document: bytes) -> npt.NDArray[np.bool_] | None:
    """Which lines of one document go, by its id; None when no verdict file of that input holds it."""
    whole = corpus / verdict_path(f"{source}/{file}")
    for path in [whole, *sorted(whole.parent.glob(f"{glob.escape(whole.name.removesuffix('.arrow'))}@*.arrow"))]:
        if path.exists():
            with pa.memory_map(str(path)) as mapped:
                batch = pa.ipc.open_file(mapped).get_batch(0)
            row = pc.index(batch.column("id"), pa.scalar(document, pa.binary(ID_BYTES))).as_py()
            if row >= 0:
                return np.array(batch.column("removed")[row].as_py(), bool)
    return None


def masks(corpus: Path, split: str, source: Source) -> Iterator[npt.NDArray[np.bool_] | None]:
    """As `read_verdicts`; None for every document of a source that does not ask for this stage, and no lines at all for
    one that `urls` found an older copy."""
    found = read_verdicts(corpus, split) if source.lines is not None else itertools.repeat(None)
    if not source.newest_per_url:
        return found
    older = urls.read_older(corpus, split).tolist()
    return (OLDER if gone else mask for mask, gone in zip(found, older, strict=False))


def findings(found: dict[str, Receipt]) -> dict[str, int]:
    """What the stage found, for the manifest: lines, duplicates, and what CCNet's scope would have missed of them."""
    whole = {name: sum(receipt.facts[name] for receipt in found.values()) for name in ("lines", "duplicates", "ccnet")}
    return {
        "lines": whole["lines"],
        "duplicates": whole["duplicates"],
        "missed_by_ccnet_scope": whole["duplicates"] - whole["ccnet"],
    }


def settings(maps: list[Task]) -> dict[str, Any]:
    """What the workers need to know."""
    columns = {name: [task.arguments[name] for task in maps] for name in ("first", "part")}
    return {**columns, "ordered": maps[0].arguments["ordered"]}


def dump_of(name: str) -> str:
    """The crawl that an input belongs to: the CC-MAIN-YYYY-WW in its name, else its first folder."""
    crawl = _CRAWL.search(name)
    return crawl.group() if crawl else name.rpartition("/")[0].partition("/")[0]


def _documents(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which document each line is of."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _groups(recipe: Recipe, extracted: dict[str, Receipt]) -> dict[str, tuple[int, int, str]]:
    """For each split: the number of the group within which its lines are compared, the part in which CCNet would have
    compared it, and which copy stays."""
    files: dict[str, dict[str, int]] = {}
    of_split: dict[str, tuple[str, str]] = {}
    for split in splits_of(recipe, extracted):
        source, file = split.partition("/")[0], extracted[split].facts["file"]
        of_split[split] = (source, file)
        files.setdefault(source, {})[file] = order_key(recipe.seed, STAGE, f"{source}/{file}".encode())
    scopes: dict[tuple[str, str], str] = {}
    for source, keys in files.items():
        rules = _rules(recipe, source)
        for place, file in enumerate(sorted(keys, key=lambda name: (keys[name], name))):
            named = {"files": str(place // rules.files), "dump": dump_of(file), "all": ""}[rules.scope]
            scopes[source, file] = f"{source} {named}"
    numbers = {scope: number for number, scope in enumerate(sorted(set(scopes.values())))}
    return {
        split: (numbers[scopes[place]], files[place[0]][place[1]] % CCNET_PARTS, _rules(recipe, place[0]).keep)
        for split, place in of_split.items()
    }


def _rules(recipe: Recipe, source: str) -> Lines:
    rules = recipe.sources[source].lines
    assert rules is not None, "only splits of sources with rules get here"
    return rules


def _ranges(extracted: dict[str, Receipt], splits: Iterable[str], ordered: bool) -> int:
    """How many ranges the keys need: follows from the data alone."""
    lines: int = sum(extracted[split].facts["lines"] for split in splits)
    width: int = (ORDERED_KEY if ordered else KEY).itemsize
    return max(1, -(-lines * width // RANGE_BYTES))
