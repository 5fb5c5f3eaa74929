"""Project Gutenberg's texts without the header, licence, small print, credits and transcribers' notes around them.

A text is cut only at explicit marks, and no mark is trusted that would remove more text than it leaves:

- since 1998 or so: "*** START OF THE PROJECT GUTENBERG EBOOK …***" and the same with END, on one line or several;
- 1993 to 2003: the small print ends in "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*". It
  precedes the book in older files and follows it in younger ones: the larger side is the book;
- ends without asterisks: "End of Project Gutenberg's …", "Ende dieses Project Gutenberg …", "Fin de Project …";
- before the book, paragraphs that begin as credits do ("Produced by"), an older header inside the new one, and
  transcribers' notes: boxed, in brackets, or under a heading; after it, notes and lists of corrections.
"""

import re
from typing import NamedTuple

HEADER_LINES = 700  # the longest header, with the small print of the 1990s, has some 350
TAIL_CHARACTERS = 60_000  # a licence has 19,000; with small print and lists of corrections up to some 40,000
CREDIT_LINES = 14  # of a paragraph of credits
NOTE_LINES = 60  # of a note before the book under a heading of its own
TAIL_NOTE_LINES = 400  # of a note after the book
BRACKET_CHARACTERS = 40_000  # of a note in brackets
UNENDED_NOTES = 100  # brackets that do not close, after which no more are searched

_I = re.IGNORECASE
_BOOK = r"project gutenberg(?:['’]s)?(?:-tm|™)?,?\s{1,4}e-?(?:text|book)s?"
_START = re.compile(r"\s*\*{2,4}\s*(?:START|BEGINNING) OF (?:(?:THE|THIS) )?(?:COPYRIGHTED )?PROJECT GUTENBERG", _I)
_END = re.compile(r"\s*\*{2,4}\s*END OF (?:(?:THE|THIS) )?(?:COPYRIGHTED )?PROJECT GUTENBERG", _I)
_SMALL_PRINT_END = re.compile(
    r"\W*END\W{0,3}\s*(?:OF )?(?:THE )?SMALL PRINT|.{0,80}SMALL PRINT.{0,90}\*END\*|\s*\[\"Small Print\" V\.", _I
)
_SMALL_PRINT = re.compile(r"\W*(?:START\W{0,6}(?:OF )?)?(?:THE )?(?:LEGAL )?SMALL PRINT", _I)
_PLAIN_END = re.compile(
    r"[\s*]*(?:end of (?:(?:the|this) )?project gutenberg|ende dies(?:es|er) pro[jk]e[ck]t gutenberg|"
    r"fin d[eu] pro(?:jet|ject) gutenberg|start: full licen[cs]e|the full project gutenberg licen[cs]e)",
    _I,
)
# Headers have these lines too: an end only if it leaves the larger part.
_LIKELY_END = re.compile(
    rf"[\s*]*(?:the {_BOOK} of|this file should be named|start\W{{0,4}}(?:the )?small print|the legal small print)", _I
)
_TITLE_LINE = re.compile(
    rf"\W{{0,12}}(?:(?:this is|beginning of) )?(?:(?:the|this|a) )?{_BOOK}(?:\W{{1,4}}(?:of|in)\b|,)(.{{0,300}})", _I
)
_OF_BY = re.compile(r"\W*(.+?)(?:,? by (.+?))?(?:\s\(?#\d.*)?[\s*,]{0,12}\Z", _I)
_NUMBER = re.compile(r"\[\s?e-?(?:text|book)s?\s?#\s?(\d{1,7})", _I)
_FIELD = re.compile(
    r"(title|author|editor|translator|illustrator|commentator|contributor|compiler|release date|posting date|"
    r"language|credits|character set encoding|first posted|last updated|most recently updated|edition|copyright date|"
    r"date first posted|original publication|subtitle|annotator|dubious author)\s{0,4}:\s{0,40}(.{0,300})",
    _I,
)
_LEAVE = re.compile(r"this e-?(?:book|text) is for the use of anyone", _I)
_VERB = r"(?:produced|prepared|transcribed|scanned|digiti[sz]ed|proof(?:ed|read)|typed|keyed|entered|created|converted)"
_CREDIT = re.compile(
    rf"\W{{0,12}}(?:{_VERB}\b.{{0,120}}?\bby\b|e-?text (?:\w+ and )?{_VERB}\b|text file {_VERB}\b|"
    r"html (?:version|file)s? |"
    rf"this (?:e-?text|e-?book|book|file|{_BOOK}) (?:was|has been|is) (?:\w+ ){{0,2}}?(?:{_VERB}|posted|updated)\b|"
    r"this file (?:was )?(?:first|last)|this file should be named|updated editions|corrected (?:and updated )?by\b|"
    r"corrected editions of our e|versions based on separate sources|"
    r"images of the original pages|we thank the biblioth|nous remercions la biblioth|"
    r"note: (?:project gutenberg|images)|"
    r"thanks to .{0,80}(?:proofread|scann)|we are releasing two versions of this etext|\(?this file was produced from)",
    _I | re.DOTALL,
)
_NOTE_NAME = (
    r"(?:transcri(?:ber|ption|ptor)['’]?s?['’]?\s{1,4}(?:end)?(?:note|remark|comment)s?|"
    r"notes? (?:of|from|by) (?:the )?transcribers?|(?:transcriber['’]?s?['’]? )?typographical errors? corrected|"
    r"anmerkung(?:en)? (?:zur|der|des) (?:transkri|bearbeit)\w{0,8}|"
    r"im folgenden werden alle geänderten|liste des modifications|"
    r"(?:note|remarque)s? (?:du|de la|de|sur la|au) transcri\w{2,8}|notas? (?:del|de la|do|da) transcri\w{2,8})"
)
_NOTE = re.compile(rf"[\s\[(|_=*+~-]{{0,24}}{_NOTE_NAME}", _I)
_READER = re.compile(r"\s*au lecteur\W*\Z", _I)
_VERSION = re.compile(r"version électronique|fichier électronique|texte électronique", _I)
_RULE = re.compile(r"[\s*=_~.+#-]{3,}")
_BOX = re.compile(r"\s*\+[-=]{4,}\+?\s*\Z")


