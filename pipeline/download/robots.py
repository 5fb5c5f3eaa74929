"""Parse robots.txt files (RFC 9309), which state the paths that a program may request, and `Crawl-delay`.

`Crawl-delay` is an extension of the standard. Python's own `urllib.robotparser` uses the first rule that matches, and
it does not support wildcards. So it would allow pages that a site excludes with `Disallow: /*.pdf$`, or with the longer
of two rules.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

MAX_BYTES = 500 << 10  # bytes that are parsed; RFC 9309, section 2.5, requires at least 500 KiB
_LINE = re.compile(r"[ \t]*([A-Za-z-]+)[ \t]*:([^#]*)")
_PRODUCT = re.compile(r"[A-Za-z_-]*")  # at the start of a value
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_PLAIN = "!$&'()*+,;=:@/~?"  # characters of a path that are not encoded, in addition to unreserved characters


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules of one site for one program.

    Attributes:
        rules: pairs of a pattern of paths, and True if the paths are allowed or False if they are excluded.
        delay: seconds between two requests; 0 if there is no `Crawl-delay`.
    """

    rules: tuple[tuple[str, bool], ...] = ()
    delay: float = 0.0

    def allows(self, url: str) -> bool:
        """Return True if a URL may be requested (section 2.2.2).

        The rule with the longest matching pattern decides. If no rule matches, the URL is allowed.
        """
        parts = urlsplit(url)
        path = _encode(parts.path or "/") + (f"?{_encode(parts.query)}" if parts.query else "")
        found = [(len(pattern), allowed) for pattern, allowed in self.rules if _matches(pattern, path)]
        return path == "/robots.txt" or max(found, default=(0, True))[1]


def parse_robots(data: bytes, product: str) -> Robots:
    """Parse a robots.txt file and return the rules for a program.

    These are the rules of all groups that name the program, or else of all groups for `*`. Malformed lines, and lines
    that the standard does not define, are ignored.

    Args:
        data: the file.
        product: name of the program.
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
    """Normalise the percent-encoding of a path or pattern, so that paths and patterns can be compared as text.

    Only characters that must be encoded are encoded. An encoded `*`, `$` or reserved character stays encoded, because
    it differs from the character itself (section 2.2.3).
    """
    parts = re.split(r"((?:%[0-9A-Fa-f]{2})+)", text)
    encoded = (quote(unquote_to_bytes(part), safe="~") if number % 2 else quote(part, safe=_PLAIN)
               for number, part in enumerate(parts))  # fmt: skip
    return "".join(encoded)


def _matches(pattern: str, path: str) -> bool:
    """Return True if a pattern matches the start of a path.

    `*` in the pattern matches any characters; `$` at its end matches the end of the path. This takes linear time.
    """
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
