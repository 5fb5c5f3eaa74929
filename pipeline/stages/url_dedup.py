"""urls: of all documents of a source under one URL, the newest stays (C4's builder groups pages so, before its rules).

Two exchanges, and never a text or a URL in either: hashes of URLs go by hash range to where they are compared, and the
places of older copies go back by split. Equal times: the document of the smaller id stays.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.hashing import group_keys
from manifests.files import atomic_path, sha256_json
from manifests.recipe import Recipe
from pipeline.beam import verdicts
from pipeline.beam.exchange import Mapped, by_range
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task
from pipeline.stages.url_keys import APART, ROW, read_url_keys, url_key_path

STAGE = "urls"
KEYS, FOUND, PLACES, VERDICTS = (f"{STAGE}/{step}" for step in ("keys", "found", "places", "verdicts"))
OWNED = {
    KEYS: (f"blocks/{KEYS}",),
    FOUND: (f"blocks/{FOUND}",),
    PLACES: (f"blocks/{PLACES}",),
    VERDICTS: (f"verdicts/{STAGE}",),
}

RANGE_BYTES = 128 << 20
"""packed keys that one reducer holds; it needs some four times as much while it sorts"""
DOCUMENT_BITS = 32
"""a place is split number << 32 | document of the split"""
KEY = np.dtype([*ROW.descr, ("place", "<i8")])


def map_tasks(recipe: Recipe, extracted: dict[str, Receipt]) -> list[Task]:
    """One mapper a split of the sources that keep one document a URL."""
    sources = sorted(name for name, source in recipe.sources.items() if source.newest_per_url)
    splits = [split for split in sorted(extracted) if split.partition("/")[0] in sources]
    documents = sum(extracted[split].facts["urls"] for split in splits)
    ranges = max(1, -(-documents * KEY.itemsize // RANGE_BYTES))
    made = []
    for number, split in enumerate(splits):
        arguments = {"number": number, "ranges": ranges, "group": sources.index(split.partition("/")[0])}
        fingerprint = sha256_json([code_version(__name__), arguments, extracted[split].sha()])
        made.append(Task(KEYS, split, fingerprint, extracted[split].facts["urls"] * ROW.itemsize, arguments))
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
    """The keys of one split, by range."""
    rows = read_url_keys(corpus / url_key_path(task.name))
    sent = np.flatnonzero(rows["time"] != APART)
    packed = np.empty(len(sent), KEY)
    for name in ROW.names or ():
        packed[name] = rows[name][sent]
    packed["url"] = group_keys(packed["url"], task.arguments["group"])
    packed["place"] = (np.int64(task.arguments["number"]) << DOCUMENT_BITS) + sent
    return Mapped(by_range(packed["url"], packed, task.arguments["ranges"]), {}, {})


def find(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """The places of one range's older copies, sorted."""
    rows = np.concatenate([np.empty(0, KEY), *(np.frombuffer(block, KEY) for block in blocks)])
    older = rows["place"][not_newest(rows)]
    path = f"blocks/{FOUND}/{task.name}"
    with atomic_path(corpus / path) as temporary:
        temporary.write_bytes(np.sort(older).tobytes())
    return Result([path], {}, {"documents": len(rows), "older": len(older)})


def not_newest(rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """(n,) bool: rows of `KEY` under whose URL another is newer, or as new with a smaller id (or place)."""
    order = np.lexsort([rows["place"], rows["low"], rows["high"], -rows["time"], rows["rest"], rows["url"]])
    urls, rest = rows["url"][order], rows["rest"][order]
    found = np.zeros(len(rows), bool)
    found[order[1:][(urls[1:] == urls[:-1]) & (rest[1:] == rest[:-1])]] = True
    return found


def send_back(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """A range's places, by split."""
    places = np.fromfile(corpus / f"blocks/{FOUND}/{task.name}", np.int64)
    numbers = places >> DOCUMENT_BITS
    blocks = (
        (number, (places[numbers == number] & ((1 << DOCUMENT_BITS) - 1)).tobytes())
        for number in np.unique(numbers).tolist()
    )
    return Mapped(blocks, {}, {})


def judge(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """One split's verdicts: for each document, whether it is an older copy, as one byte."""
    older = np.zeros(len(read_url_keys(corpus / url_key_path(task.name))), bool)
    for block in blocks:
        older[np.frombuffer(block, np.int64)] = True
    path = verdict_path(task.name)
    with atomic_path(corpus / path) as temporary:
        temporary.write_bytes(older.tobytes())
    return Result([path], {}, {"older": int(older.sum())})


def verdict_path(split: str) -> str:
    """Where a split's verdicts lie, below the corpus."""
    return f"verdicts/{STAGE}/{split}.bin"


def read_older(corpus: Path, split: str) -> npt.NDArray[np.bool_]:
    """(documents,) bool: which documents of a split are older copies."""
    return np.fromfile(corpus / verdict_path(split), np.bool_)


def findings(found: dict[str, Receipt]) -> dict[str, int]:
    """What the stage found, for the manifest: documents compared, and older copies among them."""
    return {name: sum(receipt.facts[name] for receipt in found.values()) for name in ("documents", "older")}
