"""What a submission to arXiv holds: the files that may be TeX, of a gzipped tar, a tar, a gzipped file, or a file.

Nothing is written to disk, figures are inflated and forgotten, and links lead nowhere: no file of a submission can be
anything but bytes of that submission.
"""

import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

from filters.formats.compression import BZIP2, GZIP, unpacked
from filters.formats.tar import BLOCK, Entry, entries, header
from filters.reasons import Reason
from filters.tex.tokens import names

MAX_MEMBERS = 20_000
"""of a submission's tar; real ones have a few hundred at most"""
SLICE = 1 << 20
OPENING = 1 << 12
"""bytes in which a file that is no text shows it"""

NOT_TEX = names(
    """pdf ps eps epsi epsf ps2 ps3 png jpg jpeg gif tif tiff bmp svg mps emf wmf ico mp4 avi mov mpg wav mp3 swf
    sty cls clo bst bbx cbx lbx dbx ldf fd def cfg rtx enc map tfm vf pfb pfa pk mf otf ttf afm
    bib bbl blg aux log out toc lof lot ind idx ilg ist gls glo brf nav snm vrb fls fdb_latexmk synctex
    csv tsv dat xls xlsx doc docx ppt pptx odt rtf htm html xml zip gz z bz2 xz tar tgz rar 7z
    py m r c cc cpp h java f f90 sh pl nb ipynb mat npy h5 hdf5 root fits"""
)
"""file name extensions of figures, styles, bibliographies and data: never read as a part of a paper"""
_NO_TEXT = (b"%PDF", b"%!PS", b"\xc5\xd0\xd3\xc6", b"PK\x03\x04", b"\x1f\x9d", b"<", b"\x89PNG", b"\xff\xd8", b"{\\rtf")
"""how PDF, PostScript, zip (and docx), compress, HTML, images and RTF begin"""
_UNREAD = {b"PK\x03\x04": "zip", b"\x1f\x9d": "compress", b"7z\xbc\xaf": "7z", b"\xfd7zXZ": "xz"}
_DRIVE = re.compile(r"[A-Za-z]:")


class Submission(NamedTuple):
    """`files`: bytes by path, of a single file with the path "". `decoded`: bytes after decompression, figures
    included. `unsafe`: members that were left out since they lead outside, or are links. A `problem` means no paper."""

    files: dict[str, bytes]
    decoded: int = 0
    unsafe: tuple[str, ...] = ()
    problem: Reason | None = None
    detail: str = ""


class _Inflated:
    """Decoded bytes read forwards, at most `limit` of them."""

    def __init__(self, chunks: Iterator[bytes | object], limit: int) -> None:
        self.chunks, self.limit = chunks, limit
        self.held, self.used, self.position, self.came = b"", 0, 0, 0
        self.problem: Reason | None = None
        self.detail = ""

    def _more(self) -> bool:
        chunk = next(self.chunks, None)
        if chunk is None:
            return False
        if not isinstance(chunk, bytes):
            self.problem, self.detail = getattr(chunk, "problem", None), getattr(chunk, "detail", "")
            return False
        self.came += len(chunk)
        if self.came > self.limit:
            self.problem, self.detail = Reason.TOO_LARGE, f"over {self.limit} bytes after decompression"
            self.chunks = iter(())
            return False
        self.held, self.used = chunk, 0
        return True

    def opening(self, count: int) -> bytes:
        """The first so many bytes, which are still to be read."""
        first = self.take(count)
        self.held, self.used, self.position = first + self.held[self.used :], 0, 0
        return first

    def take(self, count: int) -> bytes:
        """The next so many bytes, fewer at the end."""
        parts: list[bytes] = []
        wanted = count
        while wanted and (self.used < len(self.held) or self._more()):
            parts.append(self.held[self.used : self.used + wanted])
            self.used += len(parts[-1])
            wanted -= len(parts[-1])
        self.position += count - wanted
        return b"".join(parts)

    def skip_to(self, position: int) -> bool:
        """Go on from a later position; False if the bytes end before it."""
        while self.position < position:
            if self.used == len(self.held) and not self._more():
                return False
            step = min(len(self.held) - self.used, position - self.position)
            self.used += step
            self.position += step
        return True


