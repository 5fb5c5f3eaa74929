"""A submission's files as one text: its root file found, what that one includes put in its place, nothing else.

Drafts, old versions and notes that lie beside a paper are no part of it unless the paper includes them.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from filters.reasons import Reason
from filters.tex.source import declared_encoding, decode, uncommented
from filters.tex.tokens import closing, control, names, occurrences

MAX_ROOTS = 64
"""files that are weighed as root, the largest"""
MAX_INCLUSIONS = 10_000
GROUP_CHARACTERS = 2_000
"""of an argument of \\InputIfFileExists"""

_NAME = r"[ \t\n]{0,9}\{[ \t]{0,9}([^{}\n]{1,200})\}"
_INCLUDE = control(
    r"(endinput)(?![a-zA-Z@])[^\n]*|(include|subfile|subfileinclude|InputIfFileExists|import|subimport|inputfrom"
    r"|subinputfrom|includefrom|subincludefrom|input|@input)(?![a-zA-Z@])"
    rf"(?:{_NAME}|[ \t]{{0,9}}\"([^\"\n]{{1,200}})\"|[ \t\n]{{0,9}}([^\s{{}}\\%\"]{{1,200}}))"
)
_SECOND = re.compile(_NAME)
_FROM = names("import subimport inputfrom subinputfrom includefrom subincludefrom")
_ONLY = control(r"includeonly[ \t\n]{0,9}\{([^{}]{0,10000})\}")
_CLASS = control(
    r"(?:documentclass|documentstyle)(?![a-zA-Z@])[ \t\n]{0,9}(?:\[[^\]]{0,2000}\][ \t\n]{0,9})?(?:\{([^{}]{0,99})\})?"
)
_PARTS = names("standalone subfiles")
"""classes of files that can be papers of their own, and are parts of another"""
_PLAIN = control(
    r"(?:bye|end|enddocument|magnification)(?![a-zA-Z@{*])(?![ \t]{0,9}\{)"
    r"|input[ \t]{1,9}(?:amstex|amsppt|harvmac|phyzzx|jytex|lanlmac)"
)
_BEGIN = control(r"begin[ \t]{0,9}\{document\}")
_END = control(r"end[ \t]{0,9}\{document\}")
_IGNORED = re.compile(rb"\s{0,99}%[ \t]{0,9}auto-ignore")
_HINT = re.compile(r"[ \t]*-?[ \t]*(filename|usage)[ \t]*:[ \t]*[\"']?([^\"'#\n]{1,200})")


class Project(NamedTuple):
    """`text`: the root with all it includes, without comments; `literals`: what `filters.tex.source.uncommented` set aside of
    it. `included`: so many files; `missing`: so many names that are no file of the submission; `others`: roots that
    were left out. A `problem` means no text."""

    text: str
    literals: list[str]
    root: str = ""
    included: int = 0
    missing: int = 0
    others: int = 0
    problem: Reason | None = None
    detail: str = ""


class _Reference(NamedTuple):
    """A place where a file is included: `raw` as it is typed; its `kind` is the command."""

    raw: str
    kind: str
    paths: tuple[str, ...]
    otherwise: str = ""


class _File(NamedTuple):
    text: str
    pieces: list[str | _Reference]


def assemble(files: Mapping[str, bytes], depth: int, characters: int) -> Project:
    """The text of a paper from its files by path. `depth`: of inclusions, deeper ones are left out; `characters`: what
    the whole may have. Never raises; takes time linear in all files and the result."""
    kept, hinted = _hints(files)
    library = _Library({path: data for path, data in kept.items() if not _IGNORED.match(data)})
    root, others = _root(library, hinted)
    if root is None:
        gone = Reason.NO_BODY_TEXT if kept and not library.files else Reason.NO_TEX
        return Project("", [], problem=gone)
    library.declared = declared_encoding(library.files[root])
    return _included(library, root, others, depth, characters)


class _Library:
    """The files of a submission, each read once, when it is asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.read = files, dict[str, _File]()
        self.literals: list[str] = []
        self.declared = ""

    def file(self, path: str) -> _File:
        """A file without its comments, cut where it includes others."""
        if path not in self.read:
            text = uncommented(decode(self.files[path], self.declared), self.literals)
            self.read[path] = _File(text, list(_pieces(text, path)))
        return self.read[path]

    def find(self, reference: _Reference) -> str | None:
        """The file that is meant, None if the submission has none."""
        return next((path for path in reference.paths if path in self.files), None)


