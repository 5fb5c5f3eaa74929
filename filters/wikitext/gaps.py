"""Close the gaps that templates, notes and pictures leave in a paragraph, without harm to its sentences and numbers.

Markup leaves one of three marks. `GONE`: nothing was to be read there (a note, a picture). Unknown: a template that no
table names. Spoken: a pronunciation. Whether an unknown template stood for text is told by what is around it: a note
follows a word or a full stop without a blank, while text has a blank or an opening bracket before it, or a letter or
digit right behind it. Where it stood for text, its only argument is shown if that can be a phrase; else the sentence,
or the brackets around it, are removed. The digits of a page are never joined, and a number never loses a part.
"""

import re
from typing import NamedTuple

GONE = "\x04"
UNKNOWN, SPOKEN, END = "\x07", "\x08", "\x0e"  # UNKNOWN and SPOKEN begin a mark, which END ends

_TOKEN = re.compile(
    r"(?P<marks>[\x07\x08](?:[^\x07\x08\x0e\n]*\x0e)(?:[ \u00a0]{0,4}(?:\x04|[\x07\x08][^\x07\x08\x0e\n]*\x0e))*)"
    r"|(?P<opening>[(（])|(?P<closing>[)）])"
    r"|(?P<stop>\x03|(?<=[\w)\x04\x07\x08][\w)\x04\x0e][.!?…])[\"'»”’\x04]{0,4}\s+|(?<=[.!?…][\"'»”’])\x04{0,4}\s+|(?<=。))"
)
_MARK = re.compile(r"([\x07\x08])([^\x07\x08\x0e]*)\x0e")
_MARKS = re.compile(r"[ \t\u00a0\x04]*+(?:[\x07\x08][^\x07\x08\x0e\n]*\x0e[ \t\u00a0\x04]*+)*\Z")
_STRAY = re.compile(r"[\x07\x08\x0e]")
_PHRASE = re.compile(r"(?![a-z]{2,3}\Z)(?=.*[^\W\d_]{2})[^\n=\x03-\x0e]{2,200}\Z")
_HOLLOW = re.compile(r"[(（][ ,;:/–-]*+\x04[ ,;:/–\x04-]*+[)）]")
TAIL = 8  # characters before a mark that are looked at, notes that are gone included
_AFTER_GAP = frozenset(" ,.;:!?\u00a0")
_SEPARATORS = frozenset("([（,;:/")  # before a note in brackets; a dash has text on both sides
_OPENERS = frozenset('([（«„“‘"–—/=')
_NUMBER_START = re.compile(r"[.,]?\d")
_NUMBER_END = re.compile(r"\d[.,]?\Z")


def mark_unknown(phrase: str = "") -> str:
    """Return the mark of a template that no table names, with the text that it may show."""
    return f"{UNKNOWN}{phrase if _PHRASE.match(phrase) else ''}{END}"


def mark_spoken(text: str) -> str:
    """Return the mark of a pronunciation, which is shown outside brackets only."""
    return f"{SPOKEN}{_STRAY.sub('', ' '.join(text.split()))}{END}"


def is_hollow(line: str) -> bool:
    """Return True if a line holds nothing but marks, so that it is no part of a sentence."""
    return bool(_MARKS.match(line))


def drop_marks(text: str) -> str:
    """Return a heading with unknown templates shown, if they can be, or marked as gone."""
    return _MARK.sub(lambda mark: mark[2] or GONE, text)


class _Part(NamedTuple):
    """The start of a sentence or of a pair of brackets among the pieces of text."""

    start: int
    lost: bool


