"""Mark superscripts and subscripts by "^" and "_" where plain text would otherwise change its meaning.

10<sup>6</sup> becomes 10^6, ''x''<sup>''n''+1</sup> becomes x^(n+1), and 101<sub>2</sub> becomes 101_2. Ordinals
(5<sup>th</sup>, XX<sup>e</sup>) and chemical formulas (H<sub>2</sub>O) are readable without marks.
"""

import re

from filters.formats.charset import unescape

CONTENT_CHARACTERS = 80  # the longest superscript or subscript that is examined

_PAIR = re.compile(
    rf"<(sup|sub)(?![\w-])[^<>]{{0,80}}>([^<>\n]{{0,{CONTENT_CHARACTERS}}})</\1\s{{0,9}}>", re.IGNORECASE | re.ASCII
)
_BEFORE_CHARACTERS = 24  # characters before a superscript in which the last one that is not markup is searched
_MARKUP = re.compile(r"(?:''+|</[a-z]{1,8}>)+\Z", re.IGNORECASE)
_NUMBER = re.compile(r"\d|[-−–+]\w")  # the start of an exponent that is not an ordinal, as in filters.html.blocks
_EXPRESSION = re.compile(r"[-−–+]?\(?\w[\w.,]{0,20}\)?(?:\s?[-−–+*/·⋅×]\s?\(?\w[\w.,]{0,20}\)?){0,9}")
_SIMPLE = re.compile(r"[-−–+]?[\w.,]+|[-−–+]|\([^()]*\)|\d+[-−–+]")
_EXPONENTS = frozenset("ijkmnpqtxyz")  # letters that are exponents behind a number, even without italics
_ORDINALS = frozenset(["a", "e", "o", "r"])


def mark_raised(text: str) -> str:
    """Return wikitext in which "^" and "_" replace the tags of superscripts and subscripts that need a mark."""
    return _PAIR.sub(_mark, text) if "<su" in text or "<SU" in text else text


def _mark(pair: re.Match[str]) -> str:
    """Return an element `<sup>` or `<sub>` with "^" or "_" instead of its tags, or unchanged if it needs no mark."""
    before = pair.string[max(pair.start() - _BEFORE_CHARACTERS, 0) : pair.start()]
    markup = _MARKUP.search(before)
    last = (before[: markup.start()] if markup else before)[-1:]
    content = pair[2].strip()
    plain = unescape(content.replace("'''", "").replace("''", "")).strip()
    is_variable = content != plain and "''" in content
    if not plain or not (last.isalnum() or last in ")]|}") or not last:
        return pair[0]
    if pair[1].lower() == "sub":
        is_marked = last.isdigit() or (is_variable and _EXPRESSION.fullmatch(plain))
        sign = "_"
    else:
        behind_variable = markup is not None and "''" in markup[0]
        is_marked = _NUMBER.match(plain) or (
            _EXPRESSION.fullmatch(plain)
            and (
                is_variable
                or (behind_variable and (len(plain) == 1 or plain[0] == "(") and plain not in _ORDINALS)
                or (last.isdigit() and plain in _EXPONENTS)
            )
        )
        sign = "^"
    if not is_marked:
        return pair[0]
    return f"{sign}{content}" if _SIMPLE.fullmatch(plain) else f"{sign}({content})"
