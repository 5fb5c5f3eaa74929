"""The words of a text as UTF-8, casefolded: what a regular expression finds, and faster where lines are ASCII.

Most lines are ASCII, or are so but for typographic marks. There one table folds case and turns whatever is no word
character into a space, and the words are what stands between spaces. Other lines are left to the regular expression.
"""

import re

_ASCII = bytes(code if chr(code).isalnum() or chr(code) == "_" else 0x20 for code in range(128))
_FOLD = _ASCII.lower() + b" " * 128
_MARKS = re.compile("[\u00a0\u00ab\u00bb\u2010-\u2027\u2030-\u205e]")
"""no-break space, guillemets and General Punctuation's marks: no word characters, and folding leaves them alone"""


def folded_words(text: str, word: re.Pattern[str]) -> list[bytes]:
    """`word.findall(text.casefold())`, each as UTF-8 (lone surrogates pass), for a pattern that on ASCII finds runs of
    `\\w`, and whose matches hold no newline and none of the marks above."""
    if text.isascii():
        return text.encode("ascii").translate(_FOLD).split()
    found: list[bytes] = []
    for line in text.split("\n"):
        plain = line if line.isascii() else _MARKS.sub(" ", line)
        if plain.isascii():
            found += plain.encode("ascii").translate(_FOLD).split()
        else:
            found += [match.encode("utf-8", "surrogatepass") for match in word.findall(line.casefold())]
    return found
