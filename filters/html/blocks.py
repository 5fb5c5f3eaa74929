"""Split an extracted page into blocks (paragraphs, headings, list items, table rows) and select those of its main text.

A block scores by its own text against its links: navigation is links and short lines, prose is neither. Runs of good
blocks are maximum scoring subsequences (Pasternack and Roth, "Extracting Article Text from the Web with Maximum
Subsequence Segmentation", WWW 2009), found in linear time (Ruzzo and Tompa, ISMB 1999).

The table phrases.tsv lists set phrases by kind and language, in lower case: a `label` begins a line that names what
follows it (related articles, comments, tags), a `button` is a whole line, a `byline` begins a line on author or date, a
`notice` is part of a line about the site (cookies, subscriptions, rights). They are looked for in short lines only,
since prose may contain the same words.
"""

import html
import re
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from filters.data_files import read_lists

DATA_FILES = ("phrases.tsv",)  # part of the code version of a step
LINKED_COST = 3.0  # characters outside links that one character inside a link cancels
BLOCK_COST = 12  # characters: a block with fewer of its own lowers the score of its run
HEADING_SCORE = 36  # characters: the most that a heading adds to a run, since it belongs to the text that follows it
FIRST_WIDE = "\u2e80"  # the first character of the writing systems (Chinese, Japanese, Korean) that weigh WIDE_WEIGHT
WIDE_WEIGHT = 3  # letters that one such character is worth, the ratio of their UTF-8 lengths
MIN_SCORE = 300  # characters: a run below this score is not main text, unless it is the best of its page
MIN_SCORE_SHARE = 0.08  # of the best run's score, likewise
LINK_LIST_SHARE = 0.7  # a block with a larger share of its characters in links is a list of links
LINK_LIST_LENGTH = 240  # characters: a block at least this long is prose even if it is mostly links
LONGEST_LINK = 160  # characters: a longer link was never closed by its author
TAIL_LENGTH = 64  # characters: shorter blocks after an article's last paragraph are tags, places and sources
LABELLED_SHARE = 0.3  # blocks below a label with a larger share of their characters in links belong to the label
LABEL_LENGTH = 72  # characters: a longer line that begins like a label is a sentence
BYLINE_LENGTH = 60  # characters: a longer line that begins like a byline is a sentence
BUTTON_LENGTH = 31  # characters: a longer line is not a button
NOTICE_LENGTH = 320  # characters: a longer paragraph with a notice's phrase discusses the matter itself

_LINK = re.compile(r"(<a(?: [^>]*)?>|</a>)")
_ANCHOR = '<a href="">'  # a target of links, not a link
_TAG = re.compile(r"<[^>]*>")
_DECORATION = " \t\xa0»›>|.:()0123456789…•·"
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”»“’)]*\Z")

PHRASES = {  # by kind, of all languages
    kind: tuple(chain.from_iterable(phrases.values()))
    for kind, phrases in read_lists("filters.html", "phrases.tsv").items()
}
LABELS, BYLINES, NOTICES = PHRASES["label"], PHRASES["byline"], PHRASES["notice"]
BUTTONS = frozenset(PHRASES["button"])
_BEGINNINGS = frozenset(phrase[:3] for phrase in LABELS + BYLINES)  # rules out most lines at the cost of one look-up


class Block(NamedTuple):
    """A line of extracted text."""

    text: str
    length: int  # characters, without those that indent it
    linked: int  # characters inside links
    heading: bool
    after_gap: bool  # an empty line comes before it


def parse_blocks(markup: str) -> list[Block]:
    """Return the blocks of resiliparse's minimal HTML, which has one per line, links marked and text escaped."""
    found = []
    in_link, after_gap, carried = False, False, 0
    for line in markup.split("\n"):
        if not line or line.isspace():
            after_gap = True
            continue
        text, linked, heading = line, 0, False
        if "<" in line:
            if line[:3] == "<p>" and line[-4:] == "</p>" and line.count("<") == 2:  # a fast path for most lines
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
            found.append(Block(text, length, min(linked, length), heading, after_gap))
            after_gap = False
    return found


