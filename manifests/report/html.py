"""HTML by small functions. Children that are not `Html` are text and are escaped, so text never becomes markup.

Whatever a corpus holds is foreign: `foreign` cuts URLs, examples and names to a length, shows their control characters
by name, and isolates them from the direction of the text around them.
"""

import html
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

SHOWN_CHARACTERS = 100  # most characters of foreign text, by default
_SPACES = {"\n": " ⏎ ", "\t": " → "}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Unicode categories that are invisible or change the display
_JOINERS = {"\u200c", "\u200d", "\u00ad"}  # parts of words in some scripts, which change no direction


class Html(str):
    """A string of markup."""

    __slots__ = ()


def escape(value: str) -> Html:
    """Return text as markup; markup stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(value))


def visible(value: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Return foreign text with every invisible character named (`‹U+202E›`), cut to a number of characters."""
    shown = []
    for character in value[: limit + 1]:
        if character in _SPACES:
            shown.append(_SPACES[character])
        elif unicodedata.category(character) in _HIDDEN and character not in _JOINERS:
            shown.append(f"‹U+{ord(character):04X}›")
        else:
            shown.append(character)
    joined = "".join(shown)
    return joined if len(joined) <= limit else joined[:limit] + "…"


def foreign(value: str, limit: int = SHOWN_CHARACTERS) -> Html:
    """Return foreign text, made visible, escaped and isolated."""
    return Html(f"<bdi>{html.escape(visible(value, limit))}</bdi>")


def element(tag: str, *children: str, **attributes: str | float | bool | None) -> Html:
    """Return an element.

    Args:
        tag: The element's name.
        children: Markup, or text to escape.
        attributes: Values to escape; None and False omit an attribute, True writes it without a value. In names `_`
            becomes `-`, and a final `_` is dropped.
    """
    written = []
    for name, value in attributes.items():
        spelled = name.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {spelled}")
        elif value is not None and value is not False:
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            written.append(f' {spelled}="{html.escape(shown)}"')
    start = f"<{tag}{''.join(written)}>"
    return Html(start if tag in {"link", "meta"} else f"{start}{join(children)}</{tag}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """Return parts one after the other, with text or markup between them."""
    return Html(escape(between).join(map(escape, parts)))


def section(name: str, title: str, *children: Html) -> Html:
    """Return a section with a heading whose `name` can be linked to."""
    heading = element("h2", title, id=name)
    return element("section", heading, element("div", *children, class_="body"), aria_labelledby=name)


def note(value: str) -> Html:
    """Return a paragraph of explanation."""
    return element("p", value, class_="note")


def details(summary: str, *children: Html, **attributes: str | bool) -> Html:
    """Return a summary that opens to show more."""
    return element("details", element("summary", summary), *children, **attributes)


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], foot: Sequence[str] = (), text_columns: int = 1
) -> Html:
    """Return a table in a box that scrolls.

    Args:
        caption: The caption.
        columns: Headings; a column without a heading holds bars.
        rows: Cells; the first of each row is its heading.
        foot: Cells of the last row.
        text_columns: Number of columns of text; those after them hold numbers.
    """
    heads = [
        element("th", name, scope="col", class_=None if place < text_columns else "number")
        if name or not place
        else element("td", class_="graph")
        for place, name in enumerate(columns)
    ]
    parts = [
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *(_row(row, text_columns) for row in rows)),
        *([element("tfoot", _row(foot, text_columns))] if foot else []),
    ]
    return element("div", element("table", *parts), class_="scroll", role="region", aria_label=caption, tabindex="0")


def _row(cells: Sequence[str], text_columns: int) -> Html:
    rest = [
        element("td", cell, class_=None if place < text_columns else "graph" if 'class="bar"' in cell else "number")
        for place, cell in enumerate(cells[1:], start=1)
    ]
    return element("tr", element("th", cells[0], scope="row"), *rest)


def bar(share: float) -> Html:
    """Return a bar that repeats the number beside it, hidden from screen readers."""
    width = f"inline-size:{100 * min(max(share, 0.0), 1.0):.2f}%"
    return element("span", element("span", style=width), class_="bar", aria_hidden="true")


def read_style(*names: str) -> Html:
    """Return the style sheets of this folder, by name, one after the other."""
    return Html("".join(Path(__file__).with_name(f"{name}.css").read_text(encoding="utf-8") for name in names))
