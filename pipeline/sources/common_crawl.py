"""Common Crawl: WARC archives, one HTML page a document (LLaMA section 2.1, after CCNet).

A record becomes a document if it is an HTTP response with a wanted status and an HTML body that holds main text. Every
other record, and every stretch of bytes that is no record, is an outcome with a reason.
"""

from collections.abc import Iterator

from filters.html import ExtractionError, decode, main_text
from filters.http import HttpError, Response, is_html, parse_response
from filters.warc import Frame, Limits, frames, read_frame
from manifests.document import Document, Locator
from manifests.reasons import Reason
from manifests.recipe import Source
from pipeline.sources.reader import Outcome, Stored

NO_PAGE = {
    "warcinfo": Reason.ARCHIVE_METADATA,
    "metadata": Reason.ARCHIVE_METADATA,
    "request": Reason.REQUEST_RECORD,
    "revisit": Reason.REVISIT_RECORD,
}
"""WARC record types that never hold a page (ISO 28500, section 6)"""


def read(stored: Stored, name: str, source: str, recipe: Source) -> Iterator[Outcome]:
    """Every record of an archive, in order."""
    for frame in frames(stored, Limits(recipe.limits.record_bytes)):
        yield _outcome(frame, name, source, recipe)


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """The record at a locator. Raises LookupError when those bytes hold no such record."""
    place = (locator.offset, locator.length, locator.inner_offset, locator.inner_length)
    frame = read_frame(stored, *place, Limits(recipe.limits.record_bytes))
    return _outcome(frame, locator.file, source, recipe)


def _outcome(frame: Frame, name: str, source: str, recipe: Source) -> Outcome:
    locator = Locator(name, frame.offset, frame.length, "", frame.inner_offset, frame.inner_length)

    def gone(reason: Reason, detail: str = "") -> Outcome:
        return Outcome(locator, frame.stored, reason=reason, detail=detail)

    if frame.problem is not None:
        return gone(frame.problem, frame.detail)
    kind = (frame.headers.get("WARC-Type") or "").lower()
    if kind in NO_PAGE:
        return gone(NO_PAGE[kind])
    if kind != "response":
        return gone(Reason.UNSUPPORTED_FORMAT, f"WARC-Type {kind!r}")
    if not frame.target_uri.lower().startswith(("http:", "https:")):
        return gone(Reason.NOT_HTTP)
    try:
        response = parse_response(frame.block, recipe.limits.record_bytes)
    except HttpError as error:
        return gone(error.reason, error.detail)
    unwanted = _unwanted(response, recipe)
    if unwanted is not None:
        return gone(unwanted)
    try:
        text = main_text(decode(response.body, response.headers.get("Content-Type")), recipe.limits.html_depth)
    except ExtractionError as error:
        return gone(error.reason, error.detail)
    if not text:
        return gone(Reason.NO_TEXT)
    if len(text) > recipe.limits.text_characters:
        return gone(Reason.TOO_LARGE, f"{len(text)} characters")
    if len(text) < recipe.min_characters:
        return gone(Reason.TOO_SHORT)
    date = frame.headers.get("WARC-Date") or ""
    return Outcome(locator, frame.stored, Document(source, locator, text, frame.target_uri, date, recipe.licence))


def _unwanted(response: Response, recipe: Source) -> Reason | None:
    if response.status not in recipe.http_status:
        return Reason.HTTP_STATUS
    if not response.body.strip():
        return Reason.EMPTY_BODY
    return None if is_html(response) else Reason.CONTENT_TYPE
