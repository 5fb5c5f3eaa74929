"""Steps, declared: one function over units of work, what it depends on, and the receipts that finished units leave.

A unit's outputs are taken over from an earlier run only if its receipt records the same fingerprint: the code that its
function reaches, the settings, the unit's arguments and the hashes of what it reads. So a run killed at any moment and
started again redoes at most the units in flight, and gives the same bytes.
"""

import dataclasses
import io
import itertools
import json
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, overload

from manifests.files import sha256_bytes
from manifests.ledger import Tally, tally_from
from pipeline.beam.fingerprint import code_version
from pipeline.beam.quarantine import Place

BLOCKS = "blocks"
DIGEST = 32  # bytes of a fingerprint


class Output(NamedTuple):
    """A file that a task wrote: its path below the corpus, and what it must be to be taken over."""

    path: str
    bytes: int
    sha256: str


def planned(path: str, size: int) -> Output:
    """Return what stands for a file of about that size which is still to be written: units of it await its task."""
    return Output(path, size, "")


@dataclass(frozen=True)
class Result:
    """A step function's result.

    Attributes:
        paths: files that it wrote, below the corpus.
        tallies: counts by source.
        facts: plain values for later steps; part of the result.
        shuffled: bytes sent to reducers, for the record only.
    """

    paths: Iterable[str]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    shuffled: int = 0


class Receipt:
    """The record of a finished task: fingerprint, outputs, tallies and facts. No times: it is the same in every run.

    A driver holds millions of them, so each is a row of bytes: fingerprint, hash, facts, tallies, and of each output
    path, size and hash, with zero bytes between. A part is read from it whenever it is asked for. Rows of many receipts
    lie in one string, which goes back to the system as a whole.
    """

    __slots__ = ("_end", "_rows", "_start")

    def __init__(
        self, fingerprint: str, outputs: Sequence[Output], tallies: Mapping[str, Tally], facts: Mapping[str, Any]
    ) -> None:
        """Pack the parts."""
        sha = hash_key([[[output.path, output.sha256] for output in outputs], facts])
        counts = {source: tally.as_dict() for source, tally in tallies.items()}
        cells = [fingerprint, sha, _ENCODER.encode(facts), _ENCODER.encode(counts)]
        cells += [str(cell) for output in outputs for cell in output]
        self._rows, self._start = "\0".join(cells).encode("utf-8", "surrogatepass"), 0
        self._end = len(self._rows)

    @classmethod
    def of_row(cls, rows: bytes, start: int, end: int) -> "Receipt":
        """Return the receipt whose `row` lies there."""
        made = cls.__new__(cls)
        made._rows, made._start, made._end = rows, start, end
        return made

    @property
    def row(self) -> bytes:
        """All parts."""
        return self._rows[self._start : self._end]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and self.row == other.row

    def __hash__(self) -> int:
        return hash(self.row)

    @property
    def fingerprint(self) -> str:
        """The task's fingerprint."""
        return self.row[: self.row.index(b"\0")].decode()

    @property
    def sha(self) -> str:
        """The hash of the outputs and facts, for fingerprints of tasks that read them."""
        return self.row.split(b"\0", 2)[1].decode()

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values for later steps."""
        return _read_json(self.row.split(b"\0", 3)[2])

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """The tallies by source, as plain values."""
        cell = self.row.split(b"\0", 4)[3]
        return _read_json(cell) if cell != b"{}" else {}

    def without_counts(self) -> "Receipt":
        """Return the receipt without fingerprint and tallies."""
        _, sha, facts, _, *outputs = self.row.split(b"\0")
        row = b"\0".join([b"", sha, facts, b"{}", *outputs])
        return Receipt.of_row(row, 0, len(row))

    @property
    def tallies(self) -> dict[str, Tally]:
        """Counts by source."""
        return {source: tally_from(plain) for source, plain in self.counts.items()}

    def out_of(self, source: str) -> Counter[str]:
        """Return what a source's tally gives out, by unit."""
        return Counter(self.counts[source]["out"])

    @property
    def paths(self) -> list[str]:
        """The paths of the outputs."""
        return self.row.decode("utf-8", "surrogatepass").split("\0")[4::3]

    @property
    def outputs(self) -> list[Output]:
        """The files that the task wrote."""
        return self.below("")

    @property
    def bytes(self) -> int:
        """The size of all outputs."""
        return sum(map(int, self.row.split(b"\0")[5::3]))

    def below(self, place: str) -> list[Output]:
        """Return the outputs below a folder of the corpus, or the one of that path; all for an empty name."""
        cells, prefix = self.row.decode("utf-8", "surrogatepass").split("\0"), place and f"{place}/"
        files = zip(cells[4::3], cells[5::3], cells[6::3], strict=True)
        return [Output(path, int(size), sha256) for path, size, sha256 in files if f"{path}/".startswith(prefix)]


