"""HTML by small functions. Text becomes `Html` only by being escaped, so that the type checker finds what is not.

Whatever a corpus holds is foreign: URLs, examples and names are cut to a length, their control characters shown by
name, and set apart from the direction of the text around them.
"""

import html
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NewType

Html = NewType("Html", str)

SHOWN_CHARACTERS = 100
"""of foreign text, where nothing else is said"""
_SPACES = {"\n": " ⏎ ", "\t": " → "}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that show nothing, or change how what follows is shown"""
_JOINERS = {"\u200c", "\u200d", "\u00ad"}
"""belong to words of some scripts, and change no direction"""


def text(value: str) -> Html:
    """Text of our own, escaped."""
    return Html(html.escape(value))


def visible(value: str, most: int = SHOWN_CHARACTERS) -> str:
    """Foreign text as plain text that can be seen: every invisible character named (`‹U+202E›`), and all cut to so many
    characters."""
    shown = []
    for character in value[: most + 1]:
        if character in _SPACES:
            shown.append(_SPACES[character])
        elif unicodedata.category(character) in _HIDDEN and character not in _JOINERS:
            shown.append(f"‹U+{ord(character):04X}›")
        else:
            shown.append(character)
    joined = "".join(shown)
    return joined if len(joined) <= most else joined[:most] + "…"


def foreign(value: str, most: int = SHOWN_CHARACTERS) -> Html:
    """Foreign text, escaped and isolated."""
    return Html(f"<bdi>{html.escape(visible(value, most))}</bdi>")


def element(tag: str, *children: Html, **attributes: str | float | bool | None) -> Html:
    """An element. Attributes' values are escaped; `_` in their names becomes `-`, a final one is dropped; None and
    False leave one out, True gives it without a value."""
    written = []
    for name, value in attributes.items():
        spelt = name.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {spelt}")
        elif value is not None and value is not False:
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            written.append(f' {spelt}="{html.escape(shown)}"')
    inside = "".join(children)
    if tag in {"link", "meta"}:
        return Html(f"<{tag}{''.join(written)}>")
    return Html(f"<{tag}{''.join(written)}>{inside}</{tag}>")


def join(parts: Iterable[Html], between: Html = Html("")) -> Html:
    """Pieces, one after the other."""
    return Html(between.join(parts))


def section(name: str, title: str, *children: Html) -> Html:
    """A section with its heading, to be linked to by name."""
    heading = element("h2", text(title), id=name)
    return element("section", heading, element("div", *children, class_="body"), aria_labelledby=name)


def note(value: str) -> Html:
    """A paragraph of explanation."""
    return element("p", text(value), class_="note")


def details(summary: Html, *children: Html, **attributes: str | bool) -> Html:
    """Something to open."""
    return element("details", element("summary", summary), *children, **attributes)


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Html]],
    foot: Sequence[Html] = (),
    text_columns: int = 1,
) -> Html:
    """A table in a box of its own that scrolls. The first column names the row, the first `text_columns` are text, the
    others numbers; one without a heading holds bars."""
    heads = [
        element("th", text(name), scope="col", class_=None if place < text_columns else "number")
        if name or not place
        else element("td", class_="graph")
        for place, name in enumerate(columns)
    ]
    body = [_row(row, text_columns) for row in rows]
    parts = [
        element("caption", text(caption)),
        element("thead", element("tr", *heads)),
        element("tbody", *body),
        *([element("tfoot", _row(foot, text_columns))] if foot else []),
    ]
    return element("div", element("table", *parts), class_="scroll", role="region", aria_label=caption, tabindex="0")


def _row(cells: Sequence[Html], text_columns: int) -> Html:
    first = element("th", cells[0], scope="row")
    rest = [
        element("td", cell, class_=None if place < text_columns else "graph" if 'class="bar"' in cell else "number")
        for place, cell in enumerate(cells[1:], start=1)
    ]
    return element("tr", first, *rest)


def bar(share: float) -> Html:
    """A bar beside a number that says the same; not read aloud."""
    width = f"inline-size:{100 * min(max(share, 0.0), 1.0):.2f}%"
    return element("span", element("span", style=width), class_="bar", aria_hidden="true")