class Book(NamedTuple):
    """A book.

    Attributes:
        text: Without the parts that are Project Gutenberg's.
        number: Of the ebook, 0 where the text states none.
        about: Title, author, language and release date as the header has them.
        whole: True if nothing marked the text as Project Gutenberg's; it is then unchanged.
    """

    text: str
    number: int = 0
    about: dict[str, str] | None = None
    whole: bool = False


def strip_boilerplate(text: str) -> Book:
    r"""Return the book in a text whose lines end in "\n". A text without a mark of Project Gutenberg is unchanged.

    Takes time linear in its length.
    """
    lines = text.split("\n")
    start, after = _find_start(lines)
    first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    titled = first if first < len(lines) and _TITLE_LINE.match(lines[first]) else -1
    marked = start >= 0 or titled >= 0
    opening = _find_opening(lines, after, start < 0) if marked else first
    stop = _find_end(lines, opening)
    if not marked and stop == len(lines):
        return Book(text, whole=True)
    about, number = _parse_header(lines[: max(after, opening)], titled)
    body = _remove_notes(lines[opening:stop])
    body = body[: _find_closing(body)]
    return Book("\n".join(body).strip("\n"), number, about)


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
        before = lines[after:begun] if mark >= 0 else []  # small print after the book is newer than the first marks
        if sum(map(len, after_it)) > sum(map(len, before)):
            return small, small + 1
    return mark, after


def _find_mark_end(lines: list[str], number: int) -> int:
    """Return the index of the line after a mark, which may span several up to its closing asterisks."""
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
    most = 2_000 if ends else TAIL_CHARACTERS  # a plain end is close to the one with asterisks
    for number in range(stop - 1, opening, -1):
        taken += len(lines[number]) + 1
        if taken > most:
            break
        if _PLAIN_END.match(lines[number]) or (2 * taken < size and _LIKELY_END.match(lines[number])):
            stop = number
    return stop