def submission(stored: bytes | memoryview, text_bytes: int, archive_bytes: int) -> Submission:
    """What a submission's stored bytes hold. `text_bytes`: how much of its text is taken in at most; `archive_bytes`:
    how much is decompressed at most. Never raises."""
    opening = bytes(stored[:OPENING])
    if name_in_gzip(opening).endswith(".cry"):
        return Submission({}, problem=Reason.ENCRYPTED, detail=name_in_gzip(opening)[:100])
    if packed := next((name for magic, name in _UNREAD.items() if opening.startswith(magic)), ""):
        return Submission({}, problem=Reason.UNSUPPORTED_FORMAT, detail=packed)
    compressed = opening.startswith((GZIP, BZIP2))
    chunks: Iterator[bytes | object] = unpacked(stored) if compressed else _slices(stored)
    source = _Inflated(chunks, archive_bytes)
    is_tar = header(source.opening(BLOCK)) is not None
    found = _unpacked(source, text_bytes) if is_tar else _single(source, text_bytes)
    if found.problem is None:
        source.skip_to(archive_bytes + 1)
    if source.problem is not None:
        return found._replace(files={}, problem=source.problem, detail=source.detail)
    return found._replace(decoded=source.position)


def name_in_gzip(opening: bytes) -> str:
    """The file's name that a gzip header holds; empty if none (RFC 1952, section 2.3: FEXTRA, then FNAME)."""
    if not opening.startswith(b"\x1f\x8b\x08") or len(opening) < 12 or not opening[3] & 8:
        return ""
    extra = 2 + int.from_bytes(opening[10:12], "little") if opening[3] & 4 else 0
    return opening[10 + extra :].split(b"\0", 1)[0].decode("latin-1")


def is_text(data: bytes) -> bool:
    """Whether a file may be TeX, by how it begins."""
    opening = data[:OPENING]
    return b"\0" not in opening and not opening.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_NO_TEXT)


def safe_path(name: str) -> str | None:
    """A member's path inside its submission, "" for the top itself; None if it is absolute or leads outside."""
    if name.startswith(("/", "\\")) or _DRIVE.match(name) or "\0" in name:
        return None
    path = posixpath.normpath(name.replace("\\", "/")) if name else ""
    if path == ".." or path.startswith("../"):
        return None
    return "" if path == "." else path


def is_hidden(path: str) -> bool:
    """Whether a path is of a file that no author wrote: AppleDouble (`._name`), `__MACOSX`, other hidden files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _slices(stored: bytes | memoryview) -> Iterator[bytes]:
    for start in range(0, len(stored), SLICE):
        yield bytes(stored[start : start + SLICE])


def _single(source: _Inflated, text_bytes: int) -> Submission:
    data = source.take(text_bytes + 1)
    if not is_text(data) or not (b"\\" in data or data.lstrip().startswith(b"%")):
        return Submission({}, problem=Reason.NO_TEX)
    if len(data) > text_bytes:
        return Submission({}, problem=Reason.TOO_LARGE, detail=f"over {text_bytes} bytes of text")
    return Submission({"": data})


def _unpacked(source: _Inflated, text_bytes: int) -> Submission:
    files: dict[str, bytes] = {}
    unsafe: list[str] = []
    left, encrypted = text_bytes, ""
    for number, entry in enumerate(entries(source)):
        if entry.kind == "end":
            break
        if entry.kind == "damage":
            return Submission({}, unsafe=tuple(unsafe), problem=entry.problem, detail=entry.detail)
        if number >= MAX_MEMBERS:
            return Submission({}, unsafe=tuple(unsafe), problem=Reason.TOO_LARGE, detail=f"over {MAX_MEMBERS} members")
        path = safe_path(entry.name)
        if path is None or entry.kind == "link":
            unsafe.append(entry.name)
        elif _wanted(entry, path):
            if entry.size > left:
                detail = f"over {text_bytes} bytes of text"
                return Submission({}, unsafe=tuple(unsafe), problem=Reason.TOO_LARGE, detail=detail)
            data = source.take(entry.size)
            if is_text(data):
                files[path] = data  # of two members of one name the later one is unpacked over the earlier
                left -= len(data)
        encrypted = encrypted or (entry.name if entry.name.endswith(".cry") else "")
    if encrypted and not any(path.lower().endswith(".tex") for path in files):
        return Submission({}, unsafe=tuple(unsafe), problem=Reason.ENCRYPTED, detail=encrypted)
    return Submission(files, unsafe=tuple(unsafe), problem=None if files else Reason.NO_TEX)


def _wanted(entry: Entry, path: str) -> bool:
    suffix = posixpath.basename(path).rpartition(".")
    named = suffix[2].lower() if suffix[0] else ""
    return entry.kind == "file" and path != "" and not is_hidden(path) and named not in NOT_TEX and named != "cry"
