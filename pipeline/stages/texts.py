"""Text that models are trained on: articles of Wikipedia dumps, or plain text files."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from filters.errors import UserError
from filters.formats.mediawiki import Page, read_dump, read_pages
from filters.formats.stream import Damage
from filters.html.extract import decode
from filters.wikitext.render import render_text

MAX_TEXT_BYTES = 1 << 30
"""of one plain text file, inflated"""


def articles(path: Path) -> Iterator[Page | Damage]:
    """The articles of a Wikipedia dump (namespace 0, no redirects), with the damage between them."""
    for page in read_pages(read_dump(path)):
        if isinstance(page, Damage) or (page.namespace == 0 and not page.redirect):
            yield page


def read_texts(path: Path) -> Iterator[str | Damage]:
    """The text of each article of a dump (a file with `.xml` in its name), with the damage between them, or the one
    text of any other file. Raises UserError for a plain text that cannot be read."""
    if ".xml" in path.name:
        for page in articles(path):
            yield page if isinstance(page, Damage) else render_text(page.wikitext)
        return
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            with gzip.open(path) as file:  # all members, and an error where the last is cut short
                raw = file.read(MAX_TEXT_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}): give Wikipedia dumps or plain text, gzipped or not"
        ) from error
    yield decode(raw, None)
