"""Remove the header, licence, small print, credits and transcribers' notes from texts of Project Gutenberg.

A text is cut only at explicit marks. A mark is ignored if it would remove more text than it keeps. These parts are
removed:

- Text outside "*** START OF THE PROJECT GUTENBERG EBOOK …***" and the same mark with END, on one line or several (since
  about 1998).
- The small print, which ends with "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*" (1993 to 2003). It
  precedes the book in older files and follows it in later files, so the longer side is taken as the book.
- Text behind an end without asterisks: "End of Project Gutenberg's …", "Ende dieses Project Gutenberg …", "Fin de
  Project …".
- Headers of the projects in Australia and Canada (Faded Page, Distributed Proofreaders Canada). They have no end mark:
  the first line and the paragraphs of fields, terms and credits behind it are removed. So is "[The end of …]" at the
  end of the book.
- Paragraphs before or behind the book that begin like credits ("Produced by"), or that name the producers of the file
  (Distributed Proofreaders, an address of an e-text); also an older header inside a newer one.
- Notes of transcribers, redactors and preparers at any position, in a box, in brackets, as a paragraph or under a
  heading; and lists of corrections behind the book.
- In books that Wikisource exports, the line with the date, and the last section about the edition and its
  contributors.

The table gutenberg.tsv lists patterns by language. Its kinds are: words for the `end`; names of the header's `field`s;
the start of a `credit`; names of a `note`; words that only the people who `made` an e-text use; the start of an
`export` of Wikisource; and the start of the text `about` its edition.
"""

import re
from typing import NamedTuple

from filters.data_files import read_rows

HEADER_LINES = 700  # lines in which a header is searched; the longest, with small print of the 1990s, has about 350
# Characters in which the end is searched. A licence has 19,000; with small print and lists of corrections, it has up to
# about 40,000.
TAIL_CHARACTERS = 60_000
CREDIT_LINES = 14  # the longest paragraph of credits
FRONT_LINES = 120  # lines of title and first pages, between which there may be credits
NOTE_LINES = 60  # the longest note before the book under a heading
HEADING_CHARACTERS = 80  # the longest heading of a section about an edition
TAIL_NOTE_LINES = 400  # the longest note behind the book
BRACKET_CHARACTERS = 40_000  # the longest note in brackets
UNENDED_NOTES = 100  # after so many notes without a closing bracket, no more are searched
# Parts of words for the producers of a file, and for the file.
LEFTOVERS = "Gutenberg GUTENBERG ranscriber RANSCRIBER roofread ROOFREAD E-text e-text etext".split()

EXPORT_CHARACTERS = 20_000  # an export of Wikisource names its source in so many characters at the start or the end
WIKIS = "Wiki Viqui Вики Вікі Уики".split()  # the beginnings of Wikisource's names in various languages

DATA_FILES = ("gutenberg.tsv",)  # The cache keys of steps that use this module contain the hashes of these files.


def _load_patterns() -> dict[str, str]:
    """Return a dict from kind to pattern. In the table, `{kind}` is replaced by the pattern of an earlier kind."""
    found: dict[str, list[str]] = {}
    for kind, _, pattern in read_rows("filters.books", "gutenberg.tsv"):
        for name, known in found.items():
            pattern = pattern.replace(f"{{{name}}}", f"(?:{'|'.join(known)})")
        found.setdefault(kind, []).append(pattern)
    return {kind: f"(?:{'|'.join(patterns)})" for kind, patterns in found.items()}


