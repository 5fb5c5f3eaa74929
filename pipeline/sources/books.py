"""Books: one file a book, plain text, gzipped or not, or EPUB (LLaMA section 2.1: Project Gutenberg, and Books3, which
is withdrawn: what stands in for it is a collection of the user's own).

Of Project Gutenberg's texts the book alone is kept, and its title, author, language, number and address. A plain text's
locator is the whole file and its decoded bytes; an EPUB's has the package document as `member`, and as inner length the
decoded bytes of all its chapters together.
"""

import re
from collections.abc import Iterator

from filters.books import epub, gutenberg
from filters.formats.compression import GZIP, read_decoded
from filters.formats.stream import Damage, Stored
from filters.html.extract import decode
from filters.reasons import Reason
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.sources.base import Outcome

MARKUP = ("<!doctype", "<html", "<?xml", "<head", "<body", "<meta", "<!--")
OTHER_FORMATS = (b"%PDF-", b"{\\rtf", b"\xd0\xcf\x11\xe0", b"Rar!", b"7z\xbc\xaf\x27\x1c", b"\x89PNG", b"BZh")
EBOOK_URL = "https://www.gutenberg.org/ebooks/{}"
DECLARED_BYTES = 1 << 14
"""in which a header states its encoding"""
UNREADABLE_SHARE = 100
"""one character in so many that no encoding explains is damage"""

_DECLARED = re.compile(rb"Character set encoding:[ \t]{0,16}([\w.:/-]{1,40})(?:[ \t]{1,4}\(?([\w.-]{1,40}))?", re.I)
_NAMES = {"iso-646-us": "us-ascii", "latin1": "iso-8859-1", "latin-1": "iso-8859-1", "unicode": "utf-8"}


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
    if bytes(stored[:4]) == epub.MAGIC:
        return _epub(stored, whole, source, recipe)
    raw = read_decoded(stored, limit) if bytes(stored[:2]) == GZIP else bytes(stored[: limit + 1])
    if isinstance(raw, Damage):
        return Outcome(whole, size, reason=raw.problem, detail=raw.detail)
    if len(raw) > limit:
        return Outcome(whole, size, reason=Reason.TOO_LARGE, detail=f"over {limit} bytes")
    locator = Locator(file=name, offset=0, length=size, inner_offset=0, inner_length=len(raw))
    if raw.startswith(OTHER_FORMATS):
        return Outcome(locator, size, reason=Reason.NOT_PLAIN_TEXT)
    return _document(decode_book(raw), locator, source, recipe, {})


def _epub(stored: Stored, whole: Locator, source: str, recipe: Source) -> Outcome:
    """The book of an EPUB; one that is too large to be held is not opened."""
    limits = recipe.limits
    if len(stored) > limits.record_bytes:
        return Outcome(whole, len(stored), reason=Reason.TOO_LARGE, detail=f"over {limits.record_bytes} bytes")
    book = epub.read_epub(stored, limits.record_bytes, limits.html_depth)
    if isinstance(book, Damage):
        return Outcome(whole, len(stored), reason=book.problem, detail=book.detail)
    locator = Locator(whole.file, 0, whole.length, book.package, 0, book.size)
    return _document(book.text, locator, source, recipe, book.about)


def _document(text: str, locator: Locator, source: str, recipe: Source, about: dict[str, str]) -> Outcome:
    """A book as a document, or why it is none. `about`: what its package says of it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    reason = Reason.NOT_PLAIN_TEXT if text[:1000].lstrip().lower().startswith(MARKUP) else None
    if reason is None and text.count("\ufffd") * UNREADABLE_SHARE > len(text):
        reason = Reason.UNDECODABLE_TEXT
    if reason is not None:
        return Outcome(locator, locator.length, reason=reason)
    book = gutenberg.strip_boilerplate(text)
    reason = _unwanted(book.text, recipe)
    if reason is not None:
        return Outcome(locator, locator.length, reason=reason)
    url = EBOOK_URL.format(book.number) if book.number else ""
    metadata = {**about, **(book.about or {}), **({"ebook": book.number} if book.number else {})}
    return Outcome(
        locator,
        locator.length,
        Document(source, locator, book.text, url, licence=recipe.licence, metadata=metadata),
    )


def decode_book(raw: bytes) -> str:
    """Decode a book's bytes.

    UTF-8 where they are UTF-8, whatever the header says of another form of the book; else the encoding that the header
    states ("Character set encoding: ISO-8859-1"); else as `filters.html.extract.decode` detects.
    """
    declared = _DECLARED.search(raw, 0, DECLARED_BYTES)
    try:
        raw.decode("utf-8")
        named = "utf-8" if declared else ""
    except UnicodeDecodeError:
        named = declared[1].decode("ascii", "replace").lower() if declared else ""
        if declared and named == "iso" and declared[2]:
            named = declared[2].decode("ascii", "replace").lower()
        named = _NAMES.get(named, named)
        named = "" if named in ("utf-8", "us-ascii", "ascii") else named
    return decode(raw, f"text/plain; charset={named}" if named else None)


def _unwanted(text: str, recipe: Source) -> Reason | None:
    if not text.strip():
        return Reason.NO_TEXT
    if len(text) > recipe.limits.text_characters:
        return Reason.TOO_LARGE
    return Reason.TOO_SHORT if len(text) < recipe.min_characters else None
