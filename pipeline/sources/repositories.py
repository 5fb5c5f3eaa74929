"""Repositories on disk: checked out, or one archive each (`.tar`, `.tar.gz`, `.tgz`, `.tar.bz2`, `.zip`).

A licence may lie anywhere in a repository and counts for the folder it is in, so files and licences meet by repository,
in one round of `pipeline.stages.join`: mappers apply all rules that need a file alone, so what crosses the shuffle is
what may become a document, and checkouts' thousands of little files end in few large ones.

A checked-out repository is the outermost folder that holds `.git` or a licence file; its files' locators have the path
in it as `member`. An archive is one repository, named as it is (`OWNER/REPOSITORY.tar.gz`,
`OWNER/REPOSITORY/REF.tar.gz`), and the folder that is its first entry is left out of paths.
"""

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

from filters.code.languages import is_licence_file
from filters.code.licences import MAX_CHARACTERS, UNKNOWN, identify_licence, is_allowed, join_licences
from filters.formats import tar, zip
from filters.formats.compression import decode_stored
from filters.formats.stream import Damage, Stored
from filters.formats.tar import ArchiveMember
from filters.reasons import Reason
from manifests.document import Locator, Part
from manifests.files import canonical_json
from manifests.source import Source
from pipeline.sources.base import Outcome, Row, Survey
from pipeline.sources.github import VERSION_CONTROL, Code, code_of, document, refused, shared_out

ROUNDS = 1
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")
_LICENCE, _CODE = b"L", b"C"


def is_archive(name: str) -> bool:
    """Whether an input is a repository's archive, by its name."""
    return name.lower().endswith(ENDINGS)


