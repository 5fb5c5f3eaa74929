"""Prepare TeX source for parsing: decode it, remove comments, and replace literal text by placeholders.

TeX determines the meaning of a character only while it runs, and files from unknown authors must not be run. This
module implements TeX's rules for the default category codes of plain TeX and LaTeX (The TeXbook, chapters 7 and 8).
Each pass takes linear time. The table names.tsv lists names of environments, control words, encodings and files.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from filters.data_files import merge_items, read_lists

DATA_FILES = ("names.tsv",)  # The cache keys of steps that use this module contain the hashes of these files.
TABLES = read_lists("filters.tex", "names.tsv")

WORD_CHARACTERS = 64  # the longest control word that is found by a backward search
LITERAL = merge_items(TABLES["literal environment"])  # environments whose content is not TeX
# Environments whose content is not printed: of the packages comment and html, and LaTeX's filecontents.
UNPRINTED = merge_items(TABLES["unprinted environment"])
VERB_CHARACTERS = 1_000  # the longest literal argument, such as \verb|…|, on one line
URL_CHARACTERS = 2_000  # the longest argument in which % is an ordinary character
# Marks around the index of a literal text. They are noncharacters (Unicode, section 23.7), which do not occur in text.
OPEN, CLOSE = "\ufdd0", "\ufdd1"
_UTF16 = {  # from possible first bytes of a file to its encoding
    (codecs.BOM_UTF16_LE, b"\\\0", b"%\0"): "utf-16-le",
    (codecs.BOM_UTF16_BE, b"\0\\", b"\0%"): "utf-16-be",
}
DECLARED_BYTES = 1 << 16  # bytes at the start of a file in which its encoding is declared

# From names of encodings in \usepackage[…]{inputenc} and \begin{CJK}{…} to Python's names.
ENCODINGS = {name: codec for codec, names in TABLES["encoding"].items() for name in names}

CYRILLIC = ("cp1251", "koi8-u", "cp866", "iso8859-5", "mac-cyrillic")  # encodings that are detected
CYRILLIC_WORDS = 8  # with fewer words, no encoding is detected
CYRILLIC_SHARE = 0.6  # required share of Cyrillic words; the other words are names, or are interrupted by commands
DETECTED_BYTES = 1 << 18  # bytes at the start of a file that are examined
_HIGH_WORD = re.compile(rb"(?<![\\a-zA-Z\x80-\xff])[\x80-\xff]{3,40}(?![a-zA-Z\x80-\xff])")
_CYRILLIC = re.compile(r"[а-яёіїєґђѓјљњћќџў]+\Z", re.IGNORECASE)
_FREQUENT = frozenset("оеаинтсрвлкмдупі")  # about 90% of the letters in Russian texts, and in related languages
_DECLARATION = re.compile(
    rb"^[^%\n]{0,200}?(?:\\usepackage[ \t]{0,9}\[([\w-]{1,20})\][ \t]{0,9}\{inputenc\}|\\inputencoding\{([\w-]{1,20})\}"
    rb"|\\begin\{CJK\*?\}(?:\[[^\]\n]{0,40}\])?\{([\w-]{1,20})\})",
    re.MULTILINE,
)
_MARK = re.compile(
    r"%|\\(?:(begin)[ \t]{0,9}\{([a-zA-Z]{1,24}\*?)\}|(verb|lstinline|path|url|nolinkurl|href)(?![a-zA-Z@])\*?"
    r"|[a-zA-Z@]+|.)",
    re.DOTALL,
)
_COMMENT_LINES = re.compile(r"(?:[ \t]*+%[^\n]*+\n)*[ \t]*+")
_HIDDEN = re.compile(f"{OPEN}([0-9]{{1,9}}){CLOSE}")
_NO_USE = (  # commands in which the name of a condition occurs, but is not executed
    r"let[ \t]{0,9}\\[a-zA-Z@]{1,99}[ \t]{0,9}=?[ \t]{0,9}\\[a-zA-Z@]{1,99}|newif[ \t]{0,9}\\[a-zA-Z@]{1,99}"
)
_CONDITION = re.compile(rf"\\(?:\\|{_NO_USE}|(if[a-zA-Z@]*+|else|fi)(?![a-zA-Z@]))")
_NEW_SWITCH = re.compile(r"\\newif[ \t]{0,9}\\if([a-zA-Z@]{1,99})")
# Commands that set the conditions of \newif, and the starts and ends of groups and conditions around these commands.
_SETTING = re.compile(
    rf"\\(?:[\\{{}}]|{_NO_USE}|(if[a-zA-Z@]*+|fi)(?![a-zA-Z@])|([a-zA-Z@]{{1,99}}?)(true|false)(?![a-zA-Z@]))|[{{}}]"
)
_LINE_END = re.compile(r"(?:[ \t]*+\n)?")
# Control words that begin with "if", but are macros with arguments and not conditions of TeX.
_NO_CONDITION = merge_items(TABLES["not a condition"])
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def decode(data: bytes, declared: str = "") -> str:
    """Decode a TeX file, with LF as line end. Never raises.

    The encoding is the first of these with which the bytes can be decoded: UTF-8; the encoding that the file declares,
    or `declared`, or an encoding that is detected by Cyrillic words; windows-1252; latin-1.

    Args:
        data: The bytes of the file.
        declared: Python's name of the encoding for a file that declares none, or "".
    """
    text = _decode(transcode_utf16(data).removeprefix(codecs.BOM_UTF8), declared)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    for mark in ("\0", OPEN, CLOSE):
        text = text.replace(mark, "\ufffd")
    return text


def transcode_utf16(data: bytes) -> bytes:
    r"""Convert a file in UTF-16 to UTF-8, and return any other file unchanged.

    UTF-16 is detected by a byte order mark, or by \ or % as the first character.
    """
    encoding = next((name for marks, name in _UTF16.items() if data.startswith(marks)), "")
    return data.decode(encoding, "replace").removeprefix("\ufeff").encode() if encoding else data


def _decode(data: bytes, declared: str) -> str:
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    for name in (declared_encoding(data) or declared or detect_cyrillic(data), "cp1252"):
        if name and name != "utf-8":
            with suppress(UnicodeDecodeError):
                return data.decode(name)
    return data.decode("latin-1")


def declared_encoding(data: bytes) -> str:
    """Return Python's name for the encoding that a file declares outside comments, or "" if there is none."""
    for found in _DECLARATION.finditer(data[:DECLARED_BYTES].replace(b"\r", b"\n")):
        name = ENCODINGS.get((found[1] or found[2] or found[3]).decode("ascii", "replace").lower(), "")
        if name:
            return name
    return ""