def _hints(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """The files without those that the submission's own 00README tells arXiv to ignore, and the roots that it names
    (https://info.arxiv.org/help/00README.html; `NAME KEYWORD` a line, or YAML or JSON with `sources`)."""
    uses: list[tuple[str, str]] = []
    for path, data in files.items():
        name = posixpath.basename(path).lower()
        if not name.startswith("00readme"):
            continue
        text = decode(data[: 1 << 16])
        folder = posixpath.dirname(path)
        if name.endswith((".yaml", ".yml", ".json")):
            found = _listed_json(text) if name.endswith(".json") else _listed_yaml(text)
        else:
            found = [(words[0], words[1]) for words in map(str.split, text.split("\n")) if len(words) > 1]
        uses += [(posixpath.normpath(posixpath.join(folder, file)), use.lower()) for file, use in found]
    ignored = {file for file, use in uses if use == "ignore"}
    kept = {
        path: data
        for path, data in files.items()
        if path not in ignored and not posixpath.basename(path).lower().startswith("00readme")
    }
    return kept, [file for file, use in uses if use in ("toplevelfile", "toplevel") and file in kept]


def _listed_yaml(text: str) -> list[tuple[str, str]]:
    """`filename` and `usage` of each item of a list, whichever comes first."""
    found: list[dict[str, str]] = []
    for line in text.split("\n"):
        entry = _HINT.match(line)
        if line.lstrip().startswith("-") or not found:
            found.append({})
        if entry:
            found[-1][entry[1]] = entry[2].strip()
    return [(item["filename"], item["usage"]) for item in found if {"filename", "usage"} <= item.keys()]


def _listed_json(text: str) -> list[tuple[str, str]]:
    try:
        sources = json.loads(text)["sources"]
        return [(str(item["filename"]), str(item.get("usage", ""))) for item in sources]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _root(library: _Library, hinted: list[str]) -> tuple[str | None, int]:
    """The root file, and how many others there are: of the files that 00README names, else of those with a document
    class, else of plain TeX's, else of all `.tex` files, the one that reaches the most text; of equal ones the least
    deep, then the first by name. A file that its class makes a part of another comes after those that are none."""
    files = library.files
    single = [""] if "" in files else []
    candidates = hinted or single
    if not candidates:
        typed = [path for path, data in files.items() if b"\\documentclass" in data or b"\\documentstyle" in data]
        candidates = [path for path in _largest(files, typed) if _any(_CLASS, library.file(path).text)]
    if not candidates:
        candidates = [path for path in _largest(files, files) if _any(_PLAIN, library.file(path).text)]
    if not candidates:
        candidates = _largest(files, [path for path in files if path.lower().endswith((".tex", ".ltx", ".latex"))])
    if len(candidates) < 2:
        return next(iter(candidates), None), 0
    weighed = sorted(candidates, key=lambda path: _weight(library, path))
    below = _reached(library, weighed[0])
    return weighed[0], sum(path not in below for path in candidates)


def _largest(files: Mapping[str, bytes], paths: "list[str] | Mapping[str, bytes]") -> list[str]:
    return sorted(paths, key=lambda path: (-len(files[path]), path))[:MAX_ROOTS]


def _any(pattern: re.Pattern[str], text: str) -> bool:
    return next(occurrences(pattern, text), None) is not None


def _reached(library: _Library, root: str) -> set[str]:
    """A file and all that it includes, directly or not."""
    found, waiting = {root}, [root]
    while waiting:
        for piece in library.file(waiting.pop()).pieces:
            path = library.find(piece) if isinstance(piece, _Reference) else None
            if path is not None and path not in found:
                found.add(path)
                waiting.append(path)
    return found


def _weight(library: _Library, root: str) -> tuple[bool, int, int, str]:
    """The smaller, the better a root."""
    stated = next(occurrences(_CLASS, library.file(root).text), None)
    reach = sum(len(library.file(path).text) for path in _reached(library, root))
    return stated is not None and stated[1] in _PARTS, -reach, root.count("/"), root


def _pieces(text: str, path: str) -> Iterator[str | _Reference]:
    """A file's text, cut where it includes another, up to \\endinput."""
    start = 0
    for mark in occurrences(_INCLUDE, text):
        if mark.start() < start or (mark[5] and mark[2] not in ("input", "@input")):
            continue
        if mark[1]:
            yield text[start : mark.start()]
            return
        name, folder, otherwise, stop = (mark[3] or mark[4] or mark[5]).strip(), "", "", mark.end()
        if mark[2] in _FROM:
            second = _SECOND.match(text, stop)
            if second is None:
                continue
            name, folder, stop = second[1].strip(), name, second.end()
        if mark[2] == "InputIfFileExists":
            first = closing(text, stop, GROUP_CHARACTERS) if text[stop : stop + 1] == "{" else -1
            last = closing(text, first, GROUP_CHARACTERS) if first > 0 and text[first : first + 1] == "{" else -1
            if last < 0:
                continue
            otherwise, stop = text[first + 1 : last - 1], last
        yield text[start : mark.start()]
        yield _Reference(text[mark.start() : stop], mark[2], tuple(_paths(name, folder, path)), otherwise)
        start = stop
    yield text[start:]


def _paths(name: str, folder: str, within: str) -> Iterator[str]:
    """Where a name may lead, first things first: with .tex as TeX looks for it, from the top (where arXiv runs TeX),
    from the folder of the file that includes it. None of them leads outside."""
    for base in dict.fromkeys(("", posixpath.dirname(within))):
        path = posixpath.normpath(posixpath.join(base, folder, name))
        if not path.startswith(("/", "..")):
            yield from (f"{path}.tex", path)


def _included(library: _Library, root: str, others: int, depth: int, characters: int) -> Project:
    """The text of the root with everything it includes."""
    whole = library.file(root)
    only = next((mark[1] for mark in occurrences(_ONLY, whole.text)), None)
    wanted = None if only is None else {name.strip().removesuffix(".tex") for name in only.split(",")}
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
            if path is None:
                missing += 1
                piece = piece.otherwise or ("" if piece.paths and piece.paths[-1].endswith(".bbl") else piece.raw)
            elif _left_out(piece, wanted) or path in open_files or len(stack) >= depth:
                continue
            else:
                inclusions += 1
                if inclusions > MAX_INCLUSIONS:
                    return _too_large(root, f"over {MAX_INCLUSIONS} inclusions")
                open_files.add(path)
                used.add(path)
                stack.append((path, iter(_inner(library.file(path)))))
                continue
        size += len(piece)
        if size > characters:
            return _too_large(root, f"over {characters} characters with what it includes")
        out.append(piece)
    return Project("".join(out), library.literals, root, len(used) - 1, missing, others)


def _left_out(reference: _Reference, wanted: set[str] | None) -> bool:
    """Whether \\includeonly leaves out a file."""
    if wanted is None or reference.kind != "include":
        return False
    return not any(path in wanted for path in reference.paths)


def _inner(file: _File) -> list[str | _Reference]:
    """What an included file gives: of one that can stand alone (packages subfiles, standalone), its body."""
    if not _any(_BEGIN, file.text):
        return file.pieces
    inner: list[str | _Reference] = []
    begun = False
    for piece in file.pieces:
        if isinstance(piece, str):
            if not begun:
                begin = next(occurrences(_BEGIN, piece), None)
                if begin is None:
                    continue
                begun, piece = True, piece[begin.end() :]
            end = next(occurrences(_END, piece), None)
            if end is not None:
                return [*inner, piece[: end.start()]]
        if begun:
            inner.append(piece)
    return inner


def _too_large(root: str, detail: str) -> Project:
    return Project("", [], root, problem=Reason.TOO_LARGE, detail=detail)
