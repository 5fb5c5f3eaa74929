"""arXiv: the bulk archive's monthly tars and single e-prints, one paper a document (LLaMA section 2.1: "removed
everything before the first section, as well as the bibliography", and the comments, and "inline-expanded definitions
and macros").

A monthly tar holds one member a submission: a gzipped tar, a gzipped TeX file, a PDF. Every other file is taken for one
submission.
"""

import posixpath
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from filters.formats.compression import is_compressed
from filters.formats.stream import Stored
from filters.formats.tar import BLOCK, TarEntry, parse_header, read_entries
from filters.reasons import Reason
from filters.tex.body import extract_body, extract_title, is_notice, replace_accents
from filters.tex.macros import expand_macros
from filters.tex.project import Project, assemble
from filters.tex.source import restore_literals, strip_false_branches
from filters.tex.submission import Submission, read_submission
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.sources.base import Outcome

ABSTRACT_URL = "https://arxiv.org/abs/"
LOOKED_AT = 100
"""members, of which one must be a submission for a tar to be a monthly one"""
UNSAFE_SHOWN = 3
"""names in the dead letter of a submission's unsafe members"""
_NEW_ID = re.compile(r"([0-9]{2}(?:0[1-9]|1[0-2]))\.([0-9]{4,5})(?:v[0-9]{1,3})?(?![0-9])")
_OLD_ID = re.compile(r"([a-z-]{2,12})(?:\.[A-Z]{2})?_?([0-9]{2}(?:0[1-9]|1[0-2])[0-9]{3})(?:v[0-9]{1,3})?(?![0-9])")
"""of a submission's file (https://info.arxiv.org/help/arxiv_identifier.html): from April 2007, and before"""


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """Every submission of a file, or of one of its `pieces`, in order, and what is none. What a member's headers and
    padding take counts as its own; a directory and the zeros at the end are records."""
    if not _is_monthly(stored):
        yield from _paper(stored, Locator(name, 0, len(stored)), name, len(stored), source, recipe)
        return
    for entry in read_entries(stored, start, end):
        yield from _member(stored, entry, name, source, recipe)


def pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[tuple[int, int, int]]:
    """A monthly tar is cut at its members' headers; of the data between them nothing is read."""
    size = len(stored)
    if not _is_monthly(stored):
        return [(0, size, 0)]
    cuts = [0]
    for entry in read_entries(stored):
        if entry.offset - cuts[-1] >= split_bytes:
            cuts.append(entry.offset)
    return [(start, end, 0) for start, end in zip(cuts, [*cuts[1:], size], strict=True)]


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """The paper at a locator. Raises LookupError when those bytes hold no such submission."""
    gone = LookupError(f"{locator.file} is not the file that was read: no submission lies at {locator.offset}")
    member = locator.member.partition("!")[0]
    place = Locator(locator.file, locator.offset, locator.length)
    if locator.offset == 0 and locator.length == len(stored) and not _is_monthly(stored):
        outcomes = _paper(stored, place, locator.file, len(stored), source, recipe)
    else:
        found = parse_header(bytes(stored[max(locator.offset - BLOCK, 0) : locator.offset]))
        if found is None or found.kind != "file" or found.size != locator.length:
            raise gone
        place = Locator(locator.file, locator.offset, locator.length, member)
        outcomes = _paper(stored, place, member, locator.length, source, recipe)
    *_, outcome = outcomes
    if outcome.locator != locator:
        raise gone
    return outcome


def _is_monthly(stored: Stored) -> bool:
    """Whether a file is a tar, its beginning damaged perhaps, whose members are named after submissions, as those of a
    single submission never are."""
    if is_compressed(stored) or bytes(stored[:4]) == b"%PDF":
        return False
    return any(entry.kind == "file" and _identifier(entry.name) for entry in islice(read_entries(stored), LOOKED_AT))


