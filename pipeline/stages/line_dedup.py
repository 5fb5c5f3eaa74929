"""line_dedup: find lines that also occur in other documents of the crawl (CCNet, section 3.1).

The result is one verdict file per split. First, `collect` writes a file of line hashes per split, in the order of the
documents, after the earlier rules have edited or dropped them. Then there are two exchanges, which transfer no text.
The first sends line hashes by hash range to the reducers that compare them. The second sends the positions of
duplicates back to their splits. Each document sends the hash of a line once; repetitions inside a document are found
when the verdicts of its split are written.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.hashing import duplicate_mask, group_keys
from filters.quality.duplicate_lines import NO_PARAGRAPH, DuplicateLines, later_copy_mask, repeat_mask
from manifests.document import ID_BYTES, order_key
from manifests.files import write_atomic
from manifests.recipe import Recipe
from pipeline.beam.exchange import Mapped, by_range, join_blocks, ranges_for
from pipeline.beam.step import Awaited, Keyed, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import read_ipc, write_ipc
from pipeline.beam.work import Turns
from pipeline.sources.inputs import dump_of
from pipeline.stages.filter import SourceRules, Verdicts, compare_turns, filter_pages, units_for, verdict_path

STAGE = "line_dedup"
COLLECT, KEYS, DUPLICATES = (f"{STAGE}/{step}" for step in ("collect", "keys", "duplicates"))

RANGE_BYTES = 128 << 20  # Bytes of packed keys per reducer. Sorting needs about four times as much memory.
# Assumed characters per line. The number of ranges is computed from it before lines are counted. If lines are shorter,
# a range holds more than `RANGE_BYTES`.
LINE_CHARACTERS = 32
LINE_BITS = 36  # A place is (split number << 36) | row of the line in the split.
KEY = np.dtype([("key", "<u8"), ("place", "<i8")])
ORDERED_KEY = np.dtype([*KEY.descr, ("identity", "<u8")])  # The identity decides which copy is kept.
# CCNet compares 50 of the 1,600 parts of a dump at a time: one part in 32 (cc_net, mine.py, hash_in_mem).
CCNET_PARTS = 32
HASH_SCHEMA = pa.schema(
    [("id", pa.binary(ID_BYTES)), ("identity", pa.uint64()), ("hashes", pa.large_list(pa.uint64()))]
)
VERDICT_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("removed", pa.large_list(pa.bool_()))])


def collect_step(
    recipe: Recipe, extracted: Receipts, by_source: Mapping[str, Mapping[str, Any]], verdicts: Verdicts
) -> Step:
    """Return the step that writes line hashes, with a unit per split of the sources whose rules need this stage."""
    arguments = {
        name: {**by_source[name], "rule": Keyed(rule, rule.normalise)} for name, rule in _find_rules(recipe).items()
    }
    return Step(COLLECT, collect_hashes, units_for(recipe, STAGE, extracted, verdicts), {}, arguments)


def collect_hashes(corpus: Path, split: str, *, applied: SourceRules, rule: DuplicateLines) -> Result:
    """Write the line hashes of the documents of a split. A document that an earlier rule drops has no hashes."""
    ids: list[bytes] = []
    identities: list[int] = []
    hashes = [np.empty(0, np.uint64)]
    offsets = [0]
    for row, found in filter_pages(corpus, split, applied):
        ids.append(row["id"])
        identities.append(rule.identity(row["id"], row["url"]))
        if found.reason is None:
            hashes.append(rule.hashes(found.text))
        offsets.append(offsets[-1] + (len(hashes[-1]) if found.reason is None else 0))
    column = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(np.concatenate(hashes)))
    columns = [pa.array(ids, pa.binary(ID_BYTES)), pa.array(identities, pa.uint64()), column]
    write_ipc(corpus / line_hash_path(split), HASH_SCHEMA, columns)
    return Result([line_hash_path(split)], {}, {"lines": offsets[-1]})


def dedup_turns(
    recipe: Recipe, extracted: Receipts, by_source: Mapping[str, Mapping[str, Any]], verdicts: Verdicts
) -> Turns:
    """Return the steps of this stage as turns of one job, over the splits of the sources whose rules need it."""
    collect = collect_step(recipe, extracted, by_source, verdicts)
    found = find_duplicates(recipe, extracted)
    return compare_turns(STAGE, collect, found, LINE_BITS, reduce_verdicts)


def find_duplicates(recipe: Recipe, extracted: Receipts) -> tuple[Step, Step]:
    """Return the two steps that find duplicate lines.

    They have a mapper per split of the sources whose rules need this stage, and a reducer per hash range.
    """
    rules, files, lines = _find_rules(recipe), dict[str, str](), dict[str, int]()
    for split in sorted(extracted):
        if (source := source_of(split)) in rules:
            receipt = extracted[split]
            files[split] = receipt.facts["file"]
            lines[split] = receipt.output_counts(source)["characters"] // LINE_CHARACTERS
    groups = _group_splits(recipe, files)
    ordered = any(group.rules.keep == "first" for group in groups.values())
    ranges = ranges_for(sum(lines.values()) * (ORDERED_KEY if ordered else KEY).itemsize, RANGE_BYTES)
    units = []
    for number, (split, group) in enumerate(groups.items()):
        arguments = {"number": number, "group": group.number}
        units.append(Unit(split, arguments, (), lines[split] * 8, awaits=(Awaited(COLLECT, split),)))
    first = [group.rules.keep == "first" for group in groups.values()]
    settings = {"ordered": ordered, "first": first, "part": [group.part for group in groups.values()]}
    reducing = Step(DUPLICATES, reduce_duplicates, [Unit(f"{r:05d}") for r in range(ranges)], settings)
    return Step(KEYS, map_keys, units, {"ranges": ranges, "ordered": ordered}), reducing


def map_keys(corpus: Path, split: str, *, number: int, group: int, ranges: int, ordered: bool) -> Mapped:
    """Send the distinct lines of each document by hash range, packed as `KEY` or `ORDERED_KEY`.

    Args:
        corpus: Folder of the corpus.
        split: Name of the split.
        number: Number of the split.
        group: Number of its group. Lines of different groups are not compared.
        ranges: Number of hash ranges.
        ordered: True to send `ORDERED_KEY`, with the identity that decides which copy is kept.
    """
    batch, hashes, offsets = read_line_hashes(corpus / line_hash_path(split))
    documents = _number_documents(offsets)
    sent = np.flatnonzero((hashes != NO_PARAGRAPH) & ~repeat_mask(hashes, documents))
    packed = np.empty(len(sent), ORDERED_KEY if ordered else KEY)
    packed["key"] = group_keys(hashes[sent], group)
    packed["place"] = (np.int64(number) << LINE_BITS) + sent
    if ordered and len(sent):
        packed["identity"] = batch.column("identity").to_numpy()[documents[sent]]
    return Mapped(by_range(packed["key"], packed, ranges))


def reduce_duplicates(
    corpus: Path, name: str, blocks: list[bytes], *, ordered: bool, first: list[bool], part: list[int]
) -> Result:
    """Write the sorted places (int64) of the duplicate lines in one hash range.

    Args:
        corpus: Folder of the corpus.
        name: Name of the range.
        blocks: Packed keys.
        ordered: True if the keys are `ORDERED_KEY`.
        first: For each split number, whether the first copy of a line is kept.
        part: For each split number, the part of the dump in which CCNet would have compared the split.

    Returns:
        The path and these facts: `lines` that were compared, `duplicates`, and `ccnet`, the number of duplicates that
        CCNet's scope would also have found.
    """
    pairs = join_blocks(blocks, ORDERED_KEY if ordered else KEY)
    lines = len(pairs)
    pairs = pairs[duplicate_mask(pairs["key"])]
    split = pairs["place"] >> LINE_BITS
    narrow = duplicate_mask(group_keys(pairs["key"], np.array(part, np.uint64)[split]))
    is_removed = np.ones(len(pairs), bool)
    if ordered:
        is_removed = ~np.array(first, bool)[split] | later_copy_mask(pairs["key"], pairs["identity"], pairs["place"])
    path = f"blocks/{DUPLICATES}/{name}"
    write_atomic(corpus / path, np.sort(pairs["place"][is_removed]).tobytes())
    return Result([path], {}, {"lines": lines, "duplicates": len(pairs), "ccnet": int(narrow.sum())})


def reduce_verdicts(corpus: Path, split: str, blocks: list[bytes]) -> Result:
    """Write the verdicts of one split: for each document, a mask of the lines to remove."""
    batch, hashes, offsets = read_line_hashes(corpus / line_hash_path(split))
    removed = repeat_mask(hashes, _number_documents(offsets))
    removed[join_blocks(blocks, np.dtype(np.int64))] = True
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(removed))
    path = verdict_path(STAGE, split)
    write_ipc(corpus / path, VERDICT_SCHEMA, [batch.column("id"), column])
    return Result([path], {}, {"removed": int(removed.sum())})


def line_hash_path(split: str) -> str:
    """Return the path of the line hashes of a split, relative to the corpus."""
    return f"blocks/{COLLECT}/{split}.arrow"


def read_line_hashes(path: Path) -> tuple[pa.RecordBatch, npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Read a memory-mapped file of line hashes.

    Returns:
        The record batch with one row per document, the hashes (lines,), and the offsets (documents + 1,) of the
        documents in the hashes.
    """
    batch = read_ipc(path)
    column = batch.column("hashes")
    return batch, np.asarray(column.values.to_numpy()), np.asarray(column.offsets.to_numpy())


