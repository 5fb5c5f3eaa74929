"""How Common Crawl lays out a crawl: `crawl-data/NAME/KIND.paths.gz` lists the files of a kind, one relative path a
line (https://commoncrawl.org/get-started)."""

import gzip
import re
import urllib.parse
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filters.errors import UserError
from pipeline.download.download import PARALLEL, check_target, download
from pipeline.download.http import Outcome, State, Wanted
from pipeline.download.request import Patience

BASE_URL = "https://data.commoncrawl.org/"
KINDS = ("warc", "wet", "wat")
MAX_LIST_BYTES = 64 << 20
"""stored and inflated; a crawl's list has up to 100,000 lines of some 140 bytes"""
MAX_LIST_LINES = 1_000_000
_NAME = re.compile(r"CC-MAIN-[0-9]{4}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_GONE = (404, 410)


@dataclass(frozen=True, slots=True)
class Crawl:
    """A monthly crawl and one kind of its files. Raises UserError for a name or an address of another form."""

    name: str
    kind: str = "warc"
    base_url: str = BASE_URL

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(f"{self.name!r} is no crawl's name: give year and week, such as CC-MAIN-2019-30")
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"--base-url {self.base_url!r} is no http or https address: give one such as {BASE_URL}")

    @property
    def list_path(self) -> str:
        """Where the list of the crawl's files is, below the base and below the output folder."""
        return f"crawl-data/{self.name}/{self.kind}.paths.gz"

    def url(self, path: str) -> str:
        """Where a relative path is to be had."""
        return f"{self.base_url.rstrip('/')}/{urllib.parse.quote(path)}"


def download_crawl(
    crawl: Crawl,
    files: str,
    folder: Path,
    patience: Patience | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[Outcome]:
    """Download a crawl's list, then those of its files that the slice `files` picks (`parse_slice`), to their own paths
    below `folder`. Where the list cannot be had, its outcome is the only one.

    Raises UserError for a crawl that does not exist, a list that cannot be read, a slice that is none or picks nothing,
    and a folder that cannot be written.
    """
    chosen = parse_slice(files)
    the_list = Wanted(crawl.url(crawl.list_path), crawl.list_path, MAX_LIST_BYTES)
    (listed,) = download([the_list], folder, patience, terminal=terminal)
    if listed.status in _GONE:
        raise UserError(f"no such crawl: {listed.wanted.url} is not there ({listed.reason})")
    if listed.state is State.FAILED:
        return [listed]
    path = folder / crawl.list_path
    try:
        paths = read_list(path)
    except UserError:
        path.unlink()  # or the next run would take it for the list again
        raise
    picked = paths[chosen]
    if not picked:
        raise UserError(f"--files {files} picks nothing: {crawl.name} has {len(paths):,} {crawl.kind} files")
    wanted = [Wanted(crawl.url(path), path) for path in dict.fromkeys(picked)]
    return download(wanted, folder, patience, parallel, terminal)


def parse_slice(text: str) -> slice:
    """`START:STOP` or `START:STOP:STEP` with Python's meaning, or one index. Raises UserError for anything else."""
    parts = text.split(":")
    bad = UserError(f"--files {text!r} is no slice: give START:STOP, such as 0:8, or one number")
    if len(parts) > 3 or any(part and not _INTEGER.fullmatch(part) for part in parts) or text == "":
        raise bad
    numbers = [int(part) if part else None for part in parts]
    if len(numbers) == 1:
        (index,) = numbers
        assert index is not None
        return slice(index, index + 1 if index != -1 else None)
    if len(numbers) == 3 and numbers[2] == 0:
        raise bad
    return slice(*numbers)


def read_list(path: Path) -> list[str]:
    """The relative paths in a list, in its order, blank lines left out. Raises UserError for one that is no gzip, is
    too large or empty, or holds a line that is no path below a folder."""
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no list of a crawl's files (no whole gzip file): check --base-url") from error
    if len(data) > MAX_LIST_BYTES or data.count(b"\n") > MAX_LIST_LINES:
        raise UserError(f"{path} is no list of a crawl's files (too large): check --base-url")
    paths = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode("utf-8").removesuffix("\r")
            if text:
                check_target(text)
                paths.append(text)
        except (UnicodeDecodeError, UserError) as error:
            shown = ascii(line[:60])
            raise UserError(f"{path}: line {number}, {shown}, is no path below a folder: check --base-url") from error
    if not paths:
        raise UserError(f"{path} is no list of a crawl's files (it is empty): check --base-url")
    return paths
