"""Functions that build HTML elements. Strings that are not of type `Html` are escaped, so text never becomes markup.

All strings from a corpus are untrusted. `foreign` cuts them to a length, makes control characters visible, and isolates
their text direction from the surrounding text.
"""

import html
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

SHOWN_CHARACTERS = 100  # Default for the maximum number of characters of untrusted text.
_SPACES = {"\n": " ⏎ ", "\t": " → "}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Categories of characters that are invisible or affect layout.
_JOINERS = {"\u200c", "\u200d", "\u00ad"}  # Exceptions: they are parts of words in some scripts, and harmless.


class Html(str):
    """A string that contains HTML markup."""

    __slots__ = ()


def escape(value: str) -> Html:
    """Escape text; return a value of type `Html` unchanged."""
    return value if isinstance(value, Html) else Html(html.escape(value))


def visible(value: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Replace invisible characters of untrusted text by their codes (`‹U+202E›`), and cut the text to a length."""
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
    """Return untrusted text as markup: with visible characters, escaped, and with isolated text direction."""
    return Html(f"<bdi>{html.escape(visible(value, limit))}</bdi>")


def element(tag: str, *children: str, **attributes: str | float | bool | None) -> Html:
    """Return an HTML or SVG element.

    Args:
        tag: The name of the element.
        children: Markup, or text, which is escaped.
        attributes: The attributes by name. Values are escaped. None and False omit an attribute, True writes it without
            a value. In names, `_` becomes `-`, and a final `_` is removed.
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
    """Concatenate parts, with text or markup between them."""
    return Html(escape(between).join(map(escape, parts)))


def section(name: str, title: str, *children: Html) -> Html:
    """Return a section with a heading. `name` is the id of the heading for links."""
    heading = element("h2", title, id=name)
    return element("section", heading, element("div", *children, class_="body"), aria_labelledby=name)


def note(value: str) -> Html:
    """Return a paragraph of explanation."""
    return element("p", value, class_="note")


def details(summary: str, *children: Html, **attributes: str | bool) -> Html:
    """Return a `details` element: a summary that opens to show its children."""
    return element("details", element("summary", summary), *children, **attributes)


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], foot: Sequence[str] = (), text_columns: int = 1
) -> Html:
    """Return a table in a scrollable box.

    Args:
        caption: The caption.
        columns: The headings. A column without a heading contains bars.
        rows: The cells of each row. The first cell is the heading of the row.
        foot: The cells of the footer row, if any.
        text_columns: The number of text columns. The columns after them contain numbers.
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
    """Return a bar for a share from 0 to 1. It is hidden from screen readers, because a number is shown beside it."""
    width = f"inline-size:{100 * min(max(share, 0.0), 1.0):.2f}%"
    return element("span", element("span", style=width), class_="bar", aria_hidden="true")


def read_style(*names: str) -> Html:
    """Return the concatenated style sheets of this folder with the given names."""
    return Html("".join(Path(__file__).with_name(f"{name}.css").read_text(encoding="utf-8") for name in names))
