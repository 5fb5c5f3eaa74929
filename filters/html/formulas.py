"""Read the formulas of a page as text: as TeX if the page contains it, else from the visible characters.

Formulas are in MathML, in the scripts of MathJax 2 (some programs write such scripts into their pages), or in pictures
whose alternative text is TeX (WordPress, older MediaWiki).
"""

import html
import re
from itertools import chain

_TEX = re.compile(r'<(?:\w+:)?annotation[^<>]* encoding="[^"<>]*tex"[^<>]*>([^<]*)<', re.IGNORECASE)
_ALTERNATIVE = re.compile(r'(?:^| )alttext="([^"]*)"')
_STYLE = re.compile(r"\s*\\(?:display|text)style(?![A-Za-z])\s*")
_TOKEN = re.compile(r'<(/?)(?:\w+:)?([a-z-]+)(?:[^<>"]|"[^"]*")*>|([^<]+)')
_SIMPLE = re.compile(r"[-−+]?[\w.,]*|\([^()]*\)|.", re.DOTALL)  # Needs no brackets in an exponent or a fraction.
# For elements with a fixed number of children: the signs before the second and third child (MathML 3, chapter 3).
_SIGNS = {
    "msup": "^", "mover": "^", "msub": "_", "munder": "_", "msubsup": "_^", "munderover": "_^", "mfrac": "/",
}  # fmt: skip
_SCRIPT = re.compile(r'(?:^| )type="math/tex')
_CDATA = re.compile(r"%?\s{0,9}(?:<!\[CDATA\[|\]\]>)")  # Pages in XHTML enclose scripts with "<" or "&" in CDATA.
_RENDERING = re.compile(r'(?:^| )class="(?:[^"]* )?MathJax(?:_Preview|_SVG|_CHTML)?[ "]')
_PICTURE = re.compile(r'(?:^| )class="(?:[^"]* )?(?:latex|tex)[ "]')
_TEXT_OF_PICTURE = re.compile(r'(?:^| )alt="([^"]+)"')
_WORDPRESS = re.compile(r"\$latex (.*)\$\Z", re.DOTALL)
_ANNOTATIONS = ("annotation", "annotation-xml")


def read_formula(attributes: str, content: str) -> str:
    """Return the text of a `math` element: its TeX, or its visible characters. Character references are kept.

    Args:
        attributes: The serialised attributes of the element.
        content: The serialised content of the element.
    """
    if stated := _TEX.search(content) or _ALTERNATIVE.search(attributes):
        tex = stated[1].strip()
        # MediaWiki encloses the formula in a group with \displaystyle.
        inner = tex[1:-1] if tex.startswith("{\\displaystyle") and tex.endswith("}") else tex
        return _STYLE.sub("", inner, count=1) if _STYLE.match(inner) else inner
    return _read_shown(content)


def is_rendering(attributes: str) -> bool:
    """Return True for an inline element that shows the formula of the MathJax script after it."""
    return _RENDERING.search(attributes) is not None


def read_script(attributes: str, content: str) -> str:
    """Return the formula of a MathJax script as escaped HTML, or "" for any other script."""
    if not _SCRIPT.search(attributes):
        return ""
    tex = " ".join(_CDATA.sub("", content).rstrip("<").split())  # The last "<" belongs to the end tag.
    return html.escape(tex, quote=False)


def read_picture(attributes: str) -> str:
    """Return the TeX of a picture of a formula, or "" for any other picture. Character references are kept."""
    stated = _PICTURE.search(attributes) and _TEXT_OF_PICTURE.search(attributes)
    return _WORDPRESS.sub(r"\1", stated[1].strip()) if stated else ""


def _read_shown(content: str) -> str:
    """Return the visible characters of a formula, with "^" for superscripts, "_" for subscripts, "/" for fractions."""
    opened: list[list[str]] = [[]]  # The texts of the children of each open element.
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
    """Return the text of a MathML element, given its name and the texts of its children."""
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
    """Join texts. A blank separates two numbers."""
    row: list[str] = []
    for part in filter(None, parts):
        if row and row[-1][-1].isdigit() and part[0].isdigit():
            row.append(" ")
        row.append(part)
    return "".join(row)


def _bracket(part: str) -> str:
    """Return a text in brackets, unless it needs none."""
    return part if _SIMPLE.fullmatch(part) else f"({part})"
