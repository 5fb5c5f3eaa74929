"""Render wikitext as plain text, as MediaWiki would show it, without the parts that are not running text.

- Links are replaced by their text.
- Pictures, footnotes, categories and links to other languages are removed. So are tables, unless the caller requests
  their rows.
- Templates are removed, except those that represent text (`filters.wikitext.templates`). If an unknown template
  represented text, its sentence is removed (`filters.wikitext.gaps`).
- Formulas remain TeX. Listings keep every blank.

Brackets are matched by a stack of limited depth. The text of each construct is joined once per level, so the time is
linear. A construct without an end is text.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from filters.formats.charset import unescape
from filters.wikitext.gaps import GONE, SPOKEN, UNKNOWN, close_gaps, drop_marks, is_hollow, resolve_marks
from filters.wikitext.markup import resolve_markup
from filters.wikitext.names import APPARATUS, ASIDE, CODE, FORMULAS, LINES, LISTINGS, LITERAL, TAGS
from filters.wikitext.raised import mark_raised

KEPT = "\x00"  # encloses the index of a text in `kept`, which no later step may change
VARIANT, VARIANT_END = "\x01", "\x02"  # represent the braces around text in several scripts, -{ and }-
BREAK = "\x03"  # represents a line break within a block
JOINT = "\x12"  # represents a tag between two runs of apostrophes, so that they are not read as one run
# Codes of wikis that show a page in several scripts (MediaWiki, LanguageConverter); "" is an unknown wiki.
CONVERTED = frozenset(["", "crh", "gan", "iu", "kk", "ku", "sh", "shi", "sr", "tg", "uz", "wuu", "zh"])
TEXT, ITEM, VERBATIM = 0, -1, -2  # kinds of blocks; the kind of a heading is its level, 1 to 6
APPARATUS_LEVEL = 2  # the largest level of a heading in filters.wikitext.names.APPARATUS

_UNPARSED = LITERAL | CODE | ASIDE
_RESERVED = re.compile(r"[\x00-\x08\x0e-\x12]")
_OPENING = re.compile(rf"<!--|<({'|'.join(sorted(_UNPARSED))})(?![\w-])([^<>]*+)>", re.IGNORECASE | re.ASCII)
_CLOSING = {tag: re.compile(rf"</{tag}\s{{0,16}}>", re.IGNORECASE) for tag in _UNPARSED}
_KEPT = re.compile(r"\x00(\d{1,9})\x00")
_TAG = re.compile(rf"</?({'|'.join(sorted(TAGS, key=len, reverse=True))})(?![\w-])[^<>]*+>", re.IGNORECASE | re.ASCII)
_LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]")
_POEM = re.compile(r"<poem(?![\w-])[^<>]*+>([^<]*(?:<(?!/?poem)[^<]*)*)</poem\s{0,16}>", re.IGNORECASE)
_VARIANT_START = re.compile(r"-\{(?=\{\{[^{])|-\{(?!\{)")
_VARIANT = re.compile(r"\x01(?:([^\x01\x02|]{0,40})\|)?([^\x01\x02]*+)\x02")
_UNSEEN_VARIANTS = frozenset("HT-")  # flags of conversion rules that show no text: add a rule, set title, remove a rule
_CYRILLIC = re.compile(r"(?:^|;)\s{0,16}sr(?:-ec|-cyrl)?\s{0,16}:([^;]*+)")
_FIRST_VARIANT = re.compile(r"\s{0,16}[a-z-]{2,10}\s{0,16}:([^;]*+)")
_QUOTES = re.compile(r"''++")
_SWITCH = re.compile(r"__([^\W\d]{3,40})__")
_RULE = re.compile(r"-{4,}+")


class Block(NamedTuple):
    """A paragraph, heading, list item or verbatim line without markup."""

    kind: int
    text: str


def render_text(
    wikitext: str, language: str = "", title: str = "", apparatus: bool = True, tables: bool = False
) -> str:
    """Return the text of a page, with one paragraph, heading or list item per line.

    Empty lines separate paragraphs and headings. Markup, surrounding space and headings of empty sections are left out.
    Never raises; takes linear time.

    Args:
        wikitext: The page.
        language: The language code of the wiki, which selects the names of its templates.
        title: The page's title, for {{PAGENAME}}.
        apparatus: False leaves out the sections of notes, links and literature.
        tables: True renders the rows of tables as lines (`filters.wikitext.markup`); False removes tables.
    """
    kept: list[str] = []

    def keep(text: str) -> str:
        kept.append(text)
        return f"{KEPT}{len(kept) - 1}{KEPT}"

    text = _RESERVED.sub("", wikitext) if _RESERVED.search(wikitext) else wikitext
    text = _POEM.sub(_break_verses, text) if "<poem" in text else text
    text = _replace_elements(text, _UNPARSED, lambda tag, attributes, content: _render(tag, attributes, content, keep))
    if language in CONVERTED and "-{" in text:
        # Other characters replace -{ and }-, so that the braces are not mistaken for the braces of templates.
        marked = _VARIANT_START.sub(VARIANT, text).replace("}-", VARIANT_END)
        text = _select_script(resolve_markup(marked, language, title, tables))
    else:
        text = resolve_markup(text, language, title, tables)
    text = _LEFT_OVER.sub(GONE, _TAG.sub(_break_line, mark_raised(text)))
    text = _join_blocks(_split_blocks(text), frozenset() if apparatus else APPARATUS.get(language, frozenset()))
    return _KEPT.sub(lambda mark: kept[int(mark[1])] if int(mark[1]) < len(kept) else "", text).strip("\n")


def strip_elements(wikitext: str, tags: frozenset[str]) -> str:
    """Return wikitext without comments and without the elements named by `tags`. Their content is not parsed."""
    return _replace_elements(wikitext, tags, lambda tag, attributes, content: "")


def _replace_elements(wikitext: str, tags: frozenset[str], render: Callable[[str, str, str], str]) -> str:
    """Return wikitext without comments, and with elements replaced by `render(tag, attributes, content)`.

    The content of an element is not parsed: it ends at the first end tag. Of an element without an end tag, only the
    start tag is removed.
    """
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
            kept.append(render(tag, opening.group(2), ""))
        elif tag in endless:
            continue
        elif closing := _CLOSING[tag].search(wikitext, position):
            kept.append(render(tag, opening.group(2), wikitext[position : closing.start()]))
            position = closing.end()
        else:
            endless.add(tag)
    kept.append(wikitext[position:])
    return "".join(kept)


def _render(tag: str, attributes: str, content: str, keep: Callable[[str], str]) -> str:
    """Return the text of an element whose content is not wikitext.

    Args:
        tag: The element's name in lower case.
        attributes: The text of its attributes.
        content: The text between its tags.
        keep: Protects a text from later steps, and returns its placeholder.
    """
    if tag in LITERAL:
        return keep(unescape(content))
    if tag in FORMULAS:
        return keep(" ".join(unescape(content).split())) if content.strip() else GONE
    if tag not in LISTINGS:
        return GONE
    if tag == "pre":
        content = unescape(content.replace("<nowiki>", "").replace("</nowiki>", ""))
    if "inline" in attributes.lower():
        return keep(" ".join(content.split()))
    listing = content.strip("\n").rstrip()
    return f"\n\n{keep(listing)}\n\n" if listing.strip() else GONE


def _break_line(tag: re.Match[str]) -> str:
    """Return the replacement of a tag: a line break, an empty line, a separator of apostrophes, or ""."""
    name = tag[1].lower()
    if name == "br":
        return BREAK
    between = tag.string.endswith("''", 0, tag.start()) and tag.string.startswith("''", tag.end())
    return "\n\n" if name in LINES else JOINT if between else ""


def _break_verses(poem: re.Match[str]) -> str:
    """Return a poem with `<br>` at the end of each verse, and without indentation."""
    verses = [line.strip(" \t:") for line in poem[1].strip("\n").split("\n")]
    return "<poem>" + "".join(verse + ("<br>\n" if verse else "\n") for verse in verses) + "</poem>"


def _select_script(text: str) -> str:
    """Replace text that is given in several scripts by its Cyrillic variant, or else by its first variant.

    See the class LanguageConverter of MediaWiki.
    """

    def select(variants: re.Match[str]) -> str:
        if not _UNSEEN_VARIANTS.isdisjoint((variants[1] or "").replace(" ", "").upper().split(";")):
            return ""
        variant = _CYRILLIC.search(variants[2]) or _FIRST_VARIANT.match(variants[2])
        return variant[1].strip() if variant else variants[2]

    for _ in range(3):  # levels of nesting
        text, count = _VARIANT.subn(select, text)
        if not count:
            break
    return text.replace(VARIANT, "").replace(VARIANT_END, "")


def _split_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks in order. Consecutive lines are one paragraph."""
    paragraph: list[str] = []
    for line in [*text.split("\n"), ""]:
        bare = line.strip(" \t\r\u00a0" + GONE)
        if bare[:1] in (UNKNOWN, SPOKEN) and is_hollow(line):
            bare = ""
        mark = bare[:1]
        heading = _parse_heading(bare) if mark == "=" else None
        is_rule = mark == "-" and _RULE.match(bare)
        if bare and mark not in "*#:;" and line[0] != " " and heading is None and not is_rule:
            paragraph.append(line)
            continue
        if paragraph:
            yield from _clean_block(TEXT, paragraph)
            paragraph = []
        if not bare:
            continue
        if heading is not None:
            yield from _clean_block(heading[0], [heading[1]])
        elif mark in "*#:;":
            yield from _clean_block(ITEM, [bare.lstrip("*#:; ")])
        elif line[0] == " ":
            yield from _clean_block(VERBATIM, [bare])
        else:
            yield from _clean_block(TEXT, [_RULE.sub("", bare, 1)])


