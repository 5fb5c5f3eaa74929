"""Steps, declared: one function over units of work, what it depends on, and the receipts that finished units leave.

A unit's outputs are taken over from an earlier run only if its receipt records the same fingerprint: the code that its
function reaches, the settings, the unit's arguments and the hashes of what it reads. So a run killed at any moment and
started again redoes at most the units in flight, and gives the same bytes.
"""

import dataclasses
import itertools
import json
import os
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from manifests.files import sha256_bytes
from manifests.ledger import Tally, tally_from
from pipeline.beam.fingerprint import code_version
from pipeline.beam.quarantine import Place

BLOCKS = "blocks"


class Output(NamedTuple):
    """A file that a task wrote: its path below the corpus, and what it must be to be taken over."""

    path: str
    bytes: int
    sha256: str


File = tuple[str, str]  # path and hash of an output
NOTHING: Mapping[str, Any] = MappingProxyType({})


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

    It is a row of bytes: fingerprint, hash, facts, tallies, and of each output path, size and hash, with zero bytes
    between. A part is read from it whenever it is asked for.
    """

    __slots__ = ("row",)

    def __init__(
        self, fingerprint: str, outputs: Sequence[Output], tallies: Mapping[str, Tally], facts: Mapping[str, Any]
    ) -> None:
        """Pack the parts."""
        sha = hash_key([[[output.path, output.sha256] for output in outputs], facts])
        counts = {source: tally.as_dict() for source, tally in tallies.items()}
        cells = [fingerprint, sha, _ENCODER.encode(facts), _ENCODER.encode(counts)]
        cells += [str(cell) for output in outputs for cell in output]
        self.row = "\0".join(cells).encode("utf-8", "surrogatepass")

    @classmethod
    def of_row(cls, row: bytes) -> "Receipt":
        """Return the receipt of a `row`."""
        made = Receipt.__new__(Receipt)
        made.row = row
        return made

    def __reduce__(self) -> Any:
        return Receipt.of_row, (self.row,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and self.row == other.row

    def __hash__(self) -> int:
        return hash(self.row)

    @property
    def cells(self) -> list[str]:
        """All parts as text: of output number n, path, size and hash are at 4 + 3 n."""
        return self.row.decode("utf-8", "surrogatepass").split("\0")

    @property
    def fingerprint(self) -> str:
        """The task's fingerprint."""
        return self.row[: self.row.index(0)].decode()

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
        return self.cells[4::3]

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
        cells, prefix = self.cells, f"{place}/"
        files = zip(cells[4::3], cells[5::3], cells[6::3], strict=True)
        return [
            Output(path, int(size), sha256)
            for path, size, sha256 in files
            if not place or path.startswith(prefix) or path == place
        ]

    def files(self, folders: tuple[str, ...] = ()) -> list[File]:
        """Return path and hash of the outputs below folders, each with a slash at its end; of all without folders."""
        cells = self.cells
        files = zip(cells[4::3], cells[6::3], strict=True)
        return [file for file in files if file[0].startswith(folders)] if folders else list(files)


Receipts = Mapping[str, Receipt]  # by the names of their tasks


