"""The rule `code`: drop files of code by their text.

LLaMA, section 2.1: "we filtered low quality files with heuristics based on the line length or proportion of
alphanumeric characters". The thresholds are those of RedPajama's filter (`github_run_filter.py`).

RedPajama counts tokens with Pythia's tokenizer. Here the number of tokens is estimated in linear time and without a
model: each run of letters, digits, punctuation marks or white space is cut into tokens of at most `LETTERS`, `DIGITS`,
`MARKS` or `BLANKS` characters. A single white-space character counts as part of the next word. This approximates the
average of byte-pair encodings of code. docs/sources/github.md compares both counts.
"""

import re
from itertools import islice
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.code.headers import GENERATED, find_top_comments
from filters.reasons import Reason
from filters.rule import ExtractRule, Found, Page, Verdict, drop, keep
from filters.settings import Positive, Share

LETTERS, DIGITS, MARKS, BLANKS = 8, 3, 2, 16  # largest number of characters of each class in one token
GENERATED_LINES = 20  # Marks of generated files are searched in this number of lines from the top.
MARK_CHARACTERS = 1_000  # Characters of each line that are searched for such a mark.
DATA_LINES, DATA_SHARE = 100, 0.8  # smallest number of lines of a data table, and smallest share of lines of numbers
_COMMENT = ("#", "//", "/*", "*", "--", "<!--", ";", "%", "'", "{-", "(*", '"""', "..", "!", "::", "rem ", "<#")
_SOURCE_MAP = re.compile(r"\s*/[/*][#@]\s?source(?:Mapping)?URL\s?=")  # the last line of compiled code (linguist)
_WORDS = re.compile(r"[^\w@$]*+(?:rem\s)?[^\w@$]*+", re.IGNORECASE)  # comment marks before the words of a comment
_DATA = re.compile(r"[\s0-9xXA-Fa-fuUlLeE,.{}\[\]()+\-;:\"']*+")
_BLANK, _LETTER, _DIGIT, _MARK = range(4)
_NEWLINE = 10


class Shape(NamedTuple):
    """Measurements of a text, which the rule compares with its thresholds. LF separates lines.

    Attributes:
        characters: number of characters.
        lines: number of lines.
        longest_line: number of characters in the longest line.
        mean_line: `characters` divided by `lines`, as RedPajama counts.
        alphanumerics: share of letters and digits among the characters.
        letters_a_token: mean number of letters per token.
    """

    characters: int
    lines: int
    longest_line: int
    mean_line: float
    alphanumerics: float
    letters_a_token: float


class Code(ExtractRule):
    """Drop generated and minified files, and files with long lines or few letters.

    This is LLaMA's filter for files of code (section 2.1), with the thresholds of RedPajama's filter
    (`github_run_filter.py`).
    """

    REASONS = (
        Reason.NO_TEXT,
        Reason.GENERATED_FILE,
        Reason.MINIFIED_FILE,
        Reason.CODE_LONG_LINE,
        Reason.CODE_LONG_LINES,
        Reason.CODE_FEW_ALPHANUMERICS,
        Reason.CODE_FEW_LETTERS,
    )

    longest_line: Positive = 1_000  # longest line, in characters
    mean_line: Annotated[float, Field(gt=0)] = 100.0  # largest mean number of characters per line
    alphanumerics: Share = 0.25  # smallest share of letters and digits
    letters_a_token: Annotated[float, Field(ge=0)] = 1.5  # smallest number of letters per token
    minified_mean: Annotated[float, Field(gt=0)] = 110.0  # mean characters per line of minified JS or CSS (linguist)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the file for the first reason that applies, or keep it. `page.language` is its programming language."""
        if not page.text.strip():
            return drop(Reason.NO_TEXT)
        if is_marked_generated(page.text, page.language) or is_data_table(page.text):
            return drop(Reason.GENERATED_FILE)
        shape = measure_shape(page.text)
        checks = {
            Reason.MINIFIED_FILE: page.language in ("JavaScript", "CSS") and shape.mean_line > self.minified_mean,
            Reason.CODE_LONG_LINE: shape.longest_line > self.longest_line,
            Reason.CODE_LONG_LINES: shape.mean_line > self.mean_line,
            Reason.CODE_FEW_ALPHANUMERICS: shape.alphanumerics < self.alphanumerics,
            Reason.CODE_FEW_LETTERS: shape.letters_a_token < self.letters_a_token,
        }
        return next((drop(reason) for reason, fails in checks.items() if fails), keep())


