"""The files of a submission to arXiv that may be TeX: a gzipped tar, a tar, a gzipped file, or a file.

Nothing is written to disk, figures are decompressed and dropped, and links are not followed: every file of a submission
consists of bytes of that submission.
"""

import posixpath
from typing import NamedTuple

from filters.formats.compression import ChunkReader, decode_stored
from filters.formats.stream import StoredView
from filters.formats.tar import BLOCK, TarEntry, parse_header, resolve_path, stream_entries
from filters.reasons import Reason
from filters.tex.source import split_names

MAX_MEMBERS = 20_000  # of a submission's tar; real ones have a few hundred at most
OPENING = 1 << 12  # bytes in which a file shows that it is not text

# Extensions of figures, styles, bibliographies and data: such files are never read as a part of a paper.
NOT_TEX = split_names(
    """pdf ps eps epsi epsf ps2 ps3 png jpg jpeg gif tif tiff bmp svg mps emf wmf ico mp4 avi mov mpg wav mp3 swf
    sty cls clo bst bbx cbx lbx dbx ldf fd def cfg rtx enc map tfm vf pfb pfa pk mf otf ttf afm
    bib bbl blg aux log out toc lof lot ind idx ilg ist gls glo brf nav snm vrb fls fdb_latexmk synctex
    csv tsv dat xls xlsx doc docx ppt pptx odt rtf htm html xml zip gz z bz2 xz tar tgz rar 7z
    py m r c cc cpp h java f f90 sh pl nb ipynb mat npy h5 hdf5 root fits"""
)
# How PDF, PostScript, zip (and docx), compress, HTML, images and RTF begin.
_NOT_TEXT = (
    b"%PDF",
    b"%!PS",
    b"\xc5\xd0\xd3\xc6",
    b"PK\x03\x04",
    b"\x1f\x9d",
    b"<",
    b"\x89PNG",
    b"\xff\xd8",
    b"{\\rtf",
)
_UNREAD = {b"PK\x03\x04": "zip", b"\x1f\x9d": "compress", b"7z\xbc\xaf": "7z", b"\xfd7zXZ": "xz"}


class Submission(NamedTuple):
    """A submission's text.

    Attributes:
        files: Bytes by path; a single file has the path "".
        decoded: Bytes after decompression, figures included.
        unsafe: Members left out since their paths lead outside, or they are links.
        problem: Why there is no paper.
        detail: A sentence about the problem.
    """

    files: dict[str, bytes]
    decoded: int = 0
    unsafe: tuple[str, ...] = ()
    problem: Reason | None = None
    detail: str = ""


def read_submission(stored: StoredView, text_bytes: int, archive_bytes: int) -> Submission:
    """Read a submission. Never raises.

    Args:
        stored: Its stored bytes.
        text_bytes: The most bytes of text that are taken.
        archive_bytes: The most bytes that are decompressed.
    """
    opening = bytes(stored[:OPENING])
    name = read_gzip_name(opening)
    if name.endswith(".cry"):
        return Submission({}, problem=Reason.ENCRYPTED, detail=name[:100])
    if packed := next((name for magic, name in _UNREAD.items() if opening.startswith(magic)), ""):
        return Submission({}, problem=Reason.UNSUPPORTED_FORMAT, detail=packed)
    source = ChunkReader(decode_stored(stored), archive_bytes)
    is_tar = parse_header(source.peek(BLOCK)) is not None
    found = _read_tar(source, text_bytes) if is_tar else _read_single(source, text_bytes)
    if found.problem is None:
        source.skip_to(archive_bytes + 1)
    if source.damage is not None:
        return found._replace(files={}, problem=source.damage.problem, detail=source.damage.detail)
    return found._replace(decoded=source.position)


def read_gzip_name(opening: bytes) -> str:
    """Return the file name in a gzip header, or "" (RFC 1952, section 2.3: FEXTRA, then FNAME)."""
    if not opening.startswith(b"\x1f\x8b\x08") or len(opening) < 12 or not opening[3] & 8:
        return ""
    extra = 2 + int.from_bytes(opening[10:12], "little") if opening[3] & 4 else 0
    return opening[10 + extra :].split(b"\0", 1)[0].decode("latin-1")


def is_text(data: bytes) -> bool:
    """Return True if a file may be TeX, judged by its first bytes."""
    opening = data[:OPENING]
    return b"\0" not in opening and not opening.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_NOT_TEXT)


def is_hidden(path: str) -> bool:
    """Return True for a file that no author wrote: AppleDouble (`._name`), `__MACOSX`, other hidden files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _read_single(source: ChunkReader, text_bytes: int) -> Submission:
    data = source.take(text_bytes + 1)
    if not is_text(data) or not (b"\\" in data or data.lstrip().startswith(b"%")):
        return Submission({}, problem=Reason.NO_TEX)
    if len(data) > text_bytes:
        return Submission({}, problem=Reason.TOO_LARGE, detail=f"over {text_bytes} bytes of text")
    return Submission({"": data})


def _read_tar(source: ChunkReader, text_bytes: int) -> Submission:
    files: dict[str, bytes] = {}
    unsafe: list[str] = []
    left, encrypted = text_bytes, ""
    for number, entry in enumerate(stream_entries(source)):
        if entry.kind == "end":
            break
        if entry.kind == "damage":
            return Submission({}, unsafe=tuple(unsafe), problem=entry.problem, detail=entry.detail)
        if number >= MAX_MEMBERS:
            return Submission({}, unsafe=tuple(unsafe), problem=Reason.TOO_LARGE, detail=f"over {MAX_MEMBERS} members")
        path = resolve_path(entry.name)
        if path is None or entry.kind == "link":
            unsafe.append(entry.name)
        elif _is_wanted(entry, path):
            if entry.size > left:
                detail = f"over {text_bytes} bytes of text"
                return Submission({}, unsafe=tuple(unsafe), problem=Reason.TOO_LARGE, detail=detail)
            data = source.take(entry.size)
            if is_text(data):
                files[path] = data  # of two members of one name the later one counts
                left -= len(data)
        encrypted = encrypted or (entry.name if entry.name.endswith(".cry") else "")
    if encrypted and not any(path.lower().endswith(".tex") for path in files):
        return Submission({}, unsafe=tuple(unsafe), problem=Reason.ENCRYPTED, detail=encrypted)
    return Submission(files, unsafe=tuple(unsafe), problem=None if files else Reason.NO_TEX)


def _is_wanted(entry: TarEntry, path: str) -> bool:
    suffix = posixpath.basename(path).rpartition(".")
    named = suffix[2].lower() if suffix[0] else ""
    return entry.kind == "file" and path != "" and not is_hidden(path) and named not in NOT_TEX and named != "cry"
