"""Books: one plain-text file a book, gzipped or not (LLaMA section 2.1: Project Gutenberg and Books3)."""

import zlib
from collections.abc import Iterator

from filters.html import decode
from manifests.document import Document, Locator
from manifests.reasons import Reason
from manifests.source import Source
from pipeline.sources.reader import Outcome, Stored

GZIP_MAGIC = b"\x1f\x8b"
MARKUP = ("<!doctype", "<html", "<?xml")


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """The one book of a file."""
    yield _book(stored, name, source, recipe)


def pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[tuple[int, int, int]]:
    """A book is never cut."""
    return [(0, len(stored), 0)]


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """The book at a locator. Raises LookupError when the file is not the one that was read."""
    outcome = _book(stored, locator.file, source, recipe)
    if outcome.locator != locator:
        raise LookupError(f"{locator.file} is not the file that was read: its size differs")
    return outcome


def _book(stored: Stored, name: str, source: str, recipe: Source) -> Outcome:
    size = len(stored)
    whole = Locator(file=name, offset=0, length=size)
    limit = recipe.limits.record_bytes
    raw, reason, detail = (
        _inflate(stored, limit) if bytes(stored[:2]) == GZIP_MAGIC else (bytes(stored[: limit + 1]), None, "")
    )
    if reason is None and len(raw) > limit:
        reason, detail = Reason.TOO_LARGE, f"over {limit} bytes"
    if reason is not None:
        return Outcome(whole, size, reason=reason, detail=detail)
    locator = Locator(file=name, offset=0, length=size, inner_offset=0, inner_length=len(raw))
    text = decode(raw, None).replace("\r\n", "\n").replace("\r", "\n")
    reason = _unwanted(text, recipe)
    if reason is not None:
        return Outcome(locator, size, reason=reason)
    return Outcome(locator, size, Document(source, locator, text, licence=recipe.licence))


def _unwanted(text: str, recipe: Source) -> Reason | None:
    if not text.strip():
        return Reason.NO_TEXT
    if text[:1000].lstrip().lower().startswith(MARKUP):
        return Reason.NOT_PLAIN_TEXT
    if len(text) > recipe.limits.text_characters:
        return Reason.TOO_LARGE
    return Reason.TOO_SHORT if len(text) < recipe.min_characters else None


def _inflate(stored: Stored, limit: int) -> tuple[bytes, Reason | None, str]:
    """All gzip members of a file, up to `limit` + 1 bytes, with what was wrong."""
    parts: list[bytes] = []
    left, rest = limit + 1, bytes(stored)
    while rest and left > 0:
        inflate = zlib.decompressobj(wbits=31)
        try:
            part = inflate.decompress(rest, left)
        except zlib.error as error:
            return b"", Reason.CORRUPT_GZIP, str(error)
        parts.append(part)
        left -= len(part)
        if not inflate.eof and left > 0:
            return b"", Reason.TRUNCATED_RECORD, "the gzip stream ends early"
        rest = inflate.unused_data
        if rest and not rest.strip(b"\0"):
            break
    return b"".join(parts), None, ""
