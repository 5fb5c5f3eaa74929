"""The monthly tars of arXiv's bulk archive by its manifest, `arXiv_src_manifest.xml`: each file's name, size and MD5
(https://info.arxiv.org/help/bulk_data_s3.html).

The archive itself is object storage whose requester pays, and a request for it must be signed with the requester's own
key: nothing here does that. The manifest and the files are taken from a mirror over http(s), or files that another
program has put into place are checked against the manifest.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from xml.parsers import expat

from filters.errors import UserError
from pipeline.download.download import PARALLEL, check_target, download
from pipeline.download.http import Outcome, State, Wanted
from pipeline.download.request import Patience

MANIFEST = "arXiv_src_manifest.xml"
MAX_MANIFEST_BYTES = 64 << 20
"""the real one has some 4 MB"""
CHUNK_BYTES = 1 << 20
_MONTHS = re.compile(r"([0-9]{4})(?::([0-9]{4}))?")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of the manifest: its path, year and month (YYMM), size in bytes, MD5 in hexadecimal."""

    path: str
    month: str
    size: int
    md5: str


def download_months(
    manifest: Path,
    months: str,
    base_url: str,
    folder: Path,
    patience: Patience | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[Outcome]:
    """Have the tars of `months` (YYMM, or YYMM:YYMM with both ends) that `manifest` lists, below `folder`: those that
    are there are not fetched, and each is compared with its MD5; one that differs is a failure, and is left for its
    owner to look at. Raises UserError for a manifest that cannot be read, months that it does not have, an address of
    another form, and a folder that cannot be written."""
    if not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base-url {base_url!r} is no http or https address: give a mirror's, above src/")
    wanted = chosen(read_manifest(manifest), months)
    requests = [Wanted(f"{base_url.rstrip('/')}/{item.path}", item.path, item.size) for item in wanted]
    outcomes = download(requests, folder, patience, parallel, terminal)
    return [_checked(outcome, item, folder) for outcome, item in zip(outcomes, wanted, strict=True)]


def chosen(listed: list[Listed], months: str) -> list[Listed]:
    """The files of a month, or of a range of months. Raises UserError when there are none."""
    found = _MONTHS.fullmatch(months)
    if found is None:
        raise UserError(f"--months {months!r} is neither YYMM nor YYMM:YYMM: give 0303, say, or 9107:9912")
    first, last = _year_first(found[1]), _year_first(found[2] or found[1])
    wanted = [item for item in listed if first <= _year_first(item.month) <= last]
    if not wanted:
        raise UserError(f"--months {months}: the manifest lists no file of these months")
    return wanted


def read_manifest(path: Path) -> list[Listed]:
    """The files that a manifest lists, in its order. Raises UserError for one that is no manifest, is too large,
    defines entities, or names a file outside its folder."""
    reader = _Manifest()
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has over {MAX_MANIFEST_BYTES} bytes")
        reader.parser.Parse(path.read_bytes(), True)
        listed = [_listed(fields) for fields in reader.files]
    except (OSError, expat.ExpatError, ValueError, KeyError, UserError) as error:
        raise UserError(f"{path} is no {MANIFEST} ({error}): get it from the archive or a mirror") from error
    if not listed:
        raise UserError(f"{path} lists no file: give {MANIFEST}")
    return listed


class _Manifest:
    """Collects the fields of each `file`."""

    def __init__(self) -> None:
        self.files: list[dict[str, str]] = []
        self.field = ""
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.field = name
        if name == "file":
            self.files.append({})

    def _end(self, name: str) -> None:
        self.field = ""

    def _text(self, text: str) -> None:
        if self.files and self.field:
            self.files[-1][self.field] = self.files[-1].get(self.field, "") + text

    def _refuse(self, *declaration: object) -> None:
        raise ValueError("it defines entities")


def _listed(fields: dict[str, str]) -> Listed:
    path, month, md5 = (fields[name].strip() for name in ("filename", "yymm", "md5sum"))
    check_target(path)
    if not _MONTHS.fullmatch(month) or not re.fullmatch(r"[0-9a-f]{32}", md5):
        raise ValueError(f"{path} has no month or MD5")
    return Listed(path, month, int(fields["size"]), md5)


def _year_first(month: str) -> str:
    """YYMM with its century: arXiv began in 1991."""
    return f"{'19' if month >= '9100' else '20'}{month}"


def _checked(outcome: Outcome, item: Listed, folder: Path) -> Outcome:
    """A file's outcome, a failure if its bytes are not those that the manifest means."""
    if outcome.state is State.FAILED:
        return outcome
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with (folder / item.path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        return Outcome(outcome.wanted, State.FAILED, f"it cannot be read ({error.strerror})")
    if digest.hexdigest() == item.md5:
        return outcome
    return Outcome(outcome.wanted, State.FAILED, "its MD5 is not the manifest's: delete it, and run again")
