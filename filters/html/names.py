"""Map the name, class, id, role and schema.org property of an element to groups such as "menu" or "article".

The table names.tsv lists the groups. Its column `kind` is the type of the words: `element` is an element name, `word`
is a word in a class name or id, `name` is a whole class name that themes use for the text, and `schema` is a schema.org
type or property or an ARIA role. Each group is a bit, so the groups of an element are an integer. The weights of the
groups are in weights.tsv.

The kind `label` is different: it lists parts of short lines that announce what follows, such as comments.
"""

import re
from functools import lru_cache

from filters.data_files import read_lists

DATA_FILES = ("names.tsv",)  # The cache keys of steps that use this module contain the hashes of these files.
_TABLE = read_lists("filters.html", "names.tsv")
LABELS = _TABLE["label"]
GROUPS = tuple(
    dict.fromkeys(f"{kind}_{group}" for kind in ("element", "word", "name", "schema") for group in _TABLE[kind])
)
BITS = {group: 1 << number for number, group in enumerate(GROUPS)}
# Class names with these prefixes describe the state, layout or subject of an element, not its function in the page.
STATES = tuple(
    "no- has- with- without- not- is- js- hide- tag- category- cat- post-type type- format- status- col-".split()
)
HIDDEN = BITS["word_hidden"]

_NAMED = ("class", "id")
_TYPED = ("role", "itemprop", "itemtype")
_ATTRIBUTES = re.compile(r'(?:^| )(class|id|role|itemprop|itemtype|style|hidden|aria-hidden)="([^"]*)"')
_WORDS = re.compile("[a-z]+")


def _read_bits(kind: str) -> dict[str, int]:
    """Return a dict from each word of a kind to the bits of its groups."""
    found: dict[str, int] = {}
    for group, words in _TABLE[kind].items():
        for word in words:
            found[word] = found.get(word, 0) | BITS[f"{kind}_{group}"]
    return found


ELEMENTS, _WORD_BITS, _NAME_BITS, _SCHEMA_BITS = (_read_bits(kind) for kind in ("element", "word", "name", "schema"))


@lru_cache(maxsize=1 << 14)  # The pages of a site use the same attributes.
def read_names(attributes: str) -> int:
    """Return the groups of an element's serialised attributes, as bits."""
    bits = 0
    alone = attributes.startswith('class="') and attributes.count('"') == 2
    for key, value in [("class", attributes[7:-1])] if alone else _ATTRIBUTES.findall(attributes):
        value = value.lower()
        if key in _NAMED:
            for name in value.split():
                bits |= _read_name(name)
        elif key in _TYPED:
            bits |= _SCHEMA_BITS.get(value.rpartition("/")[2], 0)
        elif key == "hidden" or value == "true" or "display:none" in value.replace(" ", ""):
            bits |= HIDDEN
    return bits


@lru_cache(maxsize=1 << 14)  # Many sites use the same names.
def _read_name(name: str) -> int:
    """Return the groups of a class name or id, and of its words before the first "--", as bits.

    In the naming convention BEM, the part after "--" is a state or variant.
    """
    bits = _NAME_BITS.get(name, 0)
    if not name.startswith(STATES):
        for word in _WORDS.findall(name.partition("--")[0]):
            bits |= _WORD_BITS.get(word, 0)
    return bits
