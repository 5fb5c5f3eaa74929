"""The list that `remove` is given: what is to go, one a line.

A line is a whole URL (with `://`), a document id (32 hexadecimal digits), a repository on GitHub (`owner/name`, or with
`github.com/` before it), or a domain (`domain:example.org`, or the bare host), which stands for its subdomains as well.
Empty lines and lines that begin with `#` say nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filters.errors import UserError
from manifests.display import safe_line, shorten
from manifests.files import sha256_bytes

Kind = Literal["url", "document", "domain", "repository"]

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S+")
_ID = re.compile(r"[0-9a-f]{32}")
_REPOSITORY = re.compile(r"(?:github\.com/)?([a-z0-9][a-z0-9-]{0,38}/[a-z0-9._-]{1,100})/?")
"""GitHub's own rules for the names of owners and repositories"""
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{1,62}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-f:.]{2,45}\]")


@dataclass(slots=True)
class RemovalList:
    """What is to go: by kind, each entry with the number of the line that says so first. `sha256`: of the file."""

    sha256: str
    entries: dict[Kind, dict[str, int]] = field(
        default_factory=lambda: {"url": {}, "document": {}, "domain": {}, "repository": {}}
    )

    def __len__(self) -> int:
        return sum(len(entries) for entries in self.entries.values())


def read_removal_list(path: Path) -> RemovalList:
    """Read a list. Raises UserError for one that cannot be read, and by its number for a line that is none of these."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--list {path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--list {path}, line {data.count(10, 0, error.start) + 1}: not UTF-8: save it as such"
        ) from error
    found = RemovalList(sha256_bytes(data))
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            parsed = parse_line(entry)
            if parsed is None:
                said = safe_line(shorten(entry, 60))
                raise UserError(
                    f"--list {path}, line {number}: {said!r} is none of URL (with ://), domain, owner/name, document id"
                )
            kind, value = parsed
            found.entries[kind].setdefault(value, number)
    return found


def parse_line(entry: str) -> tuple[Kind, str] | None:
    """What a line stands for, as it is looked for: URLs as they are, all else in lower case; None for none of these."""
    if _URL.fullmatch(entry):
        return "url", entry
    lower = entry.lower()
    if _ID.fullmatch(lower):
        return "document", lower
    if lower.startswith("domain:"):
        host = _host(lower.removeprefix("domain:").strip())
        return ("domain", host) if host else None
    if repository := _REPOSITORY.fullmatch(lower):
        return "repository", repository[1].removesuffix(".git")
    return ("domain", host) if (host := _host(lower)) else None


def parent_domains(host: str) -> Iterable[str]:
    """A host and all domains that it is in, from the inside out."""
    while host:
        yield host
        host = host.partition(".")[2]


def _host(text: str) -> str:
    """A host in the form that URLs have it: internationalised names in Punycode (RFC 5891), no dot at the end."""
    try:
        host = text.rstrip(".").encode("idna").decode()
    except UnicodeError:
        return ""
    return host if _HOST.fullmatch(host) else ""