def _parse_heading(line: str) -> tuple[int, str] | None:
    """Return (level, title) of a heading, or None. The level is the smaller of the numbers of "=" at both ends."""
    left, right = len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("="))
    level = min(left, right, 6)
    return (level, line[level : len(line) - level]) if level and left < len(line) else None


def _clean_block(kind: int, lines: list[str]) -> Iterator[Block]:
    """Yield the block that consists of these lines, if it contains text after cleaning."""
    text = " ".join(lines)
    if "''" in text:
        text = " ".join(map(_strip_quotes, lines)).replace(JOINT, "")
    if "__" in text:
        text = _SWITCH.sub(lambda word: "" if word[1].isupper() else word[0], text)
    text = unescape(text)
    if UNKNOWN in text or SPOKEN in text:
        text = drop_marks(text) if kind > 0 else resolve_marks(text, whole_line=kind == TEXT)
    if GONE in text:
        text = close_gaps(text)
    if BREAK in text:
        text = "\n".join(filter(None, (" ".join(part.split()) for part in text.split(BREAK))))
    else:
        text = " ".join(text.split())
    if text and text != "-":
        yield Block(kind, text)


def _strip_quotes(line: str) -> str:
    """Remove the apostrophes that mark bold and italics from a line (MediaWiki, Parser::doQuotes).

    These apostrophes belong to the text and are kept:

    - One of a run of four.
    - All beyond the fifth of a longer run.
    - One of a run of three, if bold and italics would otherwise both stay open. A run behind a word of one letter is
      preferred, then a run behind a longer word.
    """
    runs = list(_QUOTES.finditer(line))
    sizes = [len(run.group()) for run in runs]
    bold, italics = sum(size != 2 for size in sizes), sum(size == 2 or size >= 5 for size in sizes)
    candidates = [run for run, size in zip(runs, sizes, strict=True) if size in (3, 4)]
    apostrophe = -1
    if bold % 2 and italics % 2 and candidates:
        apostrophe = min((_apostrophe_rank(line, run), run.start()) for run in candidates)[1]

    def keep(run: re.Match[str]) -> str:
        size = len(run.group())
        return "'" * (int(run.start() == apostrophe) + (1 if size == 4 else max(size - 5, 0)))

    return _QUOTES.sub(keep, line)


