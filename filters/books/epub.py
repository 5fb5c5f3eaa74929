"""Read EPUB books (EPUB 2.0.1 and 3.3): the text of the chapters in reading order, title, author and language.

`META-INF/container.xml` names the package document, and the spine of the package document lists the chapters. Nothing
is written to disk, members that declare XML entities are refused, and the decompressed size is limited by the caller.
"""

import io
import posixpath
import re
import urllib.parse
import zipfile
from typing import NamedTuple
from xml.parsers import expat

from filters.formats.charset import decode, replace_c1
from filters.formats.stored import Stored
from filters.formats.stream import Damage
from filters.formats.tar import resolve_path
from filters.formats.zip import ZIP_ERRORS
from filters.html.extract import ExtractionError, extract_text
from filters.reasons import Reason

MAGIC = b"PK\x03\x04"
CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
# Media type of package documents. A container may also list renditions with other media types.
PACKAGE = "application/oebps-package+xml"
MEMBERS = 20_000  # files in an archive
RATIO = 200  # maximum of decoded bytes per stored byte of a member; chapters of prose have three to five
SMALL = 1 << 20  # `RATIO` is not checked for members of at most this number of bytes
PACKAGE_BYTES = 8 << 20  # the largest container, package document, or list of encrypted members
# Media types of chapters: XHTML, and other types that older or incorrect packages state (OPF 2.0.1, section 1.3.7).
DOCUMENTS = ("application/xhtml+xml", "text/html", "text/x-oeb1-document", "application/xml", "text/xml")
# Methods of font obfuscation (OCF 3.3, section 4.3). They do not encrypt text.
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")

_ENTITY = re.compile(rb"<!ENTITY", re.IGNORECASE)
_SELF_CLOSED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|wbr)\b)([A-Za-z][\w:.-]{0,40})"
    r"([^<>]{0,2000})/>"
)
# Elements that contain the number of a printed page. They may be inside a word. They are marked by attributes of EPUB
# Structural Semantics 1.1 or DPUB-ARIA 1.0, or by a class in books of Project Gutenberg and Wikisource.
PAGE_MARKS = ("pagebreak", "pagen", "page-n")  # every match of `_PAGE_BREAK` contains one of these strings
_PAGE_BREAK = re.compile(
    r"<(span|div|a|p)\b[^<>]{0,400}?\b(?:(?:epub:type|role)\s*=\s*[\"'](?:doc-)?pagebreak"
    r"|class\s*=\s*[\"'](?:[\w -]{0,60}[ -])?page-?n(?:um|o|umber)(?:[ -][\w -]{0,60})?)[\"'][^<>]{0,400}>"
    r"[^<>]{0,40}(?:<a\b[^<>]{0,400}>[^<>]{0,40}</a\s*>[^<>]{0,40})?</\1\s*>"
)
# Links to a note behind a word, and links from a note back to the text. They have an attribute that declares them, or
# they are superscripts.
_TO_NOTE = r"<a\b[^<>]{0,400}?\b(?:epub:type|role)\s*=\s*[\"'](?:doc-)?(?:noteref|backlink)[\"'][^<>]{0,400}>"
_TO_PLACE = r"<a\b[^<>]{0,400}?href\s*=\s*[\"'][^\"'<>]{0,200}#[^<>]{0,400}>"
_SUP, _END = r"<sup\b[^<>]{0,200}>\s{0,9}", r"\s{0,9}</sup\s*>"
_NOTE_MARK = re.compile(
    rf"(?:{_SUP})?{_TO_NOTE}(?:<(?:sup|span)\b[^<>]{{0,200}}>)?[^<>]{{0,20}}(?:</(?:sup|span)\s*>)?</a\s*>(?:{_END})?"
    rf"|{_SUP}{_TO_PLACE}[^<>]{{1,8}}</a\s*>{_END}|{_TO_PLACE}\s{{0,9}}{_SUP}[^<>]{{1,8}}{_END}\s{{0,9}}</a\s*>"
)
# The outer elements of a document, and attributes in them which say that the document is not text of the book.
_OUTER = re.compile(r"<body\b[^<>]{0,400}>(?:\s{0,99}<(?:section|div|nav)\b[^<>]{0,400}>){0,3}")
_APPARATUS = re.compile(
    r"\b(?:epub:type|role)\s*=\s*[\"'][^\"']{0,100}\b(?:toc|landmarks|page-?list|index|copyright-page|lo[aitv])(?![\w-])"
)
_GUIDE_APPARATUS = frozenset(["toc", "index", "copyright-page", "loi", "lot"])
_LINK = re.compile(r"<a\b[^<>]{0,400}?href\s*=\s*[\"'](?!\w{1,20}:)[^<>]{0,400}>(.{0,400}?)</a\s*>", re.DOTALL)
_TAGS = re.compile(r"<[^<>]*>")
LEAST_LINKS = 3  # least number of links in a table of contents that is not declared as such


