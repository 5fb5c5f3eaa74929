"""How Wikimedia lays out its dumps: `xxwiki/DATE/xxwiki-DATE-FILE`, with checksums of all files of a dump in
`xxwiki-DATE-sha1sums.txt`, and in `-md5sums.txt` (https://meta.wikimedia.org/wiki/Data_dumps)."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from filters.errors import UserError
from filters.wikitext.names import LANGUAGES, OTHER_LANGUAGES
from pipeline.download.download import PARALLEL, check_target, download
from pipeline.download.http import Outcome, State, Wanted
from pipeline.download.request import Patience

BASE_URL = "https://dumps.wikimedia.org/"
ALL = "all"
FORMS = {
    "multistream": r"pages-articles-multistream\.xml\.bz2",
    "parts": r"pages-articles-multistream\d{1,4}\.xml-p\d{1,12}p\d{1,12}\.bz2",
    "single": r"pages-articles\.xml\.bz2",
}
"""files with a wiki's articles: one that can be cut, the same in parts (large wikis), one that cannot be cut"""
SUMS = ("sha1", "md5")
MAX_LIST_BYTES = 16 << 20
"""of a list of checksums; the largest real ones have some 500 kB"""
_LINE = re.compile(r"([0-9a-f]{32}|[0-9a-f]{40}) [ *]([^/\s]{1,200})")
_DATE = re.compile(r"[0-9]{8}")
_GONE = (404, 410)
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Dump:
    """A language's dump of a date. Raises UserError for a language, a date or an address of another form."""

    language: str
    date: str
    base_url: str = BASE_URL

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES and self.language not in OTHER_LANGUAGES:
            raise UserError(f"--language {self.language!r} is no Wikipedia's code: give such as en,de, or {ALL}")
        if not _DATE.fullmatch(self.date):
            raise UserError(f"--date {self.date!r} is no dump's date: give eight digits, such as 20240101")
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"--base-url {self.base_url!r} is no http or https address: give one such as {BASE_URL}")

    @property
    def folder(self) -> str:
        """Where its files are, below the base and below the output folder."""
        return f"{self.language.replace('-', '_')}wiki/{self.date}"

    def name(self, file: str) -> str:
        """The whole name of one of its files."""
        return f"{self.language.replace('-', '_')}wiki-{self.date}-{file}"

    def wanted(self, name: str, most: int | None = None) -> Wanted:
        """One of its files, to be taken up to `most` bytes."""
        return Wanted(f"{self.base_url.rstrip('/')}/{self.folder}/{name}", f"{self.folder}/{name}", most)


def download_wikis(
    dumps: list[Dump],
    form: str,
    folder: Path,
    patience: Patience | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[Outcome]:
    """Download the articles of dumps to their own paths below `folder`, and check them by the dumps' sums where a
    mirror has these: a file of another sum is removed and failed. Where sums cannot be had for another reason than that
    there are none, their outcome stands for the dump's. Raises UserError for a list of sums that is none or names no
    such file, and a folder that cannot be written."""
    failed: list[Outcome] = []
    wanted: dict[str, Wanted] = {}
    sums: dict[str, str] = {}
    for dump in dumps:
        listed = _sums(dump, folder, patience, terminal)
        if isinstance(listed, Outcome):
            failed.append(listed)
            continue
        pattern = re.compile(re.escape(dump.name("")) + FORMS[form])
        names = [name for name in listed if pattern.fullmatch(name)]
        if listed and not names:
            raise UserError(f"{dump.folder} has no {form} files: give another --files, one of {', '.join(FORMS)}")
        if not listed and form == "parts":
            raise UserError(f"{dump.folder} has no list of its files here: give --files multistream")
        for name in names or [dump.name(FORMS[form].replace("\\", ""))]:
            item = dump.wanted(name)
            wanted[item.target] = item
            sums[item.target] = listed.get(name, "")
    done = download(list(wanted.values()), folder, patience, parallel, terminal)
    return failed + [_checked(outcome, folder, sums[outcome.wanted.target]) for outcome in done]


def read_sums(path: Path) -> dict[str, str]:
    """Checksums by the names of files. Raises UserError for a list that is too large, or holds anything else."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_LIST_BYTES else b"too large"
        found = {}
        for line in data.decode("utf-8").splitlines():
            match = _LINE.fullmatch(line)
            if match is None:
                raise UserError(f"{line[:60]!a} is no checksum with a name")
            check_target(match[2])
            found[match[2]] = match[1]
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path} is no list of checksums ({error}): check --base-url") from error
    if not found:
        raise UserError(f"{path} is no list of checksums (it is empty): check --base-url")
    return found


def _sums(dump: Dump, folder: Path, patience: Patience | None, terminal: TextIO | None) -> dict[str, str] | Outcome:
    """Checksums of a dump's files; none where the mirror has none; the outcome of a list that cannot be had."""
    for kind in SUMS:
        item = dump.wanted(dump.name(f"{kind}sums.txt"), MAX_LIST_BYTES)
        (listed,) = download([item], folder, patience, terminal=terminal)
        if listed.state is not State.FAILED:
            path = folder / item.target
            try:
                return read_sums(path)
            except UserError:
                path.unlink()  # or the next run would take it for the list again
                raise
        if listed.status not in _GONE:
            return listed
    return {}


def _checked(outcome: Outcome, folder: Path, expected: str) -> Outcome:
    """The outcome, failed if the file has another sum than `expected` (none: not checked)."""
    if outcome.state is State.FAILED or not expected:
        return outcome
    path = folder / outcome.wanted.target
    digest = hashlib.new("sha1" if len(expected) == 40 else "md5", usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest() == expected:
        return outcome
    path.unlink()
    return replace(outcome, state=State.FAILED, reason=f"its {digest.name} is not the one listed: removed, try again")
