"""Find the web pages that a Wikipedia article cites: the URL of every external link in its wikitext.

Links are found in footnotes (`<ref>` elements), in templates (`{{cite web|url=...}}`), in brackets, as bare URLs, and
in lists of literature, which are citations too. A link that a template builds from an identifier, such as a DOI, is not
found, because the wikitext does not contain its URL.
"""

import re

from filters.wikitext.names import CODE, LITERAL
from filters.wikitext.render import strip_elements

# Authors use these entities in URLs for characters that have a meaning in wikitext.
ENTITIES = {"&amp;": "&", "&#38;": "&", "&#61;": "=", "&#91;": "[", "&#93;": "]", "&#123;": "{", "&#124;": "|",
            "&#125;": "}"}  # fmt: skip
_ENTITY = re.compile("|".join(ENTITIES))
# A URL ends where an external link ends (MediaWiki, Parser::EXT_LINK_URL_CLASS), or where a template argument ends.
_URL = re.compile(
    r"(?<![\w/])(?:https?:|(?<=(?<!\[)\[)|(?<==))//"
    r"(?:(?!''|&lt;|&gt;|&nbsp;)[^\s\[\]<>\"{}|\x00-\x20\x7f\ufffd])+",
    re.IGNORECASE,
)


def find_cited_urls(wikitext: str) -> list[str]:
    """Return the distinct http(s) URLs that wikitext links to, in the order of their first appearance.

    Links in comments, in nowiki elements and in code are left out. Takes linear time and never raises.
    """
    urls: dict[str, None] = {}
    text = strip_elements(wikitext, LITERAL | CODE)
    for link in _URL.finditer(text):
        url = _ENTITY.sub(lambda entity: ENTITIES[entity.group()], link.group())
        # Punctuation behind a bare URL is not part of the URL (MediaWiki, Parser::makeFreeExternalLink).
        if text[link.start() - 1 : link.start()] != "[":
            url = url.rstrip(",;.:!?" if "(" in url else ",;.:!?)")
        urls[url] = None
    return list(urls)
