r"""Read the TeX files of an arXiv submission, and assemble the text of the paper.

A submission is a gzipped tar, a tar, a gzipped file, or a plain file. Nothing is written to disk. Figures are
decompressed and discarded. Links are not followed, so that all text comes from the submission's own bytes.

The text is the root file, in which commands such as \input are replaced by the included files. Drafts, old versions and
notes are left out unless the root file includes them.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from filters.data_files import merge_items
from filters.formats.stored import StoredView
from filters.formats.stream import ChunkReader, decode_stored
from filters.formats.tar import BLOCK, TarEntry, parse_header, resolve_path, stream_entries
from filters.reasons import Reason
from filters.tex.body import is_macro_file
from filters.tex.source import (
    TABLES,
    compile_control,
    declared_encoding,
    decode,
    find_all,
    find_first,
    find_group_end,
    strip_comments,
    transcode_utf16,
)

MAX_MEMBERS = 20_000  # members of a submission's tar; real submissions have a few hundred at most
OPENING = 1 << 12  # bytes at the start of a file that are examined to find out if it is text

# Extensions of figures, styles, bibliographies and data. Such files are never read as a part of a paper.
NOT_TEX = merge_items(TABLES["not TeX"])
# The first bytes of PDF, PostScript, zip (and docx), compress, HTML, images and RTF.
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

MAX_ROOTS = 64  # candidates that are compared to find the root file: the largest files
MAX_INCLUSIONS = 10_000
GROUP_CHARACTERS = 2_000  # the longest argument of \InputIfFileExists

_NAME = r"[ \t\n]{0,9}\{[ \t]{0,9}([^{}\n]{1,200})\}"
_INCLUDE = compile_control(
    r"(endinput)(?![a-zA-Z@])[^\n]*|(include|subfile|subfileinclude|InputIfFileExists|import|subimport|inputfrom"
    r"|subinputfrom|includefrom|subincludefrom|input|@input)(?![a-zA-Z@])"
    rf"(?:{_NAME}|[ \t]{{0,9}}\"([^\"\n]{{1,200}})\"|[ \t\n]{{0,9}}([^\s{{}}\\%\"]{{1,200}}))"
)
_SECOND = re.compile(_NAME)
_FROM = frozenset("import subimport inputfrom subinputfrom includefrom subincludefrom".split())
_ONLY = compile_control(r"includeonly[ \t\n]{0,9}\{([^{}]{0,10000})\}")
_CLASS = compile_control(
    r"(?:documentclass|documentstyle)(?![a-zA-Z@])[ \t\n]{0,9}(?:\[[^\]]{0,2000}\][ \t\n]{0,9})?(?:\{([^{}]{0,99})\})?"
)
_PARTS = frozenset({"standalone", "subfiles"})  # document classes of files that are usually parts of another file
_PLAIN = compile_control(
    r"(?:bye|end|enddocument|magnification)(?![a-zA-Z@{*])(?![ \t]{0,9}\{)"
    r"|input[ \t]{1,9}(?:amstex|amsppt|harvmac|phyzzx|jytex|lanlmac)"
)
_BEGIN = compile_control(r"begin[ \t]{0,9}\{document\}")
_END = compile_control(r"end[ \t]{0,9}\{document\}")
_IGNORED = re.compile(rb"\s{0,99}%[ \t]{0,9}auto-ignore")


class Submission(NamedTuple):
    """The text files of a submission.

    Attributes:
        files: A dict from path to bytes. A submission that is a single file has the path "".
        decoded: The number of bytes after decompression, including figures.
        unsafe: The names of members that are left out because they are links, or because their paths lead outside.
        problem: Why there is no paper, or None.
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
        stored: The stored bytes of the submission.
        text_bytes: The maximum number of bytes of all text files.
        archive_bytes: The maximum number of bytes after decompression.
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
    """Return the file name in a gzip header, or "" if there is none (RFC 1952, section 2.3: FEXTRA, then FNAME)."""
    if not opening.startswith(b"\x1f\x8b\x08") or len(opening) < 12 or not opening[3] & 8:
        return ""
    extra = 2 + int.from_bytes(opening[10:12], "little") if opening[3] & 4 else 0
    return opening[10 + extra :].split(b"\0", 1)[0].decode("latin-1")


