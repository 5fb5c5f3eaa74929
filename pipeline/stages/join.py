"""join: make documents from rows that are in different places of a source's dumps, with a shuffle of packed blocks.

This is the only stage that shuffles text. A source that needs it has a `pipeline.sources.base.JoinedReader`, which
defines these methods:

- `survey` reads each file once, in the stage `split_offsets`. It counts the bytes that will be shuffled, and facts
  about the whole source, which `collect_shared` combines (for example the largest sites).
- `read_rows` returns the rows of a split, each with the name of its group: the id of a question, a content or a
  repository. The hash of this name selects the hash range, and so the reducer.
- `combine` receives all rows of one group. For each row it returns a document, a row for the next round with another
  group name, or a drop reason.

A source has `ROUNDS` rounds, each of which is an exchange. `select_round` returns the round that reads the rows of a
file. The tables of GitHub need two rounds: the first joins files with licences by repository, the second joins the
resulting rows with contents by id. `combine` receives the whole group, so a content that is used by a thousand files is
one row and becomes one document.

The number of ranges is computed from the surveys (`RANGE_BYTES`), so results do not depend on workers, runners or
splits. A row that is dropped in a split is counted there. A damaged row is sent to a reducer, so that all dead letters
are next to the documents, under names such as SOURCE/joined-00000-of-00012. Later stages treat each of these files as a
split of the stage `extract`.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from filters.reasons import DEAD_LETTERS, Reason
from manifests.document import Locator
from manifests.files import atomic_path
from manifests.ledger import Tally
from manifests.mirror import StoredDump, open_range
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.exchange import Mapped, ranges_for
from pipeline.beam.quarantine import Place, forget_record
from pipeline.beam.step import Receipt, Receipts, Result, Step, Unit, pack_together
from pipeline.beam.work import Work, exchange, together
from pipeline.sources.base import JoinedReader, Outcome, Row, joined_for
from pipeline.sources.inputs import Input
from pipeline.stages import extract
from pipeline.stages.filter import rule_classes
from pipeline.stages.split_offsets import piece_unit, pieces_of

STEP = "join"
RANGE_BYTES = 128 << 20  # Bytes of packed rows per reducer, on average.
PACK_BYTES = 64 << 20  # Bytes of packed rows that a mapper holds before it writes blocks.
ROW_BYTES = 256  # Bytes of a packed row besides its data. Most rows need at most this.
# Header of a packed row: offset, length, inner offset, inner length, stored bytes, and the lengths of four strings.
_HEAD = struct.Struct("<5Q4I")
# Group name of rows that are dead letters or examples of dropped rows. Their data is the reason, NUL, and the detail.
_DEAD = b""


def join_sources(
    recipe: Recipe,
    inputs: list[Input],
    offsets: Receipts,
    models: Mapping[str, str],
    quarantine: Iterable[Place] = (),
) -> Work[tuple[Receipts, Receipts]]:
    """Join the documents of every source that has a `JoinedReader`. The sources share jobs.

    Args:
        recipe: Recipe of the run.
        inputs: Inputs of all sources.
        offsets: Receipts of `split_offsets`.
        models: Hashes of the models and lists that the recipe gives by path.
        quarantine: Places of records that readers drop without reading them.

    Returns:
        Two mappings of receipts. The first has the receipts of the documents by split, like `extract`. The tallies of
        the second count the rows that were dropped by mappers and in earlier rounds.
    """
    works = []
    for name, source in recipe.sources.items():
        joined, items = joined_for(source), [item for item in inputs if item.source == name]
        if joined is not None and items:
            settings = extract.source_arguments(name, source, models)
            works.append(join_source(name, source, joined, items, offsets, settings, quarantine))
    made = yield from together(*works)
    return pack_together(*(documents for documents, _ in made)), pack_together(*(rows for _, rows in made))


def join_source(
    name: str,
    source: Source,
    joined: JoinedReader,
    items: list[Input],
    offsets: Receipts,
    settings: dict[str, Any],
    quarantine: Iterable[Place],
) -> Work[tuple[Receipts, Receipts]]:
    """Join one source, with one exchange per round. Return the same two mappings as `join_sources`."""
    rows: dict[str, Receipt] = {}
    surveys = {item.name: offsets[f"{name}/{item.name}"].facts for item in items}
    shared = joined.collect_shared(name, source, {file: facts["counts"] for file, facts in surveys.items()})
    rules = rule_classes(source.rules_at("extract"))
    forwarded: Receipts = {}
    for number in range(joined.ROUNDS):
        items_of_round = [item for item in items if joined.select_round(item.name, source) == number]
        sizes: list[int] = [surveys[i.name]["decoded"] + ROW_BYTES * surveys[i.name]["rows"] for i in items_of_round]
        ranges = ranges_for(sum([*sizes, *(receipt.bytes for receipt in forwarded.values())]), RANGE_BYTES)
        calls = (joined.read_rows, *rules)
        units = [
            piece_unit(f"dumps/{item.name}@{piece.start:015d}", item, piece, source, calls, quarantine)
            for item in items_of_round
            for piece in pieces_of(offsets, item)
        ]
        for split, receipt in sorted(forwarded.items()):
            packed = {"packed": receipt.outputs[0].path}
            units.append(Unit(f"forwarded/{split}", packed, [receipt], receipt.bytes))
        last = number == joined.ROUNDS - 1
        group_step = f"{STEP}/{name}/groups-{number}"
        parts = [f"joined-{r:05d}-of-{ranges:05d}" for r in range(ranges)]
        groups = [Unit(f"{name}/{part}" if last else part, calls=(joined.combine, *rules)) for part in parts]
        mapping = Step(
            f"{STEP}/{name}/rows-{number}", map_rows, units, {**settings, "shared": shared, "ranges": ranges}
        )
        if last:
            reducing = Step(
                extract.STEP, reduce_documents, groups, {**settings, "number": number}, {}, extract.OWNED, shared=True
            )
        else:
            folder = {"number": number, "folder": f"blocks/{group_step}"}
            reducing = Step(group_step, reduce_rows, groups, {**settings, **folder})
        done, forwarded = yield from exchange(mapping, reducing)
        rows |= {f"rows-{number}/{name}/{unit}": receipt for unit, receipt in done.items()}
        if not last:
            rows |= {f"groups-{number}/{name}/{unit}": receipt for unit, receipt in forwarded.items()}
    return forwarded, rows


def map_rows(
    corpus: Path,
    unit: str,
    *,
    name: str,
    source: Source,
    shared: dict[str, Any],
    ranges: int,
    file: str = "",
    path: str | StoredDump = "",
    start: int = 0,
    end: int = 0,
    state: int = 0,
    packed: str = "",
) -> Mapped:
    """Send the packed rows of a split, or of one range of the previous round, by hash range.

    Dropped rows are counted in the tally of this task. Dead letters are sent to a reducer instead, which counts them.

    Args:
        corpus: Folder of the corpus.
        unit: Name of the unit.
        name: Name of the source.
        source: Settings of the source.
        shared: Facts about the whole source, from `collect_shared`.
        ranges: Number of hash ranges.
        file: Name of the dump.
        path: Path of the dump.
        start: Offset of the first byte of the split.
        end: Offset after the last byte of the split.
        state: State of the reader at `start`.
        packed: Path of the rows of the previous round. If it is set, no dump is read.

    Raises:
        OSError: The file cannot be read.
    """
    tally = Tally()

    def read() -> Iterator[Row | Outcome]:
        if packed:
            block = (corpus / packed).read_bytes()
            yield from (_unpack(block, place) for place in _find_places(block))
            return
        left = end - start
        with open_range(path, corpus, start, end) as stored:
            for item in _get_reader(source).read_rows(stored, file, source, shared, start, end, state):
                forget_record()
                left -= item.stored
                yield item
        if left:
            raise RuntimeError(f"{unit}: {end - start} bytes, {end - start - left} accounted for")

    return Mapped(pack_rows(read(), tally, ranges), {name: tally})


def reduce_documents(
    corpus: Path, split: str, blocks: list[bytes], *, name: str, source: Source, number: int
) -> Result:
    """Combine the groups of one hash range in the last round, and write the documents."""
    items = combine_groups(blocks, name, source, number)
    outcomes = cast("Iterator[Outcome]", items)  # In the last round `combine` returns no rows.
    return extract.write_outcomes(corpus, split, name, source, outcomes, {"file": name})


def reduce_rows(
    corpus: Path, part: str, blocks: list[bytes], *, name: str, source: Source, number: int, folder: str
) -> Result:
    """Combine the groups of one hash range, and write the rows of the next round to one packed file."""
    tally, path = Tally(), f"{folder}/{part}"
    with atomic_path(corpus / path) as temporary, temporary.open("wb") as file:
        for _, block in pack_rows(combine_groups(blocks, name, source, number), tally, 1):
            file.write(block)
    return Result([path], {name: tally})


def _get_reader(source: Source) -> JoinedReader:
    joined = joined_for(source)
    assert joined is not None, "only such sources have units here"
    return joined


def pack_rows(items: Iterable[Row | Outcome], tally: Tally, ranges: int) -> Iterator[tuple[int, bytes]]:
    """Yield (range, block of packed rows) whenever `PACK_BYTES` are held, and count dropped rows in `tally`.

    Dead letters become rows of the group `_DEAD`. The first `extract.MAX_EXAMPLES` dropped rows of each reason also
    become such rows, so that a reducer writes them as examples next to the documents.
    """
    held: dict[int, bytearray] = {}
    size, examples = 0, Counter[str]()
    for item in items:
        if isinstance(item, Outcome):
            assert item.document is None and item.reason is not None, "documents are made in the last round"
            examples[item.reason.value] += 1
            is_example = item.reason is not Reason.JOINED and examples[item.reason.value] <= extract.MAX_EXAMPLES
            if item.reason not in DEAD_LETTERS and not is_example:
                extract.count_dropped(item, tally)
                continue
            item = Row(_DEAD, item.locator, item.stored, f"{item.reason.value}\0{item.detail}".encode())
        packed = _pack(item)
        held.setdefault(_choose_range(item, ranges), bytearray()).extend(packed)
        size += len(packed)
        if size >= PACK_BYTES:
            yield from ((bucket, bytes(held[bucket])) for bucket in sorted(held))
            held, size = {}, 0
    yield from ((bucket, bytes(held[bucket])) for bucket in sorted(held))


def combine_groups(blocks: list[bytes], name: str, source: Source, number: int) -> Iterator[Row | Outcome]:
    """Combine the rows of one hash range, group by group in the order of group names.

    Yields:
        An outcome (a document or a dropped row), or a row of the next round.
    """
    index = [
        (_read_group(block, place), which, place) for which, block in enumerate(blocks) for place in _find_places(block)
    ]
    index.sort()
    combine = _get_reader(source).combine
    for group, places in groupby(index, key=lambda item: item[0]):
        rows = sorted((_unpack(blocks[which], place) for _, which, place in places), key=attrgetter("place"))
        if group == _DEAD:
            yield from map(_restore_dead_letter, rows)
        else:
            yield from combine(rows, name, source, number)


def _restore_dead_letter(row: Row) -> Outcome:
    reason, _, detail = row.data.decode().partition("\0")
    return Outcome(row.locator, row.stored, None, Reason(reason), detail)


def _choose_range(row: Row, ranges: int) -> int:
    name = row.group or repr(row.place).encode()  # Rows of the group `_DEAD` are distributed by their places.
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") * ranges >> 64


def _pack(row: Row) -> bytes:
    place = row.locator
    file, member = place.file.encode(), place.member.encode("utf-8", "backslashreplace")
    numbers = (place.offset, place.length, place.inner_offset, place.inner_length, row.stored)
    lengths = (len(row.group), len(file), len(member), len(row.data))
    return b"".join((_HEAD.pack(*numbers, *lengths), row.group, file, member, row.data))


def _find_places(block: bytes) -> Iterator[int]:
    place = 0
    while place < len(block):
        yield place
        place += _HEAD.size + sum(_HEAD.unpack_from(block, place)[5:])


def _read_group(block: bytes, place: int) -> bytes:
    start = place + _HEAD.size
    return block[start : start + _HEAD.unpack_from(block, place)[5]]


def _unpack(block: bytes, place: int) -> Row:
    *numbers, group, file, member, data = _HEAD.unpack_from(block, place)
    parts, end = [], place + _HEAD.size
    for length in (group, file, member, data):
        parts.append(block[end : end + length])
        end += length
    name, inside = parts[1].decode(), parts[2].decode()
    offset, length, inner_offset, inner_length, stored = numbers
    return Row(parts[0], Locator(name, offset, length, inside, inner_offset, inner_length), stored, parts[3])
