"""Named input files from the recipe's paths, globs and URLs.

An input's name is its path below its glob's fixed prefix, so a corpus does not depend on the folder of its dumps. The
driver opens each file and reads no more of it: a step of the run hashes them (`pipeline.stages.split_offsets`).
"""

import concurrent.futures
import fnmatch
import glob
import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TextIO

from filters.errors import UserError
from manifests.files import sha256_bytes, version_of
from manifests.mirror import Mirror, is_url, mirror_of
from manifests.storage import StorageError, connect, retry_storage, split_url

if TYPE_CHECKING:
    from pipeline.download.http import RetryPolicy

RETRY_POLICY: "RetryPolicy | None" = None  # of downloads of inputs; None for `ATTEMPTS`
ATTEMPTS = 5  # half a minute of waits: the user waits as well, and may have mistyped the host
DOWNLOADED = "inputs"  # folder of a corpus for the dumps that are given by URL
_CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}")
_SUFFIXES = (".parquet", ".jsonl", ".json", ".arrow")


class NoMatchError(UserError):
    """No file matches a path or glob."""

    def __init__(self, source: str, pattern: str) -> None:
        super().__init__(f"source {source}: no file matches {pattern!r}: check the path, and quote globs for the shell")
        self.source, self.pattern = source, pattern


@dataclass(frozen=True, slots=True)
class Input:
    """One dump file.

    Attributes:
        source: its source.
        name: its name in the corpus.
        path: its absolute path now, or its URL in an object store.
        size: in bytes.
        version: its size and time of change, by which a task sees that it has changed since the run began; of an object
            its time of change.
        sha256: of its bytes; empty until it has been hashed, and for objects.
        problem: why it cannot be read; empty if it can.
    """

    source: str
    name: str
    path: str
    size: int
    version: str
    sha256: str = ""
    problem: str = ""

    @property
    def key(self) -> str:
        """The part of cache keys that tells its bytes: the hash as soon as it is known, else the version."""
        return self.sha256 or self.version


def match(source: str, patterns: Iterable[str], corpus: Path, terminal: TextIO | None = None) -> dict[str, Path]:
    """Return the files that a source's patterns match, by name; those at http URLs are downloaded into the corpus.

    Patterns of object stores are left to `match_stored`. `terminal`: receives the progress of downloads, and why they
    wait.

    Raises:
        UserError: A pattern matches nothing, two files have one name, or a download fails.
    """
    found: dict[str, Path] = {}
    places: dict[str, str] = {}
    for pattern in patterns:
        for name, path in [] if is_stored(pattern) else _find_matches(source, pattern, corpus, terminal):
            place = pattern if is_url(pattern) else os.path.realpath(path)
            if places.setdefault(name, place) != place:
                raise UserError(
                    f"source {source}: {places[name]} and {place} would both be named {name!r}: "
                    "give one glob above both, or copies with other names"
                )
            found[name] = path
    _check_names(source, found)
    return found


def _check_names(source: str, names: Iterable[str]) -> None:
    """Raise UserError for a name that cannot be that of files below the corpus's folders, apart from all others."""
    names = list(names)
    for name in names:
        if ".." in PurePosixPath(name).parts or str(PurePosixPath(name)) != name:
            raise UserError(
                f"source {source}: {name!r} would name another file of the corpus: give a pattern without '..' behind "
                "its first wildcard, and objects without empty folder names"
            )
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    for name in names:
        if any(f"{name}{suffix}" in folders for suffix in _SUFFIXES):
            raise UserError(f"source {source}: {name!r} is both a file's and a folder's name with a suffix: rename one")


def is_stored(pattern: str) -> bool:
    """Return True for a URL of an object store, of which files are listed; http servers list none."""
    return is_url(pattern) and not pattern.startswith(("http://", "https://"))