def _apostrophe_rank(line: str, run: re.Match[str]) -> int:
    """Return 0 for a run of apostrophes behind a word of one letter, 1 behind a longer word, else 2."""
    before = line[max(run.start() - 2, 0) : run.start()] + "'" * (len(run.group()) == 4)
    if before[-1:] in ("", " "):
        return 2
    return 0 if before[-2:-1] == " " else 1


def _join_blocks(blocks: Iterable[Block], apparatus: frozenset[str]) -> str:
    """Return the text of blocks, without sections whose heading is in `apparatus`, and headings of empty sections.

    Consecutive list items, and consecutive verbatim lines, are on consecutive lines. An empty line separates all other
    blocks.
    """
    kept: list[Block] = []
    skipped = 0  # level of the heading of the section that is left out, or 0
    for block in blocks:
        if block.kind > 0:
            if skipped and block.kind > skipped:
                continue
            skipped = block.kind if block.kind <= APPARATUS_LEVEL and block.text.lower() in apparatus else 0
        if not skipped:
            kept.append(block)
    kept = _drop_empty_sections(kept)
    gaps = ["", *("\n" if last.kind == block.kind < 0 else "\n\n" for last, block in pairwise(kept))]
    return "".join(gap + block.text for gap, block in zip(gaps, kept, strict=False))


def _drop_empty_sections(blocks: list[Block]) -> list[Block]:
    """Return the blocks without headings of sections that contain no text."""
    kept: list[Block] = []
    filled_below = 0  # a heading of a level smaller than this has content in its section

    for block in reversed(blocks):
        if block.kind <= 0:
            filled_below = 7
        elif block.kind >= filled_below:
            continue
        else:
            filled_below = block.kind
        kept.append(block)
    return kept[::-1]
