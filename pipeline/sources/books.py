"""Read books, one per file, as plain text (gzipped or not) or EPUB.

LLaMA (section 2.1) uses Project Gutenberg and Books3. Books3 was withdrawn; users can give their own collections
instead. From a text of Project Gutenberg, only the book is kept. Its title, author, language and number are metadata.
The URL of the document is the address of the ebook.

The locator of a plain text has the whole file, and the length of the decoded bytes. The locator of an EPUB has the
package document as `member`, and the decoded bytes of all chapters as inner length.
"""

import re
from collections.abc import Iterator

from filters.books import epub, gutenberg
from filters.formats.characters import normalise_text
from filters.formats.charset import decode
from filters.formats.stored import Stored
from filters.formats.stream import GZIP, Damage, read_decoded
from filters.reasons import Reason
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Outcome, Piece, check_text

MARKUP = ("<!doctype", "<html", "<?xml", "<head", "<body", "<meta", "<!--")
OTHER_FORMATS = (b"%PDF-", b"{\\rtf", b"\xd0\xcf\x11\xe0", b"Rar!", b"7z\xbc\xaf\x27\x1c", b"\x89PNG", b"BZh")
EBOOK_URL = "https://www.gutenberg.org/ebooks/{}"
DECLARED_BYTES = 1 << 14  # bytes at the start of a file in which a header may declare the encoding
UNREADABLE_RATIO = 100  # a text with more than one undecodable character per 100 characters is dropped

_DECLARED = re.compile(rb"Character set encoding:[ \t]{0,16}([\w.:/-]{1,40})(?:[ \t]{1,4}\(?([\w.-]{1,40}))?", re.I)
_NAMES = {"iso-646-us": "us-ascii", "latin1": "iso-8859-1", "latin-1": "iso-8859-1", "unicode": "utf-8"}


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """Yield the outcome of the only book in a file."""
    yield _convert_book(stored, name, source, recipe)


def find_pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
    """Return the whole file as the only piece."""
    return [(0, len(stored), 0)]


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the book at a locator again. Raises LookupError if the file has changed."""
    outcome = _convert_book(stored, locator.file, source, recipe)
    if outcome.locator != locator:
        raise LookupError(f"{locator.file} has changed since it was read: its size differs")
    return outcome


def _convert_book(stored: Stored, name: str, source: str, recipe: Source) -> Outcome:
    whole, limits = Locator(name, 0, len(stored)), recipe.limits
    if is_quarantined(whole):
        return Outcome(whole, len(stored), reason=Reason.QUARANTINED)
    if bytes(stored[:4]) == epub.MAGIC:
        if len(stored) > limits.record_bytes:
            return Outcome.drop(whole, len(stored), Damage(Reason.TOO_LARGE, f"over {limits.record_bytes} bytes"))
        book = epub.read_epub(stored, limits.record_bytes, limits.html_depth)
        if isinstance(book, Damage):
            return Outcome.drop(whole, len(stored), book)
        locator = Locator(name, 0, len(stored), book.package, 0, book.size)
        return _convert_text(book.text, locator, source, recipe, book.about)
    gzipped = bytes(stored[:2]) == GZIP
    raw = read_decoded(stored, limits.record_bytes) if gzipped else bytes(stored[: limits.record_bytes + 1])
    if isinstance(raw, bytes) and len(raw) > limits.record_bytes:
        raw = Damage(Reason.TOO_LARGE, f"over {limits.record_bytes} bytes")
    if isinstance(raw, Damage):
        return Outcome.drop(whole, len(stored), raw)
    locator = Locator(name, 0, len(stored), "", 0, len(raw))
    if raw.startswith(OTHER_FORMATS):
        return Outcome(locator, len(stored), reason=Reason.NOT_PLAIN_TEXT)
    return _convert_text(decode_book(raw), locator, source, recipe, {})


def _convert_text(text: str, locator: Locator, source: str, recipe: Source, about: dict[str, str]) -> Outcome:
    """Return the outcome of a book. `about` is the metadata of its EPUB package, or empty."""
    text = normalise_text(text)
    if text[:1000].lstrip().lower().startswith(MARKUP):
        return Outcome(locator, locator.length, reason=Reason.NOT_PLAIN_TEXT)
    if text.count("\ufffd") * UNREADABLE_RATIO > len(text):
        return Outcome(locator, locator.length, reason=Reason.UNDECODABLE_TEXT)
    book = gutenberg.strip_boilerplate(text)
    if damage := check_text(book.text, recipe):
        return Outcome.drop(locator, locator.length, damage)
    url = EBOOK_URL.format(book.number) if book.number else ""
    metadata = {**about, **(book.about or {}), **({"ebook": book.number} if book.number else {})}
    document = Document(source, locator, book.text, url, licence=recipe.licence, metadata=metadata)
    return Outcome(locator, locator.length, document)


def decode_book(raw: bytes) -> str:
    """Decode the bytes of a book.

    The encoding is the first of these: UTF-8, if the bytes are valid UTF-8; the encoding that the header declares
    ("Character set encoding: ISO-8859-1"); a detected encoding. UTF-8 is preferred because headers sometimes state the
    encoding of another edition.
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
