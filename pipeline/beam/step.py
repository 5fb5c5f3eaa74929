"""Declare steps: the function of a step, the units that it processes, and the receipts of finished units.

A receipt records the fingerprint of its unit. The fingerprint is a hash of the code that the step's function reaches,
the settings, the unit's arguments, and the hashes of the files that the unit reads. A run reuses the outputs of an
earlier run only if the fingerprint is the same. So a run can be killed at any moment. If it is started again, it
repeats at most the units that were running, and it writes the same bytes.
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
    """A file that a task wrote: its path below the corpus, its size in bytes, and its SHA-256 in hexadecimal.

    The hash is empty for a file that does not exist yet (`output_placeholder`).
    """

    path: str
    bytes: int
    sha256: str


File = tuple[str, str]  # path and hash of an output
NOTHING: Mapping[str, Any] = MappingProxyType({})


def output_placeholder(path: str, size: int) -> Output:
    """Return a placeholder for an output that does not exist yet. It has no hash; its size is an estimate.

    Units that read the output must list its task in `Unit.awaits`.
    """
    return Output(path, size, "")


@dataclass(frozen=True)
class Result:
    """The return value of a step's function.

    Attributes:
        paths: paths, below the corpus, of the files that the function wrote.
        tallies: a dict from source name to tally.
        facts: JSON values for later steps. They count in `Receipt.sha`.
        shuffled: number of bytes sent to reducers. It is only reported.
    """

    paths: Iterable[str]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    shuffled: int = 0


class Receipt:
    """The record of a finished task: fingerprint, outputs, tallies and facts.

    It contains no times, so that it is the same in every run.

    Attributes:
        row: all parts as bytes, separated by zero bytes: fingerprint, hash, facts, tallies, and then path, size and
            hash of each output. The properties parse it at each access, which saves memory.
    """

    __slots__ = ("row",)

    def __init__(
        self, fingerprint: str, outputs: Sequence[Output], tallies: Mapping[str, Tally], facts: Mapping[str, Any]
    ) -> None:
        """Pack the parts into a row of bytes."""
        sha = hash_key([[[output.path, output.sha256] for output in outputs], facts])
        counts = {source: tally.as_dict() for source, tally in tallies.items()}
        cells = [fingerprint, sha, _ENCODER.encode(facts), _ENCODER.encode(counts)]
        cells += [str(cell) for output in outputs for cell in output]
        self.row = "\0".join(cells).encode("utf-8", "surrogatepass")

    @classmethod
    def of_row(cls, row: bytes) -> "Receipt":
        """Return the receipt that a `row` contains."""
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
        """All parts as text. Path, size and hash of output number n begin at index 4 + 3 n."""
        return self.row.decode("utf-8", "surrogatepass").split("\0")

    @property
    def fingerprint(self) -> str:
        """The task's fingerprint."""
        return self.row[: self.row.index(0)].decode()

    @property
    def sha(self) -> str:
        """The hash of the outputs and facts. It is part of the fingerprints of tasks that read them."""
        return self.row.split(b"\0", 2)[1].decode()

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values for later steps."""
        return _read_json(self.row.split(b"\0", 3)[2])

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """A dict from source name to tally, with each tally as a dict."""
        cell = self.row.split(b"\0", 4)[3]
        return _read_json(cell) if cell != b"{}" else {}

    @property
    def tallies(self) -> dict[str, Tally]:
        """A dict from source name to tally."""
        return {source: tally_from(plain) for source, plain in self.counts.items()}

    def output_counts(self, source: str) -> Counter[str]:
        """Return the numbers of records, characters and so on that the task put out for a source."""
        return Counter(self.counts[source]["out"])

    @property
    def paths(self) -> list[str]:
        """The paths of the outputs."""
        return self.cells[4::3]

    @property
    def outputs(self) -> list[Output]:
        """The files that the task wrote."""
        return self.outputs_below("")

    @property
    def bytes(self) -> int:
        """The total size of the outputs in bytes."""
        return sum(map(int, self.row.split(b"\0")[5::3]))

    def outputs_below(self, place: str) -> list[Output]:
        """Return the outputs below a folder of the corpus, or the output with this path. "" returns all outputs."""
        cells, prefix = self.cells, f"{place}/"
        files = zip(cells[4::3], cells[5::3], cells[6::3], strict=True)
        return [
            Output(path, int(size), sha256)
            for path, size, sha256 in files
            if not place or path.startswith(prefix) or path == place
        ]

    def files(self, folders: tuple[str, ...] = ()) -> list[File]:
        """Return path and hash of each output below some folders, or of all outputs if no folder is given.

        Args:
            folders: paths below the corpus, each with a slash at its end.
        """
        cells = self.cells
        files = zip(cells[4::3], cells[6::3], strict=True)
        return [file for file in files if file[0].startswith(folders)] if folders else list(files)


Receipts = Mapping[str, Receipt]  # from the name of a task to its receipt


class PackedReceipts(Mapping[str, Receipt]):
    """A read-only mapping from task names to receipts, with the rows of the receipts in a temporary file.

    A driver has millions of receipts and reads each one seldom, so only their offsets are in memory.

    Attributes:
        tallies: a dict from source name to the sum of the receipts' tallies.
    """

    def __init__(self, names: Iterable[str], found: Iterable[tuple[str, Receipt]]) -> None:
        """Write receipts to a temporary file.

        Args:
            names: names of tasks, which give the order of the mapping. A name without a receipt is left out.
            found: pairs of the name of a task and its receipt, in any order.
        """
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this object
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
    """Return the receipts of several steps as one mapping. The tasks must have different names."""
    names = itertools.chain.from_iterable(parts)
    return PackedReceipts(names, itertools.chain.from_iterable(part.items() for part in parts))


def sum_by_source(found: Receipts) -> Mapping[str, Tally]:
    """Return a dict from source name to the sum of the receipts' tallies."""
    return (found if isinstance(found, PackedReceipts) else pack_together(found)).tallies


