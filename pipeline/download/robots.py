"""robots.txt, by RFC 9309: which paths a site lets a program fetch, and how often (`Crawl-delay`, an extension).

Python's own `urllib.robotparser` takes the first rule that matches and no wildcards, so it would fetch pages that
sites exclude by `Disallow: /*.pdf$` or by the longer of two rules.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

MAX_BYTES = 500 << 10  # parsed of a file; RFC 9309, section 2.5, asks for at least 500 KiB
_LINE = re.compile(r"[ \t]*([A-Za-z-]+)[ \t]*:([^#]*)")
_PRODUCT = re.compile(r"[A-Za-z_-]*")  # at the start of a value
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_PLAIN = "!$&'()*+,;=:@/~?"  # not encoded in a path, beside unreserved characters


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules of one site for one program.

    Attributes:
        rules: pairs of a pattern of paths and whether it allows them.
        delay: seconds between two requests; 0 without `Crawl-delay`.
    """

    rules: tuple[tuple[str, bool], ...] = ()
    delay: float = 0.0

    def allows(self, url: str) -> bool:
        """Return True if the rule with the longest matching pattern allows a URL, or none matches (section 2.2.2)."""
        parts = urlsplit(url)
        path = _encode(parts.path or "/") + (f"?{_encode(parts.query)}" if parts.query else "")
        found = [(len(pattern), allowed) for pattern, allowed in self.rules if _matches(pattern, path)]
        return path == "/robots.txt" or max(found, default=(0, True))[1]


def parse_robots(data: bytes, product: str) -> Robots:
    """Return a file's rules for a product token: of all groups that name it, else of those for `*`.

    Malformed lines, and lines that the standard does not define, are ignored.
    """
    groups: dict[str, list[tuple[str, bool]]] = {}
    delays: dict[str, float] = {}
    names: list[str] = []
    in_rules = False  # a user-agent line after rules begins another group
    for line in re.split(r"\r\n?|\n", data[:MAX_BYTES].decode("utf-8", "replace").removeprefix("\ufeff")):
        match = _LINE.match(line)
        if not match:
            continue
        key, value = match[1].lower(), match[2].strip()
        if key == "user-agent":
            names, in_rules = ([] if in_rules else names), False
            name = "*" if value.startswith("*") else _PRODUCT.findall(value)[0].lower()
            names.append(name)
            groups.setdefault(name, [])
        elif key in ("allow", "disallow", "crawl-delay"):
            in_rules = True
            for name in names:
                if key == "crawl-delay":
                    delays[name] = max(delays.get(name, 0.0), float(value) if _SECONDS.fullmatch(value) else 0.0)
                elif value:  # an empty pattern matches nothing
                    groups[name].append((_encode(value), key == "allow"))
    mine = product.lower() if product.lower() in groups else "*"
    return Robots(tuple(groups.get(mine, ())), delays.get(mine, 0.0))


def _encode(text: str) -> str:
    """Return a path with each character encoded that must be, and no other, so that both sides compare as text.

    An encoded `*`, `$` or reserved character stays encoded: it is not the character itself (section 2.2.3).
    """
    parts = re.split(r"((?:%[0-9A-Fa-f]{2})+)", text)
    encoded = (quote(unquote_to_bytes(part), safe="~") if number % 2 else quote(part, safe=_PLAIN)
               for number, part in enumerate(parts))  # fmt: skip
    return "".join(encoded)


def _matches(pattern: str, path: str) -> bool:
    """Return True if a pattern with wildcards (`*`; `$` at its end) matches the start of a path, in linear time."""
    whole = pattern.endswith("$")
    first, *pieces = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if whole and not pieces:
        return path == first
    position = len(first)
    last = pieces.pop() if whole else ""
    for piece in pieces:
        found = path.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return not whole or (len(path) - len(last) >= position and path.endswith(last))