def is_text(data: bytes) -> bool:
    """Return True if a file may be TeX, judged by its first bytes."""
    opening = data[:OPENING]
    return b"\0" not in opening and not opening.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_NOT_TEXT)


def is_hidden(path: str) -> bool:
    """Return True for a hidden file, which no author wrote: AppleDouble (`._name`), `__MACOSX`, other dot files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _read_single(source: ChunkReader, text_bytes: int) -> Submission:
    data = transcode_utf16(source.take(text_bytes + 1))
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
            return Submission({}, 0, tuple(unsafe), entry.problem, entry.detail)
        if number >= MAX_MEMBERS:
            return Submission({}, 0, tuple(unsafe), Reason.TOO_LARGE, f"over {MAX_MEMBERS} members")
        path = resolve_path(entry.name)
        if path is None or entry.kind == "link":
            unsafe.append(entry.name)
        elif _is_wanted(entry, path):
            if entry.size > left:
                return Submission({}, 0, tuple(unsafe), Reason.TOO_LARGE, f"over {text_bytes} bytes of text")
            data = transcode_utf16(source.take(entry.size))
            if is_text(data):
                files[path] = data  # if two members have the same name, the later member is used
                left -= len(data)
        encrypted = encrypted or (entry.name if entry.name.endswith(".cry") else "")
    if encrypted and not any(path.lower().endswith(".tex") for path in files):
        return Submission({}, 0, tuple(unsafe), Reason.ENCRYPTED, encrypted)
    return Submission(files, 0, tuple(unsafe), None if files else Reason.NO_TEX)


def _is_wanted(entry: TarEntry, path: str) -> bool:
    suffix = posixpath.splitext(path)[1].lower().removeprefix(".")
    return entry.kind == "file" and path != "" and not is_hidden(path) and suffix not in NOT_TEX and suffix != "cry"


# --- the text of a submission's files ---


class Project(NamedTuple):
    """The assembled text of a paper.

    Attributes:
        text: The root file with all files that it includes, without comments. Empty if there is a problem.
        literals: The literal texts that `strip_comments` replaced by placeholders.
        root: The path of the root file.
        included: The number of included files.
        missing: The number of inclusions whose file is not in the submission.
        others: The number of other candidates for the root file. They are left out.
        problem: Why there is no text, or None.
        detail: A sentence about the problem.
    """

    text: str
    literals: list[str]
    root: str = ""
    included: int = 0
    missing: int = 0
    others: int = 0
    problem: Reason | None = None
    detail: str = ""


class _Reference(NamedTuple):
    """A command that includes a file.

    Attributes:
        raw: The command as typed, with its arguments.
        kind: The name of the command.
        paths: The paths that the file may have, in order of preference.
        otherwise: The text that replaces the command if the file is missing.
    """

    raw: str
    kind: str
    paths: tuple[str, ...]
    otherwise: str = ""


class _File(NamedTuple):
    text: str
    pieces: list[str | _Reference]


def assemble(files: Mapping[str, bytes], depth: int, characters: int) -> Project:
    """Assemble the text of a paper. Never raises; takes time linear in the size of all files and of the result.

    Args:
        files: A dict from path to bytes.
        depth: The maximum depth of nested inclusions. Deeper inclusions are left out.
        characters: The maximum length of the assembled text.
    """
    kept, hinted = _apply_readme(files)
    library = _Library({path: data for path, data in kept.items() if not _IGNORED.match(data)})
    root, others = _find_root(library, hinted)
    if root is None:
        gone = Reason.NO_BODY_TEXT if kept and not library.files else Reason.NO_TEX
        return Project("", [], problem=gone)
    library.declared = declared_encoding(library.files[root])
    return _include(library, root, others, depth, characters)


class _Library:
    """The files of a submission. Each file is decoded and parsed once, at its first use."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.read = files, dict[str, _File]()
        self.literals: list[str] = []
        self.declared = ""

    def load(self, path: str) -> _File:
        """Return a file without comments, split at the commands that include other files."""
        if path not in self.read:
            text = strip_comments(decode(self.files[path], self.declared), self.literals)
            self.read[path] = _File(text, list(_split_inclusions(text, path)))
        return self.read[path]

    def find(self, reference: _Reference) -> str | None:
        """Return the path of the included file, or None if the submission does not contain it."""
        return next((path for path in reference.paths if path in self.files), None)