_I = re.IGNORECASE
_PATTERNS = _load_patterns()
_BOOK = _PATTERNS["book"]
_START = re.compile(r"\s*\*{2,4}\s*(?:START|BEGINNING) OF (?:(?:THE|THIS) )?(?:COPYRIGHTED )?PROJECT GUTENBERG", _I)
_END = re.compile(r"\s*\*{2,4}\s*END OF (?:(?:THE|THIS) )?(?:COPYRIGHTED )?PROJECT GUTENBERG", _I)
_SMALL_PRINT_END = re.compile(
    r"\W*END\W{0,3}\s*(?:OF )?(?:THE )?SMALL PRINT|.{0,80}SMALL PRINT.{0,90}\*END\*|\s*\[\"Small Print\" V\.", _I
)
_SMALL_PRINT = re.compile(r"\W*(?:START\W{0,6}(?:OF )?)?(?:THE )?(?:LEGAL )?SMALL PRINT", _I)
# Also matches "Projekt", "projet", "progetto", "proyecto" and "проект".
_PLAIN_END = re.compile(
    rf"[\s*_=]*(?:{_PATTERNS['end']}\b.{{0,40}}?\b(?:pro[jgy]\w{{2,6}}|проект\w?) gutenberg"
    r"|start: full licen[cs]e|the full project gutenberg licen[cs]e)",
    _I,
)
# These lines also occur in headers, so they are an end only if the text before them is longer than the text behind.
_LIKELY_END = re.compile(
    rf"[\s*]*(?:the {_BOOK} of|this file should be named|start\W{{0,4}}(?:the )?small print|the legal small print)", _I
)
_TITLE_LINE = re.compile(
    rf"\W{{0,12}}(?:(?:this is|beginning of) )?(?:(?:the|this|a) )?{_BOOK}"
    r"(?:\W{1,4}(?:of|in)\b|[,:]|(?=\W{0,4}\Z))(.{0,300})",
    _I,
)
_OF_BY = re.compile(r"\W*(.+?)(?:,? by (.+?))?(?:\s\(?#\d.*)?[\s*,]{0,12}\Z", _I)
_NUMBER = re.compile(r"\[\s?e-?(?:text|book)s?\s?#\s?(\d{1,7})", _I)
_FIELD = re.compile(rf"_?({_PATTERNS['field']})\s{{0,4}}:_?\s{{0,40}}(.{{0,300}})", _I)
_LEAVE = re.compile(r"this e-?(?:book|text) is for the use of anyone", _I)
_CREDIT = re.compile(rf"\W{{0,12}}{_PATTERNS['credit']}", _I | re.DOTALL)
# Names that producers of e-texts give to their notes. Notes of editors and publishers belong to the book.
_NOTE = re.compile(rf"[\s\[({{<|_=*+~#-]{{0,24}}{_PATTERNS['note']}", _I)
_NOTE_START = re.compile(rf"[\s_=*+~#-]{{0,24}}{_PATTERNS['note']}['’]?[\s_=*+~#)-]*(?:[:.—]|\Z)", _I)
_BRACKETS = {"[": "]", "(": ")", "{": "}", "<": ">"}
_READER = re.compile(r"\s*au lecteur\W*\Z", _I)
_VERSION = re.compile(r"version électronique|fichier électronique|texte électronique", _I)
# Words of the producers of e-texts. No book of Project Gutenberg begins or ends with them.
_MADE = re.compile(_PATTERNS["made"], _I)
_RULE = re.compile(r"[\s*=_~.+#-]{3,}")
_LAST = re.compile(r"\s*\[(?:the )?end of .{1,300}\]\s*", _I)  # the last line of a book of the Canadian projects
_EXPORTED = re.compile(rf"\W{{0,4}}{_PATTERNS['export']}", _I)
_ABOUT = re.compile(_PATTERNS["about"], _I)
_EDITION = re.compile(_PATTERNS["edition"], _I)
_BOX = re.compile(r"\s*\+[-=]{4,}\+?\s*\Z")


class Book(NamedTuple):
    """A book without the parts that Project Gutenberg added.

    Attributes:
        text: The text of the book.
        number: The number of the ebook, or 0 if the text does not state it.
        about: Title, author, language and release date from the header.
        whole: True if the text is unchanged, because it has no mark of Project Gutenberg.
    """

    text: str
    number: int = 0
    about: dict[str, str] | None = None
    whole: bool = False


def strip_boilerplate(text: str) -> Book:
    r"""Remove the parts of a text that Project Gutenberg or Wikisource added. Lines must end in "\n".

    A text without a mark of Project Gutenberg is returned unchanged. Takes time linear in the length of the text.
    """
    lines = text.split("\n")
    ends = text[:EXPORT_CHARACTERS] + text[-EXPORT_CHARACTERS:]
    if any(name in ends for name in WIKIS):
        lines = _strip_export(lines)
    start, after = _find_start(lines)
    first = _skip_empty(lines, 0, len(lines))
    titled = first if first < len(lines) and _TITLE_LINE.match(lines[first]) else -1
    marked = start >= 0 or titled >= 0
    opening = _find_opening(lines, after, start < 0) if marked else first
    stop = _find_end(lines, opening)
    if not marked and stop == len(lines):
        kept = "\n".join(lines)
        return Book(kept, whole=kept == text)
    about, number = _parse_header(lines[: max(after, opening)], titled)
    body = _remove_notes(lines[opening:stop])
    body = body[: _find_closing(body)]
    return Book("\n".join(body).strip("\n"), number, about)


def _strip_export(lines: list[str]) -> list[str]:
    """Remove the lines that Wikisource's export adds: the date of the export, and the section about the edition."""
    exported = next((number for number, line in enumerate(lines[:FRONT_LINES]) if _EXPORTED.match(line)), -1)
    for number in range(len(lines) - 1, max(len(lines) - TAIL_NOTE_LINES, 0), -1):
        if not lines[number - 1].strip() and _ABOUT.match(" ".join(lines[number : number + 3])):
            before = next((at for at in range(number - 1, -1, -1) if lines[at].strip()), 0)
            is_heading = len(lines[before]) <= HEADING_CHARACTERS and _EDITION.search(lines[before])
            lines = lines[: before if is_heading else number]
            while lines and not lines[-1].strip():
                lines.pop()
            break
    return lines if exported < 0 else [*lines[:exported], *lines[_skip_empty(lines, exported + 1, len(lines)) :]]


