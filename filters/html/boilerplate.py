"""Remove the boilerplate that a page's own markup names (navigation, comments, share buttons), and find its article.

All work on the parsed body, by element and by the words in class names and ids, as Readability (Mozilla) and
trafilatura (Barbaresi, ACL 2021) do. Only elements that a few selectors find are looked at one by one: a walk over all
would take longer than the parse.
"""

import re
from functools import lru_cache

from resiliparse.parse.html import ElementNode

UNSEEN = "script:not([src]),style,noscript,template"
SCRIPTLESS_LENGTH = 1_000  # characters: a longer noscript element is text that its page shows by script
APART = (  # elements that HTML and ARIA set apart from the main content (WHATWG HTML 4.3, WAI-ARIA landmark roles)
    "nav,aside,footer,dialog,menu,time,"
    "[role=navigation],[role=contentinfo],[role=complementary],[role=search],[role=dialog]"
)
ROOTS = frozenset({"main", "article"})  # always stay, whatever role or name their author gave them

ARTICLES = (  # selectors of a page's text, by falling trust: HTML and schema.org, themes in wide use, landmarks, habit
    'article,.hentry,.article,.post,[itemtype$="Article"],[itemtype$="BlogPosting"]',
    "[itemprop=articleBody],.entry-content,.post-content,.article-body,.article-content,.post-body,.story-body,.entry",
    "main,[role=main],#main-content,.main-content,.maincontent",
    "#content,#main",
)
ARTICLE_SHARE = 0.4  # the least share of the page's text that its article has, since teasers are articles too
ARTICLE_LENGTH = 300  # characters: shorter articles are teasers

JUNK = frozenset(  # words that web authors put into the names of what surrounds a text
    """
    footer colophon masthead breadcrumb breadcrumbs crumbs pagination navigation nav menu submenu mainmenu navbar
    related relatedposts relatedlinks recommended recommendations recommendation recirc recirculation trending
    linklist outbrain taboola promo promos readmore teaserlist tagged subnav
    comments commentlist commentform commentlink respond disqus replies
    copyright disclaimer meta metadata byline vcard credits
    newsletter subscribe subscription subscribebox signup register registration
    ad ads adv advert advertisement adsense adbox bannerad banner skyscraper mpu sponsored cta affiliate
    social socialmedia share sharing shares sharebar sharebox sharedaddy sharethis addthis addtoany likes
    cookie cookies consent borlabs privacy lightbox popup modal tooltip search
    sidebar leftrail rightrail aside widgettitle
    tags taglist tagcloud keywords hashtags categories taxonomy rating ratings schlagworte
    author authors autor authorbox authorbio bio biography profile noprint notforprint
    """.split()
)
# The parser can search for parts of names only, so these select candidates and `is_junk_name` decides. Each costs 10 us
# a page: names of elements that other rules remove as well (menus, breadcrumbs, banners) are not among them.
CLASS_STEMS = (
    "foot relat recom comment copyright meta byline newsletter subscri ads social shar cookie sidebar tags author "
    "autor bio search"
).split()
ID_STEMS = "nav comment sidebar author".split()
STATES = tuple(  # a class with such a prefix describes the element's state, layout or subject, not its part in the page
    "no- has- with- without- not- is- js- hide- tag- category- cat- post-type type- format- status- col-".split()
)
DISCUSSION = frozenset({"comments", "commentlist", "respond", "disqus", "replies"})
TEXT_CLASSES = frozenset(  # class names of the text itself: an element with one of these always stays
    """
    entry post hentry article content main page story body entry-content post-content article-content article-body
    post-body story-body main-content page-content entry-body articlebody maincontent
    """.split()
)
SMALL_LENGTH = 100  # characters: an element this short is never the text
WRAPPER_SHARE = 0.3  # an element with a larger share of the page's text is a wrapper with an unlucky name
WRAPPER_LENGTH = 3_000  # characters: so is an element with more text, except comments
DISCUSSION_SHARE = 0.8  # the share of a page's text that comments may have, which can be longer than what they discuss

_NAMED = ",".join([f'[class*="{stem}" i]' for stem in CLASS_STEMS] + [f'[id*="{stem}" i]' for stem in ID_STEMS])
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LOWER = re.compile("[a-z]+")


def remove_apart(body: ElementNode) -> None:
    """Remove elements that browsers never show, and those whose name or role sets them apart from the main content."""
    for element in body.query_selector_all(f"{UNSEEN},{APART}").values():
        name = element.local_name
        if not (name in ROOTS or (name == "noscript" and _length(element) > SCRIPTLESS_LENGTH)):
            element.remove()


def narrow_to_article(body: ElementNode) -> bool:
    """Reduce a body to its article and return True, if the markup names an article that is large enough."""
    least = max(ARTICLE_LENGTH, ARTICLE_SHARE * _length(body))
    for selector in ARTICLES:
        elements = body.query_selector_all(selector).values()
        lengths = [_length(element) for element in elements]
        longest = max(lengths, default=0)
        if longest >= least:
            body.replace_children(elements[lengths.index(longest)])
            return True
    return False


def remove_junk(body: ElementNode) -> None:
    """Remove the elements with names of boilerplate, unless they hold much of the text."""
    total = _length(body)
    for element in body.query_selector_all(_NAMED).values():
        classes, name = element.class_name or "", element.id or ""
        if not (is_junk_name(classes) or is_junk_name(name)) or element.local_name in ROOTS:
            continue
        if not TEXT_CLASSES.isdisjoint(classes.lower().split()):
            continue
        length = _length(element)
        if length > SMALL_LENGTH and length > min(total * WRAPPER_SHARE, WRAPPER_LENGTH):
            discussion = not DISCUSSION.isdisjoint(_LOWER.findall(f"{classes} {name}".lower()))
            if not discussion or length > total * DISCUSSION_SHARE:
                continue
        element.remove()


@lru_cache(maxsize=1 << 14)  # the pages of a site share their names
def is_junk_name(names: str) -> bool:
    """Return True if one of an element's class names, or its id, has a word for boilerplate before its first "--".

    In the naming scheme BEM the part after "--" is a state.
    """
    for name in names.split():
        stem = name.partition("--")[0]
        lower = stem.lower()
        if lower.startswith(STATES):
            continue
        if not JUNK.isdisjoint(_LOWER.findall(lower)):
            return True
        if stem != lower and not JUNK.isdisjoint(word.lower() for word in _WORDS.findall(stem)):
            return True
    return False


def _length(element: ElementNode) -> int:
    return len(element.text_content or "")