def _find_paragraph_end(lines: list[str], start: int, stop: int) -> int:
    """Return the index of the line after the paragraph that begins at `start`."""
    while start < stop and lines[start].strip():
        start += 1
    return start


def _find_opening(lines: list[str], at: int, unmarked: bool) -> int:
    """Return where the book begins after credits, older headers and notes; `unmarked`: the header has no end mark."""
    stop = len(lines)
    while True:
        while at < stop and not lines[at].strip():
            at += 1
        if at == stop:
            return at
        end = _find_paragraph_end(lines, at, stop)
        note = _find_note_end(lines, at, stop)
        header = _TITLE_LINE.match(lines[at]) or (unmarked and (_FIELD.match(lines[at]) or _LEAVE.match(lines[at])))
        if note > at:
            at = note
        elif _RULE.fullmatch(lines[at]):
            at += 1
        elif end - at <= CREDIT_LINES and (header or _CREDIT.match("\n".join(lines[at : at + 3]))):
            at = end
        else:
            return at


def _find_note_end(lines: list[str], at: int, stop: int) -> int:
    """Return the index of the line after the note that begins at `at`, `at` if none does."""
    marked = _find_marked_note_end(lines, at, stop)
    if marked > at:
        return marked
    end = _find_paragraph_end(lines, at, stop)
    reader = _READER.match(lines[at]) and _VERSION.search(" ".join(lines[at : at + 6]))
    if not reader and not _NOTE.match(lines[at]):
        return at
    if end - at > 1 and not reader:
        return end
    while end < min(at + NOTE_LINES, stop):  # under a heading: up to two empty lines or what looks like the book's
        next_one = end
        while next_one < stop and not lines[next_one].strip():
            next_one += 1
        if next_one - end > 1 and end - at > 1:
            return end
        if next_one == stop or lines[next_one].isupper():
            return end
        end = _find_paragraph_end(lines, next_one, stop)
    first = at + 1
    while first < stop and not lines[first].strip():
        first += 1
    return _find_paragraph_end(lines, first, stop)


def _find_marked_note_end(lines: list[str], at: int, stop: int) -> int:
    """Return the index of the line after the boxed or bracketed note that begins at `at`, `at` if none does."""
    line = lines[at]
    if _BOX.match(line):
        if any(_NOTE.match(inner) for inner in lines[at + 1 : at + 4]):
            last = next((i for i in range(at + 1, min(at + 200, stop)) if _BOX.match(lines[i])), -1)
            return last + 1 if last > 0 else at
        return at
    if not line.lstrip().startswith("[") or not _NOTE.match(line):
        return at
    depth, left = 0, BRACKET_CHARACTERS
    for number in range(at, stop):
        left -= len(lines[number]) + 1
        if left < 0:
            return at
        depth += lines[number].count("[") - lines[number].count("]")
        if depth <= 0:
            return number + 1 if lines[number].rstrip().endswith("]") else at
    return at


def _remove_notes(lines: list[str]) -> list[str]:
    """Return the lines without boxed and bracketed notes, which name themselves wherever they are."""
    kept: list[str] = []
    at, tries = 0, UNENDED_NOTES
    while at < len(lines):
        end = _find_marked_note_end(lines, at, len(lines)) if tries else at
        tries -= end == at and lines[at].lstrip()[:1] == "[" and bool(_NOTE.match(lines[at]))
        if end == at:
            kept.append(lines[at])
            at += 1
        else:
            at = end
    return kept


def _find_closing(lines: list[str]) -> int:
    """Return where the book ends before rules, and a note or a list of corrections under a heading."""
    stop = len(lines)
    for number in range(max(stop - TAIL_NOTE_LINES, stop // 2), stop):
        if _NOTE.match(lines[number]) and (not number or not lines[number - 1].strip()):
            stop = number
            break
    while stop and (not lines[stop - 1].strip() or _RULE.fullmatch(lines[stop - 1])):
        stop -= 1
    return stop


def _parse_header(lines: list[str], titled: int) -> tuple[dict[str, str], int]:
    """Return the metadata in a header, and the ebook's number."""
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
        if parts:
            about["title"] = parts[1]
            if parts[2]:
                about.setdefault("author", parts[2])
    return about, number