def count_leftovers(text: str) -> int:
    """Count the words of e-text producers (`LEFTOVERS`) that are still in a text."""
    return sum(text.count(mark) for mark in LEFTOVERS)


def _find_start(lines: list[str]) -> tuple[int, int]:
    """Return (index of the START line or -1, index of the first line after it)."""
    mark, after = -1, 0
    for number, line in enumerate(lines[:HEADER_LINES]):
        if _START.match(line):
            mark, after = number, _find_mark_end(lines, number)
            break
    small = max((i for i, line in enumerate(lines[: after + HEADER_LINES]) if _SMALL_PRINT_END.match(line)), default=-1)
    if small >= after:
        begun = next((i for i in range(after, small) if _SMALL_PRINT.match(lines[i])), small)
        after_it = [line for line in lines[small + 1 :] if line.strip() and not _PLAIN_END.match(line)]
        before = lines[after:begun] if mark >= 0 else []  # only files with START marks have small print behind the book
        if sum(map(len, after_it)) > sum(map(len, before)):
            return small, small + 1
    return mark, after


def _find_mark_end(lines: list[str], number: int) -> int:
    """Return the index of the line after a mark. A mark may span several lines, up to its closing asterisks."""
    for last in range(number, min(number + 5, len(lines))):
        rest = lines[last].strip()
        if not rest:
            break
        if rest.endswith("***") and (last > number or len(rest.strip("* ")) > 3):
            return last + 1
    return number + 1


def _find_end(lines: list[str], opening: int) -> int:
    """Return the index of the first line after the book."""
    ends = [i for i in range(opening, len(lines)) if _END.match(lines[i])]
    stop = ends[-1] if ends else len(lines)
    taken, size = 0, sum(map(len, lines[opening:stop]))
    most = 2_000 if ends else TAIL_CHARACTERS  # an end without asterisks is close to the end mark with asterisks
    for number in range(stop - 1, opening, -1):
        taken += len(lines[number]) + 1
        if taken > most:
            break
        if _PLAIN_END.match(lines[number]) or (2 * taken < size and _LIKELY_END.match(lines[number])):
            stop = number
    return stop


def _skip_empty(lines: list[str], at: int, stop: int) -> int:
    """Return the index of the first line from `at` on that is not empty, or `stop` if there is none."""
    while at < stop and not lines[at].strip():
        at += 1
    return at


def _find_paragraph_end(lines: list[str], start: int, stop: int) -> int:
    """Return the index of the line after the paragraph that begins at `start`."""
    while start < stop and lines[start].strip():
        start += 1
    return start


def _find_opening(lines: list[str], at: int, unmarked: bool) -> int:
    """Return the index of the first line of the book, after credits, older headers and notes.

    Args:
        lines: The lines of the text.
        at: The index where the search begins.
        unmarked: True if the header has no end mark, so that its fields must be recognised.
    """
    stop = len(lines)
    while True:
        at = _skip_empty(lines, at, stop)
        if at == stop:
            return at
        end = _find_paragraph_end(lines, at, stop)
        note = _find_note_end(lines, at, stop)
        header = _TITLE_LINE.match(lines[at]) or (unmarked and (_FIELD.match(lines[at]) or _LEAVE.match(lines[at])))
        if note > at:
            at = note
        elif _RULE.fullmatch(lines[at]):
            at += 1
        elif end - at <= CREDIT_LINES and (
            header or _CREDIT.match("\n".join(lines[at : min(end, at + 3)])) or any(map(_MADE.search, lines[at:end]))
        ):
            at = end
        else:
            return at


def _find_note_end(lines: list[str], at: int, stop: int) -> int:
    """Return the index of the line after the note that begins at `at`, or `at` if no note begins there."""
    marked = _find_marked_note_end(lines, at, stop)
    if marked > at:
        return marked
    end = _find_paragraph_end(lines, at, stop)
    reader = _READER.match(lines[at]) and _VERSION.search(" ".join(lines[at : at + 6]))
    if not reader and not _NOTE.match(lines[at]):
        return at
    if end - at > 1 and not reader:
        return end
    # Under a heading, a note extends to two empty lines, or to a line in upper case, which is a heading of the book.
    while end < min(at + NOTE_LINES, stop):
        next_one = _skip_empty(lines, end, stop)
        if next_one - end > 1 and end - at > 1:
            return end
        if next_one == stop or lines[next_one].isupper():
            return end
        end = _find_paragraph_end(lines, next_one, stop)
    return _find_paragraph_end(lines, _skip_empty(lines, at + 1, stop), stop)