def detect_cyrillic(data: bytes) -> str:
    """Return Python's name for the encoding in which the non-ASCII bytes are Cyrillic words, or "" if there is none.

    In the right encoding, words are in lower case except for their first letter, and at least half of their letters are
    among the most frequent letters of Russian, Ukrainian, Bulgarian and Serbian. In a wrong encoding, most words do not
    fulfil these conditions.
    """
    words = [word for word in _HIGH_WORD.findall(data[:DETECTED_BYTES]) if not word.isascii()]
    if len(words) < CYRILLIC_WORDS:
        return ""
    scores = {name: sum(_is_cyrillic(word.decode(name, "replace")) for word in words) for name in CYRILLIC}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= CYRILLIC_SHARE * len(words) else ""


def _is_cyrillic(word: str) -> bool:
    """Return True if a word looks like a word of a language with Cyrillic letters."""
    rest = word[1:]
    common = sum(letter in _FREQUENT for letter in word.lower())
    # A line that is drawn with DOS box characters repeats one character.
    is_spelled = bool(_CYRILLIC.match(word)) and len(set(word)) > 1
    return is_spelled and (rest.islower() or not rest) and 2 * common >= len(word)


def strip_comments(text: str, literals: list[str]) -> str:
    r"""Remove comments, and replace literal text by placeholders.

    Literal text (verbatim environments, \verb, arguments of \url that contain a %) is appended to `literals`, so that
    no later step parses it as TeX. `restore_literals` puts it back.

    A comment is removed with its line end and the blanks at the start of the next line, as in TeX. An empty line after
    a comment is kept. A blank is inserted if a control word would otherwise be joined with a letter. A line that
    consists of a comment is removed completely.
    """
    out = io.StringIO()
    endless: set[str] = set()
    start = seen = unclosed = 0
    while mark := _MARK.search(text, seen):
        seen = mark.end()
        if mark[0] == "%":
            begin, stop, between = _measure_comment(text, mark.start(), start)
            out.write(text[start:begin] + between)
            start = seen = stop
        elif mark[1] and (mark[2] in LITERAL or mark[2] in UNPRINTED) and mark[2] not in endless:
            ending = f"\\end{{{mark[2]}}}"
            close = text.find(ending, seen)
            if close < 0:
                endless.add(mark[2])
            elif mark[2] in LITERAL:
                out.write(text[start:seen] + _set_aside(text[seen:close], literals))
                start, seen = close, close + len(ending)
            else:
                out.write(text[start : mark.start()])
                start = seen = close + len(ending)
        elif mark[3] and seen >= unclosed:
            begin, stop, hidden, unclosed = _find_literal(text, seen, mark[3])
            if hidden:
                out.write(text[start:begin] + _set_aside(hidden, literals))
                start = stop
            seen = max(seen, stop)
    out.write(text[start:])
    return out.getvalue()