def findings(duplicates: Receipts) -> dict[str, int]:
    """Return the counts for the manifest: lines, duplicates, and duplicates that CCNet's scope would have missed."""
    names = ("lines", "duplicates", "ccnet")
    lines, found, ccnet = (sum(receipt.facts[name] for receipt in duplicates.values()) for name in names)
    return {"lines": lines, "duplicates": found, "missed_by_ccnet_scope": found - ccnet}


def _number_documents(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return an array (lines,) with the number of the document of each line."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


class _Group(NamedTuple):
    """The scope in which the lines of a split are compared.

    Attributes:
        number: Number of the group. Only lines of splits in the same group are compared.
        part: Number of the part in which CCNet would have compared the split. It is used for statistics only.
        rules: Rule of the split's source.
    """

    number: int
    part: int
    rules: DuplicateLines


def _find_rules(recipe: Recipe) -> dict[str, DuplicateLines]:
    """Return the rule of each source that needs this stage."""
    needing = {name: source.rule_for(STAGE)[1] for name, source in recipe.sources.items()}
    return {name: rule for name, rule in needing.items() if isinstance(rule, DuplicateLines)}


def _group_splits(recipe: Recipe, splits: Mapping[str, str]) -> dict[str, _Group]:
    """Return a dict from split name to group, in the order of `splits`, a mapping from split name to dump file."""
    rules = _find_rules(recipe)
    files: dict[str, dict[str, int]] = {}
    for split, file in splits.items():
        key = order_key(recipe.seed, "lines", f"{source_of(split)}/{file}".encode())
        files.setdefault(source_of(split), {})[file] = key
    scopes: dict[tuple[str, str], tuple[str, str]] = {}
    for source, keys in files.items():
        places: Counter[str] = Counter()  # Files so far per dump. CCNet never compares files of two dumps.
        for file in sorted(keys, key=lambda name: (keys[name], name)):
            dump, group = dump_of(file), places[dump_of(file)] // rules[source].files
            named = {"files": f"{dump} {group}", "dump": dump, "all": ""}[rules[source].scope]
            scopes[source, file] = f"{source} {named}", f"{dump} {keys[file] % CCNET_PARTS}"
            places[dump] += 1
    groups, parts = (
        {name: number for number, name in enumerate(sorted({names[at] for names in scopes.values()}))} for at in (0, 1)
    )
    found = {}
    for split, file in splits.items():
        source = source_of(split)
        scope, part = scopes[source, file]
        found[split] = _Group(groups[scope], parts[part], rules[source])
    return found