def match_stored(source: str, patterns: Iterable[str]) -> dict[str, Input]:
    """Return the objects that a source's patterns match, by name; other patterns are left out.

    Raises:
        UserError: A pattern matches nothing, or two objects have one name.
    """
    found: dict[str, Input] = {}
    for pattern in filter(is_stored, patterns):
        scheme, bucket, path = split_url(pattern)
        fixed = fixed_prefix(path).parts
        folder, rest = "/".join([f"{scheme}://{bucket}", *fixed]), path.split("/")[len(fixed) :]
        entries = [entry for entry in connect(folder).list_files() if _is_match(entry.path.split("/"), rest)]
        if not entries:
            raise UserError(f"source {source}: no object matches {pattern!r}: check the URL, and quote globs")
        for entry in entries:
            item = Input(source, entry.path, f"{folder}/{entry.path}", entry.bytes, str(entry.changed))
            other = found.setdefault(entry.path, item)
            if other.path != item.path:
                raise UserError(f"source {source}: {item.path} and {other.path} would both be named {entry.path!r}")
    return found


def match_names(source: str, patterns: Iterable[str], corpus: Path) -> set[str]:
    """Return the names of all files and objects that a source's patterns match. Raises UserError as both do."""
    patterns = list(patterns)
    return {*match(source, patterns, corpus), *match_stored(source, patterns)}


def _is_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return True if a path's parts match those of a glob, in which `**` stands for any folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_is_match(parts[number:], pattern[1:]) for number in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _is_match(parts[1:], pattern[1:])


def is_matched(pattern: str) -> bool:
    """Return True if a path or glob matches a file, or is a folder."""
    path = expand_user(pattern)
    return os.path.exists(path) or next(_find_inputs(Path(), path.parts), None) is not None  # noqa: PTH110  # never raises


def resolve(source: str, patterns: Iterable[str], corpus: Path, terminal: TextIO | None = None) -> list[Input]:
    """Return the files that a source's patterns match, with their versions, sorted by name.

    An unreadable file has a `problem`, which the caller refuses or counts. Raises UserError as `match` does.
    """
    patterns = list(patterns)
    found = match(source, patterns, corpus, terminal)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        inputs = list(pool.map(partial(_inspect, source), found.keys(), found.values()))
    stored = match_stored(source, patterns)
    if both := sorted(found.keys() & stored.keys()):
        raise UserError(f"source {source}: {stored[both[0]].path} and {found[both[0]]} would both be named {both[0]!r}")
    _check_names(source, [*found, *stored])
    mirror = mirror_of(corpus)
    if mirror is not None:
        inputs = [_publish(mirror, item) for item in inputs]
    return sorted([*inputs, *stored.values()], key=lambda item: item.name)


def _publish(mirror: Mirror, item: Input) -> Input:
    """Return an input that was downloaded into a mirror as one of the corpus's store, where all workers find it."""
    if not Path(item.path).is_relative_to(mirror.folder):
        return item
    path = Path(item.path).relative_to(mirror.folder).as_posix()
    entry = mirror.storage.find(path)
    if entry is None or entry.bytes != item.size:
        mirror.storage.publish(Path(item.path), path)
        entry = mirror.storage.find(path)
        assert entry is not None, "published just now"
    return replace(item, path=f"{mirror.storage.url}/{path}", version=str(entry.changed))


def expand_user(path: str) -> Path:
    """Return a path with the home folder for `~`; that of a user whom this machine does not know stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # pathlib's raises an error for such a user


def fixed_prefix(pattern: str) -> Path:
    """Return the folder above a pattern's first wildcard, which is left out of names."""
    fixed: list[str] = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed) if fixed else Path()


