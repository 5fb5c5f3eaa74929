"""Read GitHub repositories from disk: checkouts, or archives of one repository each.

Archives are `.tar`, `.tar.gz`, `.tgz`, `.tar.bz2`, `.tbz2` and `.zip` files.

LLaMA, section 2.1, reads BigQuery's public dataset: code under Apache, BSD and MIT licences, filtered by line length
and alphanumeric characters, without headers. If the recipe's `github.form` is "tables",
`pipeline.sources.github_bigquery` reads exports of this dataset. It uses this module's rules for files, and its
`make_document`.

A licence file may be anywhere in a repository and applies to its folder. Therefore, files and licences are joined by
repository, in one round of `pipeline.stages.join`. Mappers apply all rules that need only a single file. So only files
that may become documents are shuffled, and the thousands of small files of a checkout are grouped into a few large
ones.

A checked-out repository is the outermost folder that contains `.git` or a licence file. The locators of its files have
the path inside the repository as `member`. An archive is one repository. Its name gives the name of the repository
(`OWNER/REPOSITORY.tar.gz`, `OWNER/REPOSITORY/REF.tar.gz`). If a single top folder contains all members, it is left out
of paths.
"""

import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple
from urllib.parse import quote

from filters.code.headers import strip_licence
from filters.code.languages import (
    NOTEBOOK,
    detect_language,
    get_extension,
    is_licence_file,
    is_listed,
    is_named_generated,
    is_named_minified,
    is_vendored,
)
from filters.code.licences import (
    MAX_CHARACTERS,
    UNKNOWN,
    identify_header_licence,
    identify_licence,
    is_allowed,
    join_licences,
)
from filters.code.notebooks import render_notebook
from filters.formats import tar, zip
from filters.formats.charset import decode_source
from filters.formats.stored import Stored
from filters.formats.stream import Damage, decode_stored
from filters.formats.tar import ArchiveMember
from filters.reasons import Reason
from manifests.document import Document, Locator, Part
from manifests.files import canonical_json
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Dropped, Outcome, Row, Survey, apportion, byte_range, check_length

ROUNDS = 1
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
HEAD = "HEAD"  # ref in the URL of a file whose commit is unknown; GitHub then shows the newest version
_OWNER, _NAME = re.compile(r"[A-Za-z0-9-]{1,39}"), re.compile(r"[A-Za-z0-9._-]{1,100}")
_LICENCE, _CODE = b"L", b"C"  # first byte of a row's data


class Code(NamedTuple):
    """The content of a source file.

    Attributes:
        text: The text of the document.
        language: The programming language, or "".
        licence: The licence that the file's header names, or "".
    """

    text: str
    language: str
    licence: str


def check_path(path: str, recipe: Source) -> Reason | None:
    """Return why a file is dropped because of its path in the repository, or None if its content must be read."""
    if not VERSION_CONTROL.isdisjoint(path.split("/")):
        return Reason.FILE_TYPE
    if is_licence_file(path):
        return Reason.LICENCE_FILE
    if not is_listed(path, recipe.github.extensions):
        return Reason.FILE_TYPE
    if is_vendored(path):
        return Reason.VENDORED_FILE
    if is_named_generated(path):
        return Reason.GENERATED_FILE
    return Reason.MINIFIED_FILE if is_named_minified(path) else None


def read_code(raw: bytes, path: str, recipe: Source) -> Code | Dropped:
    """Return the content of a file without the licence at its top, or the reason for dropping the file."""
    text = decode_source(raw)
    if isinstance(text, Reason):
        return Dropped(text, path)
    language = detect_language(path)
    if get_extension(path) == NOTEBOOK:
        found = render_notebook(text)
        if isinstance(found, Damage):
            return Dropped(found.problem, found.detail)
        text = found.text
    headed = strip_licence(text, language)
    if damage := check_length(headed.text, recipe, language=language):
        return Dropped(damage.problem, path)
    return Code(headed.text, language, identify_header_licence(headed.legal) if headed.legal else "")


def make_document(
    source: str, place: Locator, code: Code, repository: str, path: str, ref: str, licence: str, **more: Any
) -> Document:
    """Return the document of a file. It has a URL if the name of the repository has the form OWNER/REPOSITORY."""
    metadata = {"repository": repository, "path": path, "ref": ref, "language": code.language, **more}
    metadata = {key: value for key, value in metadata.items() if value != ""}
    owner, _, name = repository.partition("/")
    known = bool(_OWNER.fullmatch(owner) and _NAME.fullmatch(name))
    short = ref.removeprefix("refs/heads/") or HEAD
    url = f"https://github.com/{repository}/blob/{quote(short)}/{quote(path)}" if known else ""
    return Document(source, place, code.text, url, "", licence, metadata)


def is_archive(name: str) -> bool:
    """Return True if the name of an input is the name of an archive."""
    return name.lower().endswith(ENDINGS)