def _apply_readme(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Apply the file 00README of a submission, by which authors configure arXiv's TeX runs.

    It has `NAME KEYWORD` on each line, or it is YAML or JSON with `sources`. See
    https://info.arxiv.org/help/00README.html.

    Returns:
        (the files that are not ignored, the paths of the root files that 00README names).
    """
    uses: list[tuple[str, str]] = []
    for path, data in files.items():
        name = posixpath.basename(path).lower()
        if not name.startswith("00readme"):
            continue
        text = decode(data[: 1 << 16])
        folder = posixpath.dirname(path)
        if name.endswith((".yaml", ".yml", ".json")):
            found = _parse_sources(text, json.loads if name.endswith(".json") else yaml.safe_load)
        else:
            found = [(words[0], words[1]) for words in map(str.split, text.split("\n")) if len(words) > 1]
        uses += [(posixpath.normpath(posixpath.join(folder, file)), use.lower()) for file, use in found]
    ignored = {file for file, use in uses if use == "ignore"}
    ignored |= {path for path in files if posixpath.basename(path).lower().startswith("00readme")}
    kept = {path: data for path, data in files.items() if path not in ignored}
    return kept, [file for file, use in uses if use in ("toplevelfile", "toplevel") and file in kept]


def _parse_sources(text: str, load: Callable[[str], Any]) -> list[tuple[str, str]]:
    """Return (name, usage) of each file that a 00README lists, or an empty list if it cannot be parsed."""
    try:
        pairs = [(item["filename"], item["usage"]) for item in load(text)["sources"] if "usage" in item]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError):
        return []
    return [(name, usage) for name, usage in pairs if isinstance(name, str) and isinstance(usage, str)]


def _find_root(library: _Library, hinted: list[str]) -> tuple[str | None, int]:
    """Return (path of the root file or None, number of other candidates).

    The candidates are the files that 00README names. If there are none, they are the files with a document class, or
    else the files with commands of plain TeX, or else all `.tex` files. The root is the candidate that includes the
    most text, directly or indirectly. Equal candidates are ordered by depth of their folder, then by name. Files whose
    document class marks them as a part of another file are considered last.
    """
    files = library.files
    single = [""] if "" in files else []
    candidates = hinted or single
    if not candidates:
        typed = [path for path, data in files.items() if b"\\documentclass" in data or b"\\documentstyle" in data]
        candidates = [path for path in _list_largest(files, typed) if find_first(_CLASS, library.load(path).text)]
    if not candidates:
        candidates = [path for path in _list_largest(files, files) if find_first(_PLAIN, library.load(path).text)]
    if not candidates:
        candidates = _list_largest(files, [path for path in files if path.lower().endswith((".tex", ".ltx", ".latex"))])
    if len(candidates) < 2:
        return next(iter(candidates), None), 0
    ranked = sorted(candidates, key=lambda path: _rank(library, path))
    below = _find_reachable(library, ranked[0])
    return ranked[0], sum(path not in below for path in candidates)


def _list_largest(files: Mapping[str, bytes], paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: (-len(files[path]), path))[:MAX_ROOTS]


def _find_reachable(library: _Library, root: str) -> set[str]:
    """Return the paths of a file and of all files that it includes, directly or indirectly."""
    found, waiting = {root}, [root]
    while waiting:
        for piece in library.load(waiting.pop()).pieces:
            path = library.find(piece) if isinstance(piece, _Reference) else None
            if path is not None and path not in found:
                found.add(path)
                waiting.append(path)
    return found


def _rank(library: _Library, root: str) -> tuple[bool, int, int, str]:
    """Return a sort key that is smallest for the best root. Parts of other files, and macro files, are sorted last."""
    text = library.load(root).text
    stated = find_first(_CLASS, text)
    last = is_macro_file(text, text) if stated is None else stated[1] in _PARTS
    reach = sum(len(library.load(path).text) for path in _find_reachable(library, root))
    return last, -reach, root.count("/"), root


def _split_inclusions(text: str, path: str) -> Iterator[str | _Reference]:
    r"""Yield the pieces of a file up to \endinput: text, and the commands that include other files."""
    start = 0
    for mark in find_all(_INCLUDE, text):
        if mark.start() < start or (mark[5] and mark[2] not in ("input", "@input")):
            continue
        if mark[1]:
            yield text[start : mark.start()]
            return
        name, folder, otherwise, stop = (mark[3] or mark[4] or mark[5]).strip().strip('"'), "", "", mark.end()
        if mark[2] in _FROM:
            second = _SECOND.match(text, stop)
            if second is None:
                continue
            name, folder, stop = second[1].strip(), name, second.end()
        if mark[2] == "InputIfFileExists":
            first = find_group_end(text, stop, GROUP_CHARACTERS) if text[stop : stop + 1] == "{" else -1
            last = find_group_end(text, first, GROUP_CHARACTERS) if first > 0 and text[first : first + 1] == "{" else -1
            if last < 0:
                continue
            otherwise, stop = text[first + 1 : last - 1], last
        yield text[start : mark.start()]
        yield _Reference(text[mark.start() : stop], mark[2], tuple(_list_paths(name, folder, path)), otherwise)
        start = stop
    yield text[start:]


def _list_paths(name: str, folder: str, within: str) -> Iterator[str]:
    """Yield the paths that an included file may have, in order of preference. Paths that lead outside are left out.

    Names are relative to the top folder, where arXiv runs TeX, or else to the folder of the including file. In each
    folder, the name with the extension .tex is tried first.

    Args:
        name: The name in the command.
        folder: The folder in the command, or "".
        within: The path of the including file.
    """
    for base in dict.fromkeys(("", posixpath.dirname(within))):
        path = posixpath.normpath(posixpath.join(base, folder, name))
        if not path.startswith(("/", "..")):
            yield from (f"{path}.tex", path)


def _include(library: _Library, root: str, others: int, depth: int, characters: int) -> Project:
    """Return the text of the root file with all included files."""
    whole = library.load(root)
    only = find_first(_ONLY, whole.text)
    wanted = {name.strip().removesuffix(".tex") for name in only[1].split(",")} if only else None
    out: list[str] = []
    stack: list[tuple[str, Iterator[str | _Reference]]] = [(root, iter(whole.pieces))]
    open_files, used = {root}, {root}
    size = inclusions = missing = 0
    while stack:
        piece = next(stack[-1][1], None)
        if piece is None:
            open_files.discard(stack.pop()[0])
            continue
        if isinstance(piece, _Reference):
            path = library.find(piece)
            if path is not None:
                left_out = piece.kind == "include" and wanted is not None and wanted.isdisjoint(piece.paths)
                if left_out or path in open_files or len(stack) >= depth:
                    continue
                inclusions += 1
                if inclusions > MAX_INCLUSIONS:
                    return _too_large(root, f"over {MAX_INCLUSIONS} inclusions")
                open_files.add(path)
                used.add(path)
                stack.append((path, iter(_extract_inner(library.load(path)))))
                continue
            missing += 1
            piece = piece.otherwise or ("" if piece.paths and piece.paths[-1].endswith(".bbl") else piece.raw)
        size += len(piece)
        if size > characters:
            return _too_large(root, f"over {characters} characters with what it includes")
        out.append(piece)
    return Project("".join(out), library.literals, root, len(used) - 1, missing, others)


def _extract_inner(file: _File) -> list[str | _Reference]:
    r"""Return the pieces of a file to include.

    For a file that is a complete document (packages subfiles and standalone), these are the pieces between
    \begin{document} and \end{document}.
    """
    if find_first(_BEGIN, file.text) is None:
        return file.pieces
    inner: list[str | _Reference] = []
    begun = False
    for piece in file.pieces:
        if isinstance(piece, str):
            if not begun:
                begin = find_first(_BEGIN, piece)
                if begin is None:
                    continue
                begun, piece = True, piece[begin.end() :]
            if end := find_first(_END, piece):
                return [*inner, piece[: end.start()]]
        if begun:
            inner.append(piece)
    return inner


def _too_large(root: str, detail: str) -> Project:
    return Project("", [], root, problem=Reason.TOO_LARGE, detail=detail)