def _find_marked_note_end(lines: list[str], at: int, stop: int) -> int:
    """Return the index of the line after the boxed or bracketed note that begins at `at`, or `at` if there is none."""
    line = lines[at]
    if _BOX.match(line):
        if any(_NOTE.match(inner) for inner in lines[at + 1 : at + 4]):
            last = next((i for i in range(at + 1, min(at + 200, stop)) if _BOX.match(lines[i])), -1)
            return last + 1 if last > 0 else at
        return at
    opening = line.lstrip("* _=~\t")[:1]
    if opening not in _BRACKETS or not _NOTE.match(line):
        return at
    depth, left, closing = 0, BRACKET_CHARACTERS, _BRACKETS[opening]
    for number in range(at, stop):
        left -= len(lines[number]) + 1
        if left < 0:
            return at
        depth += lines[number].count(opening) - lines[number].count(closing)
        if depth <= 0:
            return number + 1 if lines[number].rstrip(" *_=~.").endswith(closing) else at
    return at


def _remove_notes(lines: list[str]) -> list[str]:
    """Return the lines without transcribers' notes, and without credits on the first pages."""
    kept: list[str] = []
    at, tries = 0, UNENDED_NOTES
    while at < len(lines):
        # Fast path for most lines: inside a paragraph, and without a mark at the start.
        if lines[at][:1].isalnum() and kept and lines[at - 1].strip():
            kept.append(lines[at])
            at += 1
            continue
        end = _find_marked_note_end(lines, at, len(lines)) if tries else at
        tries -= end == at and lines[at].lstrip()[:1] in _BRACKETS and bool(_NOTE.match(lines[at]))
        if end == at and lines[at].strip() and not (at and lines[at - 1].strip()):
            if _NOTE_START.match(lines[at]):
                end = _find_note_end(lines, at, len(lines))
            elif at < FRONT_LINES:
                paragraph = lines[at : _find_paragraph_end(lines, at, min(at + CREDIT_LINES + 1, len(lines)))]
                if len(paragraph) <= CREDIT_LINES and _CREDIT.match(paragraph[0]) and any(map(_MADE.search, paragraph)):
                    end = at + len(paragraph)
        if end == at:
            kept.append(lines[at])
            at += 1
        else:
            at = end
    return kept


def _find_closing(lines: list[str]) -> int:
    """Return the index of the line after the book, before final rules, credits, notes and lists of corrections."""
    stop = len(lines)
    for number in range(max(stop - TAIL_NOTE_LINES, stop // 2), stop):
        reader = _READER.match(lines[number]) and _VERSION.search(" ".join(lines[number : number + 6]))
        if (reader or _NOTE.match(lines[number])) and (not number or not lines[number - 1].strip()):
            stop = number
            break
    while True:
        while stop and (
            not lines[stop - 1].strip() or _RULE.fullmatch(lines[stop - 1]) or _LAST.fullmatch(lines[stop - 1])
        ):
            stop -= 1
        begin = stop
        while begin and stop - begin <= CREDIT_LINES and lines[begin - 1].strip():
            begin -= 1
        paragraph = lines[begin:stop]
        if not (0 < len(paragraph) <= CREDIT_LINES and begin and any(map(_MADE.search, paragraph))):
            return stop
        stop = begin


def _parse_header(lines: list[str], titled: int) -> tuple[dict[str, str], int]:
    """Return (metadata in a header, number of the ebook or 0).

    Args:
        lines: The lines of the header.
        titled: The index of a line that names the ebook's title and author, or -1.
    """
    about: dict[str, str] = {}
    number, last = 0, ""
    for line in lines:
        found = _NUMBER.search(line)
        if found and not number:
            number = int(found[1])
        field = _FIELD.match(line)
        if field:
            name = field[1].lower()
            last = {"release date": "released"}.get(name, name)
            value = _NUMBER.split(field[2])[0].strip()
            last = last if last in ("title", "author", "language", "released") and last not in about and value else ""
            if last:
                about[last] = value
        elif last and line[:1].isspace() and line.strip() and ":" not in line:
            about[last] = f"{about[last]} {line.strip()}"
        else:
            last = ""
    if "title" not in about and titled >= 0:
        rest = _TITLE_LINE.match(
            " ".join(line.strip() for line in lines[titled : _find_paragraph_end(lines, titled, len(lines))])
        )
        parts = _OF_BY.match(rest[1].strip()) if rest else None
        if parts and any(map(str.isalnum, parts[1])):
            about["title"] = parts[1]
            if parts[2]:
                about.setdefault("author", parts[2])
    return about, number
