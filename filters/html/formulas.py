"""Read the formulas of a page (MathML): as TeX if the page states it, else from what is shown."""

import re
from itertools import chain

_TEX = re.compile(r'<(?:\w+:)?annotation[^<>]* encoding="[^"<>]*tex"[^<>]*>([^<]*)<', re.IGNORECASE)
_ALTERNATIVE = re.compile(r'(?:^| )alttext="([^"]*)"')
_STYLE = re.compile(r"\s*\\(?:display|text)style(?![A-Za-z])\s*")
_TOKEN = re.compile(r'<(/?)(?:\w+:)?([a-z-]+)(?:[^<>"]|"[^"]*")*>|([^<]+)')
_SIMPLE = re.compile(r"[-−+]?[\w.,]*|\([^()]*\)|.", re.DOTALL)  # needs no brackets as an exponent or part of a fraction
_SIGNS = {  # of elements with a fixed number of parts, what comes before each part but the first (MathML 3, chapter 3)
    "msup": "^", "mover": "^", "msub": "_", "munder": "_", "msubsup": "_^", "munderover": "_^", "mfrac": "/",
}  # fmt: skip
_ANNOTATIONS = ("annotation", "annotation-xml")


def read_formula(attributes: str, content: str) -> str:
    """Return a formula without tags; character references stay.

    Args:
        attributes: of the serialised `math` element.
        content: what the element holds, serialised.
    """
    if stated := _TEX.search(content) or _ALTERNATIVE.search(attributes):
        tex = stated[1].strip()
        inner = tex[1:-1] if tex.startswith("{\\displaystyle") and tex.endswith("}") else tex  # MediaWiki's group
        return _STYLE.sub("", inner, count=1) if _STYLE.match(inner) else inner
    return _read_shown(content)


def _read_shown(content: str) -> str:
    """Return what a formula shows: raised parts behind "^", lowered ones behind "_", fractions with "/"."""
    opened: list[list[str]] = [[]]  # the parts of each open element
    for closing, name, text in _TOKEN.findall(content):
        if not name:
            opened[-1] += [text.strip()] * (not text.isspace())
        elif not closing:
            opened.append([])
        elif len(opened) > 1:
            parts = opened.pop()
            opened[-1].append(_join_parts(name, parts))
    return _join_row(list(chain.from_iterable(opened)))


def _join_parts(name: str, parts: list[str]) -> str:
    signs = _SIGNS.get(name, "")
    if signs and len(parts) == len(signs) + 1:
        return _bracket(parts[0]) + "".join(
            sign + _bracket(part) for sign, part in zip(signs, parts[1:], strict=True) if part
        )
    if name == "mroot" and len(parts) == 2:
        return f"{_bracket(parts[0])}^(1/{_bracket(parts[1])})"
    if name in _ANNOTATIONS:
        return ""
    return f"√{_bracket(_join_row(parts))}" if name == "msqrt" else _join_row(parts)


def _join_row(parts: list[str]) -> str:
    """Return the parts side by side; a blank keeps two numbers apart."""
    row: list[str] = []
    for part in filter(None, parts):
        if row and row[-1][-1].isdigit() and part[0].isdigit():
            row.append(" ")
        row.append(part)
    return "".join(row)


def _bracket(part: str) -> str:
    return part if _SIMPLE.fullmatch(part) else f"({part})"
