"""Extract the text of a web page from its bytes.

Find the encoding, remove boilerplate from the tree that resiliparse parses, let resiliparse turn the rest into blocks,
and keep the blocks of the main text.
"""

import codecs
import re
from collections import Counter

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from filters.html.blocks import parse_blocks, select_main_blocks
from filters.html.boilerplate import narrow_to_article, remove_apart, remove_junk
from filters.reasons import Reason

# Byte order marks come before every declaration (WHATWG Encoding, section 6).
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
META_BYTES = 1024  # from the start of a page, in which it declares its encoding (WHATWG HTML, section 13.2.3.2)
CHARACTERS_PER_ERROR = 1_000  # a declared encoding may leave one in as many unexplained, since pages are cut
MAX_ATTRIBUTES = 1_000  # of one tag: the parser compares each with all before it, seconds from some 30,000 on
MANY_ATTRIBUTES = 64  # most pages have no tag with as many, which is quick to check, in time quadratic in this number
ATTRIBUTES_FROM = 1 << 16  # characters: shorter pages have no room for enough attributes to matter

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_META = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_TAG = re.compile(r"<(/?[a-zA-Z][a-zA-Z0-9]{0,20})")
_NOT_NESTING = frozenset(  # void elements, and those with an optional end tag: many of them side by side are no depth
    (
        "area base br col embed hr img input link meta param source track wbr "
        "p li dt dd option optgroup tr td th thead tbody tfoot colgroup rb rt rp"
    ).split()
)
_ATTRIBUTE = (
    r"(?> [a-zA-Z-]++=\"[^\"]*+\"|"  # the usual form; the rest is any form that the tokenizer's rules allow
    r"(?:[ \t\n\f\r/]++=?[^ \t\n\f\r/>=]*+|=?[^ \t\n\f\r/>=]++)"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?+)?+)"
)
_TAG_START = r"<[a-zA-Z][^ \t\n\f\r/>]*+"
_MANY = re.compile(rf"{_TAG_START}(?:{_ATTRIBUTE}){{{MANY_ATTRIBUTES}}}")
_UNCROWDED = re.compile(  # all of a page before its first tag with more attributes; a search would restart at each "<"
    rf"(?:[^<]++|<(?![a-zA-Z])|{_TAG_START}(?:{_ATTRIBUTE}){{0,{MAX_ATTRIBUTES}}}+(?!{_ATTRIBUTE}))*+"
)
_BLANK_LINES = re.compile(r"\n{3,}")
_SURROGATES = re.compile("[\ud800-\udfff]")


