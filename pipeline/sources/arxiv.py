"""Read arXiv's monthly tars, and single e-prints. Each paper is one document.

LLaMA, section 2.1: "we removed everything before the first section, as well as the bibliography". It also removed
comments and "inline-expanded definitions and macros".

A member of a monthly tar is a submission: a gzipped tar, a gzipped TeX file, or a PDF. The monthly tar itself may be
compressed (a "packed month"). Every other file is read as one submission.
"""

import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from filters.formats.characters import normalise_text
from filters.formats.stored import Stored, StoredView, buffer_of
from filters.formats.stream import GZIP, ChunkReader, decode_stored, is_compressed, read_ranges
from filters.formats.tar import BLOCK, parse_header, read_entries, read_members, stream_entries
from filters.reasons import Reason
from filters.tex.body import extract_body, extract_title, is_document, is_macro_file, is_notice, replace_accents
from filters.tex.macros import expand_macros
from filters.tex.source import restore_literals, strip_false_branches
from filters.tex.submission import Project, Submission, assemble, read_submission
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Outcome, Piece, apportion, check_length, cut_pieces

ABSTRACT_URL = "https://arxiv.org/abs/"
SAMPLED_MEMBERS = 100  # a tar is monthly if one of so many first members has the name of a submission
PACKED_BYTES = 256 << 20  # the largest submission in a packed month, which is held in memory
UNSAFE_SHOWN = 3  # names of unsafe members of a submission in its dead letter
# Names of submissions since April 2007, and before (https://info.arxiv.org/help/arxiv_identifier.html).
_NEW_ID = re.compile(r"([0-9]{2}(?:0[1-9]|1[0-2]))\.([0-9]{4,5})(?:v[0-9]{1,3})?(?![0-9])")
_OLD_ID = re.compile(r"([a-z-]{2,12})(?:\.[A-Z]{2})?_?([0-9]{2}(?:0[1-9]|1[0-2])[0-9]{3})(?:v[0-9]{1,3})?(?![0-9])")


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """Yield the outcome of every submission and other member of a file, or of a piece of a file.

    The headers and the padding of a member count as its stored bytes. A directory, and the zeros at the end, are
    records. The stored bytes of a packed month are divided among its members by member size. The result is close to the
    true sizes, because the members are already compressed.
    """
    if _is_packed_month(stored):
        nothing = Outcome(Locator(name, 0, len(stored)), 0, reason=Reason.NO_TEX)
        yield from apportion(_read_packed(stored, name, source, recipe), len(stored), len(stored), nothing)
        return
    if not _is_monthly(stored):
        yield from _read_stored(stored, Locator(name, 0, len(stored)), name, len(stored), source, recipe)
        return
    for entry in read_entries(stored, start, end):
        size = entry.stop - entry.offset
        place, whole = Locator(name, entry.data, entry.size, entry.name), Locator(name, entry.offset, size, entry.name)
        if entry.kind == "damage":
            yield Outcome.drop(Locator(name, entry.offset, size), size, entry)
        elif entry.kind in ("end", "directory"):
            yield Outcome(whole, size, reason=Reason.ARCHIVE_METADATA)
        elif entry.kind == "link":
            yield Outcome(place, size, reason=Reason.UNSAFE_PATH, detail="a link")
        elif entry.kind == "other":
            yield Outcome(place, size, reason=Reason.UNSUPPORTED_FORMAT, detail="not a regular file")
        else:
            yield from _read_stored(stored, place, entry.name, size, source, recipe)


def _read_packed(stored: Stored, name: str, source: str, recipe: Source) -> Iterator[tuple[int, Outcome]]:
    """Yield (end of the member in decoded bytes, outcome) for the members of a packed month."""
    for member in read_members(decode_stored(stored), PACKED_BYTES, sys.maxsize, lambda _: True):
        place = Locator(name, 0, len(stored), member.name, member.start, member.stop - member.start)
        if member.problem is not None:
            yield member.end, Outcome.drop(place, 0, member)
        elif member.folder:
            yield member.end, Outcome(place, 0, reason=Reason.ARCHIVE_METADATA)
        else:
            for outcome in _read_submission(member.data, place, member.name, 0, source, recipe):
                yield member.end, outcome