def restore_literals(text: str, literals: list[str], limit: int) -> str | None:
    """Replace the placeholders by literal text. Return None if the result has over `limit` characters.

    The result can be much longer than the source, because macros can repeat placeholders.
    """
    marks = [int(mark) for mark in _HIDDEN.findall(text)]
    if len(text) + sum(len(literals[mark]) for mark in marks if mark < len(literals)) > limit:
        return None
    return _HIDDEN.sub(lambda mark: literals[int(mark[1])] if int(mark[1]) < len(literals) else "", text)


def strip_false_branches(text: str) -> str:
    r"""Return text without the branches of conditions that TeX skips.

    Authors use such branches to comment out pages, and to keep two versions of a text. The value is known for \iffalse,
    \if0, \iftrue, and for conditions that \newif defines (`_find_switches`). Their commands (\if…, \else, \fi) are
    removed together with the skipped branch. Other conditions, and conditions without \fi, are unchanged. `text` must
    be without comments.
    """
    switches = {"false": False, "true": True, **_find_switches(text)}
    stack: list[tuple[re.Match[str], bool | None]] = []  # open conditions: (command, value or None)
    gaps: dict[int, int] = {}  # from start to end of each removed stretch
    branches: dict[int, re.Match[str]] = {}
    for mark in _CONDITION.finditer(text):
        word = mark[1]
        if not word or word in _NO_CONDITION:
            continue
        if word.startswith("if"):
            following = text[mark.end() : mark.end() + 2]
            is_zero = word == "if" and following[:1] == "0" and following != "00"
            stack.append((mark, False if is_zero else switches.get(word[2:])))
        elif stack and word == "else":
            branches.setdefault(stack[-1][0].start(), mark)
        elif stack:
            opening, value = stack.pop()
            other = branches.get(opening.start())
            if value is not None:
                skipped = (opening, other or mark) if not value else (other or mark, mark)
                for first, last in (skipped, (opening, opening), (mark, mark)):
                    gaps[first.start()] = max(last.end(), gaps.get(first.start(), 0))
    out, start = [], 0
    for begin, stop in sorted(gaps.items()):
        if begin >= start:  # not within another gap
            out.append(text[start:begin])
            line = text.rfind("\n", start, begin) + 1 or start
            is_line = not text[line:begin].strip() and (line > start or start == 0 or text[start - 1] == "\n")
            start = _LINE_END.match(text, stop).end() if is_line else stop  # type: ignore[union-attr]  # matches all
    return "".join([*out, text[start:]])


def _find_switches(text: str) -> dict[str, bool]:
    r"""Return a dict from the name of a condition that \newif defines to its value.

    The value is False unless the preamble sets it. A condition is left out, because its value is not known, if it is
    set in the document, in a group (such as a macro's replacement), or inside another condition.
    """
    values = dict.fromkeys(_NEW_SWITCH.findall(text), False)
    document = text.find("\\begin{document}") if values else 0
    depth = conditions = 0
    for mark in _SETTING.finditer(text) if values else ():
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if mark[1] and mark[1] not in _NO_CONDITION:
            conditions += 1 if mark[1].startswith("if") else -1
        elif mark[2] in values:
            if depth or conditions or mark.start() > document >= 0:
                del values[mark[2]]
            else:
                values[mark[2]] = mark[3] == "true"
    return values


def _measure_comment(text: str, percent: int, start: int) -> tuple[int, int, str]:
    """Return (start, end, replacement) of the text to remove for a comment.

    It is the whole line if the line consists of the comment, else the text from `%` to the next visible character.

    Args:
        text: TeX.
        percent: The position of the `%`.
        start: Text before this position is ignored.
    """
    line = max(text.rfind("\n", start, percent) + 1, start)
    end = text.find("\n", percent)
    end = len(text) if end < 0 else end
    if (line == start == 0 or text[line - 1 : line] == "\n") and not text[line:percent].strip(" \t"):
        return line, min(end + 1, len(text)), ""
    following = _COMMENT_LINES.match(text, end + 1) if end < len(text) else None
    if following is None:
        return percent, end, ""
    stop = following.end()
    if stop == len(text) or text[stop] == "\n":
        return percent, end, ""  # keep the line end before an empty line and at the end of the text
    return percent, stop, " " if text[stop].isalpha() and ends_in_word(text[max(start, percent - 64) : percent]) else ""


