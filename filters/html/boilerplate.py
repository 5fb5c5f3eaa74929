"""What a page's own mark-up says is not its text: navigation, comments, share buttons; and where its article is.

All work on the parsed body, by element and by the words in class names and ids, as Readability (Mozilla) and
trafilatura (Barbaresi, ACL 2021) do. Only elements that a few selectors find are looked at one by one: a walk over all
would take longer than the parse.
"""

import re
from functools import lru_cache

from resiliparse.parse.html import ElementNode

UNSEEN = "script:not([src]),style,noscript,template"
SCRIPTLESS = 1_000
"""characters: a longer noscript element is text that its page shows by script"""
APART = (
    "nav,aside,footer,dialog,menu,time,"
    "[role=navigation],[role=contentinfo],[role=complementary],[role=search],[role=dialog]"
)
"""elements that HTML and ARIA define as apart from the main content (WHATWG HTML 4.3, WAI-ARIA landmark roles)"""
ROOTS = frozenset({"main", "article"})
"""no role that an author gives to these takes them out"""

ARTICLES = (
    'article,.hentry,.article,.post,[itemtype$="Article"],[itemtype$="BlogPosting"]',
    "[itemprop=articleBody],.entry-content,.post-content,.article-body,.article-content,.post-body,.story-body,.entry",
    "main,[role=main],#main-content,.main-content,.maincontent",
    "#content,#main",
)
"""where the text of a page is, by falling trust: HTML and schema.org, themes in wide use, landmarks, habit"""
ARTICLE_SHARE = 0.4
"""the least share of the page's text that its article has: teasers are articles, too"""
ARTICLE_LENGTH = 300
"""characters: shorter articles are teasers"""

JUNK = frozenset(
    re.findall(
        r"\S+",
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
        """,
    )
)
"""words that web authors put into the names of what stands around a text"""
CLASS_STEMS = (
    "foot relat recom comment copyright meta byline newsletter subscri ads social shar cookie sidebar tags author "
    "autor bio search"
)
ID_STEMS = "nav comment sidebar author"
"""what the parser looks for, since it can look for parts of names only; `named_junk` decides. Each costs 10 us a page:
names of what elements and blocks give away as well (menus, breadcrumbs, banners) are not among them"""
STATES = tuple(
    re.findall(
        r"\S+", "no- has- with- without- not- is- js- hide- tag- category- cat- post-type type- format- status- col-"
    )
)
"""a class that begins so describes the element's state, layout or subject, not its part in the page"""
DISCUSSION = frozenset({"comments", "commentlist", "respond", "disqus", "replies"})
TEXT_CLASSES = frozenset(
    re.findall(
        r"\S+",
        """
        entry post hentry article content main page story body entry-content post-content article-content article-body
        post-body story-body main-content page-content entry-body articlebody maincontent
        """,
    )
)
"""class names of the text itself: an element that has one stays, whatever else it is called"""
SMALL = 100
"""characters: an element this short is never the text"""
WHOLE_SHARE = 0.3
"""an element with a larger share of the page's text is a wrapper with an unlucky name"""
MOST = 3_000
"""characters: an element with more text, likewise, but for comments"""
DISCUSSION_SHARE = 0.8
"""comments may well be longer than what they are about"""

_NAMED = ",".join(
    [f'[class*="{stem}" i]' for stem in re.findall(r"\S+", CLASS_STEMS)]
    + [f'[id*="{stem}" i]' for stem in re.findall(r"\S+", ID_STEMS)]
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LOWER = re.compile("[a-z]+")


def take_out(body: ElementNode) -> None:
    """Remove from a body what is never shown and what stands apart from the main content by element or role."""
    for element in body.query_selector_all(f"{UNSEEN},{APART}").values():
        name = element.local_name
        if not (name in ROOTS or (name == "noscript" and _length(element) > SCRIPTLESS)):
            element.remove()


def narrow(body: ElementNode) -> bool:
    """Reduce a body to its article, if the mark-up tells where it is; whether it did."""
    least = max(ARTICLE_LENGTH, ARTICLE_SHARE * _length(body))
    for selector in ARTICLES:
        found = body.query_selector_all(selector).values()
        lengths = [_length(element) for element in found]
        longest = max(lengths, default=0)
        if longest >= least:
            body.replace_children(found[lengths.index(longest)])
            return True
    return False


def take_out_named(body: ElementNode) -> None:
    """Remove from a body what is named as boilerplate is, unless it holds much of the text."""
    total = _length(body)
    for element in body.query_selector_all(_NAMED).values():
        classes, name = element.class_name or "", element.id or ""
        if not (named_junk(classes) or named_junk(name)) or element.local_name in ROOTS:
            continue
        if not TEXT_CLASSES.isdisjoint(classes.lower().split()):
            continue
        length = _length(element)
        if length > SMALL and length > min(total * WHOLE_SHARE, MOST):
            discussion = not DISCUSSION.isdisjoint(_LOWER.findall(f"{classes} {name}".lower()))
            if not discussion or length > total * DISCUSSION_SHARE:
                continue
        element.remove()


@lru_cache(maxsize=1 << 14)  # a site's pages share their names
def named_junk(names: str) -> bool:
    """Whether one of an element's class names, or its id, has a word for boilerplate before its first "--" (BEM: what
    follows is a state)."""
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
