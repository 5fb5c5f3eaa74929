"""The rule `blocklist`: lists of blocked domains and URLs, such as the UT1 lists of the University of Toulouse.

There are three kinds of patterns:
- a domain, such as `example.com`, blocks this domain and its subdomains. `*.example.com` and `.example.com` mean the
  same;
- a host with a path, such as `example.com/forum`, blocks this path and all paths below it (by whole segments) on this
  host, with or without "www.";
- a host with a path and a query blocks exactly this path with this query.

Hosts and paths are normalised as in the URL standard (https://url.spec.whatwg.org) before they are compared: case, IDN
to punycode (IDNA 2003), percent-encoding, dot segments. Scheme, user, port and fragment are ignored.

A list is stored as sorted 64-bit hashes, 8 bytes per pattern. A URL takes one look-up for each parent domain. With ten
billion pages and five million patterns, about 0.01 pages are expected to be blocked by a hash collision.
"""

import gzip
import io
import ipaddress
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from encodings import idna
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

import numpy as np
import xxhash
from pydantic import Field

from filters.errors import UserError
from filters.loaded_files import keep_loaded
from filters.reasons import AnyReason, Reason
from filters.rule import ExtractRule, Record

MAX_LINE_BYTES = 4096
# Characters of a host as written in a URL. A host has up to 253 octets (RFC 1035, section 2.3.4), which take 759
# characters if all of them are percent-encoded.
MAX_HOST_CHARACTERS = 4096
MAX_DOMAIN_CHARACTERS = 253
MAX_SEGMENTS = 32  # Segments in the path of a pattern. It limits the number of look-ups per URL.

_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2}")
_END_OF_HOST = re.compile(r"[/?\\]")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # full stops of IDNA (RFC 3490, section 3.1)
_FORBIDDEN = re.compile(r"[\x00-\x20#/:<>?@\[\\\]^|%\x7f]")  # forbidden in a host (URL standard, section 3.2)
_IPV6 = re.compile(r"\[[0-9a-f:.]{2,45}\]")
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,126}")
_KEPT = "".join(map(chr, range(128))).translate({ord(character): None for character in "%/?#\\"})
_SPACES = "".join(map(chr, range(33)))


@dataclass(frozen=True, slots=True)
class Blocklist:
    """A set of patterns, stored as hashes.

    Attributes:
        keys: distinct hashes of the patterns, sorted, uint64.
        labels: number of labels of the longest domain.
        segments: number of segments of the longest path.
        malformed: number of lines that contained no valid pattern.
    """

    keys: "array[int]"
    labels: int
    segments: int
    malformed: int

    def __len__(self) -> int:
        return len(self.keys)

    def blocks(self, url: str) -> bool:
        """Return True if a pattern matches a URL. The URL may be any text; text without a host matches no pattern."""
        host, path, query = split_url(url)
        if not host:
            return False
        if any(map(self._holds, _parent_domains(host, self.labels))):
            return True
        if not self.segments or not (path or query):
            return False
        parts = _split_path(path)
        host = prefix = host.removeprefix("www.")
        for part in parts[: self.segments]:
            prefix = f"{prefix}/{part}"
            if self._holds(prefix):
                return True
        return bool(query) and self._holds(f"{host}/{'/'.join(parts)}?{query}")

    def _holds(self, pattern: str) -> bool:
        key = _hash_pattern(pattern)
        at = bisect_left(self.keys, key)
        return at < len(self.keys) and self.keys[at] == key


def parse_line(line: str) -> list[str] | None:
    """Parse a line of a list. It contains a pattern, or is an entry of a hosts file with several hosts.

    Returns:
        The normalised patterns, HOST or HOST/PATH[?QUERY]. An empty list for a comment or a blank line. None for a line
        that is not valid.
    """
    if _DOMAIN.fullmatch(line) and len(line) <= MAX_DOMAIN_CHARACTERS:
        return [line]
    words = list(takewhile(lambda word: not word.startswith("#"), line.split()))
    hosts = words[1:]  # An entry of a hosts file consists of an address and hosts.
    if hosts:
        try:
            ipaddress.ip_address(words[0])
        except ValueError:
            return None
    patterns = [pattern for word in hosts or words if (pattern := _normalise_pattern(word))]
    if len(patterns) < len(hosts or words) or (hosts and any("/" in pattern for pattern in patterns)):
        return None
    return patterns


def _normalise_pattern(word: str) -> str | None:
    """Return the normal form of a pattern; None if the word is not a valid pattern."""
    below = word.removeprefix("*").removeprefix(".") if word.startswith(("*.", ".")) else word
    host, path, query = split_url(below)
    if "#" in word or not (_IPV6.fullmatch(host) or _DOMAIN.fullmatch(host)) or len(host) > MAX_DOMAIN_CHARACTERS:
        return None
    parts = _split_path(path)
    if not parts and not query:
        return host
    if below is not word or len(parts) > MAX_SEGMENTS:
        return None
    return f"{host.removeprefix('www.')}/{'/'.join(parts)}" + (f"?{query}" if query else "")