Receipts = Mapping[str, Receipt]  # by the names of their tasks


class PackedReceipts(Mapping[str, Receipt]):
    """Receipts whose rows lie in one string of bytes."""

    def __init__(self, names: Iterable[str], lengths: Iterable[int], rows: bytes, start: int = 0) -> None:
        """Take the names of tasks, and the lengths of their receipts' rows, which begin at `start` of a string."""
        self._numbers = {name: number for number, name in enumerate(names)}
        self._ends, self._rows = array("Q", itertools.accumulate(lengths, initial=start)), rows

    @classmethod
    def of(cls, found: Iterable[tuple[str, Receipt]]) -> "PackedReceipts":
        """Return the same receipts, each with the name of its task, packed."""
        names, lengths, rows = list[str](), array("Q"), io.BytesIO()
        for name, receipt in found:
            names.append(name)
            lengths.append(rows.write(receipt.row))
        return cls(names, lengths, rows.getvalue())

    def __getitem__(self, name: str) -> Receipt:
        number = self._numbers[name]
        return Receipt.of_row(self._rows, self._ends[number], self._ends[number + 1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def without_counts(found: Receipts) -> Receipts:
    """Return receipts without fingerprints and tallies, for who has seen these and holds the rest for long."""
    return PackedReceipts.of((name, receipt.without_counts()) for name, receipt in found.items())


@dataclass(frozen=True, slots=True)
class Files:
    """The outputs of a receipt below a folder, as units read them: a driver holds many, so they are not listed here."""

    receipt: Receipt
    folder: str

    def outputs(self) -> list[Output]:
        """Return the outputs."""
        return self.receipt.below(self.folder)


@dataclass(frozen=True, slots=True)
class Keyed:
    """An argument of which only `key` counts in fingerprints: a path by the hash of its file, say, or not at all.

    Attributes:
        value: the argument.
        key: what stands for it in fingerprints.
        versions: for a path or URL, or a list of them, `Input.version` of each. A task fails if one has changed, and
            its function gets paths of local copies for URLs.
    """

    value: Any
    key: Any = None
    versions: tuple[str, ...] = ()


class Awaited(NamedTuple):
    """A task of an earlier turn of the same job, of whose outputs a unit reads one, or those below a folder, or all."""

    step: str
    name: str
    path: str = ""


Known = Mapping[str, Mapping[str, str]]  # fingerprints of the tasks of earlier turns, by step and name


class Unit(NamedTuple):
    """One piece of a step's work, done and repeated as a whole.

    Attributes:
        name: unique in the step; gives the receipt's path.
        arguments: keyword arguments for the step's function.
        reads: receipts, outputs or hashes of what the function reads: of a corpus in an object store, it finds there
            the outputs that these, or the keys of its arguments, name, and no other file.
        size: bytes to read, by which work is shared out.
        source: the source whose entry of `Step.by_source` the function gets as well.
        calls: functions that the step's function looks up at run time, part of its code.
        quarantine: records that the function's readers drop unread.
        awaits: what else it reads, of tasks that may not have run when this unit is planned: they stand in its
            fingerprint by their own.
    """

    name: str
    arguments: Mapping[str, Any] = {}
    reads: Sequence[Any] = ()
    size: int = 0
    source: str = ""
    calls: tuple[Callable[..., Any], ...] = ()
    quarantine: tuple[Place, ...] = ()
    awaits: tuple[Awaited, ...] = ()


class Task(NamedTuple):
    """A unit as it is handed to an engine.

    Attributes:
        files: of a corpus in an object store, what the task fetches.
        awaited: tasks of whose outputs it fetches some as well, as `Awaited.path` says.
    """

    step: str
    name: str
    fingerprint: str
    size: int = 0
    source: str = ""
    arguments: Mapping[str, Any] = {}
    quarantine: tuple[Place, ...] = ()
    files: tuple[Output, ...] = ()
    awaited: tuple[tuple["Task", str], ...] = ()


class PackedTasks(Sequence[Task]):
    """The names and fingerprints of tasks of one step: a driver holds many."""

    def __init__(self, step: str, tasks: Iterable[Task]) -> None:
        """Take the tasks."""
        self._step, self._names, digests = step, list[str](), bytearray()
        for task in tasks:
            self._names.append(task.name)
            digests += bytes.fromhex(task.fingerprint)
        self._digests = bytes(digests)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> Task: ...

    @overload
    def __getitem__(self, place: slice) -> list[Task]: ...

    def __getitem__(self, place: int | slice) -> Task | list[Task]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        name = self._names[place]
        return Task(self._step, name, self._digests[place * DIGEST : (place + 1) * DIGEST].hex())


@dataclass(frozen=True)
class Step:
    """A step: one function over units that do not depend on each other.

    The function is called as `function(corpus, name, **settings, **by_source[unit.source], **unit.arguments)`; a
    reducer of an exchange gets its blocks after the name. It must depend on nothing else, and write through
    `atomic_path`.

    Attributes:
        name: gives the place of receipts, and the row of `manifests.stages`.
        function: a module-level function.
        units: what is to be done.
        settings: keyword arguments for all units: the part of the recipe that the step depends on.
        by_source: further keyword arguments for the units of a source.
        owns: folders below the corpus that hold this step's outputs alone; by default `blocks/NAME`.
        shared: another step of the same name owns the same folders, so that only both together can be swept.
        any_way: of a reducing step: its outputs do not depend on the way that its blocks were made, so mappers do not
            count in its fingerprints, and the units name what they depend on.
        is_one_way: other steps may do its work, and a finished corpus does not tell which did: the manifest leaves the
            version of its code out.
    """

    name: str
    function: Callable[..., Any]
    units: Sequence[Unit]
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    owns: tuple[str, ...] | None = None
    shared: bool = False
    any_way: bool = False
    is_one_way: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that the step owns."""
        return (f"{BLOCKS}/{self.name}",) if self.owns is None else self.owns

    def tasks(self, upstream: Sequence[Task] = (), known: Known = MappingProxyType({})) -> list[Task]:
        """Return a task for each unit, with its fingerprint.

        Args:
            upstream: mappers, whose blocks every unit may get.
            known: fingerprints of tasks that units await.
        """
        mappers = [] if self.any_way else [[task.name, task.fingerprint] for task in upstream]
        common = hash_key([self.settings, mappers])
        of_source = {name: hash_key(values) for name, values in self.by_source.items()}
        versions = {calls: code_version(self.function, *calls) for calls in {unit.calls for unit in self.units}}
        made = []
        for unit in self.units:
            parts: list[Any] = [versions[unit.calls], common, of_source.get(unit.source, ""), unit.name, unit.arguments]
            parts += [[one, known[one.step][one.name]] for one in unit.awaits]
            key = hash_key([*parts, unit.reads, unit.quarantine])
            made.append(Task(self.name, unit.name, key, unit.size, unit.source, unit.arguments, unit.quarantine))
        return made

    def completer(self, known: Known = MappingProxyType({})) -> Callable[[Task], Task]:
        """Return a function that adds to a task of this step the files that it reads. `known`: as for `tasks`."""
        units = {unit.name: unit for unit in self.units}
        common = outputs_in(self.settings)
        of_source = {name: outputs_in(values) for name, values in self.by_source.items()}

        def complete(task: Task) -> Task:
            unit = units[task.name]
            files = {*common, *of_source.get(unit.source, ()), *outputs_in((unit.reads, unit.arguments))}
            awaited = tuple((Task(one.step, one.name, known[one.step][one.name]), one.path) for one in unit.awaits)
            return task._replace(files=tuple(sorted(files)), awaited=awaited)

        return complete

    def names_by_source(self) -> dict[str, list[str]]:
        """Return the names of the units of each source."""
        found: dict[str, list[str]] = {}
        for unit in self.units:
            found.setdefault(unit.source, []).append(unit.name)
        return found

    def code(self) -> str:
        """Return the version of the step's code over all units."""
        versions = sorted({code_version(self.function, *calls) for calls in {unit.calls for unit in self.units}})
        return versions[0] if len(versions) == 1 else hash_key(versions)


def outputs_in(value: Any) -> list[Output]:
    """Return the outputs that receipts, keys and plain values name, but for those that are still to be written."""
    found: list[Output] = []
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str | int):
            continue
        if isinstance(one, Output):
            found += [one] if one.sha256 else []
        elif isinstance(one, list | tuple):
            left += one
        elif isinstance(one, Receipt):
            found += one.outputs
        elif isinstance(one, Files):
            found += one.outputs()
        elif isinstance(one, Keyed):
            left.append(one.key)
        elif isinstance(one, Mapping):
            left += one.values()
    return found


def source_of(split: str) -> str:
    """Return the source that a split, or another name that begins with one, belongs to."""
    return sys.intern(split.partition("/")[0])


def hash_key(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, with settings as plain values and `Keyed` as its key."""
    return sha256_bytes(_ENCODER.encode(value).encode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    if isinstance(value, Keyed):
        return value.key
    if isinstance(value, Receipt):
        return value.sha
    if isinstance(value, Files):
        return value.outputs()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return value.model_dump()


def _read_json(cell: bytes) -> dict[str, Any]:
    """Return the value of a cell; `json.loads` takes half as long again."""
    found: dict[str, Any] = _DECODER.raw_decode(cell.decode("utf-8", "surrogatepass"))[0]
    return found


_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