def _find_matches(source: str, pattern: str, corpus: Path, terminal: TextIO | None) -> list[tuple[str, Path]]:
    if is_url(pattern):
        return [_download(source, pattern, corpus, terminal)]
    path = expand_user(pattern)
    if os.path.isdir(path):  # noqa: PTH112  # unlike `Path.is_dir`, False where it cannot be looked at
        raise UserError(f"source {source}: {pattern} is a folder: give a glob such as '{pattern.rstrip('/')}/**'")
    paths = [path] if os.path.isfile(path) else list(_find_inputs(Path(), path.parts))  # noqa: PTH113  # likewise
    if not paths:
        raise NoMatchError(source, pattern)
    prefix = fixed_prefix(str(path))
    return [(_format_name(p.relative_to(prefix) if prefix.parts and p != prefix else p), p) for p in paths]


def _find_inputs(folder: Path, parts: Sequence[str], above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder that match the parts of a glob, and every folder on the way that cannot be read.

    `glob.glob` leaves such folders out in silence. A path may come twice. A link that leads back to a folder
    `above`, through which `**` came here, is not followed: each file below would have names without end.
    """
    if not parts:
        if _is_input(folder):
            yield folder
        return
    part, rest = parts[0], parts[1:]
    if not glob.has_magic(part):
        yield from _find_inputs(folder / part, rest)
        return
    try:
        this = frozenset([os.path.realpath(folder)])
        if part == "**" and this <= above:
            return
        with os.scandir(folder) as entries:
            found = [(folder / entry.name, _is_folder(entry)) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return  # a file holds nothing that the rest of the pattern could match
    except OSError:
        yield folder
        return
    if part == "**":
        yield from _find_inputs(folder, rest)
    for path, is_folder in found:
        if part != "**":
            if fnmatch.fnmatchcase(path.name, part):
                yield from _find_inputs(path, rest)
        elif is_folder:
            yield from _find_inputs(path, parts, above | this)
        elif not rest:
            yield from _find_inputs(path, rest)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return True for a folder or a link to one; also for a link that cannot be followed, which fails when listed."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def _is_input(path: Path) -> bool:
    """Return True for a file, and for what may be one: a broken link, or a path in a folder that cannot be searched.

    Such a path cannot be read, so that a run refuses it or counts it, and leaves nothing out in silence.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return path.is_symlink()
    except OSError:
        return True


def _format_name(path: Path) -> str:
    """Return a file's name as text, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _download(source: str, url: str, corpus: Path, terminal: TextIO | None) -> tuple[str, Path]:
    """Download one URL into the corpus, once. Raises UserError if that fails."""
    from pipeline.download.download import download
    from pipeline.download.http import RemoteFile, RetryPolicy, State

    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise UserError(f"source {source}: {url}: only http and https can be downloaded; mount it and give a path")
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if name in ("", ".."):
        raise UserError(f"source {source}: {url} names no file: give the URL of one file")
    folder = corpus / DOWNLOADED / source / sha256_bytes(url.encode())[:16]  # a file of another URL is another file
    policy = RETRY_POLICY or RetryPolicy(ATTEMPTS)
    (result,) = download([RemoteFile(url, name)], folder, policy, terminal=terminal)
    if result.state is State.FAILED:
        raise UserError(f"source {source}: {url} cannot be downloaded ({result.reason}): check it and run again")
    return name, folder / name


def _inspect(source: str, name: str, path: Path) -> Input:
    """Return a file of this machine as an input, with a problem if it cannot be opened and read."""

    def look() -> str:
        with path.open("rb") as file:
            file.read(1)
        return version_of(path)

    place = str(path.absolute())
    try:
        version = retry_storage(look, str(path))
    except StorageError as error:
        assert isinstance(error.__cause__, OSError)
        return Input(source, name, place, 0, "", "", error.__cause__.strerror or str(error.__cause__))
    return Input(source, name, place, int(version.partition(" ")[0]), version)


def dump_of(name: str) -> str:
    """Return the crawl that an input belongs to: the CC-MAIN-YYYY-WW in its name, else its first folder."""
    crawl = _CRAWL.search(name)
    return crawl.group() if crawl else name.rpartition("/")[0].partition("/")[0]