@dataclass(slots=True)
class Files:
    """A reference to the outputs of a finished task that a unit reads.

    It refers to the receipt instead of containing it, because a driver has many units. It can be an argument of a
    step's function: it is pickled as the list of the outputs' paths, so the function gets this list.

    Attributes:
        receipts: the receipts of the task's step.
        name: name of the task.
        folders: folders below the corpus whose files the unit reads, each with a slash at its end. If empty, the unit
            reads all outputs, and the task's facts also count in its fingerprint.
    """

    receipts: Receipts
    name: str
    folders: tuple[str, ...] = ()

    def list(self) -> list[File]:
        """Return path and hash of each output that the unit reads."""
        return self.receipts[self.name].files(self.folders)

    def __reduce__(self) -> Any:
        return list, ([path for path, _ in self.list()],)


@dataclass(frozen=True, slots=True)
class Keyed:
    """An argument that counts in fingerprints with its `key` instead of its value.

    For example, the key of a path is the hash of the file. With the key None, the argument does not count.

    Attributes:
        value: the argument.
        key: the JSON value that is hashed instead of the argument.
        versions: if the argument is a path or URL, or a list of paths or URLs: `Input.version` of each file. A task
            fails if a file has another version when it runs. Its function gets paths of local copies for URLs.
    """

    value: Any
    key: Any = None
    versions: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        return Keyed, (self.value, None, self.versions)  # workers do not need the key


class Awaited(NamedTuple):
    """Outputs that a unit reads of a task which runs in an earlier turn of the same job.

    Attributes:
        step: name of the task's step.
        name: name of the task.
        path: the output, or a folder of outputs, below the corpus. "" means all outputs of the task.
    """

    step: str
    name: str
    path: str = ""


Fingerprints = Mapping[str, str]  # from the name of a task to its fingerprint, for one step
Known = Mapping[str, Fingerprints]  # from the name of a step of an earlier turn to its fingerprints