def _member(stored: Stored, entry: TarEntry, name: str, source: str, recipe: Source) -> Iterator[Outcome]:
    """What becomes of a member of a monthly tar."""
    size = entry.stop - entry.offset
    place = Locator(name, entry.data, entry.size, entry.name)
    if entry.kind == "damage":
        yield Outcome(Locator(name, entry.offset, size), size, reason=entry.problem, detail=entry.detail)
    elif entry.kind in ("end", "directory"):
        yield Outcome(Locator(name, entry.offset, size, entry.name), size, reason=Reason.ARCHIVE_METADATA)
    elif entry.kind == "link":
        yield Outcome(place, size, reason=Reason.UNSAFE_PATH, detail="a link")
    elif entry.kind == "other":
        yield Outcome(place, size, reason=Reason.UNSUPPORTED_FORMAT, detail="no plain file")
    else:
        yield from _paper(stored, place, entry.name, size, source, recipe)


def _paper(stored: Stored, place: Locator, name: str, size: int, source: str, recipe: Source) -> Iterator[Outcome]:
    """What becomes of a submission, last; before it, a record without bytes if some of its members are unsafe. `name`:
    of its file; `size`: stored bytes that it accounts for."""
    limits = recipe.limits
    with memoryview(stored) as whole, whole[place.offset : place.offset + place.length] as view:
        held = read_submission(view, limits.record_bytes, recipe.arxiv.archive_bytes)
    if held.unsafe:
        shown = ", ".join(repr(path[:100]) for path in held.unsafe[:UNSAFE_SHOWN])
        detail = f"{len(held.unsafe)} members left out: {shown}"
        yield Outcome(place, 0, reason=Reason.UNSAFE_PATH, detail=detail)
    if held.problem is not None:
        yield Outcome(place, size, reason=held.problem, detail=held.detail)
        return
    yield _document(held, place, name, size, source, recipe)


def _document(held: Submission, place: Locator, name: str, size: int, source: str, recipe: Source) -> Outcome:
    limits, rules = recipe.limits, recipe.arxiv
    project = assemble(held.files, rules.inclusion_depth, limits.text_characters)
    if project.problem is not None:
        return Outcome(place, size, reason=project.problem, detail=project.detail)
    expanded = expand_macros(strip_false_branches(project.text), rules.macro_depth, rules.macro_characters)
    if expanded.problem is not None:
        return Outcome(place, size, reason=expanded.problem, detail=expanded.detail)
    text = extract_body(expanded.text, rules.appendix)
    if rules.accents == "unicode":
        text = replace_accents(text)
    whole = restore_literals(text, project.literals, limits.text_characters)
    if whole is None:
        return Outcome(place, size, reason=Reason.TOO_LARGE, detail=f"over {limits.text_characters} characters")
    if not whole or is_notice(whole):
        return Outcome(place, size, reason=Reason.NO_BODY_TEXT)
    if len(whole) < recipe.min_characters:
        return Outcome(place, size, reason=Reason.TOO_SHORT)
    member = "!".join(part for part in (place.member, project.root) if part)
    locator = Locator(place.file, place.offset, place.length, member, 0, held.decoded)
    identifier = _identifier(name)
    about = _metadata(
        identifier, restore_literals(extract_title(expanded.text), project.literals, limits.text_characters), project
    )
    url = ABSTRACT_URL + identifier if identifier else ""
    return Outcome(locator, size, Document(
        source, locator, whole, url, _month(identifier), recipe.licence, about
    ))  # fmt: skip


def _metadata(identifier: str, named: str | None, project: Project) -> dict[str, Any]:
    about: dict[str, Any] = {"id": identifier, "title": named or "", "included": project.included}
    about |= {"missing": project.missing, "other_roots": project.others}
    return {key: value for key, value in about.items() if value}


def _identifier(name: str) -> str:
    """The arXiv identifier that a file's name begins with, without its version: 1403.0035, math/0303005; else empty."""
    stem = posixpath.basename(name)
    new, old = _NEW_ID.match(stem), _OLD_ID.match(stem)
    if new:
        return f"{new[1]}.{new[2]}"
    return f"{old[1]}/{old[2]}" if old else ""


def _month(identifier: str) -> str:
    """Year and month that an identifier states (ISO 8601): arXiv began in August 1991."""
    digits = identifier.rpartition("/")[2][:4]
    if not digits:
        return ""
    return f"{'19' if '/' in identifier and digits[0] == '9' else '20'}{digits[:2]}-{digits[2:]}"
