"""Read Wikipedia articles from MediaWiki's XML dumps as plain text (LLaMA section 2.1: twenty languages, 2022).

A dump is named `xxwiki-….xml`, `xx.wiki.xml` or `xxwiki/…`, and is plain or compressed by gzip or bzip2. `xx` is the
language code. The language that the file itself states is ignored. Articles are the pages of namespace 0 that are not
redirects, including disambiguation pages.
"""

import re
import urllib.parse
from collections.abc import Iterator, Mapping

from filters.formats.characters import normalise_text
from filters.formats.mediawiki import Page, find_cuts, parse_page, read_element, read_frames, read_namespaces
from filters.formats.stored import Stored
from filters.formats.stream import Damage
from filters.reasons import Reason
from filters.wikitext.names import LANGUAGES, OTHER_LANGUAGES, REDIRECTS
from filters.wikitext.render import render_text
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Dropped, Outcome, Piece, byte_range, check_length, cut_pieces

_NAMED = re.compile(r"(?:^|/)([a-z]{2,12}(?:[-_][a-z]{2,12}){0,2})\.?wiki(?=[-_./]|\Z)")
_REDIRECT = re.compile(r"\s{0,64}#\s{0,4}([^\W\d_]{2,20})\s{0,16}:?\s{0,16}\[\[")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)
_UNQUOTED = ";@$!*(),/~:'"  # characters that MediaWiki does not escape in the URL of an article


def detect_language(name: str, recipe: Source) -> str:
    """Return the language of a dump, from the recipe or from the dump's name, or "" if it is unknown."""
    if recipe.wikipedia.language:
        return recipe.wikipedia.language
    for found in reversed(_NAMED.findall(name)):
        code: str = found.replace("_", "-")
        if code in LANGUAGES or code in OTHER_LANGUAGES:
            return code
    return ""


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """Yield the outcome of every page of a dump, or of a piece of a dump."""
    language = detect_language(name, recipe)
    if language not in recipe.wikipedia.languages:
        stop = len(stored) if end is None else end
        detail = "" if language else "the name states no language: set wikipedia.language, or call it xxwiki-….xml.bz2"
        reason = Reason.LANGUAGE if language else Reason.UNSUPPORTED_FORMAT
        yield Outcome(Locator(name, start, stop - start), stop - start, reason=reason, detail=detail)
        return
    namespaces = read_namespaces(stored)
    for frame in read_frames(stored, recipe.limits.record_bytes, start, end):
        place = Locator(name, frame.offset, frame.length, "", frame.inner_offset, frame.inner_length)
        if frame.problem is not None:
            yield Outcome.drop(place, frame.stored, frame)
        else:
            yield _convert_page(frame.data, namespaces, place, frame.stored, language, source, recipe)


def find_pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
    """Cut a plain dump after pages, or a multistream dump before streams that begin with a page.

    Other dumps are one piece.
    """
    return cut_pieces(find_cuts(stored, split_bytes), len(stored))


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the page at a locator again. Raises LookupError if it is not there."""
    file, offset, length, _, inner_offset, inner_length = byte_range(locator)
    element = read_element(stored, offset, length, inner_offset, inner_length)
    if len(element) != inner_length or not (element.startswith(b"<page") and element.rstrip().endswith(b">")):
        raise LookupError(f"{file} has changed since it was read: there is no page at {inner_offset}")
    language = detect_language(file, recipe)
    return _convert_page(element, read_namespaces(stored), locator, length, language, source, recipe)


def _convert_page(
    element: bytes,
    namespaces: Mapping[str, int],
    place: Locator,
    stored: int,
    language: str,
    source: str,
    recipe: Source,
) -> Outcome:
    """Convert the XML element of a page into a document, or return the reason for dropping the page.

    Args:
        element: The element `<page>` in UTF-8.
        namespaces: The numbers of the wiki's namespaces, by prefix of page titles.
        place: The location of the page.
        stored: The number of stored bytes that are attributed to the page.
        language: The language code of the wiki.
        source: The name of the source.
        recipe: The part of the recipe for the source.
    """
    if is_quarantined(place):
        return Outcome(place, stored, reason=Reason.QUARANTINED)
    page = parse_page(element, namespaces)
    if isinstance(page, Damage):
        return Outcome.drop(place, stored, page)
    url = article_url(language, page.title)
    if page.namespace != 0:
        return Outcome(place, stored, reason=Reason.OTHER_NAMESPACE)
    if _is_redirect(page):
        return Outcome(place, stored, reason=Reason.REDIRECT, url=url)
    rules = recipe.wikipedia
    body = normalise_text(
        render_text(page.wikitext, language, page.title, rules.apparatus, tables=rules.tables == "rows")
    )
    text = f"{normalise_text(page.title)}\n\n{body}" if rules.title and body else body
    if damage := check_length(text, recipe) if body else Dropped(Reason.NO_TEXT):
        return Outcome.drop(place, stored, damage, url)
    date = page.timestamp if _DATE.match(page.timestamp) else ""
    metadata = {"page": page.identifier, "revision": page.revision, "language": language, "title": page.title}
    return Outcome(place, stored, Document(source, place, text, url, date, recipe.licence, metadata))


def article_url(language: str, title: str) -> str:
    """Return the URL of an article."""
    return f"https://{language}.wikipedia.org/wiki/{urllib.parse.quote(title.replace(' ', '_'), safe=_UNQUOTED)}"


def _is_redirect(page: Page) -> bool:
    """Return True if the dump marks a page as a redirect, or its first word is a redirect word.

    Old dumps do not mark redirects.
    """
    found = None if page.redirect else _REDIRECT.match(page.wikitext)
    return page.redirect or (found is not None and found[1].lower() in REDIRECTS)