class PackedReceipts(Mapping[str, Receipt]):
    """Receipts whose rows lie in a temporary file: a driver has millions of them, and reads each now and then.

    Attributes:
        tallies: the sums of their tallies, by source.
    """

    def __init__(self, names: Iterable[str], found: Iterable[tuple[str, Receipt]]) -> None:
        """Take receipts, each with the name of its task, in any order; they get that of the names."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it ends with the object
        self._ends, self.tallies = array("Q", [0]), dict[str, Tally]()
        numbers: dict[str, int] = dict.fromkeys(names, -1)
        write, append, end = self._file.write, self._ends.append, 0
        for number, (name, receipt) in enumerate(found):
            numbers[name] = number
            end += write(receipt.row)
            append(end)
            for source, plain in receipt.counts.items():
                self.tallies.setdefault(source, Tally()).add_plain(plain)
        self._file.flush()
        self._descriptor = self._file.fileno()
        if len(self._ends) <= len(numbers):
            numbers = {name: number for name, number in numbers.items() if number >= 0}
        self._numbers = numbers

    def __getitem__(self, name: str) -> Receipt:
        number = self._numbers[name]
        start = self._ends[number]
        return Receipt.of_row(os.pread(self._descriptor, self._ends[number + 1] - start, start))

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def pack_together(*parts: Receipts) -> PackedReceipts:
    """Return the receipts of tasks of several steps, which have names of their own."""
    names = itertools.chain.from_iterable(parts)
    return PackedReceipts(names, itertools.chain.from_iterable(part.items() for part in parts))


def sum_by_source(found: Receipts) -> Mapping[str, Tally]:
    """Return the sums of the tallies of receipts, by source."""
    return (found if isinstance(found, PackedReceipts) else pack_together(found)).tallies


@dataclass(slots=True)
class Files:
    """What a unit reads of a finished task: its outputs below some folders, or all of its result.

    It holds the place of the receipt, not the receipt: a driver has many units. As an argument, it stands for the
    paths: functions get the list of them.

    Attributes:
        receipts: of the task's step.
        name: of the task.
        folders: each with a slash at its end; none for all of the result.
    """

    receipts: Receipts
    name: str
    folders: tuple[str, ...] = ()

    def list(self) -> list[File]:
        """Return path and hash of these outputs."""
        return self.receipts[self.name].files(self.folders)

    def __reduce__(self) -> Any:
        return list, ([path for path, _ in self.list()],)


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

    def __reduce__(self) -> Any:
        return Keyed, (self.value, None, self.versions)  # workers have no use for the key


class Awaited(NamedTuple):
    """A task of an earlier turn of the same job, of whose outputs a unit reads one, or those below a folder, or all."""

    step: str
    name: str
    path: str = ""


Fingerprints = Mapping[str, str]  # of the tasks of a step, by name
Known = Mapping[str, Fingerprints]  # of the tasks of earlier turns, by step


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
    files: tuple[File, ...] = ()
    awaited: tuple[tuple["Task", str], ...] = ()


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

    def fingerprints(self, upstream: Fingerprints = NOTHING, known: Known = NOTHING) -> dict[str, str]:
        """Return the fingerprint of each unit's task, by name.

        Args:
            upstream: of mappers, whose blocks every unit may get.
            known: of tasks that units await.
        """
        common = hash_key([self.settings, [] if self.any_way else list(upstream.items())])
        shared = {
            (calls, source): hash_key([code_version(self.function, *calls), common, self.by_source.get(source, {})])
            for calls, source in {(unit.calls, unit.source) for unit in self.units}
        }
        made = {}
        for name, arguments, reads, _, source, calls, quarantine, awaits in self.units:
            awaited = [[one, known[one.step][one.name]] for one in awaits] if awaits else ()
            made[name] = hash_key([shared[calls, source], name, arguments, awaited, reads, quarantine])
        return made

    def task(
        self, unit: Unit, fingerprint: str, files: tuple[File, ...] = (), awaited: tuple[tuple[Task, str], ...] = ()
    ) -> Task:
        """Return the task of a unit; without the files that it reads where they are not given."""
        name, arguments, _, size, source, _, quarantine, _ = unit
        return Task(self.name, name, fingerprint, size, source, arguments, quarantine, files, awaited)

    def completer(self, known: Known = NOTHING) -> Callable[[Unit, str], Task]:
        """Return a function that returns the task of a unit with a fingerprint, and with the files that it reads.

        `known`: as for `fingerprints`.
        """
        common = files_in(self.settings)
        of_source = {name: [*files_in(values), *common] for name, values in self.by_source.items()}

        def complete(unit: Unit, fingerprint: str) -> Task:
            files = files_in(unit.reads) if unit.reads else []
            files += files_in(unit.arguments) if unit.arguments else []
            files += of_source.get(unit.source, common)
            awaited = tuple((Task(one.step, one.name, known[one.step][one.name]), one.path) for one in unit.awaits)
            return self.task(unit, fingerprint, tuple(dict.fromkeys(files)), awaited)

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


def files_in(value: Any) -> list[File]:
    """Return the files that receipts, keys and plain values name, but for those that are still to be written."""
    found: list[File] = []
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind is str or kind is int:  # most are
            continue
        if kind is Files:
            found += one.list()
        elif kind is Output:
            if one.sha256:
                found.append((one.path, one.sha256))
        elif kind is list or kind is tuple:
            left += one
        elif kind is Keyed:
            left.append(one.key)
        elif kind is Receipt:
            found += one.files()
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, tuple):
            left += one
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
    if isinstance(value, Files):
        return value.list() if value.folders else value.receipts[value.name].sha
    if isinstance(value, Receipt):
        return value.sha
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return value.model_dump()


def _read_json(cell: bytes) -> dict[str, Any]:
    """Return the value of a cell; `json.loads` takes half as long again."""
    found: dict[str, Any] = _DECODER.raw_decode(cell.decode("utf-8", "surrogatepass"))[0]
    return found


_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain, check_circular=False
)
