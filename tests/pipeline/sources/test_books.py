"""The reader of books: every form of file ends in a document or a reason, and can be read again."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.source import Limits, Source
from pipeline.sources.books import read, reread

TEXT = "It was the best of times.\n\nIt was the worst of times.\n" * 20
RECIPE = Source(weight=1.0, kind="books", licence="CC0", limits=Limits(record_bytes=100_000, text_characters=50_000))


def one(stored: bytes, recipe: Source = RECIPE):
    (outcome,) = read(stored, "a.txt", "books", recipe)
    assert outcome.stored == len(stored)
    if outcome.document:
        assert reread(stored, outcome.locator, "books", recipe).document == outcome.document
    return outcome


@pytest.mark.parametrize(
    "stored",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n").encode(),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT[:100].encode()) + gzip.compress(TEXT[100:].encode()),
        gzip.compress(TEXT.encode()) + b"\0" * 100,
    ],
    ids=["plain", "BOM", "UTF-16", "CRLF", "gzip", "two members", "padded"],
)
def test_every_form_gives_the_same_text(stored: bytes) -> None:
    outcome = one(stored)
    assert outcome.document and outcome.document.text == TEXT and outcome.document.licence == "CC0"
    assert (outcome.locator.offset, outcome.locator.length) == (0, len(stored))


def test_latin_1_is_read() -> None:
    text = "Le boulanger a posé le pain doré près de la fenêtre, là où l'été entrait. " * 9
    assert one(text.encode("latin-1")).document.text == text


DECLARED = "The Project Gutenberg EBook of X\n\nTitle: X\n\n{}\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n{}\n"


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("Character set encoding: ISO-8859-1", "latin-1"),
        ("Character set encoding: ISO Latin-1", "latin-1"),
        ("Character set encoding: CP-1252", "cp1252"),
        ("Character set encoding: Windows-1252", "cp1252"),
        ("Character set encoding: ISO-8859-2", "iso8859-2"),
        ("Character set encoding: UTF-8", "utf-8"),
        ("Character set encoding: ISO-8859-1", "utf-8"),
        ("Character set encoding: ASCII", "utf-8"),
        ("Character set encoding: UTF-8", "latin-1"),
        ("Language: French", "cp1252"),
    ],
)
def test_a_book_s_encoding_is_what_it_says_unless_it_is_utf_8(declared: str, encoding: str) -> None:
    text = (
        "Tomáš psal o létě."
        if encoding == "iso8859-2"
        else "L'été où Élise goûta le pâté près de la forêt, là-bas." * 9
    )
    stored = DECLARED.format(declared, text).encode(encoding)
    assert one(stored).document.text == text


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", Reason.NO_TEXT),
        (b" \n\t ", Reason.NO_TEXT),
        (b"<!DOCTYPE html><html>not found</html>", Reason.NOT_PLAIN_TEXT),
        (b"\n <HTML><body>error", Reason.NOT_PLAIN_TEXT),
        (b"%PDF-1.7 ...", Reason.NOT_PLAIN_TEXT),
        (bytes(range(256)) * 50 + b"\0" * 900, Reason.UNDECODABLE_TEXT),
        (b"PK\x03\x04" + b"x" * 90, Reason.CORRUPT_RECORD),
        (b"PK\x03\x04" + b"x" * 100_001, Reason.TOO_LARGE),
        (gzip.compress(TEXT.encode())[:-12], Reason.TRUNCATED_RECORD),
        (gzip.compress(TEXT.encode())[:-8] + b"\xff" * 8, Reason.CORRUPT_GZIP),
        (gzip.compress(TEXT.encode()) + b"garbage", Reason.CORRUPT_GZIP),
        (gzip.compress(b"x" * 100_001), Reason.TOO_LARGE),
        (b"x" * 100_001, Reason.TOO_LARGE),
        (b"word " * 11_000, Reason.TOO_LARGE),
    ],
    ids=[
        "empty",
        "blank",
        "page",
        "page 2",
        "PDF",
        "binary",
        "zip",
        "large zip",
        "cut",
        "checksum",
        "garbage",
        "bomb",
        "large",
        "long",
    ],
)
def test_what_is_no_book_has_a_reason(stored: bytes, reason: Reason) -> None:
    assert one(stored).reason is reason


def test_short_books_go_when_the_recipe_says_so() -> None:
    recipe = RECIPE.model_copy(update={"filters": parse_rules([{"min_characters": 6}])})
    assert one(b"short", recipe).reason is Reason.TOO_SHORT


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_end_in_a_document_or_a_reason(stored: bytes, zipped: bool) -> None:
    outcome = one(b"\x1f\x8b" + stored if zipped else stored)
    assert (outcome.document is None) != (outcome.reason is None)


def test_another_file_at_the_same_place_is_noticed() -> None:
    locator = one(TEXT.encode()).locator
    with pytest.raises(LookupError, match="its size differs"):
        reread(TEXT.encode() + b"x", locator, "books", RECIPE)
