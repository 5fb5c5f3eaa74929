"""Close the gaps that removed templates, notes and pictures leave in a paragraph, and keep its sentences intact.

The renderer replaces removed markup by one of three marks:

- `GONE`: the markup showed no text (a note, a picture).
- Unknown (`mark_unknown`): a template that no table lists, so that its text is not known.
- Spoken (`mark_spoken`): a pronunciation.

The characters around an unknown template decide whether it represented text. A note follows a word or a full stop
without a blank. Text has a blank or an opening bracket before it, or a letter or digit directly behind it. If the
template represented text, its only argument is shown if the argument can be a phrase. Otherwise the whole sentence, or
the brackets around the template, are removed. Digits on both sides of a gap are never joined, and a number never loses
a part.
"""

import re
from typing import NamedTuple

GONE = "\x04"
UNKNOWN, SPOKEN, END = "\x07", "\x08", "\x0e"  # UNKNOWN and SPOKEN begin a mark, and END ends it

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
TAIL = 8  # characters before a mark that are examined, including `GONE` marks
_AFTER_GAP = frozenset(" ,.;:!?\u00a0")
# Characters before a note in brackets. Dashes are not listed, because a dash has text on both sides.
_SEPARATORS = frozenset("([（,;:/")
_OPENERS = frozenset('([（«„“‘"–—/=')
_NUMBER_START = re.compile(r"[.,]?\d")
_NUMBER_END = re.compile(r"\d[.,]?\Z")


def mark_unknown(phrase: str = "") -> str:
    """Return the mark of a template that no table lists. It contains `phrase` if `phrase` can be text."""
    return f"{UNKNOWN}{phrase if _PHRASE.match(phrase) else ''}{END}"


def mark_spoken(text: str) -> str:
    """Return the mark of a pronunciation. `resolve_marks` shows its text only outside brackets."""
    return f"{SPOKEN}{_STRAY.sub('', ' '.join(text.split()))}{END}"


def is_hollow(line: str) -> bool:
    """Return True if a line consists of marks only, so that it is not part of a sentence."""
    return bool(_MARKS.match(line))


def drop_marks(text: str) -> str:
    """Return a heading with each mark replaced by the text in it, or by `GONE` if there is no text."""
    return _MARK.sub(lambda mark: mark[2] or GONE, text)


class _Part(NamedTuple):
    """An open sentence or pair of brackets.

    Attributes:
        start: The index of its first piece in the list of output pieces.
        lost: True if an unknown template in it represented text that cannot be shown.
    """

    start: int
    lost: bool


def resolve_marks(text: str, whole_line: bool = True) -> str:
    """Return a paragraph without marks of unknown and spoken templates.

    Each mark is replaced by its text or by `GONE`, or the sentence or the brackets that contain it are removed.

    Args:
        text: The paragraph.
        whole_line: False for headings and list items, which are not sentences. There, a template at the end of the line
            counts as a note, so that only the template is removed.
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
        elif _represents_text(tail, text[position : position + 8].lstrip(GONE), whole_line):
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
            if _get_last_visible(tail) in (".", "!", "?") and text[position : position + 1].isspace() and not brackets:
                sentence = _end_sentence(out, sentence)
        tail = (tail + found)[-TAIL:]
    out.append(text[position:])
    lost = sentence.lost or any(part.lost for part in brackets)
    _end_sentence(out, sentence._replace(lost=lost))
    return _STRAY.sub("", "".join(out))


def _end_sentence(out: list[str], sentence: _Part) -> _Part:
    """Remove a sentence that lost text, and return the start of the next sentence."""
    if sentence.lost:
        del out[sentence.start :]
    return _Part(len(out), lost=False)


def _get_last_visible(tail: str) -> str:
    """Return the last character before trailing blanks and `GONE` marks, or "" if there is none."""
    return tail.rstrip(" \t\n\u00a0\x04")[-1:]


def _represents_text(left: str, right: str, whole_line: bool) -> bool:
    """Return True if the characters around an unknown template show that it represented text.

    Args:
        left: The last characters before the template.
        right: The first characters behind the template.
        whole_line: False in list items and headings.
    """
    last, first = left[-1:], right[:1]
    following = right.lstrip()[:1]
    if not left.strip():
        return right[:1].isspace() and following.islower()
    if last.isdigit() or first.isalnum():
        return True
    if not (last.isspace() or last in _OPENERS):
        return False
    before = _get_last_visible(left)
    if not following:
        return whole_line and before not in '.!?:;)”»"'
    if before in ".!?…":
        return following.islower()
    return not (before in _SEPARATORS and following in ")]）,;:/.")


def _show_marks(marks: str, *, in_brackets: bool, tail: str) -> str | None:
    """Return the text to show for consecutive marks.

    Args:
        marks: The marks, with blanks between them.
        in_brackets: True if the marks are in brackets, where pronunciations are not shown.
        tail: The last characters before the marks. If they end in a letter or digit, no text is shown.

    Returns:
        The text, `GONE` for pronunciations that are not shown, or None if text is missing.
    """
    found = _MARK.findall(marks)
    sticks = tail[-1:].isalnum()
    if all(kind == SPOKEN for kind, _ in found) and (in_brackets or sticks) and not tail[-1:].isdigit():
        return GONE
    if sticks or any(kind == UNKNOWN and not text.strip() for kind, text in found):
        return None
    return " ".join(text.strip() for _, text in found if text.strip()) or GONE


def close_gaps(text: str) -> str:
    """Return text without `GONE` marks, and without blanks, commas, semicolons and brackets that they make superfluous.

    A blank is put between the digits on both sides of a gap.
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
