"""Provide the names that have a meaning in wikitext: languages, namespaces, redirects, elements and headings.

The table names.tsv lists them in lower case by table and language (`*`: all). Those of namespaces and redirects are
from MediaWiki's message files for the twenty languages of LLaMA's Wikipedia (section 2.1), with older names that pages
still use.
"""

from filters.data_files import merge_items, read_lists

DATA_FILES = ("names.tsv",)  # part of the code version of a step
_TABLES = read_lists("filters.wikitext", "names.tsv")


LANGUAGES = tuple(_TABLES["wikipedia"]["*"])  # codes of LLaMA's twenty (section 2.1)
OTHER_LANGUAGES = merge_items(_TABLES["other wikipedia"])  # codes of others, past ones too: prefixes of links
FILES = merge_items(_TABLES["file namespace"])  # links to these show a picture or a player, with a caption
CATEGORIES = merge_items(_TABLES["category namespace"])
REDIRECTS = merge_items(_TABLES["redirect word"])  # behind #, at the start of a page that only leads to another
LITERAL = merge_items(_TABLES["literal element"])  # content is text without markup
FORMULAS = merge_items(_TABLES["formula element"])  # content is TeX
LISTINGS = merge_items(_TABLES["listing element"])  # content is shown with every blank
CODE = FORMULAS | LISTINGS | merge_items(_TABLES["foreign element"])  # content is in another language than wikitext
ASIDE = merge_items(_TABLES["aside element"])  # not part of the running text
LINES = merge_items(_TABLES["line element"])  # a line breaks before and after
TAGS = LINES | merge_items(_TABLES["inline element"])  # all of wikitext; anything else between angle brackets is text
# Headings of sections with notes, links and literature, by language. They count at the first and second level only: a
# section on a country's literature is below one on its culture.
APPARATUS = {language: frozenset(names) for language, names in _TABLES["apparatus heading"].items()}
