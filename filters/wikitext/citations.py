"""Find the web pages that a Wikipedia article cites: every external link of its wikitext.

Links are in footnotes (`<ref>` with any attributes, over any number of lines), in templates (`{{cite web|url=...}}`),
in brackets and bare, and in lists of literature, which cite as well. Links that a template builds from an identifier
(such as a DOI) are not followed.
"""

import re

from filters.wikitext.names import CODE, LITERAL
from filters.wikitext.render import strip_elements

# In URLs, these represent characters that have a meaning in wikitext.
ENTITIES = {"&amp;": "&", "&#38;": "&", "&#61;": "=", "&#91;": "[", "&#93;": "]", "&#123;": "{", "&#124;": "|",
            "&#125;": "}"}  # fmt: skip
_ENTITY = re.compile("|".join(ENTITIES))
_URL = re.compile(  # up to the end of an external link (MediaWiki, Parser::EXT_LINK_URL_CLASS) or of an argument
    r"(?<![\w/])(?:https?:|(?<=(?<!\[)\[)|(?<==))//"
    r"(?:(?!''|&lt;|&gt;|&nbsp;)[^\s\[\]<>\"{}|\x00-\x20\x7f\ufffd])+",
    re.IGNORECASE,
)


def find_cited_urls(wikitext: str) -> list[str]:
    """Return the distinct http(s) URLs that wikitext links to, in the order of their first appearance.

    Links in comments, nowiki and code are left out. Takes linear time and never raises.
    """
    urls: dict[str, None] = {}
    text = strip_elements(wikitext, LITERAL | CODE)
    for link in _URL.finditer(text):
        url = _ENTITY.sub(lambda entity: ENTITIES[entity.group()], link.group())
        if text[link.start() - 1 : link.start()] != "[":  # bare (MediaWiki, Parser::makeFreeExternalLink)
            url = url.rstrip(",;.:!?" if "(" in url else ",;.:!?)")
        urls[url] = None
    return list(urls)
