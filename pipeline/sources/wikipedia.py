"""Wikipedia: articles of MediaWiki's XML dumps as plain text (LLaMA section 2.1: twenty languages, 2022).

A dump is `xxwiki-….xml`, `xx.wiki.xml` or `xxwiki/…`, plain, gzipped or by bzip2; `xx` is the language, whatever the
names inside say. Articles are the pages of namespace 0 that are no redirects; disambiguation pages are articles.
"""

import itertools
import re
import urllib.parse
from collections.abc import Iterator

from filters.formats.mediawiki import Page, find_cuts, parse_page, read_element, read_frames
from filters.formats.stream import Damage, Stored
from filters.reasons import Reason
from filters.wikitext.names import LANGUAGES, OTHER_LANGUAGES, REDIRECTS
from filters.wikitext.render import render_text
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.sources.base import Outcome

_NAMED = re.compile(r"(?:^|/)([a-z]{2,12}(?:[-_][a-z]{2,12}){0,2})\.?wiki(?=[-_./]|\Z)")
_REDIRECT = re.compile(r"\s{0,64}#\s{0,4}([^\W\d_]{2,20})\s{0,16}:?\s{0,16}\[\[")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)
_UNQUOTED = ";@$!*(),/~:'"
"""characters that MediaWiki leaves as they are in an article's address"""


def language_of(name: str, recipe: Source) -> str:
    """The language of a dump, by the recipe or by its name; empty if neither tells."""
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
    """Every page of a dump, or of one of its `pieces`, in order."""
    language = language_of(name, recipe)
    if language not in recipe.wikipedia.languages:
        stop = len(stored) if end is None else end
        detail = "" if language else "the name tells no language: set wikipedia.language, or call it xxwiki-….xml.bz2"
        reason = Reason.LANGUAGE if language else Reason.UNSUPPORTED_FORMAT
        yield Outcome(Locator(name, start, stop - start), stop - start, reason=reason, detail=detail)
        return
    for frame in read_frames(stored, recipe.limits.record_bytes, start, end):
        place = Locator(name, frame.offset, frame.length, "", frame.inner_offset, frame.inner_length)
        if frame.problem is not None:
            yield Outcome(place, frame.stored, reason=frame.problem, detail=frame.detail)
        else:
            yield _outcome(frame.data, place, frame.stored, language, source, recipe)


def pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[tuple[int, int, int]]:
    """A plain dump is cut behind pages, one of several bzip2 streams before those that begin with a page; all others
    are one piece."""
    places = [0, *find_cuts(stored, split_bytes), len(stored)]
    return [(start, end, 0) for start, end in itertools.pairwise(places)]


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """The page at a locator. Raises LookupError when those bytes hold no page."""
    place = (locator.offset, locator.length, locator.inner_offset, locator.inner_length)
    element = read_element(stored, *place)
    if len(element) != locator.inner_length or not (element.startswith(b"<page") and element.rstrip().endswith(b">")):
        raise LookupError(f"{locator.file} is not the file that was read: there is no page at {locator.inner_offset}")
    return _outcome(element, locator, locator.length, language_of(locator.file, recipe), source, recipe)


def _outcome(element: bytes, place: Locator, stored: int, language: str, source: str, recipe: Source) -> Outcome:
    page = parse_page(element)
    if isinstance(page, Damage):
        return Outcome(place, stored, reason=page.problem, detail=page.detail)
    if page.namespace != 0:
        return Outcome(place, stored, reason=Reason.OTHER_NAMESPACE)
    if _is_redirect(page):
        return Outcome(place, stored, reason=Reason.REDIRECT)
    rules = recipe.wikipedia
    body = render_text(page.wikitext, language, page.title, rules.apparatus)
    text = f"{page.title}\n\n{body}" if rules.title and body else body
    reason = _unwanted(body, text, recipe)
    if reason is not None:
        return Outcome(place, stored, reason=reason)
    date = page.timestamp if _DATE.match(page.timestamp) else ""
    metadata = {"page": page.identifier, "revision": page.revision, "language": language, "title": page.title}
    url = address(language, page.title)
    return Outcome(place, stored, Document(source, place, text, url, date, recipe.licence, metadata))


def address(language: str, title: str) -> str:
    """Where an article is to be read."""
    return f"https://{language}.wikipedia.org/wiki/{urllib.parse.quote(title.replace(' ', '_'), safe=_UNQUOTED)}"


def _is_redirect(page: Page) -> bool:
    """By the dump's own mark, which old ones lack, or by the words that begin the page."""
    found = None if page.redirect else _REDIRECT.match(page.wikitext)
    return page.redirect or (found is not None and found[1].lower() in REDIRECTS)


def _unwanted(body: str, text: str, recipe: Source) -> Reason | None:
    if not body:
        return Reason.NO_TEXT
    if len(text) > recipe.limits.text_characters:
        return Reason.TOO_LARGE
    return Reason.TOO_SHORT if len(text) < recipe.min_characters else None