def find_pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
    """Cut a monthly tar into pieces at member headers. The data between headers are not read.

    A packed month is one piece.
    """
    starts = (entry.offset for entry in read_entries(stored)) if _is_monthly(stored) else ()
    return cut_pieces(starts, len(stored), split_bytes)


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the paper at a locator again. Raises LookupError if it is not there."""
    changed = LookupError(f"{locator.file} has changed since it was read: no submission lies at {locator.offset}")
    member, name = "", locator.file
    if locator.inner_offset:
        return _reread_packed(stored, locator, source, recipe, changed)
    if locator.offset or locator.length != len(stored) or _is_monthly(stored):
        header = parse_header(bytes(stored[max(locator.offset - BLOCK, 0) : locator.offset]))
        if header is None or header.kind != "file" or header.size != locator.length:
            raise changed
        member = name = locator.member.partition("!")[0]
    place = Locator(locator.file, locator.offset, locator.length, member)
    *_, outcome = _read_stored(stored, place, name, locator.length, source, recipe)
    if outcome.locator != locator:
        raise changed
    return outcome


def _reread_packed(stored: Stored, locator: Locator, source: str, recipe: Source, changed: LookupError) -> Outcome:
    """Read a paper in a packed month again. Raises `changed` if it is not at the locator."""
    member, start = locator.member.partition("!")[0], locator.inner_offset - BLOCK
    found = dict(read_ranges(decode_stored(stored), [(start, BLOCK + locator.inner_length)])).get(0, b"")
    header, data = parse_header(found[:BLOCK]), found[BLOCK:]
    if header is None or header.kind != "file" or header.size != len(data):
        raise changed
    *_, outcome = _read_submission(data, replace(locator, member=member), member, locator.length, source, recipe)
    if outcome.locator != locator:
        raise changed
    return outcome


def _is_monthly(stored: Stored) -> bool:
    """Return True for a tar with members that have the names of submissions. Its beginning may be damaged."""
    if is_compressed(stored) or bytes(stored[:4]) == b"%PDF":
        return False
    entries = islice(read_entries(stored), SAMPLED_MEMBERS)
    return any(entry.kind == "file" and _find_identifier(entry.name) for entry in entries)


def _is_packed_month(stored: Stored) -> bool:
    """Return True for a compressed tar with a member that has the name of a submission and is a gzip file or a tar."""
    if not is_compressed(stored):
        return False
    source = ChunkReader(decode_stored(stored))
    return parse_header(source.peek(BLOCK)) is not None and any(
        entry.kind == "file" and _find_identifier(entry.name) and _is_packed(source.peek(BLOCK))
        for entry in islice(stream_entries(source), SAMPLED_MEMBERS)
    )


def _is_packed(opening: bytes) -> bool:
    return opening.startswith(GZIP) or parse_header(opening) is not None


def _read_stored(
    stored: Stored, place: Locator, name: str, size: int, source: str, recipe: Source
) -> Iterator[Outcome]:
    """Yield the outcomes of the submission at `place` in a file."""
    start, stop = place.offset, place.offset + place.length
    with memoryview(buffer_of(stored, start, stop)) as whole, whole[start:stop] as view:
        yield from _read_submission(view, place, name, size, source, recipe)


def _read_submission(
    view: StoredView, place: Locator, name: str, size: int, source: str, recipe: Source
) -> Iterator[Outcome]:
    """Yield the outcome of a submission.

    If the submission has unsafe members, an outcome with 0 stored bytes reports them first.

    Args:
        view: The bytes of the submission.
        place: The location of the bytes.
        name: The name of the file that is the submission.
        size: The number of stored bytes that are attributed to the submission.
        source: The name of the source.
        recipe: The part of the recipe for the source.
    """
    if is_quarantined(place):
        yield Outcome(place, size, reason=Reason.QUARANTINED)
        return
    submission = read_submission(view, recipe.limits.record_bytes, recipe.arxiv.archive_bytes)
    if submission.unsafe:
        shown = ", ".join(repr(path[:100]) for path in submission.unsafe[:UNSAFE_SHOWN])
        detail = f"{len(submission.unsafe)} members left out: {shown}"
        yield Outcome(place, 0, reason=Reason.UNSAFE_PATH, detail=detail)
    if submission.problem is not None:
        yield Outcome.drop(place, size, submission)
    else:
        yield _convert_submission(submission, place, name, size, source, recipe)


def _convert_submission(
    submission: Submission, place: Locator, name: str, size: int, source: str, recipe: Source
) -> Outcome:
    """Convert the files of a submission into a document. The arguments are the same as for `_read_submission`."""
    limit, rules = recipe.limits.text_characters, recipe.arxiv
    project = assemble(submission.files, rules.inclusion_depth, limit)
    if project.problem is not None:
        return Outcome.drop(place, size, project)
    expanded = expand_macros(strip_false_branches(project.text), rules.macro_depth, rules.macro_characters)
    if expanded.problem is not None:
        return Outcome.drop(place, size, expanded)
    if not is_document(expanded.text) and is_macro_file(project.text, expanded.text):
        return Outcome(place, size, reason=Reason.NO_BODY_TEXT, detail="definitions alone")
    body = extract_body(expanded.text, rules.appendix)
    if rules.accents == "unicode":
        body = replace_accents(body)
    text = restore_literals(body, project.literals, limit)
    if text is None:
        return Outcome(place, size, reason=Reason.TOO_LARGE, detail=f"over {limit} characters")
    text = normalise_text(text)
    if not text or is_notice(text):
        return Outcome(place, size, reason=Reason.NO_BODY_TEXT)
    if damage := check_length(text, recipe):
        return Outcome.drop(place, size, damage)
    member = "!".join(part for part in (place.member, project.root) if part)
    locator = replace(place, member=member)
    if not place.inner_length:
        locator = replace(locator, inner_length=submission.decoded)
    identifier = _find_identifier(name)
    title = restore_literals(extract_title(expanded.text), project.literals, limit)
    url, month = ABSTRACT_URL + identifier if identifier else "", _find_month(identifier)
    metadata = _get_metadata(identifier, title or "", project)
    return Outcome(locator, size, Document(source, locator, text, url, month, recipe.licence, metadata))


def _get_metadata(identifier: str, title: str, project: Project) -> dict[str, Any]:
    metadata = {"id": identifier, "title": title, "included": project.included}
    metadata |= {"missing": project.missing, "other_roots": project.others}
    return {key: value for key, value in metadata.items() if value}


def _find_identifier(name: str) -> str:
    """Return the identifier at the start of a file name, without version (1403.0035, math/0303005), or ""."""
    stem = posixpath.basename(name)
    if new := _NEW_ID.match(stem):
        return f"{new[1]}.{new[2]}"
    old = _OLD_ID.match(stem)
    return f"{old[1]}/{old[2]}" if old else ""


def _find_month(identifier: str) -> str:
    """Return the year and month of an identifier (ISO 8601), or "" if the identifier is empty."""
    digits = identifier.rpartition("/")[2][:4]
    if not digits:
        return ""
    century = "19" if "/" in identifier and digits[0] == "9" else "20"  # arXiv began in August 1991, so "9x" is 199x
    return f"{century}{digits[:2]}-{digits[2:]}"