def survey(stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
    """An archive's state: its decoded size, by which its stored bytes are shared out, and (the lowest bit) whether one
    folder holds all of it."""
    if not is_archive(name):
        return Survey([(0, len(stored), 0)], len(stored), 1, {})
    rows, decoded, folder = _look(stored, recipe)
    return Survey([(0, len(stored), decoded << 1 | bool(folder))], decoded, rows, {})


def _look(stored: Stored, recipe: Source) -> tuple[int, int, str]:
    """How many members an archive has, how many decoded bytes, and the folder, with its slash, that holds them all."""
    rows = decoded = 0
    folders = set[str]()
    for member in _members(stored, recipe, lambda name: False):
        rows, decoded = rows + 1, member.end
        if member.problem is None and len(folders) < 2:
            folder, slash, _ = member.name.removeprefix("./").partition("/")
            folders.add(folder + slash)
    (folder,) = folders if len(folders) == 1 else ("",)
    return rows, decoded, folder if folder.endswith("/") else ""


def round_of(name: str, recipe: Source) -> int:
    """There is one."""
    return 0


def shared(source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The folders of checked-out repositories: the outermost that hold `.git` or a licence."""
    folders = set[str]()
    for name in counts:
        parts = name.split("/")
        controlled = next((place for place, part in enumerate(parts) if part in VERSION_CONTROL), None)
        if controlled is not None:
            folders.add("/".join(parts[:controlled]))
        elif is_licence_file(name):
            folders.add("/".join(parts[:-1]))
    outermost = (folder for folder in folders if not any(above in folders for above in _above(folder)))
    return {"roots": dict.fromkeys(sorted(outermost), True)}


def keyed(
    stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
) -> Iterator[Row | Outcome]:
    """Files of code and licences by repository."""
    size = len(stored)
    root = next((folder for folder in _above(name) if folder in shared["roots"]), None)
    if root is not None or not is_archive(name):
        path = name.removeprefix(f"{root}/") if root else name
        place = Locator(name, 0, size, path, 0, size)
        if size > recipe.limits.record_bytes and _wanted(path, recipe):
            yield Outcome(place, size, reason=Reason.TOO_LARGE, detail=f"{size} bytes")
        else:
            raw = bytes(stored) if _wanted(path, recipe) else b""
            yield _row(f"tree/{root or ''}".encode(), place, size, raw, path, "", recipe)
        return
    nothing = Outcome(Locator(name, 0, size), 0, reason=Reason.UNSUPPORTED_FORMAT, detail="an archive of no files")
    if size:
        yield from shared_out(_from_archive(stored, name, recipe, bool(state & 1)), size, state >> 1, nothing)


def _above(name: str) -> Iterator[str]:
    """The folders above a path, the innermost first, the one that has no name last."""
    while name:
        name = name.rpartition("/")[0]
        yield name


def _wanted(path: str, recipe: Source) -> bool:
    return refused(path, recipe) in (None, Reason.LICENCE_FILE)


def _members(stored: Stored, recipe: Source, wants: Callable[[str], bool]) -> Iterator[ArchiveMember]:
    """The members of an archive, told by its first bytes."""
    limit, total = recipe.limits.record_bytes, recipe.github.archive_bytes
    if bytes(stored[:2]) == zip.MAGIC:
        return zip.read_members(stored, limit, total, wants)
    return tar.read_members(decode_stored(stored), limit, total, wants)


def _from_archive(
    stored: Stored, name: str, recipe: Source, in_folder: bool, only: Container[str] | None = None
) -> Iterator[tuple[int, Row | Outcome]]:
    """The rows of an archive (`only` those of some members), each with where it ends among decoded bytes. `in_folder`:
    the first part of every path is left out."""
    group, size = f"archive/{name}".encode(), len(stored)
    plain = bytes(stored[257:262]) == b"ustar"

    def path_of(member: str) -> str:
        path = member.removeprefix("./")
        return path.partition("/")[2] if in_folder else path

    def wants(member: str) -> bool:
        return _wanted(path_of(member), recipe) if only is None else member in only

    for member in _members(stored, recipe, wants):
        if (member.folder and member.problem is None) or (only is not None and member.name not in only):
            continue
        length = member.stop - member.start
        place = Locator(name, 0, size, member.name, member.start, length)
        if plain and member.problem is None:
            place = Locator(name, member.start, length, member.name, 0, length)
        if member.problem is not None:
            yield member.end, Outcome(place, 0, reason=member.problem, detail=member.detail)
        else:
            yield member.end, _row(group, place, 0, member.data, path_of(member.name), member.commit, recipe)


def _row(group: bytes, place: Locator, size: int, raw: bytes, path: str, ref: str, recipe: Source) -> Row | Outcome:
    """A file as it goes to its repository's others, or why it does not."""
    reason = refused(path, recipe)
    if reason is Reason.LICENCE_FILE:
        text = raw[: MAX_CHARACTERS + 1].decode("utf-8", "replace")
        return Row(group, place, size, _LICENCE + canonical_json({"path": path, "licence": identify_licence(text)}))
    if reason is not None:
        return Outcome(place, size, reason=reason)
    code = code_of(raw, path, recipe)
    if isinstance(code, Damage):
        return Outcome(place, size, reason=code.problem, detail=code.detail)
    about = {"path": path, "ref": ref, "language": code.language, "licence": code.licence}
    return Row(group, place, size, _CODE + canonical_json(about) + code.text.encode())


def combine(rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Outcome]:
    """The documents of one repository, each with the licence files that count for it as parts."""
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
            found = next((licences[folder] for folder in _above(path) if folder in licences), [])
            licence = join_licences(one for _, one in found if one) or UNKNOWN
        if not is_allowed(licence, recipe.github.licences):
            yield Outcome(row.locator, row.stored, reason=Reason.NO_LICENCE)
            continue
        place = replace(row.locator, parts=tuple(_part(where) for where, _ in found))
        code = Code(text.decode(), about["language"], licence)
        repository, ref = _named(row, about["ref"])
        made = document(source, place, code, repository, path, ref, licence)
        yield Outcome(place, row.stored, made)


def _named(row: Row, commit: str) -> tuple[str, str]:
    """A repository's name and its ref, from the group of its rows."""
    kind, _, name = row.group.decode().partition("/")
    if kind == "tree":
        return name, ""
    ending = next(ending for ending in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(ending))
    parts = name[: -len(ending)].split("/")
    if len(parts) == 3:
        return "/".join(parts[:2]), commit or parts[2]
    return "/".join(parts), commit


def _part(place: Locator) -> Part:
    return Part(place.file, place.offset, place.length, place.member, place.inner_offset, place.inner_length)


def reread(stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
    """The document at a locator. Raises LookupError when the files hold no such document."""
    places: list[Locator | Part] = [locator, *locator.parts]
    rows = list[Row]()
    for file in sorted({place.file for place in places}):
        names = {place.member for place in places if place.file == file}
        rows += [row for row in _rows_of(stored[file], file, names, recipe) if isinstance(row, Row)]
    for outcome in combine(rows, source, recipe, 0):
        if outcome.document is not None and outcome.document.locator == locator:
            return outcome
    raise LookupError(f"{locator.file} is not the file that was read: it makes no such document")


def _rows_of(stored: Stored, name: str, members: set[str], recipe: Source) -> Iterator[Row | Outcome]:
    """The rows of an archive's members, or that of a checked-out file, whose path in the repository is its `member`."""
    if is_archive(name):
        in_folder = bool(_look(stored, recipe)[2])
        yield from (row for _, row in _from_archive(stored, name, recipe, in_folder, members))
        return
    for path in members:
        root, size = name.removesuffix(path).rstrip("/"), len(stored)
        place = Locator(name, 0, size, path, 0, size)
        yield _row(f"tree/{root}".encode(), place, 0, bytes(stored), path, "", recipe)
