"""HTML bytes to main text: the encoding found, boilerplate taken out of the tree that resiliparse parses, the text of
what is left extracted by resiliparse, and its blocks judged."""

import codecs
import re
from collections import Counter

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from filters.html.blocks import blocks, main_blocks
from filters.html.boilerplate import narrow, take_out, take_out_named
from filters.reasons import Reason

MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
"""byte order marks come before every declaration (WHATWG Encoding, section 6)"""
META_BYTES = 1024
"""where a page declares its encoding (WHATWG HTML, section 13.2.3.2)"""
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_META = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_TAG = re.compile(r"<(/?[a-zA-Z][a-zA-Z0-9]{0,20})")
_NOT_NESTING = frozenset(
    re.findall(
        r"\w+",
        "area base br col embed hr img input link meta param source track wbr "
        "p li dt dd option optgroup tr td th thead tbody tfoot colgroup rb rt rp",
    )
)
"""void elements, and those whose end tag may be left out: many of them side by side are no depth"""
MAX_ATTRIBUTES = 1_000
"""attributes of one tag: the parser compares each with all before it, which takes seconds from some 30,000 on"""
MANY_ATTRIBUTES = 64
"""most pages have no tag with so many, which is quicker to find out, but quadratic in this number"""
ATTRIBUTES_FROM = 1 << 16
"""shorter pages have no room for enough attributes to matter"""
_ATTRIBUTE = (
    r"(?> [a-zA-Z-]++=\"[^\"]*+\"|"  # as most are written; what follows is any, by the rules of the tokenizer
    r"(?:[ \t\n\f\r/]++=?[^ \t\n\f\r/>=]*+|=?[^ \t\n\f\r/>=]++)"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?+)?+)"
)
_TAG_START = r"<[a-zA-Z][^ \t\n\f\r/>]*+"
_MANY = re.compile(rf"{_TAG_START}(?:{_ATTRIBUTE}){{{MANY_ATTRIBUTES}}}")
_UNCROWDED = re.compile(
    rf"(?:[^<]++|<(?![a-zA-Z])|{_TAG_START}(?:{_ATTRIBUTE}){{0,{MAX_ATTRIBUTES}}}+(?!{_ATTRIBUTE}))*+"
)
"""as much of a page as has no tag with more attributes, taken in one go: a search begins anew at each "<" in one"""
_DAMAGE = 1_000
"""a declared encoding stands if it explains all but one character in so many: pages are cut in mid-character"""
_BLANK_LINES = re.compile(r"\n{3,}")
_SURROGATES = re.compile("[\ud800-\udfff]")


class ExtractionError(Exception):
    """A page that gives no text: `reason` as the catalogue names it, `detail` what exactly."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def decode(body: bytes, content_type: str | None) -> str:
    """Text from bytes, by byte order mark, then the declared encodings (HTTP header, meta) if the bytes agree with
    them, then detection. Never raises: what no encoding explains becomes U+FFFD, and so do NULs and lone surrogates,
    which no file of text can hold."""
    text = _plain_utf8(body, content_type)
    if text is None:
        text = _decode(body, content_type)
        try:
            text.encode()  # much faster than to look for surrogates, of which there are hardly ever any
        except UnicodeEncodeError:
            text = _SURROGATES.sub("\ufffd", text)
    return text.replace("\0", "\ufffd") if "\0" in text else text


def main_text(html: str, max_depth: int = 2_000, extractor: str = "main") -> str:
    """The text of a page: paragraphs on lines of their own, without image descriptions (which are seldom part of the
    prose) and list bullets. `extractor` is "main" (the main text: filters.html.boilerplate, then filters.html.blocks),
    "resiliparse" (its own main content) or "all" (all visible text). Raises ExtractionError for a page that the parser
    refuses, or that nests deeper than `max_depth` elements: the parser takes quadratic time on deep nesting."""
    if _deeper(html, max_depth):
        raise ExtractionError(Reason.TOO_LARGE, f"over {max_depth} nested elements")
    if len(html) > ATTRIBUTES_FROM and _crowded(html):
        raise ExtractionError(Reason.TOO_LARGE, f"a tag of over {MAX_ATTRIBUTES} attributes")
    try:
        if extractor == "main":
            return _main(html)
        text = extract_plain_text(html, main_content=extractor == "resiliparse", alt_texts=False, list_bullets=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExtractionError(Reason.EXTRACTION_FAILED, type(error).__name__) from error
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _main(html: str) -> str:
    tree = HTMLTree.parse(html)
    body = tree.body
    if body is None:
        return ""
    take_out(body)
    trusted = narrow(body)
    take_out_named(body)
    markup = extract_plain_text(
        tree, preserve_formatting="minimal_html", links=True, noscript=True, alt_texts=False, list_bullets=False
    )
    kept = main_blocks(blocks(markup), trusted)
    return "".join(("\n\n" if block.apart else "\n") + block.text for block in kept).strip("\n")


def _plain_utf8(body: bytes, content_type: str | None) -> str | None:
    """The text of a page that is valid UTF-8 and declares that or nothing: most are, and detection takes longer than
    to try. Escapes and NULs are how stateful encodings and UTF-16 look like UTF-8; a mark is left to others."""
    labels = _declared(body, content_type)
    if labels[:1] not in ([], ["utf-8"]) or body.startswith(tuple(mark for mark, _ in MARKS)):
        return None
    if not labels and (b"\x1b" in body or b"\0" in body):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _decode(body: bytes, content_type: str | None) -> str:
    for mark, encoding in MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    for label in _declared(body, content_type):
        text = body.decode(label, "replace")
        if text.count("\ufffd") * _DAMAGE <= len(text) + _DAMAGE:
            return text
    found = detect_encoding(body, from_html_meta=False) or "utf-8"
    try:
        return bytes_to_str(body, found, errors="replace")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", "replace")


def _declared(body: bytes, content_type: str | None) -> list[str]:
    """The encodings that header and page declare, as the web maps their labels (latin1 is windows-1252)."""
    header = _CHARSET.search(content_type or "")
    meta = _META.search(body[:META_BYTES])
    named = map_encoding_to_html5(header[1], fallback_utf8=False) if header else None
    inside = map_encoding_to_html5(meta[1].decode("ascii"), fallback_utf8=False) if meta else None
    if inside and inside.lower().startswith("utf-16"):
        inside = "utf-8"  # a page that could be read this far is not UTF-16 (WHATWG HTML, section 13.2.3.2)
    return [name for name in (named, inside) if name]


def _crowded(html: str) -> bool:
    """Whether a tag has over MAX_ATTRIBUTES attributes."""
    if not _MANY.search(html):
        return False
    ordinary = _UNCROWDED.match(html)
    return ordinary is None or ordinary.end() < len(html)


def _deeper(html: str, limit: int) -> bool:
    """Whether a page nests deeper than so many elements, counted in one pass over its tags."""
    brackets = html.count("<")
    if brackets <= limit or brackets - html.count("</") <= limit:
        return False
    tags = _TAG.findall(html)
    if sum(count for tag, count in Counter(tags).items() if tag[0] != "/" and tag.lower() not in _NOT_NESTING) <= limit:
        return False
    depth = 0
    opened: dict[str, int] = {}
    for tag in tags:
        name = tag.lower()
        if name[0] == "/":
            name = name[1:]
            if opened.get(name):  # an end tag of nothing that is open ends nothing
                opened[name] -= 1
                depth -= 1
        elif name not in _NOT_NESTING:
            opened[name] = opened.get(name, 0) + 1
            depth += 1
            if depth > limit:
                return True
    return False
