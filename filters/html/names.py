"""Read what the name, class, id, role and schema.org property of an element say about its part in a page.

The table names.tsv groups `element` names, `word`s of class names and ids, whole class `name`s that themes use for
the text, and the values of `schema` (schema.org types and properties, ARIA roles). A group is a bit: the names of an
element are an integer. What a group is worth as evidence is not said here, but in the weights. A `label` is a part of a
short line that says what follows it.
"""

import re
from functools import lru_cache

from filters.data_files import read_lists

DATA_FILES = ("names.tsv",)  # part of the code version of a step
_TABLE = read_lists("filters.html", "names.tsv")
LABELS = _TABLE["label"]
GROUPS = tuple(
    dict.fromkeys(f"{kind}_{group}" for kind in ("element", "word", "name", "schema") for group in _TABLE[kind])
)
BITS = {group: 1 << number for number, group in enumerate(GROUPS)}
# A class with such a prefix describes the element's state, layout or subject, not its part in the page.
STATES = tuple(
    "no- has- with- without- not- is- js- hide- tag- category- cat- post-type type- format- status- col-".split()
)
HIDDEN = BITS["word_hidden"]

_NAMED = ("class", "id")
_TYPED = ("role", "itemprop", "itemtype")
_ATTRIBUTES = re.compile(r'(?:^| )(class|id|role|itemprop|itemtype|style|hidden|aria-hidden)="([^"]*)"')
_WORDS = re.compile("[a-z]+")


def _bits(kind: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for group, words in _TABLE[kind].items():
        for word in words:
            found[word] = found.get(word, 0) | BITS[f"{kind}_{group}"]
    return found


ELEMENTS, _WORD_BITS, _NAME_BITS, _SCHEMA_BITS = (_bits(kind) for kind in ("element", "word", "name", "schema"))


@lru_cache(maxsize=1 << 14)  # the pages of a site share their names
def read_names(attributes: str) -> int:
    """Return the groups that the serialised attributes of an element belong to, as bits."""
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


@lru_cache(maxsize=1 << 14)  # sites share many names
def _read_name(name: str) -> int:
    """Return the groups of a class name or id and of its words before the first "--": after it, BEM names a state."""
    bits = _NAME_BITS.get(name, 0)
    if not name.startswith(STATES):
        for word in _WORDS.findall(name.partition("--")[0]):
            bits |= _WORD_BITS.get(word, 0)
    return bits
