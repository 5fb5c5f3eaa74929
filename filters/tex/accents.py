"""Letters that TeX spells with commands, as Unicode has them: \\'e, \\"{o}, \\c c, \\ss (The TeXbook, chapter 9;
ogonek and others of LaTeX's encoding T1)."""

import re
import unicodedata

ACCENTS = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", "=": "\u0304", "u": "\u0306", ".": "\u0307",
    '"': "\u0308", "r": "\u030a", "H": "\u030b", "v": "\u030c", "d": "\u0323", "c": "\u0327",
    "k": "\u0328", "b": "\u0331",
}  # fmt: skip
LETTERS = {
    "ss": "ß", "o": "ø", "O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "l": "ł",
    "L": "Ł", "i": "ı", "j": "ȷ", "dh": "ð", "DH": "Ð", "th": "þ", "TH": "Þ", "dj": "đ", "DJ": "Đ", "ng": "ŋ",
    "NG": "Ŋ",
    "SS": "ẞ",
}  # fmt: skip

_SPELLED = re.compile(
    r"\\(?:\\|(?:([`'^~=.\"])[ \t]{0,9}|([uHrvdckb])(?![a-zA-Z@])[ \t]{0,9})"
    r"(?:\{[ \t]{0,9}(?:([a-zA-Z])|\\([ij])(?![a-zA-Z@]))[ \t]{0,9}\}|([a-zA-Z])"
    r"|\\([ij])(?![a-zA-Z@])(?:\{\}|[ \t]{0,9}))"
    r"|(ss|ae|AE|oe|OE|aa|AA|dh|DH|th|TH|dj|DJ|ng|NG|SS|[oOlLij])(?![a-zA-Z@])(?:\{\}|[ \t]{1,9})?)"
)


def with_letters(text: str) -> str:
    """Text with accented letters in place of the commands for them. Blanks that end a command's name go with it. What
    Unicode has no letter for stays as it is; so do the marks of tabbing, whose letter does not follow."""
    return _SPELLED.sub(_letter, text)


def _letter(spelled: re.Match[str]) -> str:
    accent, letter = spelled[1] or spelled[2], spelled[3] or spelled[4] or spelled[5] or spelled[6]
    if spelled[7]:
        return LETTERS[spelled[7]]
    if accent is None:
        return spelled[0]
    composed = unicodedata.normalize("NFC", letter + ACCENTS[accent])
    return composed if len(composed) == 1 else spelled[0]
