"""Where mirrors have what needs no list: files of C4 by number, plain texts of Project Gutenberg by ebook number.

C4: `CONFIG/c4-train.NNNNN-of-01024.json.gz` (https://huggingface.co/datasets/allenai/c4). Project Gutenberg:
`cache/epub/N/pgN.txt`, at its own site and its mirrors, which are what robots may read
(https://www.gutenberg.org/policy/robot_access.html).
"""

import re
import urllib.parse
from pathlib import Path
from typing import TextIO

from filters.errors import UserError
from pipeline.download.crawls import parse_slice
from pipeline.download.download import PARALLEL, download
from pipeline.download.http import Outcome, Wanted
from pipeline.download.request import Patience

C4_URL = "https://huggingface.co/datasets/allenai/c4/resolve/main/"
C4_FILES = 1024
C4_CONFIGS = {"en": C4_FILES, "en.noblocklist": C4_FILES, "realnewslike": 512}
GUTENBERG_URL = "https://www.gutenberg.org/"
MAX_BOOKS = 100_000
_RANGE = re.compile(r"([1-9][0-9]{0,6})(?:-([1-9][0-9]{0,6}))?")


def c4_paths(config: str, files: str) -> list[str]:
    """The paths of those training files of a configuration that the slice `files` picks. Raises UserError."""
    if config not in C4_CONFIGS:
        raise UserError(f"--config {config!r} is none that can be read: give {', '.join(C4_CONFIGS)}")
    count = C4_CONFIGS[config]
    numbers = range(count)[parse_slice(files)]
    if not numbers:
        raise UserError(f"--files {files} picks nothing: C4's {config} has {count:,} files")
    return [f"{config}/c4-train.{number:05d}-of-{count:05d}.json.gz" for number in numbers]


def gutenberg_paths(books: str) -> list[str]:
    """The paths of ebooks given by number: `1342`, `1-100` (both included), joined by commas. Raises UserError."""
    numbers = dict[int, None]()
    for part in books.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise UserError(
                f"--books {books!r}: {part!r} is no ebook number: give numbers and ranges, such as 11,84,1-100"
            )
        if last - first + len(numbers) >= MAX_BOOKS:
            raise UserError(f"--books {books!r} asks for more than {MAX_BOOKS:,} books: give fewer at a time")
        numbers |= dict.fromkeys(range(first, last + 1))
    return [f"cache/epub/{number}/pg{number}.txt" for number in numbers]


def download_paths(
    base_url: str,
    paths: list[str],
    folder: Path,
    patience: Patience | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[Outcome]:
    """Download relative paths to the same ones below `folder`. Raises UserError for an address of another form, and for
    a folder that cannot be written."""
    if not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base-url {base_url!r} is no http or https address: give one such as {GUTENBERG_URL}")
    wanted = [Wanted(f"{base_url.rstrip('/')}/{urllib.parse.quote(path)}", path) for path in paths]
    return download(wanted, folder, patience, parallel, terminal)