class Epub(NamedTuple):
    """The content of an EPUB book.

    Attributes:
        text: The chapters, with an empty line between them.
        package: The path of the package document.
        size: The number of decoded bytes of all chapters.
        about: Title, author, language and identifier from the package document, by these names.
    """

    text: str
    package: str
    size: int
    about: dict[str, str]


class _EpubError(Exception):
    """A reason why an EPUB cannot be read."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.damage = Damage(reason, detail)


def read_epub(stored: Stored, max_bytes: int, max_depth: int = 2_000) -> Epub | Damage:
    """Read the book in an archive. Return its content, or the reason why it cannot be read.

    Args:
        stored: The bytes of the archive.
        max_bytes: The maximum number of decoded bytes of all chapters together.
        max_depth: The maximum nesting depth of HTML elements.
    """
    # All bytes are read outside of `try`, so that a storage error is not reported as damage of the archive.
    whole = io.BytesIO(bytes(stored))
    try:
        with zipfile.ZipFile(whole) as archive:
            return _read_archive(archive, max_bytes, max_depth)
    except _EpubError as error:
        return error.damage
    except ExtractionError as error:
        return Damage(error.reason, error.detail)
    except ZIP_ERRORS as error:
        return Damage(Reason.CORRUPT_RECORD, f"no readable EPUB: {type(error).__name__}")


def _read_archive(archive: zipfile.ZipFile, max_bytes: int, max_depth: int) -> Epub:
    names = archive.namelist()
    if len(names) > MEMBERS:
        raise _EpubError(Reason.TOO_LARGE, f"{len(names)} files in an archive")
    for name in names:
        if resolve_path(name) is None:
            raise _EpubError(Reason.UNSAFE_PATH, f"{name[:80]!r} lies outside the archive")
    if CONTAINER not in names:
        raise _EpubError(Reason.UNSUPPORTED_FORMAT, "a zip archive that is not an EPUB")
    container = _parse_xml(_read_member(archive, CONTAINER, PACKAGE_BYTES))
    roots = [
        given for name, given, _ in container if name == "rootfile" and given.get("media-type", PACKAGE) == PACKAGE
    ]
    package = roots[0].get("full-path", "") if roots else ""
    elements = _parse_xml(_read_member(archive, _resolve("", package), PACKAGE_BYTES))
    chapters = _list_chapters(elements, posixpath.dirname(package))
    locked = (
        _list_encrypted(_parse_xml(_read_member(archive, ENCRYPTION, PACKAGE_BYTES))) if ENCRYPTION in names else set()
    )
    texts, size = [], 0
    for chapter, least_links in chapters.items():
        if chapter in locked:
            raise _EpubError(Reason.ENCRYPTED, f"{chapter[:80]!r} is encrypted")
        body = _read_member(archive, chapter, max_bytes - size)
        size += len(body)
        page = decode(body, None)
        if not _is_apparatus(page, least_links):
            page = _SELF_CLOSED.sub(r"<\1\2></\1>", page)
            if any(mark in page for mark in PAGE_MARKS):
                page = _PAGE_BREAK.sub("", page)
            page = _NOTE_MARK.sub("", page)
            text = replace_c1(extract_text(page, max_depth, "all"))
            texts.append(text.strip("\n"))
    return Epub("\n\n".join(filter(None, texts)), package, size, _get_metadata(elements))


def _is_apparatus(page: str, least_links: int) -> bool:
    """Return True for a table of contents, an index or a copyright page.

    The document declares this by an attribute (EPUB 3 Structural Semantics, DPUB-ARIA). Or it has at least
    `least_links` links to other positions in the book, which contain at least two thirds of its letters.
    """
    if (outer := _OUTER.search(page)) and _APPARATUS.search(outer[0]):
        return True
    links = _LINK.findall(page)
    return len(links) >= least_links and 3 * _count_letters("".join(links)) >= 2 * _count_letters(
        page[outer.end() :] if outer else page
    )


def _count_letters(markup: str) -> int:
    return sum(map(str.isalpha, _TAGS.sub("", markup)))


def _read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return the bytes of a member. Its checksum is verified. Raises the exceptions that `read_epub` catches."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise _EpubError(Reason.CORRUPT_RECORD, f"the archive does not hold {name[:80]!r}") from None
    if info.flag_bits & 1:
        raise _EpubError(Reason.ENCRYPTED, f"{name[:80]!r} needs a password")
    if info.file_size > max(SMALL, RATIO * info.compress_size):
        raise _EpubError(Reason.TOO_LARGE, f"{name[:80]!r} decompresses to {RATIO} times its size or more")
    if info.file_size > most:
        raise _EpubError(Reason.TOO_LARGE, f"the chapters have more bytes than the limit: {name[:80]!r}")
    with archive.open(info) as file:
        data = file.read(most + 1)
    if _ENTITY.search(data):
        raise _EpubError(Reason.ENTITY_EXPANSION, f"{name[:80]!r} declares entities")
    return data


def _parse_xml(data: bytes) -> list[tuple[str, dict[str, str], str]]:
    """Return (local name, attributes, text) of every element in document order.

    The text of an element is without the text of its children. Raises _EpubError.
    """
    found: list[tuple[str, dict[str, str], list[str]]] = []
    open_elements: list[int] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name: str, given: dict[str, str]) -> None:
        open_elements.append(len(found))
        found.append((name.rpartition(":")[2], given, []))

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = lambda text: found[open_elements[-1]][2].append(text)
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: the declared encoding does not exist
        raise _EpubError(Reason.CORRUPT_RECORD, f"not well-formed XML: {error}") from error
    return [(name, given, "".join(parts).strip()) for name, given, parts in found]


def _list_chapters(elements: list[tuple[str, dict[str, str], str]], folder: str) -> dict[str, int]:
    """Return the documents of the spine in order, without navigation, tables of contents and non-linear documents.

    Args:
        elements: The elements of the package document.
        folder: The folder of the package document.

    Returns:
        A dict from path to the argument `least_links` of `_is_apparatus`. It is 1 if the guide says that the document
        contains a table of contents, because chapters may follow in the same document.

    Raises:
        _EpubError: There is no chapter, or the package does not list a chapter, or a chapter is neither HTML nor an
            image. A book is read completely or not at all.
    """
    listed, pages = {}, []
    nav, holding = set[str](), set[str]()
    for name, given, _ in elements:
        if name == "item":
            kind = given.get("media-type", DOCUMENTS[0]).partition(";")[0].strip().lower()
            listed[given.get("id", "")] = given.get("href", ""), kind
            if "nav" in given.get("properties", "").split():
                nav.add(_normalise(given.get("href", "")))
        elif name == "reference" and given.get("type", "").lower() in _GUIDE_APPARATUS:
            document, mark, _ = given.get("href", "").partition("#")
            (holding if mark else nav).add(_normalise(document))
        elif name == "itemref" and given.get("linear", "yes") != "no":
            pages.append(given.get("idref", ""))
    kept: dict[str, int] = {}
    for page in dict.fromkeys(pages):
        if page not in listed:
            raise _EpubError(Reason.CORRUPT_RECORD, f"the package does not list the chapter {page[:80]!r}")
        href, kind = listed[page]
        if kind.startswith("image/") or _normalise(href) in nav:
            continue
        if kind not in DOCUMENTS and "xhtml" not in kind:
            raise _EpubError(Reason.UNSUPPORTED_FORMAT, f"the chapter {page[:80]!r} is of type {kind[:80]!r}")
        kept.setdefault(_resolve(folder, href), 1 if _normalise(href) in holding else LEAST_LINKS)
    if not kept:
        raise _EpubError(Reason.CORRUPT_RECORD, "the spine names no chapter")
    return kept


def _normalise(href: str) -> str:
    return posixpath.normpath(urllib.parse.unquote(href))


def _resolve(folder: str, href: str) -> str:
    """Return the path of the member that a reference names. Raises _EpubError if it leads out of the archive."""
    path = posixpath.normpath(posixpath.join(folder, _normalise(href.partition("#")[0])))
    if path.startswith(("/", "..", "\\")) or ":" in href.split("/")[0]:
        raise _EpubError(Reason.UNSAFE_PATH, f"{href[:80]!r} lies outside the archive")
    return path


def _list_encrypted(elements: list[tuple[str, dict[str, str], str]]) -> set[str]:
    """Return the paths of encrypted members, except obfuscated fonts (OCF 3.3, section 4.2.6.3.3)."""
    locked, method = set(), ""
    for name, given, _ in elements:
        if name == "EncryptedData":
            method = ""
        elif name == "EncryptionMethod":
            method = method or given.get("Algorithm", "")
        elif name == "CipherReference" and method not in FONTS:
            locked.add(_normalise(given.get("URI", "")))
    return locked


def _get_metadata(elements: list[tuple[str, dict[str, str], str]]) -> dict[str, str]:
    """Return title, author, language and identifier of the package, each from the first element that has it."""
    about: dict[str, str] = {}
    for name, _, text in elements:
        key = {"title": "title", "creator": "author", "language": "language", "identifier": "identifier"}.get(name)
        if key and text:
            about.setdefault(key, " ".join(text.split())[:1000])
    return about
