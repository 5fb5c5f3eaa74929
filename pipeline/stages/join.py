"""join: documents made of several rows that lie anywhere in a source's dumps, by a shuffle of packed blocks.

This is the one place where text crosses a shuffle. What a source must say is `pipeline.sources.base.Joined`:

- `survey` looks at each file once, in the stage `index`, and counts: how large the shuffle will be, and what decides
  about the whole source (`shared`: which sites are the largest, say).
- `keyed` gives a split's rows, each with the name of its group: a question's number, a content's or a repository's id.
  Rows go by a hash of that name to the range that the group is in.
- `combine` gets all rows of one group and says what becomes of each: a document, or a row of the next round under
  another name, or a reason. A source has `ROUNDS` rounds, and `round_of` names the one that takes a file's rows.
  GitHub's tables need two: files and licences meet by repository, and what is left of these meets contents by id.
  `combine` sees a group whole, so a content that a thousand files share is one row and becomes one document.

Ranges follow from the surveys (`RANGE_BYTES`), so results do not depend on workers, runners or splits. A row that ends
in a split is counted there, and damage goes on to a reducer as a row, so that all dead letters lie beside the
documents: DOCUMENTS/SOURCE/joined-00000-of-00012. Each such file is a split of the stage `extract` for all that follow.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from filters.formats.stream import open_stored
from filters.reasons import DEAD_LETTERS, Reason
from manifests.document import Locator
from manifests.files import atomic_path, sha256_json
from manifests.ledger import Tally
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.engines import Engine
from pipeline.beam.exchange import Mapped, run_exchange
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task, receipts, sweep
from pipeline.sources import Joined, Outcome, Row, joined_for
from pipeline.sources.inputs import Input
from pipeline.stages import extract
from pipeline.stages.split_offsets import pieces_of

STAGE = "join"
OWNED: tuple[str, ...] = ()

RANGE_BYTES = 128 << 20
"""packed rows that one reducer holds, on average"""
PACK_BYTES = 64 << 20
"""packed rows that a mapper holds before it writes"""
ROW_BYTES = 256
"""what a row takes beside its data, at most in most cases"""
_HEAD = struct.Struct("<5QHHHI")
"""offset, length, inner offset, inner length, stored bytes; lengths of group, file, member and data"""
_LONGEST_NAME = (1 << 16) - 1
_ENDED = b""
"""the group of rows that are dead letters: their data is reason, NUL, detail"""


def join(
    corpus: Path, recipe: Recipe, inputs: list[Input], indexed: dict[str, Receipt], engine: Engine
) -> tuple[list[Task], list[Task], int]:
    """Join every source whose documents are joined from rows. Gives the finished tasks that hold documents, as those of
    `extract`, the finished tasks whose tallies hold the rows that ended before, and how many were run."""
    documents, rows, ran = list[Task](), list[Task](), 0
    for name, source in recipe.sources.items():
        joined, items = joined_for(source), [item for item in inputs if item.source == name]
        if joined is None or not items:
            continue
        surveys = {item.name: indexed[f"{name}/{item.name}"].facts for item in items}
        shared = joined.shared(name, source, {file: facts["counts"] for file, facts in surveys.items()})
        settings = {"name": name, "source": source.model_dump(), "shared": shared}
        forwarded = dict[str, Receipt]()
        for number in range(joined.ROUNDS):
            mine = [item for item in items if joined.round_of(item.name, source) == number]
            ranges = _ranges([surveys[item.name] for item in mine], forwarded)
            maps = _row_tasks(name, source, shared, mine, indexed, number, ranges)
            maps += _forwarded_tasks(name, number, ranges, forwarded)
            last = number == joined.ROUNDS - 1
            reduces = _group_tasks(name, source, number, ranges, maps, last)
            if maps:
                ran += run_exchange(corpus, settings, maps, pack, reduces, combine if last else forward, engine)
                sweep(corpus, maps[0].stage, maps, (f"blocks/{maps[0].stage}",))
                rows += maps
            if not last and maps:
                sweep(corpus, reduces[0].stage, reduces, (f"blocks/{reduces[0].stage}",))
                forwarded = receipts(corpus, reduces)
                rows += reduces
            elif maps:
                documents += reduces
    return documents, rows, ran


def _ranges(surveys: list[dict[str, Any]], forwarded: dict[str, Receipt]) -> int:
    """How many ranges a round's rows are cut into."""
    sizes: list[int] = [facts["decoded"] + ROW_BYTES * facts["rows"] for facts in surveys]
    sizes += [receipt.outputs[0].bytes for receipt in forwarded.values()]
    return max(1, -(-sum(sizes) // RANGE_BYTES))


def _row_tasks(
    name: str,
    source: Source,
    shared: dict[str, Any],
    items: list[Input],
    indexed: dict[str, Receipt],
    number: int,
    ranges: int,
) -> list[Task]:
    """One mapper a split of a dump."""
    code, rules, made = code_version(__name__), [joined_settings(source), sha256_json(shared)], list[Task]()
    for item in items:
        for start, end, state in pieces_of(indexed, item):
            arguments = {"file": item.name, "path": item.path, "ranges": ranges}
            arguments |= {"start": start, "end": end, "state": state}
            place = [item.name, item.size, item.sha256, start, end, state]
            fingerprint = sha256_json([code, rules, place, ranges])
            split = f"dumps/{item.name}@{start:015d}"
            made.append(Task(f"{STAGE}/{name}/rows-{number}", split, fingerprint, end - start, arguments))
    return made


def _forwarded_tasks(name: str, number: int, ranges: int, forwarded: dict[str, Receipt]) -> list[Task]:
    """One mapper a range of the round before."""
    made = []
    for split, receipt in sorted(forwarded.items()):
        arguments = {"packed": receipt.outputs[0].path, "ranges": ranges}
        fingerprint = sha256_json([code_version(__name__), receipt.sha(), ranges])
        stage = f"{STAGE}/{name}/rows-{number}"
        made.append(Task(stage, f"forwarded/{split}", fingerprint, receipt.outputs[0].bytes, arguments))
    return made


def _group_tasks(name: str, source: Source, number: int, ranges: int, maps: list[Task], last: bool) -> list[Task]:
    """One reducer a range; those of the last round are tasks of `extract`, whose places they take."""
    shas, code = (
        [(task.name, task.fingerprint) for task in maps],
        [code_version(__name__), code_version(extract.__name__)],
    )
    fingerprint = sha256_json([code, joined_settings(source), shas])
    stage = extract.STAGE if last else f"{STAGE}/{name}/groups-{number}"
    names = [f"joined-{r:05d}-of-{ranges:05d}" for r in range(ranges)]
    return [Task(stage, f"{name}/{split}" if last else split, fingerprint, 0, {"round": number}) for split in names]


def joined_settings(source: Source) -> dict[str, Any]:
    """The part of a source's recipe that its documents depend on."""
    return {**extract.extraction_settings(source), **source.model_dump(include={"stackexchange", "github"})}


def pack(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The rows of a split, packed, by range. What ends here and is no damage is counted here."""
    tally = Tally()
    items = _forwarded(corpus, task) if "packed" in task.arguments else _keyed(settings, task)
    return Mapped(blocks_of(items, tally, task.arguments["ranges"]), {settings["name"]: tally}, {})


def combine(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """The documents of a range."""
    name, source, joined = _joined(settings)
    items = combined(blocks, name, source, joined, task.arguments["round"])
    return extract.write_outcomes(corpus, task.name, name, source, _outcomes(items), {"file": name})


def forward(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """The rows of a range that go on to the next round, as one packed file."""
    name, source, joined = _joined(settings)
    tally, path = Tally(), f"blocks/{task.stage}/{task.name}"
    items = combined(blocks, name, source, joined, task.arguments["round"])
    with atomic_path(corpus / path) as temporary, temporary.open("wb") as file:
        for _, block in blocks_of(items, tally, 1):
            file.write(block)
    return Result([path], {name: tally})


def _joined(settings: dict[str, Any]) -> tuple[str, Source, Joined]:
    source = Source.model_validate(settings["source"])
    joined = joined_for(source)
    assert joined is not None, "only such sources have tasks here"
    return settings["name"], source, joined


def _keyed(settings: dict[str, Any], task: Task) -> Iterator[Row | Outcome]:
    """A split's rows; a file that cannot be read is one, too."""
    _, source, joined = _joined(settings)
    file, start, end, state = (task.arguments[key] for key in ("file", "start", "end", "state"))
    left = task.size
    try:
        with open_stored(Path(task.arguments["path"])) as stored:
            for item in joined.keyed(stored, file, source, settings["shared"], start, end, state):
                left -= item.stored
                yield item
    except OSError as error:
        yield Outcome(Locator(file, end - left, left), left, None, Reason.UNREADABLE_FILE, str(error.strerror))
        left = 0
    if left:
        raise RuntimeError(f"{task.name}: {task.size} bytes, {task.size - left} accounted for")


def _forwarded(corpus: Path, task: Task) -> Iterator[Row]:
    block = (corpus / task.arguments["packed"]).read_bytes()
    return (_unpacked(block, place) for place in _places(block))


def blocks_of(items: Iterable[Row | Outcome], tally: Tally, ranges: int) -> Iterator[tuple[int, bytes]]:
    """Rows packed by range, some at a time."""
    held: dict[int, bytearray] = {}
    size = 0
    for item in items:
        if isinstance(item, Outcome):
            assert item.document is None and item.reason is not None, "documents are made in the last round"
            if item.reason not in DEAD_LETTERS:
                _count(item, tally)
                continue
            item = Row(_ENDED, item.locator, item.stored, f"{item.reason.value}\0{item.detail}".encode())
        packed = _packed(item)
        held.setdefault(_range_of(item, ranges), bytearray()).extend(packed)
        size += len(packed)
        if size >= PACK_BYTES:
            yield from ((bucket, bytes(held[bucket])) for bucket in sorted(held))
            held, size = {}, 0
    yield from ((bucket, bytes(held[bucket])) for bucket in sorted(held))


def _count(item: Outcome, tally: Tally) -> None:
    assert item.reason is not None
    tally.enter(records=1, bytes=item.stored)
    if item.reason is Reason.JOINED:
        tally.remove(item.reason, records=1, bytes=item.stored)
    else:
        tally.drop(item.reason, records=1, bytes=item.stored)


def combined(blocks: list[bytes], name: str, source: Source, joined: Joined, number: int) -> Iterator[Row | Outcome]:
    """What becomes of all rows of a range, group by group, in the order of their names."""
    index = [(_group(block, place), which, place) for which, block in enumerate(blocks) for place in _places(block)]
    index.sort()
    for group, places in groupby(index, key=lambda item: item[0]):
        rows = sorted((_unpacked(blocks[which], place) for _, which, place in places), key=_place)
        if group == _ENDED:
            yield from map(_ended, rows)
        else:
            yield from joined.combine(rows, name, source, number)


def _outcomes(items: Iterable[Row | Outcome]) -> Iterator[Outcome]:
    for item in items:
        assert isinstance(item, Outcome), "the last round has no rows to send on"
        yield item


def _place(row: Row) -> tuple[str, int, str, int]:
    return row.locator.file, row.locator.offset, row.locator.member, row.locator.inner_offset


def _ended(row: Row) -> Outcome:
    reason, _, detail = row.data.decode().partition("\0")
    return Outcome(row.locator, row.stored, None, Reason(reason), detail)


def _range_of(row: Row, ranges: int) -> int:
    """The range of a row's group; dead letters are spread by their places."""
    name = row.group or repr(_place(row)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") * ranges >> 64


def _packed(row: Row) -> bytes:
    """A row as bytes. A group's name must be shorter than 64 KiB, as a file's always is."""
    place = row.locator
    file, member = place.file.encode(), place.member.encode("utf-8", "backslashreplace")[:_LONGEST_NAME]
    numbers = (place.offset, place.length, place.inner_offset, place.inner_length, row.stored)
    lengths = (len(row.group), len(file), len(member), len(row.data))
    return b"".join((_HEAD.pack(*numbers, *lengths), row.group, file, member, row.data))


def _places(block: bytes) -> Iterator[int]:
    """Where the rows of a block begin."""
    place = 0
    while place < len(block):
        yield place
        place += _HEAD.size + sum(_HEAD.unpack_from(block, place)[5:])


def _group(block: bytes, place: int) -> bytes:
    start = place + _HEAD.size
    return block[start : start + _HEAD.unpack_from(block, place)[5]]


def _unpacked(block: bytes, place: int) -> Row:
    *numbers, group, file, member, data = _HEAD.unpack_from(block, place)
    parts, end = [], place + _HEAD.size
    for length in (group, file, member, data):
        parts.append(block[end : end + length])
        end += length
    name, inside = parts[1].decode(), parts[2].decode()
    offset, length, inner_offset, inner_length, stored = numbers
    return Row(parts[0], Locator(name, offset, length, inside, inner_offset, inner_length), stored, parts[3])
