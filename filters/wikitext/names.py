"""Load the names that have a meaning in wikitext: languages, namespaces, redirects, elements and headings.

The file names.tsv lists the names in lower case by table and language (`*`: all languages). The names of namespaces and
redirects are from MediaWiki's message files for the twenty Wikipedia languages of LLaMA (section 2.1). Older names that
pages still use are included.
"""

from filters.data_files import merge_items, read_lists

DATA_FILES = ("names.tsv",)  # The cache keys of steps that use this module contain the hashes of these files.
_TABLES = read_lists("filters.wikitext", "names.tsv")


LANGUAGES = tuple(_TABLES["wikipedia"]["*"])  # codes of LLaMA's twenty languages (section 2.1)
# Codes of all other Wikipedias, including closed ones. Links to pages in these languages begin with such a code.
OTHER_LANGUAGES = merge_items(_TABLES["other wikipedia"])
FILES = merge_items(_TABLES["file namespace"])  # links to these namespaces show a picture or a player, with a caption
CATEGORIES = merge_items(_TABLES["category namespace"])
REDIRECTS = merge_items(_TABLES["redirect word"])  # a page that begins with "#" and such a word redirects to another
LITERAL = merge_items(_TABLES["literal element"])  # content is text without markup
FORMULAS = merge_items(_TABLES["formula element"])  # content is TeX
LISTINGS = merge_items(_TABLES["listing element"])  # content is shown with every blank
CODE = FORMULAS | LISTINGS | merge_items(_TABLES["foreign element"])  # content is in another language than wikitext
ASIDE = merge_items(_TABLES["aside element"])  # not part of the running text
LINES = merge_items(_TABLES["line element"])  # a line break precedes and follows the element
TAGS = LINES | merge_items(_TABLES["inline element"])  # all elements of wikitext; any other tag is text
# Headings of sections with notes, links and literature, by language. They are matched at levels 1 and 2 only, because
# an article on a country may have a section "Literature" at a lower level, below the section "Culture".

APPARATUS = {language: frozenset(names) for language, names in _TABLES["apparatus heading"].items()}
