"""Generate encyclopaedia articles about places and things that do not exist from sentence patterns.

In a pattern, `(a|b|c)` is replaced by one of its alternatives, and `$name` by a random name or number. Each file in
`patterns/*.txt` has the patterns of one kind of article.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

PATTERNS = Path(__file__).parent / "patterns"
CHOICE = re.compile(r"\(([^()]*)\)")
SLOT = re.compile(r"\$([a-z]+)")
FIRST = "Alder Ash Barn Bram Brock Cold Copper Crow Dun East Elder Fair Fen Hazel High Kings Lang Low Marl Mill Oak"
LAST = "beck bourne bridge bury combe dale field ford gate ham hurst ley march mere mouth ridge stead stoke thorpe wick"
GIVEN = "Ada Agnes Albert Alice Anselm Bertha Cecil Clara Edith Edmund Elsie Ernest Esther Flora Gilbert Greta Hester"
FAMILY = "Abbott Archer Baxter Brewer Carver Chandler Cooper Glover Hooper Joiner Mason Mercer Potter Sadler Slater"
PARTS = (
    "block chunk column cursor frame header journal key lease ledger message node packet page queue record ring schema"
    " segment signal snapshot stream table tag task token trace tree worker"
)
ROLES = "buffer cache counter filter index list log map merger pool reader router sorter store table tree view writer"
ITEMS = "event field item letter line order parcel point price reading record row symbol ticket value visit word"
VERBS = "check copy count cut dump fetch find join list merge move pack pick scan send show sort split sum trim"
THINGS = "blocks columns days fields files frames keys lines logs pages parts rows runs tables tags times words"
RIVERS = "Anner Brede Calder Dove Eller Fenny Garrow Hodder Inny Kenner Leven Marden Nadder Orrin Perry Rother Tarrow"
WORDS = {
    "place": [first + last for first in FIRST.split() for last in LAST.split()],
    "person": [f"{given} {family}" for given in GIVEN.split() for family in FAMILY.split()],
    "river": RIVERS.split(),
    "part": [f"{first} {last}" for first in PARTS.split() for last in ROLES.split() if first != last],
    "item": ITEMS.split(),
    "tool": [f"{verb}-{thing}" for verb in VERBS.split() for thing in THINGS.split()],
}
NUMBERS = {"year": (1640, 1990), "small": (3, 19), "large": (120, 4800), "late": (1991, 2019)}


@dataclass(frozen=True)
class Entry:
    """An article.

    Attributes:
        title: The title.
        kind: The name of the file of patterns.
        sections: (heading, paragraphs) of each section.
    """

    title: str
    kind: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]


def entries(count: int) -> list[Entry]:
    """Return `count` articles with different titles. The kinds of articles alternate."""
    files, out, taken = sorted(PATTERNS.glob("*.txt")), list[Entry](), set[str]()
    for number in range(count):
        file = files[number % len(files)]
        chance = random.Random(f"gazetteer {number}")
        title_pattern, *parts = file.read_text("utf-8").strip().split("\n\n")
        title = fill_pattern(title_pattern, chance, {})
        while title in taken:
            title = fill_pattern(title_pattern, chance, {})
        taken.add(title)
        out.append(Entry(title, file.stem, tuple(sections(parts, chance, {"title": title}))))
    return out


def sections(parts: list[str], chance: random.Random, known: dict[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (heading, paragraphs) of each section. Headings are lines of the form `== Heading ==` in the patterns.

    The first sentence of a paragraph is always used. One in six of the other sentences is left out.

    Args:
        parts: The patterns of the headings and paragraphs. A paragraph has one sentence per line.
        chance: The random number generator.
        known: The values of slots for `fill_pattern`.
    """
    out = list[tuple[str, list[str]]]([("", [])])
    for part in parts:
        if part.startswith("=="):
            out.append((part.strip("= \n"), []))
            continue
        first, *rest = part.split("\n")
        chosen = [first, *(line for line in rest if chance.random() > 1 / 6)]
        out[-1][1].append(" ".join(fill_pattern(line, chance, known) for line in chosen))
    return [(heading, tuple(paragraphs)) for heading, paragraphs in out]


def fill_pattern(pattern: str, chance: random.Random, known: dict[str, str]) -> str:
    """Return a sentence in which alternatives are chosen and slots are filled.

    Args:
        pattern: The pattern of the sentence.
        chance: The random number generator.
        known: Values of slots by name. The function adds the values of slots whose name ends in an additional letter,
            such as `$persona`, so that all sentences of an article use the same value.
    """
    while choice := CHOICE.search(pattern):
        pattern = pattern[: choice.start()] + chance.choice(choice[1].split("|")) + pattern[choice.end() :]

    def fill(slot: re.Match[str]) -> str:
        name = slot[1]
        if name in known:
            return known[name]
        base = name if name in WORDS or name in NUMBERS else name[:-1]
        made = str(chance.randint(*NUMBERS[base])) if base in NUMBERS else chance.choice(WORDS[base])
        if base != name:
            known[name] = made
        return made

    return SLOT.sub(fill, pattern)