def resolve_marks(text: str, whole_line: bool = True) -> str:
    """Return a paragraph with each mark of an unknown or spoken template shown, or `GONE`, or its sentence removed.

    Args:
        text: The paragraph.
        whole_line: False for headings and items of lists, which are not sentences: they lose the template alone, except
            if it stood between words.
    """
    out: list[str] = []
    sentence, brackets = _Part(0, lost=False), list[_Part]()
    tail, position = "", 0
    for token in _TOKEN.finditer(text):
        piece = text[position : token.start()]
        out.append(piece)
        tail = (tail + piece)[-TAIL:]
        position, kind, found = token.end(), token.lastgroup, token.group()
        if kind == "opening":
            brackets.append(_Part(len(out), lost=False))
            out.append(found)
        elif kind == "closing":
            out.append(found)
            if brackets and brackets[-1].lost:
                out[brackets.pop().start :] = [GONE]
            elif brackets:
                brackets.pop()
        elif kind == "stop":
            follows = text[position : position + 4].lstrip("\"'«„“([¿¡")[:1]
            if not brackets and (found in ("\x03", "") or follows.isupper() or follows.isdigit()):
                sentence = _end_sentence(out, sentence)
            out.append(found)
        elif _stands_for_text(tail, text[position : position + 8].lstrip(GONE), whole_line):
            shown = _show_marks(found, in_brackets=bool(brackets), tail=tail)
            if shown is not None:
                out.append(shown)
            elif brackets:
                brackets[-1] = brackets[-1]._replace(lost=True)
            else:
                sentence = sentence._replace(lost=True)
            found = shown or ""
        else:
            out.append(GONE)
            found = ""
            if _last_read(tail) in (".", "!", "?") and text[position : position + 1].isspace() and not brackets:
                sentence = _end_sentence(out, sentence)
        tail = (tail + found)[-TAIL:]
    out.append(text[position:])
    lost = sentence.lost or any(part.lost for part in brackets)
    _end_sentence(out, sentence._replace(lost=lost))
    return _STRAY.sub("", "".join(out))


def _end_sentence(out: list[str], sentence: _Part) -> _Part:
    """Remove a sentence that lost text, and return the start of the next."""
    if sentence.lost:
        del out[sentence.start :]
    return _Part(len(out), lost=False)


def _last_read(tail: str) -> str:
    """Return the last character that a reader sees: notes that are gone, and blanks, stand behind it."""
    return tail.rstrip(" \t\n\u00a0\x04")[-1:]


def _stands_for_text(left: str, right: str, whole_line: bool) -> bool:
    """Return True if what is around an unknown template says that it stood for text.

    Args:
        left: The last characters before it.
        right: The first characters behind it.
        whole_line: False in items of lists and headings.
    """
    last, first = left[-1:], right[:1]
    following = right.lstrip()[:1]
    if not left.strip():
        return right[:1].isspace() and following.islower()
    if last.isdigit() or first.isalnum():
        return True
    if not (last.isspace() or last in _OPENERS):
        return False
    before = _last_read(left)
    if not following:
        return whole_line and before not in '.!?:;)”»"'
    if before in ".!?…":
        return following.islower()
    return not (before in _SEPARATORS and following in ")]）,;:/.")


def _show_marks(marks: str, *, in_brackets: bool, tail: str) -> str | None:
    """Return the text of consecutive marks, `GONE` for pronunciations that are not shown, None if text is missing.

    Text that would stick to a word or number is not shown.
    """
    found = _MARK.findall(marks)
    sticks = tail[-1:].isalnum()
    if all(kind == SPOKEN for kind, _ in found) and (in_brackets or sticks) and not tail[-1:].isdigit():
        return GONE
    if sticks or any(kind == UNKNOWN and not text.strip() for kind, text in found):
        return None
    return " ".join(text.strip() for _, text in found if text.strip()) or GONE


def close_gaps(text: str) -> str:
    """Return text without the blanks, commas, semicolons and brackets that removed markup leaves.

    Digits on both sides of a gap stay apart.
    """
    kept = [""]
    for number, part in enumerate(_HOLLOW.sub(GONE, text).split(GONE)):
        if number and kept[-1].endswith(("(", "（")):
            part = part.lstrip(" ,;:")
        if number and part.startswith((")", "）")):
            kept[-1] = kept[-1].rstrip(" ,;:")
        elif number and part[:1] in _AFTER_GAP:
            kept[-1] = kept[-1].rstrip(" \t\u00a0")
            if part[0] in ",;." and kept[-1].endswith((",", ";")):
                kept[-1] = kept[-1][:-1]
        if not part:
            continue
        if number and _NUMBER_START.match(part) and _NUMBER_END.search("".join(kept[-3:])):
            kept.append(" ")
        kept.append(part)
    return "".join(kept)
