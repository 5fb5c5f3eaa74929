"""Wikitext to plain text, as MediaWiki would show it, without what is no running text.

Links become their text; pictures, tables, footnotes, categories and links to other languages vanish, and templates but
those that stand for text (`filters.wikitext.template_rules`). Formulas stay as TeX, listings to the blank. Brackets are
matched by a stack of limited depth, each construct's text is joined once a level, so the time is linear; one that does
not end is text.
"""

import html
import re
from collections.abc import Callable

from filters.wikitext.blocks import BREAK, blocks_of, joined
from filters.wikitext.markup import resolved
from filters.wikitext.names import APPARATUS, ASIDE, CODE, FORMULAS, LINES, LISTINGS, LITERAL, TAGS
from filters.wikitext.templates import GONE

KEPT = "\x00"
"""around the number of a text that is kept as it stands"""
VARIANT, VARIANT_END = "\x01", "\x02"
"""stand for the braces around text in several scripts"""

_RESERVED = re.compile(r"[\x00-\x06]")
_OPENING = re.compile(
    rf"<!--|<({'|'.join(sorted(LITERAL | CODE | ASIDE))})(?![\w-])([^<>]*+)>", re.IGNORECASE | re.ASCII
)
_CLOSING = {tag: re.compile(rf"</{tag}\s{{0,16}}>", re.IGNORECASE) for tag in LITERAL | CODE | ASIDE}
_KEPT = re.compile(r"\x00(\d{1,9})\x00")
_TAG = re.compile(rf"</?({'|'.join(sorted(TAGS, key=len, reverse=True))})(?![\w-])[^<>]*+>", re.IGNORECASE | re.ASCII)
_RAISED = re.compile(r"<sup>(?<=[\w)\]]<sup>) {0,4}([-−+]?\d{1,9}) {0,4}</sup>", re.IGNORECASE)
_LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]")
_VARIANT = re.compile(r"\x01(?:[^\x01\x02|]{0,40}\|)?([^\x01\x02]*+)\x02")
_CYRILLIC = re.compile(r"(?:^|;)\s{0,16}sr(?:-ec|-cyrl)?\s{0,16}:([^;]*+)")
_FIRST_VARIANT = re.compile(r"\s{0,16}[a-z-]{2,10}\s{0,16}:([^;]*+)")
_ENDLESS_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,}+;?")
"""a reference to no character; html.unescape raises at one of more than 4,300 digits"""


def plain_text(wikitext: str, language: str = "", title: str = "", apparatus: bool = True) -> str:
    """The text of a page: a paragraph, heading or list item a line, paragraphs and headings set apart by an empty one,
    without markup, surrounding space, or headings that nothing follows. `language`: a code, for its templates' names;
    `title` stands for {{PAGENAME}}; without `apparatus`, sections of notes, links and literature go. Never raises;
    takes linear time."""
    kept: list[str] = []

    def keep(text: str) -> str:
        kept.append(text)
        return f"{KEPT}{len(kept) - 1}{KEPT}"

    text = _RESERVED.sub("", wikitext) if _RESERVED.search(wikitext) else wikitext
    text = elements(text, LITERAL | CODE | ASIDE, lambda tag, given, content: _shown(tag, given, content, keep))
    if language in ("sr", "") and "-{" in text:
        text = _one_script(resolved(_variants_marked(text), language, title))
    else:
        text = resolved(text, language, title)
    text = _LEFT_OVER.sub("", _TAG.sub(_broken, _RAISED.sub(r"^\1", text)))
    text = joined(blocks_of(text), frozenset() if apparatus else APPARATUS.get(language, frozenset()))
    return _KEPT.sub(lambda mark: kept[int(mark[1])] if int(mark[1]) < len(kept) else "", text).strip("\n")


def elements(wikitext: str, tags: frozenset[str], show: Callable[[str, str, str], str]) -> str:
    """Wikitext without comments, and with `show(tag, attributes, content)` in the place of each of these elements,
    whose content is not parsed: it ends at the first end tag. One that does not end loses its tag alone."""
    kept: list[str] = []
    endless: set[str] = set()
    position = 0
    while opening := _OPENING.search(wikitext, position):
        kept.append(wikitext[position : opening.start()])
        position = opening.end()
        tag = (opening.group(1) or "").lower()
        if not tag:
            stop = wikitext.find("-->", position)
            position = len(wikitext) if stop < 0 else stop + 3
        elif tag not in tags:
            kept.append(opening.group())
        elif opening.group(2).endswith("/"):
            kept.append(show(tag, opening.group(2), ""))
        elif tag in endless:
            continue
        elif closing := _CLOSING[tag].search(wikitext, position):
            kept.append(show(tag, opening.group(2), wikitext[position : closing.start()]))
            position = closing.end()
        else:
            endless.add(tag)
    kept.append(wikitext[position:])
    return "".join(kept)


def without(wikitext: str, tags: frozenset[str]) -> str:
    """Wikitext without comments and without these elements."""
    return elements(wikitext, tags, lambda tag, given, content: "")


def unescaped(text: str) -> str:
    """Text with its character references resolved. Never raises."""
    return html.unescape(_ENDLESS_NUMBER.sub("\ufffd", text)) if "&" in text else text


def _shown(tag: str, given: str, content: str, keep: Callable[[str], str]) -> str:
    """What an element shows whose content is no wikitext."""
    if tag in LITERAL:
        return keep(unescaped(content))
    if tag in FORMULAS:
        return keep(" ".join(unescaped(content).split())) if content.strip() else GONE
    if tag not in LISTINGS:
        return GONE
    if tag == "pre":
        content = unescaped(content.replace("<nowiki>", "").replace("</nowiki>", ""))
    if "inline" in given.lower():
        return keep(" ".join(content.split()))
    listing = content.strip("\n").rstrip()
    return f"\n\n{keep(listing)}\n\n" if listing.strip() else GONE


def _broken(tag: re.Match[str]) -> str:
    name = tag[1].lower()
    return BREAK if name == "br" else "\n\n" if name in LINES else ""


def _variants_marked(text: str) -> str:
    """Text in several scripts, -{ }-, with marks that its templates' braces are not mixed up with."""
    text = re.sub(r"-\{(?=\{\{[^{])|-\{(?!\{)", VARIANT, text)
    return re.sub(r"\}-", VARIANT_END, text)


def _one_script(text: str) -> str:
    """Of text in several scripts, the Cyrillic one, or the first (MediaWiki, LanguageConverter)."""
    for _ in range(3):  # one within another
        text, count = _VARIANT.subn(lambda mark: _of_variants(mark[1]), text)
        if not count:
            break
    return text.replace(VARIANT, "").replace(VARIANT_END, "")


def _of_variants(listed: str) -> str:
    found = _CYRILLIC.search(listed) or _FIRST_VARIANT.match(listed)
    return found[1].strip() if found else listed