class Unit(NamedTuple):
    """The input of one task. A unit is processed completely or, after a failure, again from its beginning.

    Attributes:
        name: name that is unique in the step. It determines the path of the receipt.
        arguments: keyword arguments for the step's function.
        reads: receipts, outputs or hashes of the files that the function reads. If the corpus is in an object store,
            a task fetches only the files that are named here, in `awaits`, or in the keys of arguments and settings.
        size: number of bytes to read. Large units start first.
        source: name of the source whose entry in `Step.by_source` the function also gets.
        calls: functions that the step's function looks up at run time. Their code counts in the fingerprint.
        quarantine: records that readers drop without reading them.
        awaits: outputs of tasks that may not have run when this unit is planned. The fingerprints of these tasks
            count in the unit's fingerprint, in place of the hashes of their outputs.
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
    """A unit with its fingerprint, as an engine gets it. It can be pickled.

    Attributes:
        files: path and hash of the files that the task fetches if the corpus is in an object store.
        awaited: pairs of a task of an earlier turn and an `Awaited.path`: outputs that are fetched in addition.
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
    """A function and the units that it processes. The units do not depend on each other.

    The function is called as `function(corpus, name, **settings, **by_source[unit.source], **unit.arguments)`. A
    reducer of an exchange gets a list of blocks as an additional positional argument after the name. The result of the
    function must depend only on these arguments and on the files that they name. It must write files with
    `atomic_path`.

    Attributes:
        name: name of the folder of the receipts, and of the row in `manifests.stages`.
        function: a module-level function.
        units: the units to process.
        settings: keyword arguments for all units: the part of the recipe that the step depends on.
        by_source: from source name to additional keyword arguments for the units of this source.
        owns: folders below the corpus that contain only outputs of this step. The default is `blocks/NAME`.
        shared: True if another step has the same name and owns the same folders. Such folders are not swept for one
            step alone.
        ignores_mappers: True for a reducing step whose outputs do not depend on how its blocks were computed. The
            fingerprints of the mappers do not count in its fingerprints. Its units list all files that they depend on
            in `Unit.reads`.
        omits_code_version: True if other steps may do the same work, and a finished corpus does not show which step
            did. The manifest then does not contain the version of the step's code.
    """

    name: str
    function: Callable[..., Any]
    units: Sequence[Unit]
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    owns: tuple[str, ...] | None = None
    shared: bool = False
    ignores_mappers: bool = False
    omits_code_version: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders, below the corpus, that contain only outputs of this step."""
        return (f"{BLOCKS}/{self.name}",) if self.owns is None else self.owns

    def fingerprints(self, upstream: Fingerprints = NOTHING, known: Known = NOTHING) -> dict[str, str]:
        """Return a dict from the name of each unit to the fingerprint of its task.

        Args:
            upstream: fingerprints of the mappers, if this step reduces their blocks.
            known: fingerprints of the tasks that units await.
        """
        common = hash_key([self.settings, [] if self.ignores_mappers else list(upstream.items())])
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
        """Return the task of a unit. If `files` and `awaited` are not given, the task fetches no files."""
        name, arguments, _, size, source, _, quarantine, _ = unit
        return Task(self.name, name, fingerprint, size, source, arguments, quarantine, files, awaited)

    def task_builder(self, known: Known = NOTHING) -> Callable[[Unit, str], Task]:
        """Return a function that makes tasks which fetch the files that they read, for corpora in object stores.

        Args:
            known: fingerprints of the tasks that units await.

        Returns:
            A function from a unit and its fingerprint to a task.
        """
        common = files_in(self.settings)
        of_source = {name: [*files_in(values), *common] for name, values in self.by_source.items()}

        def build_task(unit: Unit, fingerprint: str) -> Task:
            files = files_in(unit.reads) if unit.reads else []
            files += files_in(unit.arguments) if unit.arguments else []
            files += of_source.get(unit.source, common)
            awaited = tuple((Task(one.step, one.name, known[one.step][one.name]), one.path) for one in unit.awaits)
            return self.task(unit, fingerprint, tuple(dict.fromkeys(files)), awaited)

        return build_task

    def names_by_source(self) -> dict[str, list[str]]:
        """Return a dict from source name to the names of its units."""
        found: dict[str, list[str]] = {}
        for unit in self.units:
            found.setdefault(unit.source, []).append(unit.name)
        return found

    def code(self) -> str:
        """Return the version of the code that the step runs for any of its units."""
        versions = sorted({code_version(self.function, *calls) for calls in {unit.calls for unit in self.units}})
        return versions[0] if len(versions) == 1 else hash_key(versions)


def files_in(value: Any) -> list[File]:
    """Return path and hash of all files that are named in a value.

    Args:
        value: `Files`, `Output`, `Receipt`, `Keyed`, a mapping or a sequence, nested in any way. Placeholders of
            outputs that do not exist yet are skipped.
    """
    found: list[File] = []
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind is str or kind is int:  # most values
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
    """Return the source name at the beginning of a split's name, such as `web` for `web/file/0`."""
    return sys.intern(split.partition("/")[0])


def hash_key(value: Any) -> str:
    """Return the SHA-256 of a value as canonical JSON.

    Settings are encoded as dicts, `Keyed` as its key, `Receipt` and `Files` as hashes of the outputs.
    """
    return sha256_bytes(_ENCODER.encode(value).encode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    """Return a value that the JSON encoder can encode in place of one that it cannot."""
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
    """Return the value of a JSON cell. The decoder is called directly, because `json.loads` takes 1.5 times as long."""
    found: dict[str, Any] = _DECODER.raw_decode(cell.decode("utf-8", "surrogatepass"))[0]
    return found


_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain, check_circular=False
)