def _set_aside(literal: str, literals: list[str]) -> str:
    literals.append(literal)
    return f"{OPEN}{len(literals) - 1}{CLOSE}"


def _find_literal(text: str, position: int, command: str) -> tuple[int, int, str, int]:
    r"""Find the literal argument, at `position`, of \verb or another `command` with a literal argument.

    Returns:
        (start, end, literal, unclosed). `literal` is "" if there is no literal text. `unclosed` is a position before
        which no further literal needs to be searched, because this literal has no end.
    """
    nothing = (position, position, "", 0)
    mark = text[position : position + 1]
    if command == "lstinline" and mark == "[":
        close = text.find("]", position, position + VERB_CHARACTERS)
        position = close + 1 if close >= 0 else position
        mark = text[position : position + 1]
    if mark == "{" and command != "verb":
        percent = text.find("%", position, position + URL_CHARACTERS)
        if percent < 0 and command != "lstinline":
            return nothing
        close = find_group_end(text, position, URL_CHARACTERS)
        if close < 0:
            return (position, position, "", position + URL_CHARACTERS)
        if command != "lstinline" and close < percent:
            return (close, close, "", 0)
        return (position + 1, close - 1, re.sub(r"%\n[ \t]*+", "", text[position + 1 : close - 1]), 0)
    if not mark or mark.isspace() or mark.isalnum() or mark in "{}[%\\":
        return nothing
    close = text.find(mark, position + 1, position + VERB_CHARACTERS)
    newline = text.find("\n", position, position + VERB_CHARACTERS)
    if close < 0 or 0 <= newline < close:
        return (position, position, "", position + 1)
    return (position, close + 1, text[position : close + 1], 0)


def compile_control(pattern: str) -> re.Pattern[str]:
    r"""Compile a pattern for a control sequence from the part after its backslash.

    The compiled pattern also matches two backslashes (\\), because the second backslash does not begin a command.
    `find_all` skips these matches.
    """
    return re.compile(rf"\\(?:\\|(?:{pattern})(?P<found>))")


def find_all(pattern: re.Pattern[str], text: str, start: int = 0, stop: int | None = None) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern that `compile_control` returned."""
    for mark in pattern.finditer(text, start, len(text) if stop is None else stop):
        if mark["found"] is not None:
            yield mark


def find_first(pattern: re.Pattern[str], text: str, start: int = 0, stop: int | None = None) -> re.Match[str] | None:
    """Return the first match of a pattern that `compile_control` returned, or None."""
    return next(find_all(pattern, text, start, stop), None)


def cut(
    text: str, marks: Iterable[re.Match[str]], measure: Callable[[re.Match[str]], int], replacement: str = ""
) -> str:
    """Remove commands and the text that belongs to them.

    Args:
        text: TeX.
        marks: The matches of the commands, in order. A command inside a removed stretch is ignored, so that the time
            stays linear.
        measure: Returns the end of the stretch to remove, which begins with the command, or -1 to keep the command.
        replacement: A template for `Match.expand`, whose result replaces the stretch.
    """
    out: list[str] = []
    start = 0
    for mark in marks:
        stop = measure(mark) if mark.start() >= start else -1
        if stop >= 0:
            out.append(text[start : mark.start()] + mark.expand(replacement))
            start = stop
    return "".join([*out, text[start:]])


def find_group_end(text: str, position: int, limit: int) -> int:
    """Return the position behind the group that opens at `position`, or -1 if it is longer than `limit` characters."""
    depth = 0
    for brace in _BRACE.finditer(text, position, position + limit):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return -1


def ends_in_word(text: str) -> bool:
    """Return True if text ends in a control word, so that a letter behind it would become part of the word."""
    tail = text[-WORD_CHARACTERS:]
    if not tail or not (tail[-1].isascii() and (tail[-1].isalpha() or tail[-1] == "@")):
        return False
    backslash = tail.rfind("\\")
    letters = tail[backslash + 1 :]
    if backslash < 0 or not letters.isascii() or not letters.replace("@", "a").isalpha():
        return False
    before = tail[:backslash]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0