def select_main_blocks(blocks: Sequence[Block], trusted: bool) -> list[Block]:
    """Return the blocks of the main text, in order.

    Args:
        blocks: All blocks of a page.
        trusted: True if the page's markup named its article. All blocks belong to it then, except lists of links, set
            phrases, bylines and short lines after the last paragraph. Otherwise only the blocks in runs of text do,
            without set phrases.
    """
    phrases = find_notices("\n".join([block.text for block in blocks if block.length <= NOTICE_LENGTH]).lower())
    if trusted:
        kept = [block for block in _drop_boilerplate(blocks, phrases) if block.heading or not is_byline(_lower(block))]
        end = len(kept)
        while end and (kept[end - 1].heading or kept[end - 1].length < TAIL_LENGTH):
            end -= 1
        return kept[:end] if end else kept
    runs = find_maximal_runs([_score(block) for block in blocks])
    best = max((score for _, _, score in runs), default=0.0)
    kept = []
    for start, end, score in runs:
        if score == best or score >= max(MIN_SCORE, MIN_SCORE_SHARE * best):
            kept += _drop_boilerplate(blocks[start:end], phrases)
    return kept


def _drop_boilerplate(blocks: Sequence[Block], phrases: list[str]) -> list[Block]:
    """Return the blocks without lists of links, set phrases, links below a label, and headings at the end."""
    kept: list[Block] = []
    labelled = False
    for block in blocks:
        if block.length > NOTICE_LENGTH or (block.length > LABEL_LENGTH and not phrases and not block.linked):
            labelled = False
            kept.append(block)
            continue
        line = _lower(block)
        if is_label(line):
            labelled = True
        elif not (labelled and block.linked > LABELLED_SHARE * block.length):
            labelled = False
            if not (_is_link_list(block) or is_button(line) or is_notice(line, phrases)):
                kept.append(block)
    while kept and kept[-1].heading:
        kept.pop()
    return kept


def find_maximal_runs(scores: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return all maximal scoring runs of a sequence as (start, end, sum), in order (Ruzzo and Tompa)."""
    runs: list[tuple[int, int, float, float, int]] = []  # start, end, sum before, sum at end, last run with less before
    total = 0.0
    for index, score in enumerate(scores):
        before, total = total, total + score
        if score <= 0:
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


def _score(block: Block) -> float:
    score = (block.length - block.linked) - LINKED_COST * block.linked
    if block.text.lstrip() >= FIRST_WIDE:
        score *= WIDE_WEIGHT
    score -= BLOCK_COST
    return min(score, 0) + HEADING_SCORE if block.heading else score


def _lower(block: Block) -> str:
    return block.text.lstrip().lower()


def _is_link_list(block: Block) -> bool:
    return not block.heading and block.linked > LINK_LIST_SHARE * block.length and block.length < LINK_LIST_LENGTH


def is_label(line: str) -> bool:
    """Return True if a line in lower case names what surrounds a text, such as related articles."""
    return len(line) <= LABEL_LENGTH and line[:3] in _BEGINNINGS and line.startswith(LABELS)


def is_button(line: str) -> bool:
    """Return True if a line in lower case is a button or counts comments."""
    return len(line) <= BUTTON_LENGTH and line.strip(_DECORATION) in BUTTONS


def is_byline(line: str) -> bool:
    """Return True if a line in lower case names a text's author, a picture's author, or a date."""
    short = len(line) <= BYLINE_LENGTH and line[:3] in _BEGINNINGS
    return short and line.startswith(BYLINES) and not _SENTENCE_END.search(line)


def find_notices(text: str) -> list[str]:
    """Return the phrases of notices that a page in lower case contains; usually none, so no line has to be searched."""
    return [phrase for phrase in NOTICES if phrase in text]


def is_notice(line: str, phrases: list[str]) -> bool:
    """Return True if a short line in lower case contains one of these phrases or begins with a copyright sign."""
    if len(line) > NOTICE_LENGTH:
        return False
    return line.startswith(("©", "(c)", "copyright")) or any(phrase in line for phrase in phrases)