def measure_shape(text: str) -> Shape:
    """Measure a text, in linear time and with about 16 bytes of memory per character."""
    if not text:
        return Shape(0, 0, 0, 0.0, 0.0, 0.0)
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    kinds = _classify(codes)
    newlines = np.flatnonzero(codes == _NEWLINE)
    edges = np.concatenate(([-1], newlines, [len(codes)]))
    letters, digits = (int(np.count_nonzero(kinds == kind)) for kind in (_LETTER, _DIGIT))
    lines = len(newlines) + 1
    return Shape(
        characters=len(codes),
        lines=lines,
        longest_line=int(np.diff(edges).max()) - 1,
        mean_line=len(codes) / lines,
        alphanumerics=(letters + digits) / len(codes),
        letters_a_token=letters / max(_count_tokens(kinds), 1),
    )


def _classify(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Return the class of each code point: `_BLANK`, `_LETTER`, `_DIGIT` or `_MARK`."""
    kinds = _ASCII[np.minimum(codes, 127)]
    others = np.flatnonzero(codes > 127)
    if len(others):
        distinct, places = np.unique(codes[others], return_inverse=True)
        kinds[others] = np.array([_classify_one(chr(code)) for code in distinct.tolist()], dtype=np.uint8)[places]
    return kinds


def _classify_one(character: str) -> int:
    if character.isalpha():
        return _LETTER
    if character.isalnum():
        return _DIGIT
    return _BLANK if character.isspace() else _MARK


_MOST = np.array([BLANKS, LETTERS, DIGITS, MARKS])
_ASCII = np.array([_classify_one(chr(code)) for code in range(128)], dtype=np.uint8)


def _count_tokens(kinds: npt.NDArray[np.uint8]) -> int:
    """Estimate the number of tokens of a text from the class of each character (see the module's docstring)."""
    starts = np.concatenate(([0], np.flatnonzero(kinds[1:] != kinds[:-1]) + 1))
    lengths = np.diff(np.concatenate((starts, [len(kinds)])))
    counts = -(-lengths // _MOST[kinds[starts]])
    counts[(kinds[starts] == _BLANK) & (lengths == 1)] = 0
    return int(counts.sum())


def is_marked_generated(text: str, language: str) -> bool:
    """Return True if a text says that a program wrote it.

    The first `GENERATED_LINES` lines are searched: lines that begin like a comment (or like a meta element in Markdown,
    HTML and XML), and all lines of block comments at the top. In JavaScript and CSS, a last line with the URL of a
    source map also counts.
    """
    opening_lines = text.split("\n", GENERATED_LINES)[:GENERATED_LINES]
    top = sum(map(len, opening_lines)) + len(opening_lines)
    for comment in islice(find_top_comments(text, language), GENERATED_LINES):
        for line in comment.lines if comment.block else ():
            if line.begin < top and GENERATED.search(text[line.start : min(line.stop, line.start + MARK_CHARACTERS)]):
                return True
    if language in ("JavaScript", "CSS") and _SOURCE_MAP.match(text.rstrip()[-MARK_CHARACTERS:].rpartition("\n")[2]):
        return True
    starts = ("<!--", "<meta") if language in ("Markdown", "HTML", "XML") else _COMMENT
    for text_line in opening_lines:
        opening = text_line[:MARK_CHARACTERS].lstrip()
        if opening.lower().startswith(starts) and GENERATED.search(_WORDS.sub("", opening, count=1)):
            return True
    return False


def is_data_table(text: str) -> bool:
    """Return True if a text is a long table of numbers, as programs write them."""
    if text.count("\n") < DATA_LINES:
        return False
    lines = [line for line in text.split("\n") if line.strip()]
    numbers = sum(_DATA.fullmatch(line) is not None and any(map(str.isdigit, line)) for line in lines)
    return len(lines) >= DATA_LINES and numbers >= DATA_SHARE * len(lines)
