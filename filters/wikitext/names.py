"""Provide the names that have a meaning in wikitext: languages, namespaces, redirects, elements and headings.

The table names.tsv lists them in lower case by table and language (`*`: all). Those of namespaces and redirects are
from MediaWiki's message files for the twenty languages of LLaMA's Wikipedia (section 2.1), with older names that pages
still use.
"""

from filters.data_files import read_lists

DATA_FILES = ("names.tsv",)  # part of the code version of a step
_TABLES = read_lists("filters.wikitext", "names.tsv")


def _names(table: str) -> frozenset[str]:
    return frozenset(name for names in _TABLES[table].values() for name in names)


LANGUAGES = tuple(_TABLES["wikipedia"]["*"])  # codes of LLaMA's twenty (section 2.1)
OTHER_LANGUAGES = _names("other wikipedia")  # codes of the rest, past ones too: prefixes of links to the same article
FILES = _names("file namespace")  # links to these show a picture or a player, with a caption
CATEGORIES = _names("category namespace")
REDIRECTS = _names("redirect word")  # behind #, at the start of a page that only leads to another
LITERAL = _names("literal element")  # content is text without markup
FORMULAS = _names("formula element")  # content is TeX
LISTINGS = _names("listing element")  # content is shown with every blank
CODE = FORMULAS | LISTINGS | _names("foreign element")  # content is in another language than wikitext
ASIDE = _names("aside element")  # not part of the running text
LINES = _names("line element")  # a line breaks before and after
TAGS = LINES | _names("inline element")  # all of wikitext; anything else between angle brackets is text
# Headings of sections with notes, links and literature, by language. They count at the first and second level only: a
# section on a country's literature is below one on its culture.
APPARATUS = {language: frozenset(names) for language, names in _TABLES["apparatus heading"].items()}