def survey(stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
    """Count the members of an archive.

    The state of its only piece is twice the number of decoded bytes, plus 1 if a single folder contains all members.
    """
    if not is_archive(name):
        return Survey([(0, len(stored), 0)], len(stored), 1, {})
    rows, decoded, in_folder = _survey_archive(stored, recipe)
    return Survey([(0, len(stored), decoded << 1 | in_folder)], decoded, rows, {})


def _survey_archive(stored: Stored, recipe: Source) -> tuple[int, int, bool]:
    """Return (number of members, decoded bytes, True if a single folder contains all members) of an archive."""
    rows = decoded = 0
    folders = set[str]()
    for member in _read_members(stored, recipe, lambda name: False):
        rows, decoded = rows + 1, member.end
        if member.problem is None and len(folders) < 2:
            folder, slash, _ = member.name.removeprefix("./").partition("/")
            folders.add(folder + slash)
    return rows, decoded, len(folders) == 1 and folders.pop().endswith("/")


def select_round(name: str, recipe: Source) -> int:
    """Return 0: all rows are grouped in one round."""
    return 0


def collect_shared(source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the folders of checked-out repositories: the outermost folders that contain `.git` or a licence file."""
    folders = set[str]()
    for name in counts:
        parts = name.split("/")
        controlled = next((place for place, part in enumerate(parts) if part in VERSION_CONTROL), None)
        if controlled is not None:
            folders.add("/".join(parts[:controlled]))
        elif is_licence_file(name):
            folders.add("/".join(parts[:-1]))
    outermost = (folder for folder in folders if folders.isdisjoint(_list_parents(folder)))
    return {"roots": dict.fromkeys(sorted(outermost), True)}


def read_rows(
    stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
) -> Iterator[Row | Outcome]:
    """Yield the rows of code files and licence files. The group of a row is its repository."""
    size = len(stored)
    root = next((folder for folder in _list_parents(name) if folder in shared["roots"]), None)
    if root is not None or not is_archive(name):
        path = name.removeprefix(f"{root}/") if root else name
        place = Locator(name, 0, size, path, 0, size)
        wanted = _is_wanted(path, recipe)
        if size > recipe.limits.record_bytes and wanted:
            yield Outcome(place, size, reason=Reason.TOO_LARGE, detail=f"{size} bytes")
        else:
            raw = bytes(stored) if wanted else b""
            yield _make_row(f"tree/{root or ''}".encode(), place, size, raw, path, "", recipe)
        return
    nothing = Outcome(Locator(name, 0, size), 0, reason=Reason.UNSUPPORTED_FORMAT, detail="an archive without files")
    if size:
        yield from apportion(_read_archive(stored, name, recipe, bool(state & 1)), size, state >> 1, nothing)


def _list_parents(name: str) -> Iterator[str]:
    """Yield the folders above a path, from the innermost to the top folder, which is ""."""
    while name:
        name = name.rpartition("/")[0]
        yield name


def _is_wanted(path: str, recipe: Source) -> bool:
    """Return True if the content of a file must be read: it may become a document, or it is a licence file."""
    return check_path(path, recipe) in (None, Reason.LICENCE_FILE)


def _read_members(stored: Stored, recipe: Source, wants: Callable[[str], bool]) -> Iterator[ArchiveMember]:
    limit, total = recipe.limits.record_bytes, recipe.github.archive_bytes
    if bytes(stored[:2]) == zip.MAGIC:
        return zip.read_members(stored, limit, total, wants)
    return tar.read_members(decode_stored(stored), limit, total, wants)


def _read_archive(
    stored: Stored, name: str, recipe: Source, in_folder: bool, only: Container[str] | None = None
) -> Iterator[tuple[int, Row | Outcome]]:
    """Yield (end in decoded bytes, row or outcome) for the members of an archive.

    Args:
        stored: The bytes of the archive.
        name: The name of the input.
        recipe: The part of the recipe for the source.
        in_folder: True to remove the first part of every path.
        only: The names of the members to read; None for all members.
    """
    group, size = f"archive/{name}".encode(), len(stored)
    plain = bytes(stored[257:262]) == b"ustar"

    def path_of(member: str) -> str:
        path = member.removeprefix("./")
        return path.partition("/")[2] if in_folder else path

    def wants(member: str) -> bool:
        return _is_wanted(path_of(member), recipe) if only is None else member in only

    for member in _read_members(stored, recipe, wants):
        if (member.folder and member.problem is None) or (only is not None and member.name not in only):
            continue
        length = member.stop - member.start
        place = Locator(name, 0, size, member.name, member.start, length)
        if plain and member.problem is None:
            place = Locator(name, member.start, length, member.name, 0, length)
        if member.problem is not None:
            yield member.end, Outcome.drop(place, 0, member)
        else:
            yield member.end, _make_row(group, place, 0, member.data, path_of(member.name), member.commit, recipe)


def _make_row(
    group: bytes, place: Locator, size: int, raw: bytes, path: str, ref: str, recipe: Source
) -> Row | Outcome:
    """Return the row of a code file or a licence file, or the outcome of a file that is dropped.

    Args:
        group: The join key: the repository.
        place: The location of the file.
        size: The number of stored bytes that are attributed to the file.
        raw: The bytes of the file; empty if its path shows that it is dropped.
        path: The path in the repository.
        ref: The commit, or "" if it is unknown.
        recipe: The part of the recipe for the source.
    """
    if is_quarantined(place):
        return Outcome(place, size, reason=Reason.QUARANTINED)
    reason = check_path(path, recipe)
    if reason is Reason.LICENCE_FILE:
        text = raw[: MAX_CHARACTERS + 1].decode("utf-8", "replace")
        return Row(group, place, size, _LICENCE + canonical_json({"path": path, "licence": identify_licence(text)}))
    if reason is not None:
        return Outcome(place, size, reason=reason)
    code = read_code(raw, path, recipe)
    if isinstance(code, Dropped):
        return Outcome.drop(place, size, code)
    about = {"path": path, "ref": ref, "language": code.language, "licence": code.licence}
    return Row(group, place, size, _CODE + canonical_json(about) + code.text.encode())


def combine(rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Outcome]:
    """Yield the outcomes of one repository. The parts of a document's locator are the licence files that apply."""
    licences, seen = dict[str, list[tuple[Locator, str]]](), set[str]()
    for row in rows:
        if row.data[:1] == _LICENCE:
            about = json.loads(row.data[1:])
            licences.setdefault(about["path"].rpartition("/")[0], []).append((row.locator, about["licence"]))
            yield Outcome(row.locator, row.stored, reason=Reason.LICENCE_FILE)
    for row in rows:
        if row.data[:1] == _LICENCE:
            continue
        head, _, text = row.data[1:].partition(b"\n")
        about = json.loads(head)
        path, licence, found = about["path"], about["licence"], list[tuple[Locator, str]]()
        if path in seen:
            yield Outcome(row.locator, row.stored, reason=Reason.OLDER_COPY)
            continue
        seen.add(path)
        if not licence:
            found = next((licences[folder] for folder in _list_parents(path) if folder in licences), [])
            licence = join_licences(one for _, one in found if one) or UNKNOWN
        if not is_allowed(licence, recipe.github.licences):
            yield Outcome(row.locator, row.stored, reason=Reason.NO_LICENCE)
            continue
        place = replace(row.locator, parts=tuple(Part(*byte_range(where)) for where, _ in found))
        code = Code(text.decode(), about["language"], licence)
        repository, ref = _find_repository(row, about["ref"])
        document = make_document(source, place, code, repository, path, ref, licence)
        yield Outcome(place, row.stored, document)


def _find_repository(row: Row, commit: str) -> tuple[str, str]:
    """Return (name, ref) of a repository from the group of a row.

    Args:
        row: A row of the repository.
        commit: The commit that the archive states, or "". It is preferred to the ref in the name of the archive.
    """
    kind, _, name = row.group.decode().partition("/")
    if kind == "tree":
        return name, ""
    ending = next(ending for ending in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(ending))
    parts = name[: -len(ending)].split("/")
    if len(parts) == 3:
        return "/".join(parts[:2]), commit or parts[2]
    return "/".join(parts), commit


def reread(stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the document at a locator again. Raises LookupError if the files do not contain this document."""
    places: list[Locator | Part] = [locator, *locator.parts]
    rows = list[Row]()
    for file in sorted({place.file for place in places}):
        names = {place.member for place in places if place.file == file}
        rows += [row for row in _reread_rows(stored[file], file, names, recipe) if isinstance(row, Row)]
    for outcome in combine(sorted(rows, key=attrgetter("place")), source, recipe, 0):
        if outcome.document is not None and outcome.document.locator == locator:
            return outcome
    raise LookupError(f"{locator.file} has changed since it was read: it makes no such document")


def _reread_rows(stored: Stored, name: str, members: set[str], recipe: Source) -> Iterator[Row | Outcome]:
    """Yield the rows of some members of an archive, or the row of a checked-out file.

    For a checked-out file, `members` contains its path in the repository.
    """
    if is_archive(name):
        in_folder = _survey_archive(stored, recipe)[2]
        yield from (row for _, row in _read_archive(stored, name, recipe, in_folder, members))
        return
    for path in members:
        root, size = name.removesuffix(path).rstrip("/"), len(stored)
        place = Locator(name, 0, size, path, 0, size)
        yield _make_row(f"tree/{root}".encode(), place, 0, bytes(stored), path, "", recipe)
