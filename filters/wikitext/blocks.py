"""Lines of wikitext without brackets and tags, as the blocks of a text: headings, paragraphs, items of lists."""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from filters.wikitext.templates import GONE

BREAK = "\x03"
"""stands for a new line within a block"""
TEXT, ITEM, VERBATIM = 0, -1, -2
"""kinds of blocks; those of headings are their levels, 1 to 6"""
APPARATUS_LEVEL = 2
"""the lowest heading of a section of notes or links: below another section, one on literature is part of the article"""

_QUOTES = re.compile(r"''++")
_SWITCH = re.compile(r"__([^\W\d]{3,40})__")
_HOLLOW = re.compile(r"[(（][ ,;:/–-]*+\x04[ ,;:/–\x04-]*+[)）]")
_ENDLESS_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,}+;?")
_RULE = re.compile(r"-{4,}+")
_AFTER_GAP = frozenset(" ,.;:!?\u00a0")


class Block(NamedTuple):
    """Text without markup, and its kind."""

    kind: int
    text: str


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks in order. Lines that follow one another are one paragraph."""
    waiting: list[str] = []
    for line in text.split("\n"):
        bare = line.strip(" \t\r\u00a0" + GONE)
        mark = bare[:1]
        heading = _heading(bare) if mark == "=" else None
        if (
            bare
            and mark not in "*#:;"
            and line[0] != " "
            and heading is None
            and not (mark == "-" and _RULE.match(bare))
        ):
            waiting.append(line)
            continue
        if waiting:
            yield from _block(TEXT, " ".join(waiting) if len(waiting) > 1 else waiting[0], waiting)
            waiting = []
        if not bare:
            continue
        if heading is not None:
            yield from _block(*heading)
        elif mark in "*#:;":
            yield from _block(ITEM, bare.lstrip("*#:; "))
        elif line[0] == " ":
            yield from _block(VERBATIM, bare)
        else:
            yield from _block(TEXT, _RULE.sub("", bare, 1))
    if waiting:
        yield from _block(TEXT, " ".join(waiting) if len(waiting) > 1 else waiting[0], waiting)


def _heading(line: str) -> tuple[int, str] | None:
    """The level and the title of a line between equals signs, the fewer at an end count; None if it is none."""
    left, right = len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("="))
    level = min(left, right, 6)
    return (level, line[level : len(line) - level]) if level and left < len(line) else None


def joined(blocks: Iterator[Block], apparatus: frozenset[str]) -> str:
    """The text of blocks, without headings that nothing follows, and without sections whose headings are `apparatus`.
    Items of a list stand on lines that follow one another; an empty line parts all else."""
    kept: list[Block] = []
    skipped = 0  # the level of the heading whose section is left out
    for block in blocks:
        if block.kind > 0:
            if skipped and block.kind > skipped:
                continue
            skipped = block.kind if block.kind <= APPARATUS_LEVEL and block.text.lower() in apparatus else 0
        if not skipped:
            kept.append(block)
    return "".join(_parted(_followed(kept)))


def _followed(blocks: list[Block]) -> list[Block]:
    """Without headings of sections in which there is nothing."""
    kept: list[Block] = []
    above = 0  # headings of a lower number than this have something below them
    for block in reversed(blocks):
        if block.kind <= 0:
            above = 7
        elif block.kind >= above:
            continue
        else:
            above = block.kind
        kept.append(block)
    return kept[::-1]


def _parted(blocks: list[Block]) -> Iterator[str]:
    last = TEXT
    for number, block in enumerate(blocks):
        if number:
            yield "\n" if block.kind == last < 0 else "\n\n"
        yield block.text
        last = block.kind


def _block(kind: int, text: str, lines: list[str] | None = None) -> Iterator[Block]:
    """The block of a text, if anything is left of it."""
    if "''" in text:
        text = " ".join(map(_unquoted, lines)) if lines and len(lines) > 1 else _unquoted(text)
    if "__" in text:
        text = _SWITCH.sub(lambda word: "" if word[1].isupper() else word[0], text)
    if "&" in text:
        text = html.unescape(_ENDLESS_NUMBER.sub("\ufffd", text))
    if GONE in text:
        text = _closed_up(_HOLLOW.sub(GONE, text))
    if BREAK in text:
        text = "\n".join(filter(None, (" ".join(part.split()) for part in text.split(BREAK))))
    else:
        text = " ".join(text.split())
    if text and text != "-":
        yield Block(kind, text)


def _closed_up(text: str) -> str:
    """Text without the gaps, commas and semicolons that are left where something vanished."""
    kept = [""]
    for number, part in enumerate(text.split(GONE)):
        if number and kept[-1].endswith(("(", "（")):
            part = part.lstrip(" ,;:")
        if number and part.startswith((")", "）")):
            kept[-1] = kept[-1].rstrip(" ,;:")
        elif number and part[:1] in _AFTER_GAP:
            kept[-1] = kept[-1].rstrip(" \t\u00a0")
        if part:
            kept.append(part)
    return "".join(kept)


def _unquoted(line: str) -> str:
    """A line without the apostrophes that mean bold and italics, but with those among them that are apostrophes: one of
    four; those beyond five; and one of a run of three where bold and italics would both be left open otherwise: of the
    first behind a single letter, else of the first behind a longer word, else of the first (MediaWiki,
    Parser::doQuotes)."""
    runs = list(_QUOTES.finditer(line))
    sizes = [len(run.group()) for run in runs]
    bold, italics = sum(size != 2 for size in sizes), sum(size == 2 or size >= 5 for size in sizes)
    candidates = [run for run, size in zip(runs, sizes, strict=True) if size in (3, 4)]
    apostrophe = -1
    if bold % 2 and italics % 2 and candidates:
        apostrophe = min((_unlikeness(line, run), run.start()) for run in candidates)[1]

    def kept(run: re.Match[str]) -> str:
        size = len(run.group())
        return "'" * (int(run.start() == apostrophe) + (1 if size == 4 else max(size - 5, 0)))

    return _QUOTES.sub(kept, line)


def _unlikeness(line: str, run: re.Match[str]) -> int:
    """How unlikely it is that a run of apostrophes begins with one that is a letter's: 0 behind a word of one letter, 1
    behind a longer one, 2 elsewhere."""
    before = line[max(run.start() - 2, 0) : run.start()] + "'" * (len(run.group()) == 4)
    if before[-1:] in ("", " "):
        return 2
    return 0 if before[-2:-1] == " " else 1