class ExtractionError(Exception):
    """A page that yields no text: `reason` is the drop reason, `detail` the exact cause."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def decode(body: bytes, content_type: str | None) -> str:
    """Return the text of a page's bytes. Never raises.

    The byte order mark decides first, then the declared encodings (HTTP header, then meta element) if the bytes agree
    with them, then detection. Bytes that no encoding explains become U+FFFD, as do NULs and lone surrogates, which text
    files cannot hold.
    """
    labels = _declared_encodings(body, content_type)
    text = _decode_plain_utf8(body, labels)
    if text is None:
        text = _decode_by_labels(body, labels)
        try:
            text.encode()  # much faster than a search for surrogates, which are very rare
        except UnicodeEncodeError:
            text = _SURROGATES.sub("\ufffd", text)
    return text.replace("\0", "\ufffd")


def extract_text(html: str, max_depth: int = 2_000, extractor: str = "main") -> str:
    """Return the text of a page, one paragraph per line, without image descriptions and list bullets.

    Args:
        html: The decoded page.
        max_depth: Nested elements, since the parser takes quadratic time on deep nesting.
        extractor: "main" for the main text (filters.html.boilerplate, then filters.html.blocks), "resiliparse" for
            its own main content, or "all" for all visible text.

    Raises:
        ExtractionError: The parser refuses the page, or it nests deeper than `max_depth`, or a tag has more than
            MAX_ATTRIBUTES attributes.
    """
    if _nests_deeper(html, max_depth):
        raise ExtractionError(Reason.TOO_LARGE, f"over {max_depth} nested elements")
    if len(html) > ATTRIBUTES_FROM and _has_crowded_tag(html):
        raise ExtractionError(Reason.TOO_LARGE, f"a tag of over {MAX_ATTRIBUTES} attributes")
    try:
        if extractor == "main":
            return _extract_main_text(html)
        text = extract_plain_text(html, main_content=extractor == "resiliparse", alt_texts=False, list_bullets=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExtractionError(Reason.EXTRACTION_FAILED, type(error).__name__) from error
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _extract_main_text(html: str) -> str:
    tree = HTMLTree.parse(html)
    body = tree.body
    if body is None:
        return ""
    remove_apart(body)
    trusted = narrow_to_article(body)
    remove_junk(body)
    markup = extract_plain_text(
        tree, preserve_formatting="minimal_html", links=True, noscript=True, alt_texts=False, list_bullets=False
    )
    kept = select_main_blocks(parse_blocks(markup), trusted)
    return "".join(("\n\n" if block.after_gap else "\n") + block.text for block in kept).strip("\n")


def _decode_plain_utf8(body: bytes, labels: list[str]) -> str | None:
    """Return the text if the bytes are valid UTF-8 that declare UTF-8 or nothing, else None.

    Most pages are, and detection takes longer than to try. Bytes with escapes and NULs can be stateful encodings and
    UTF-16, so they are left to detection, as are byte order marks.
    """
    if labels[:1] not in ([], ["utf-8"]) or body.startswith(tuple(MARKS)):
        return None
    if not labels and (b"\x1b" in body or b"\0" in body):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _decode_by_labels(body: bytes, labels: list[str]) -> str:
    for mark, encoding in MARKS.items():
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    for label in labels:
        text = body.decode(label, "replace")
        if text.count("\ufffd") * CHARACTERS_PER_ERROR <= len(text) + CHARACTERS_PER_ERROR:
            return text
    encoding = detect_encoding(body, from_html_meta=False) or "utf-8"
    try:
        return bytes_to_str(body, encoding, errors="replace")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", "replace")


def _declared_encodings(body: bytes, content_type: str | None) -> list[str]:
    """Return the encodings that header and page declare, as the web maps their labels (latin1 is windows-1252)."""
    header = _CHARSET.search(content_type or "")
    meta = _META.search(body[:META_BYTES])
    in_header = map_encoding_to_html5(header[1], fallback_utf8=False) if header else None
    in_page = map_encoding_to_html5(meta[1].decode("ascii"), fallback_utf8=False) if meta else None
    if in_page and in_page.lower().startswith("utf-16"):
        in_page = "utf-8"  # the declaration itself was not UTF-16 (WHATWG HTML, section 13.2.3.2)
    return [name for name in (in_header, in_page) if name]


def _has_crowded_tag(html: str) -> bool:
    if not _MANY.search(html):
        return False
    ordinary = _UNCROWDED.match(html)
    return ordinary is None or ordinary.end() < len(html)


def _nests_deeper(html: str, limit: int) -> bool:
    """Return True if elements nest deeper than `limit`, counted in one pass over the tags."""
    brackets = html.count("<")
    if brackets <= limit or brackets - html.count("</") <= limit:
        return False
    tags = _TAG.findall(html)
    if sum(count for tag, count in Counter(tags).items() if tag[0] != "/" and tag.lower() not in _NOT_NESTING) <= limit:
        return False
    depth = 0
    opened = Counter[str]()
    for tag in tags:
        name = tag.lower()
        if name[0] == "/":
            if opened[name[1:]] > 0:  # an end tag without a start tag ends nothing
                opened[name[1:]] -= 1
                depth -= 1
        elif name not in _NOT_NESTING:
            opened[name] += 1
            depth += 1
            if depth > limit:
                return True
    return False
