"""Find the input files for the paths, globs and URLs in a recipe, and name them.

The name of an input is its path relative to the folder above the first wildcard of its glob. Thus a corpus does not
depend on the folder in which the dumps are. The driver opens each file to check that it can be read, but does not read
its content. A step of the run hashes the files (`pipeline.stages.split_offsets`).
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

RETRY_POLICY: "RetryPolicy | None" = None  # for downloads of inputs; None means `RetryPolicy(ATTEMPTS)`
# Attempts to download an input, which take about half a minute. More would delay the error message for a mistyped host.
ATTEMPTS = 5
DOWNLOADED = "inputs"  # folder of a corpus for dumps that are given by URL
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
        source: The name of the source.
        name: The name of the file in the corpus.
        path: The absolute path of the file, or its URL in an object store.
        size: The size in bytes.
        version: The size and the modification time of a file, or the modification time of an object. Tasks compare it
            to detect that the file has changed since the start of the run.
        sha256: The hash of the bytes; "" until the file is hashed, and for objects.
        problem: Why the file cannot be read; "" if it can be read.
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
        """The value that identifies the bytes in cache keys: the hash if it is known, else the version."""
        return self.sha256 or self.version


def match(source: str, patterns: Iterable[str], corpus: Path, terminal: TextIO | None = None) -> dict[str, Path]:
    """Return a dict from name to path for the files that the patterns of a source match.

    Files at http URLs are downloaded into the corpus. Patterns of object stores are ignored, see `match_stored`.

    Args:
        source: The name of the source.
        patterns: Paths, globs and URLs.
        corpus: The folder of the corpus.
        terminal: Receives the progress of downloads, and the reasons for waiting.

    Raises:
        UserError: A pattern matches no file, two files have the same name, or a download fails.
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
    """Raise UserError if a name cannot be used for files in the folders of the corpus, or conflicts with another name.

    The name of an output file is the name of an input and a suffix. So no folder may have such a name.
    """
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
    """Return True for a URL of an object store. Its files can be listed, in contrast to http servers."""
    return is_url(pattern) and not pattern.startswith(("http://", "https://"))


def match_stored(source: str, patterns: Iterable[str]) -> dict[str, Input]:
    """Return a dict from name to input for the objects that the patterns of a source match.

    Patterns that are not URLs of object stores are ignored.

    Raises:
        UserError: A pattern matches no object, or two objects have the same name.
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
    """Return the names of all files and objects that the patterns of a source match.

    Raises:
        UserError: In the same cases as `match` and `match_stored`.
    """
    patterns = list(patterns)
    return {*match(source, patterns, corpus), *match_stored(source, patterns)}


def _is_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return True if the parts of a path match the parts of a glob. `**` matches any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_is_match(parts[number:], pattern[1:]) for number in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _is_match(parts[1:], pattern[1:])


def is_matched(pattern: str) -> bool:
    """Return True if a path or glob matches a file, or is a folder."""
    path = expand_user(pattern)
    return os.path.exists(path) or next(_find_inputs(Path(), path.parts), None) is not None  # noqa: PTH110  # never raises an exception


def resolve(source: str, patterns: Iterable[str], corpus: Path, terminal: TextIO | None = None) -> list[Input]:
    """Return the inputs for the patterns of a source, with their versions, sorted by name.

    A file that cannot be read has a `problem`. The caller decides if this is an error, or if the file is only counted.

    Args:
        source: The name of the source.
        patterns: Paths, globs and URLs.
        corpus: The folder of the corpus.
        terminal: Receives the progress of downloads.

    Raises:
        UserError: In the same cases as `match` and `match_stored`, or a file and an object have the same name.
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
    """Upload an input that was downloaded into a mirror to the corpus's object store, so that all workers can read it.

    A file that is already in the store is not uploaded again. Return the input with its URL in the store. Inputs that
    were not downloaded are returned unchanged.
    """
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
    """Return a path in which `~` is replaced by the home folder. `~USER` is unchanged if this user does not exist."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # `Path.expanduser` raises an error for such a user


def fixed_prefix(pattern: str) -> Path:
    """Return the folder above the first wildcard of a pattern. Names of inputs are relative to this folder."""
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
    if os.path.isdir(path):  # noqa: PTH112  # False if access is denied; `Path.is_dir` raises
        raise UserError(f"source {source}: {pattern} is a folder: give a glob such as '{pattern.rstrip('/')}/**'")
    paths = [path] if os.path.isfile(path) else list(_find_inputs(Path(), path.parts))  # noqa: PTH113  # see above
    if not paths:
        raise NoMatchError(source, pattern)
    prefix = fixed_prefix(str(path))
    return [(_format_name(p.relative_to(prefix) if prefix.parts and p != prefix else p), p) for p in paths]


def _find_inputs(folder: Path, parts: Sequence[str], above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder that match the parts of a glob, and the folders that cannot be read.

    `glob.glob` leaves out unreadable folders without an error. A path may be yielded twice.

    Args:
        folder: The folder.
        parts: The parts of the glob.
        above: The real paths of the folders that `**` has matched so far. A link to one of these folders is not
            followed, because each file below would have infinitely many names.
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
        return  # `folder` is a file, so no path below it can match
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
    """Return True for a folder, for a link to a folder, and for a link that cannot be followed.

    Listing the target of such a link fails, so that it is reported.
    """
    try:
        return entry.is_dir()
    except OSError:
        return True


def _is_input(path: Path) -> bool:
    """Return True for a file, for a broken link, and for a path in a folder that cannot be searched.

    Broken links and unsearchable paths cannot be read, so that the run reports them instead of ignoring them.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return path.is_symlink()
    except OSError:
        return True


def _format_name(path: Path) -> str:
    """Return the name of a file as text. Bytes that are not valid UTF-8 are escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _download(source: str, url: str, corpus: Path, terminal: TextIO | None) -> tuple[str, Path]:
    """Download one URL into the corpus, unless it is already there. Return (name, path). Raises UserError."""
    from pipeline.download.download import download
    from pipeline.download.http import RemoteFile, RetryPolicy, State

    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise UserError(f"source {source}: {url}: only http and https can be downloaded; mount it and give a path")
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if name in ("", ".."):
        raise UserError(f"source {source}: {url} names no file: give the URL of one file")
    # The hash of the URL keeps files apart that have the same name and different URLs.
    folder = corpus / DOWNLOADED / source / sha256_bytes(url.encode())[:16]
    policy = RETRY_POLICY or RetryPolicy(ATTEMPTS)
    (result,) = download([RemoteFile(url, name)], folder, policy, terminal=terminal)
    if result.state is State.FAILED:
        raise UserError(f"source {source}: {url} cannot be downloaded ({result.reason}): check it and run again")
    return name, folder / name


def _inspect(source: str, name: str, path: Path) -> Input:
    """Return the input for a file on this machine. It has a `problem` if it cannot be opened and read."""

    def read_version() -> str:
        with path.open("rb") as file:
            file.read(1)
        return version_of(path)

    place = str(path.absolute())
    try:
        version = retry_storage(read_version, str(path))
    except StorageError as error:
        assert isinstance(error.__cause__, OSError)
        return Input(source, name, place, 0, "", "", error.__cause__.strerror or str(error.__cause__))
    return Input(source, name, place, int(version.partition(" ")[0]), version)


def dump_of(name: str) -> str:
    """Return the crawl that an input belongs to: CC-MAIN-YYYY-WW in its name, or else the first folder in its name."""
    crawl = _CRAWL.search(name)
    return crawl.group() if crawl else name.rpartition("/")[0].partition("/")[0]