def split_url(url: str) -> tuple[str, str, str]:
    """Split a URL into host, path and query.

    Args:
        url: any text. If it has no scheme, it is read as a URL that begins with the host.

    Returns:
        The host in lower case and punycode, without port and trailing dots, with brackets if it is an IPv6 address, and
        "" if there is none. The path and the query as written.
    """
    url = url.strip(_SPACES)
    if "\n" in url or "\t" in url or "\r" in url:
        url = url.translate({9: None, 10: None, 13: None})
    url = url.partition("#")[0]
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :].lstrip("/\\") if scheme else url
    end = _END_OF_HOST.search(rest)
    authority = rest[: end.start()] if end else rest
    path, _, query = rest[end.start() :].partition("?") if end else ("", "", "")
    return _normalise_host(authority.rpartition("@")[2]), path, query


def _normalise_host(text: str) -> str:
    """Return the normal form of a host, without its port; "" for an invalid host."""
    if text.startswith("["):
        text, bracket, port = text.lower().partition("]")
        text += bracket
        sound = _IPV6.fullmatch(text) and (not port or (port[0] == ":" and _is_port(port[1:])))
        return text if sound else ""
    text, _, port = text.partition(":")
    if len(text) > MAX_HOST_CHARACTERS or not _is_port(port):
        return ""
    if "%" in text:
        text = unquote(text)
    if text.isascii():
        text = text.lower()
    else:
        text = ".".join(_encode_label(label) for label in _DOTS.split(text))
    return "" if _FORBIDDEN.search(text) else text.rstrip(".")


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit())


def _encode_label(label: str) -> str:
    """Return a label in punycode. An invalid label is only lower-cased, so its parent domains can be looked up."""
    if label.isascii() or len(label) > 63:  # Encoding punycode takes quadratic time.
        return label.lower()
    try:
        return idna.ToASCII(label).decode("ascii")
    except UnicodeError:
        return label.lower()


def _parent_domains(host: str, most: int) -> Iterator[str]:
    """Yield the parent domains of a host and the host itself, shortest first; only the address for an IP address.

    Args:
        host: the host, not empty.
        most: largest number of labels of a domain.
    """
    start = len(host)
    if host[-1] == "]" or host.rpartition(".")[2].isdigit():
        yield host
        return
    for _ in range(most):
        start = host.rfind(".", 0, start)
        if len(host) - start > MAX_DOMAIN_CHARACTERS + 1:
            return
        yield host[start + 1 :]
        if start < 0:
            return


def _split_path(path: str) -> list[str]:
    """Split a path into segments.

    Percent-encoding is normalised, empty and `.` segments are removed, and `..` is resolved.
    """
    if "\\" in path:
        path = path.replace("\\", "/")
    plain = path.isascii() and "%" not in path
    parts: list[str] = []
    for part in path.split("/"):
        segment = part if plain else quote_from_bytes(unquote_to_bytes(part.encode("utf-8", "surrogatepass")), _KEPT)
        if segment == "..":
            del parts[-1:]
        elif segment not in ("", "."):
            parts.append(segment)
    return parts


def _hash_pattern(pattern: str) -> int:
    return xxhash.xxh3_64_intdigest(pattern.encode("utf-8", "surrogatepass"))


def _read_lines(path: Path) -> Iterator[str | None]:
    """Yield the lines of a list without line breaks; None for a line that is too long or not UTF-8."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"blocklist {path} cannot be read ({error}): check the path and the file") from error
    if b"\0" in data:
        raise UserError(f"blocklist {path} is a binary file: give a text file with one pattern per line")
    for line in io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")):
        try:
            yield line.decode("utf-8").rstrip("\r\n") if len(line) <= MAX_LINE_BYTES else None
        except UnicodeDecodeError:
            yield None


@keep_loaded(2, lambda paths: paths)
def load(paths: tuple[str, ...]) -> Blocklist:
    """Load lists of patterns. The result is cached, so each set of lists is read once per process.

    Args:
        paths: text files, plain or gzipped. Each line is a pattern, an entry of a hosts file, or a comment after #.

    Raises:
        UserError: a list cannot be read, is binary, or has lines but no valid pattern.
    """
    keys = array("Q")
    labels = segments = malformed = 0
    for path in paths:
        before, bad = len(keys), 0
        for line in _read_lines(Path(path)):
            patterns = None if line is None else parse_line(line)
            if patterns is None:
                bad += 1
                continue
            for pattern in patterns:
                host, slash, rest = pattern.partition("/")
                if slash:
                    segments = max(segments, rest.partition("?")[0].count("/") + 1)
                else:
                    labels = max(labels, host.count(".") + 1)
                keys.append(_hash_pattern(pattern))
        if bad and len(keys) == before:
            raise UserError(f"blocklist {path} contains no domain and no URL: give a list with one per line")
        malformed += bad
    unique = np.unique(np.array(keys, np.uint64))
    return Blocklist(array("Q", unique.tobytes()), labels, segments, malformed)


class Blocked(ExtractRule):
    """Drop pages whose URL or domain is on a list, before the pages are decoded.

    Examples of such lists are the UT1 lists of the University of Toulouse.
    """

    REASONS = (Reason.BLOCKED_URL,)
    FILES = ("paths",)
    SHORT = "paths"

    paths: list[str] = Field(min_length=1)  # paths of lists of domains and URLs, one per line, gzipped or not

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record if its URL is blocked, or None."""
        return Reason.BLOCKED_URL if load(tuple(self.paths)).blocks(record.url) else None

    def check(self) -> None:
        """Load the lists.

        Raises:
            UserError: a list cannot be used.
        """
        load(tuple(self.paths))

    def findings(self) -> dict[str, int]:
        """Return the numbers of patterns and malformed lines."""
        held = load(tuple(self.paths))
        return {"patterns": len(held), "malformed": held.malformed}
