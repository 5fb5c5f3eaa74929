"""The web pages that a Wikipedia article cites: every external link of its wikitext.

They stand in footnotes (`<ref>` with any attributes, over any number of lines), in templates (`{{cite web|url=...}}`),
in brackets and bare; and in lists of literature, which cite as well. Links that templates make of an identifier (a DOI,
say) are not followed.
"""

import re

from filters.wikitext.names import CODE, LITERAL
from filters.wikitext.render import without

ENTITIES = {
    "&amp;": "&",
    "&#38;": "&",
    "&#61;": "=",
    "&#91;": "[",
    "&#93;": "]",
    "&#123;": "{",
    "&#124;": "|",
    "&#125;": "}",
}
"""how characters are written in URLs that mean something in wikitext"""
_ENTITY = re.compile("|".join(ENTITIES))
_URL = re.compile(
    r"(?<![\w/])(?:https?:|(?<=(?<!\[)\[)|(?<==))//"
    r"(?:(?!''|&lt;|&gt;|&nbsp;)[^\s\[\]<>\"{}|\x00-\x20\x7f\ufffd])++",
    re.IGNORECASE,
)
"""up to what ends an external link (MediaWiki, Parser::EXT_LINK_URL_CLASS), or a template's argument"""


def references(wikitext: str) -> list[str]:
    """The http(s) URLs that wikitext links to, each once, in the order of their first appearance; without what stands
    in comments, nowiki and code. Takes linear time and never raises."""
    found: dict[str, None] = {}
    text = without(wikitext, LITERAL | CODE)
    for link in _URL.finditer(text):
        url = _ENTITY.sub(lambda entity: ENTITIES[entity.group()], link.group())
        found[url if text[link.start() - 1 : link.start()] == "[" else _bare(url)] = None
    return list(found)


def _bare(url: str) -> str:
    """A URL without the punctuation behind it (MediaWiki, Parser::makeFreeExternalLink)."""
    return url.rstrip(",;.:!?" if "(" in url else ",;.:!?)")
