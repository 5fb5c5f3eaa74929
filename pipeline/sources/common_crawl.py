"""Read Common Crawl and other web crawls from WARC, WET and ARC archives (LLaMA section 2.1, CCNet).

Each page becomes a document. A page is an HTTP response with an HTML body, an HTML resource, or the text that a crawler
extracted from a page (WET). All other records, damaged ranges, and records that a rule of the recipe rejects (for
example because of the HTTP status) are dropped with a reason.
"""

import re
from collections.abc import Iterator

from filters.formats.characters import normalise_text
from filters.formats.charset import decode, replace_c1
from filters.formats.http import HttpError, Response, is_html, parse_response
from filters.formats.records import check_block_digest
from filters.formats.stored import Stored
from filters.formats.warc import Frame, Limits, find_boundaries, read_frame, read_frames
from filters.html.extract import ExtractionError, extract_text
from filters.reasons import AnyReason, Reason
from filters.rule import Record
from filters.rule_list import first_record_reason
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Outcome, Piece, check_length

NO_PAGE = {  # WARC record types that never contain a page (ISO 28500, section 6).
    "warcinfo": Reason.ARCHIVE_METADATA,
    "metadata": Reason.ARCHIVE_METADATA,
    "request": Reason.REQUEST_RECORD,
    "revisit": Reason.REVISIT_RECORD,
}
PAGES = ("response", "resource", "conversion")

_W3C_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?Z)?)?)?")


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, wasted: int = 0
) -> Iterator[Outcome]:
    """Yield the outcome of each record of an archive, or of one of its pieces.

    Args:
        stored: The whole archive.
        name: The name of the input.
        source: The name of the source.
        recipe: The part of the recipe for the source.
        start: The start of the piece.
        end: The end of the piece, None for the end of the archive.
        wasted: The state of the piece (see `find_pieces`).
    """
    for frame in read_frames(stored, _limits(recipe), start, end, wasted):
        yield _convert_frame(frame, name, source, recipe)


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the record at a locator again.

    Raises:
        LookupError: There is no record at the locator.
    """
    place = (locator.offset, locator.length, locator.inner_offset, locator.inner_length)
    return _convert_frame(read_frame(stored, *place, _limits(recipe)), locator.file, source, recipe)


def find_pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
    """Return pieces (start, end, state) of about `split_bytes` stored bytes. The state is `Boundary.wasted`."""
    return [*find_boundaries(stored, _limits(recipe), split_bytes)]


def _limits(recipe: Source) -> Limits:
    return Limits(recipe.limits.record_bytes, recipe.limits.stored_bytes)


class _DroppedError(Exception):
    """The error for a record that does not become a document."""

    def __init__(self, reason: AnyReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def _convert_frame(frame: Frame, name: str, source: str, recipe: Source) -> Outcome:
    """Return the outcome for a frame of an archive: a document or a reason."""
    locator = Locator(name, frame.offset, frame.length, "", frame.inner_offset, frame.inner_length)
    if frame.problem is not None:
        return Outcome.drop(locator, frame.stored, frame, frame.target_uri)
    kind = (frame.headers.get("WARC-Type") or "").lower()
    if kind in NO_PAGE:
        return Outcome(locator, frame.stored, reason=NO_PAGE[kind])
    if is_quarantined(locator):
        return Outcome(locator, frame.stored, reason=Reason.QUARANTINED)
    try:
        text = _extract_text(frame, kind, recipe)
    except (_DroppedError, HttpError, ExtractionError) as error:
        return Outcome(locator, frame.stored, reason=error.reason, detail=error.detail, url=frame.target_uri)
    date = frame.headers.get("WARC-Date") or ""
    date = date if _W3C_DATE.fullmatch(date) else ""
    languages = frame.headers.get("WARC-Identified-Content-Language")  # ISO 639-3 codes, in Common Crawl's WET files.
    metadata = {"identified_language": languages} if languages else {}
    document = Document(source, locator, text, frame.target_uri, date, recipe.licence, metadata)
    return Outcome(locator, frame.stored, document)


def _extract_text(frame: Frame, kind: str, recipe: Source) -> str:
    """Return the text of a page.

    Args:
        frame: The record.
        kind: The WARC-Type in lower case.
        recipe: The part of the recipe for the source.

    Raises:
        _DroppedError, HttpError, ExtractionError: The record contains no text, or is rejected. The error contains the
            reason.
    """
    if kind not in PAGES or frame.headers.get("WARC-Segment-Number"):
        raise _DroppedError(Reason.UNSUPPORTED_FORMAT, f"WARC-Type {kind[:40]!r}" if kind not in PAGES else "a segment")
    if recipe.extractor == "wet" and kind != "conversion":
        raise _DroppedError(Reason.OTHER_FORM)
    if not frame.target_uri.lower().startswith(("http:", "https:")):
        raise _DroppedError(Reason.NOT_HTTP)
    if reason := first_record_reason(recipe.filters, Record(frame.target_uri, None)):
        raise _DroppedError(reason)
    if not frame.headers.has_rewritten_lines():
        mismatch = check_block_digest(frame.headers.get("WARC-Block-Digest"), frame.block)
        if mismatch:
            raise _DroppedError(Reason.CORRUPT_RECORD, mismatch)
    text = _decode_wet(frame) if kind == "conversion" else _extract_page(frame, kind, recipe)
    if not text:
        raise _DroppedError(Reason.NO_TEXT)
    if damage := check_length(text, recipe):
        raise _DroppedError(damage.problem, damage.detail)
    return text


def _decode_wet(frame: Frame) -> str:
    """Return the text of a WET record, without newlines around it. The default encoding is UTF-8.

    Raises:
        _DroppedError: The content type is not plain text. For example, the record is an image of the page.
    """
    content_type = frame.headers.get("Content-Type") or "text/plain"
    if content_type.partition(";")[0].strip().lower() != "text/plain":
        raise _DroppedError(Reason.CONTENT_TYPE)
    if "charset" not in content_type.lower():
        content_type = "text/plain; charset=utf-8"
    text = normalise_text(decode(frame.block, content_type)).strip("\n")
    return text if not text.isspace() else ""


def _extract_page(frame: Frame, kind: str, recipe: Source) -> str:
    """Return the text that the recipe's extractor selects from an HTML page."""
    if kind == "resource":
        # The Content-Type in the WARC headers of a resource describes the block.
        response = Response(200, frame.headers, frame.block)
    else:
        response = parse_response(frame.block, recipe.limits.record_bytes)
        if reason := first_record_reason(recipe.filters, Record(frame.target_uri, response.status)):
            raise _DroppedError(reason)
    if not response.body or response.body.isspace():
        raise _DroppedError(Reason.EMPTY_BODY)
    if not is_html(response):
        raise _DroppedError(Reason.CONTENT_TYPE)
    html = decode(response.body, response.headers.get("Content-Type"), frame.target_uri)
    # Numeric character references may have added C1 controls.
    return replace_c1(extract_text(html, recipe.limits.html_depth, recipe.extractor))
