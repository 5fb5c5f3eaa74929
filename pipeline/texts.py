"""Text that models are trained on: articles of Wikipedia dumps, or plain text files."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from filters.html import decode
from filters.wiki_dump import open_dump, pages
from filters.wiki_text import plain_text
from manifests.errors import UserError

MAX_TEXT_BYTES = 1 << 30
"""of one plain text file, inflated"""


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each article of a dump (a file with `.xml` in its name), or of the one text of any other file.
    Raises UserError for a file that cannot be read."""
    try:
        if ".xml" in path.name:
            for page in pages(open_dump(path)):
                if not page.problem and page.namespace == 0 and not page.redirect:
                    yield page.title, plain_text(page.text)
            return
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = zlib.decompressobj(wbits=31).decompress(raw, MAX_TEXT_BYTES)
        yield path.name, decode(raw, None)
    except (OSError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}): give Wikipedia dumps or plain text, gzipped or not"
        ) from error
