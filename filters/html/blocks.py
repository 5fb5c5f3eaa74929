"""The blocks of an extracted page (paragraphs, headings, list items, rows) and which of them are its main text.

A block's worth is its own text against its links: navigation is links and short lines, prose is neither. Runs of good
blocks are found as maximum scoring subsequences of blocks (Pasternack and Roth, "Extracting Article Text from the Web
with Maximum Subsequence Segmentation", WWW 2009), all of them in linear time (Ruzzo and Tompa, ISMB 1999).
"""

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

from filters.html.labels import LABEL_LENGTH, NOTICE_LENGTH, is_button, is_byline, is_label, is_notice, notices_in

LINKED_COST = 3.0
"""a character inside a link weighs against so many outside"""
BLOCK_COST = 12
"""characters: a block with fewer of its own counts against its run"""
HEADING_WORTH = 36
"""characters: what a heading adds to a run, at most: it belongs to the text that follows, if any does"""
FIRST_WIDE = "\u2e80"
"""the first character of the writing systems (Chinese, Japanese, Korean) in which"""
WIDE_WORTH = 3
"""letters' worth is in a character, as UTF-8 counts them"""
LEAST_SCORE = 300
"""characters: a run that scores less than this, or"""
LEAST_SHARE = 0.08
"""than this share of the page's best run is no main text"""
LINKED_SHARE = 0.7
"""a block with a larger share of its characters in links is a list of links"""
LINKED_LENGTH = 240
"""characters: a longer one is prose all the same"""
LONGEST_LINK = 160
"""characters: a longer link is one that its author forgot to close"""
TAIL_LENGTH = 64
"""characters: shorter blocks after the last paragraph of an article are what pages put there: tags, places, sources"""
LABELLED_SHARE = 0.3
"""under a label, blocks with a larger share of their characters in links belong to it"""

_LINK = re.compile(r"(<a(?: [^>]*)?>|</a>)")
_ANCHOR = '<a href="">'
"""a place to link to, not a link"""
_TAG = re.compile(r"<[^>]*>")


class Block(NamedTuple):
    """One line of extracted text: its characters, how many of them are in links, whether it is a heading, and whether
    an empty line comes before it."""

    text: str
    length: int
    linked: int
    heading: bool
    apart: bool


def blocks(markup: str) -> list[Block]:
    """The blocks of resiliparse's minimal HTML (one a line; headings, paragraphs and links marked, text escaped)."""
    found = []
    in_link, apart, carried = False, False, 0
    for line in markup.split("\n"):
        if not line or line.isspace():
            apart = True
            continue
        text, linked, heading = line, 0, False
        if "<" in line:
            if line[:3] == "<p>" and line[-4:] == "</p>" and line.count("<") == 2:  # most, and quicker so
                text = line[3:-4]
            else:
                heading = line[:2] == "<h" and line[2:3].isdigit()
                text = _TAG.sub("", line)
        if in_link or "<a" in line:
            for part in _LINK.split(line):
                if part[:2] == "<a":
                    in_link, carried = part != _ANCHOR, 0
                elif part == "</a>":
                    in_link = False
                elif in_link:
                    length = len(_TAG.sub("", part).strip())
                    carried += length
                    linked += length if carried <= LONGEST_LINK else 0
        if "&" in text:
            text = html.unescape(text)
        text = text.rstrip()
        length = len(text.lstrip())
        if length:
            found.append(Block(text, length, min(linked, length), heading, apart))
            apart = False
    return found


def main_blocks(all_blocks: Sequence[Block], trusted: bool) -> list[Block]:
    """The blocks of the main text, in order. In an article known from the mark-up (`trusted`) all blocks belong to it
    but lists of links, set phrases, bylines and short lines after the last paragraph; elsewhere only those in runs of
    text do, and of these not the set phrases."""
    phrases = notices_in("\n".join([block.text for block in all_blocks if block.length <= NOTICE_LENGTH]).lower())
    if trusted:
        kept = [block for block in _told(all_blocks, phrases) if block.heading or not is_byline(_line(block))]
        end = len(kept)
        while end and (kept[end - 1].heading or kept[end - 1].length < TAIL_LENGTH):
            end -= 1
        return kept[:end] if end else kept
    runs = maximal_runs([_worth(block) for block in all_blocks])
    best = max((score for _, _, score in runs), default=0.0)
    kept = []
    for start, end, score in runs:
        if score == best or score >= max(LEAST_SCORE, LEAST_SHARE * best):
            kept += _told(all_blocks[start:end], phrases)
    return kept


def _told(some_blocks: Sequence[Block], phrases: list[str]) -> list[Block]:
    """Blocks without lists of links, set phrases, the links under a label, and headings of nothing."""
    kept: list[Block] = []
    labelled = False
    for block in some_blocks:
        if block.length > NOTICE_LENGTH or (block.length > LABEL_LENGTH and not phrases and not block.linked):
            labelled = False
            kept.append(block)
            continue
        line = _line(block)
        if is_label(line):
            labelled = True
        elif not (labelled and block.linked > LABELLED_SHARE * block.length):
            labelled = False
            if not (_is_links(block) or is_button(line) or is_notice(line, phrases)):
                kept.append(block)
    while kept and kept[-1].heading:
        kept.pop()
    return kept


def _line(block: Block) -> str:
    return block.text.lstrip().lower()


def maximal_runs(worths: Sequence[float]) -> list[tuple[int, int, float]]:
    """All maximal scoring runs of a sequence, as (start, end, score), in order, in linear time (Ruzzo and Tompa)."""
    runs: list[tuple[int, int, float, float, int]] = []  # start, end, sum before, sum at end, last run with less before
    total = 0.0
    for index, worth in enumerate(worths):
        before, total = total, total + worth
        if worth <= 0:
            continue
        start, lower = index, len(runs) - 1
        while True:
            while lower >= 0 and runs[lower][2] >= before:
                lower = runs[lower][4]
            if lower < 0 or runs[lower][3] >= total:
                break
            start, before = runs[lower][0], runs[lower][2]
            del runs[lower:]
            lower -= 1
        runs.append((start, index + 1, before, total, lower))
    return [(start, end, after - before) for start, end, before, after, _ in runs]


def _worth(block: Block) -> float:
    worth = (block.length - block.linked) - LINKED_COST * block.linked
    if block.text.lstrip() >= FIRST_WIDE:
        worth *= WIDE_WORTH
    worth -= BLOCK_COST
    return min(worth, 0) + HEADING_WORTH if block.heading else worth


def _is_links(block: Block) -> bool:
    return not block.heading and block.linked > LINKED_SHARE * block.length and block.length < LINKED_LENGTH
