"""Lists of blocked domains and URLs, such as the UT1 lists of the University of Toulouse, and their look-up.

A pattern is a domain (`example.com`: it and all below it; `*.example.com` and `.example.com` mean the same) or a host
with a path (`example.com/forum`: that host alone, with or without "www.", the path and what lies below it, segment by
segment) and maybe a query (that very path and query). Hosts and paths are compared as the URL standard
(https://url.spec.whatwg.org) normalises them: case, IDN to punycode (IDNA 2003), percent-encoding, dot segments;
scheme, user, port and fragment do not count.

A list is held as sorted 64-bit hashes: eight bytes a pattern and one look-up for each parent domain, however long it
is. Of ten billion pages and five million patterns, some 0.01 pages are blocked by a hash that only looks the same.
"""

import gzip
import ipaddress
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from encodings import idna
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

import numpy as np
import xxhash

from filters.errors import UserError

MAX_LINE_BYTES = 4096
MAX_HOST_CHARACTERS = 4096
"""as written: 253 octets (RFC 1035, section 2.3.4), each percent-encoded, and some patience"""
MAX_DOMAIN_CHARACTERS = 253
MAX_SEGMENTS = 32
"""of a pattern's path: what bounds the look-ups of one URL"""

_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2}")
_END_OF_HOST = re.compile(r"[/?\\]")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
"""full stops of IDNA (RFC 3490, section 3.1)"""
_FORBIDDEN = re.compile(r"[\x00-\x20#/:<>?@\[\\\]^|%\x7f]")
"""forbidden in a host (URL standard, section 3.2)"""
_IPV6 = re.compile(r"\[[0-9a-f:.]{2,45}\]")
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,126}")
_KEPT = "".join(map(chr, range(128))).translate({ord(character): None for character in "%/?#\\"})
_SPACES = "".join(map(chr, range(33)))
_BUCKET = 3
"""bits of mean bucket size: buckets of eight keys cost half a byte a key"""


@dataclass(frozen=True, slots=True)
class Blocklist:
    """Patterns by hash. `keys`: sorted, uint64; `starts`: where each bucket of equal leading bits begins, uint32;
    `malformed`: how many lines were no pattern."""

    keys: "array[int]"
    starts: "array[int]"
    shift: int
    labels: int
    segments: int
    malformed: int

    @classmethod
    def load(cls, paths: Iterable[Path]) -> "Blocklist":
        """Read lists, plain or gzipped, one pattern or hosts-file entry a line, # for comments.

        Raises UserError for a list that cannot be read, is binary, or holds lines but no pattern.
        """
        keys = array("Q")
        labels = segments = malformed = 0
        for path in paths:
            before, bad = len(keys), 0
            for line in _lines(path):
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
                    keys.append(_key(pattern))
            if bad and len(keys) == before:
                raise UserError(f"blocklist {path} holds no domain and no URL: give a list with one a line")
            malformed += bad
        return cls(*_index(keys), labels, segments, malformed)

    def __len__(self) -> int:
        return len(self.keys)

    def blocks(self, url: str) -> bool:
        """Whether a URL is on the list. Any text is taken; one without a host is not on it."""
        host, path, query = _split(url)
        if not host:
            return False
        for domain in _domains(host, self.labels):
            if self._holds(domain):
                return True
        if not self.segments or not (path or query):
            return False
        parts = _segments(path)
        host = prefix = host.removeprefix("www.")
        for part in parts[: self.segments]:
            prefix = f"{prefix}/{part}"
            if self._holds(prefix):
                return True
        return bool(query) and self._holds(f"{host}/{'/'.join(parts)}?{query}")

    def _holds(self, pattern: str) -> bool:
        key = _key(pattern)
        bucket = key >> self.shift
        end = self.starts[bucket + 1]
        at = bisect_left(self.keys, key, self.starts[bucket], end)
        return at < end and self.keys[at] == key


def url_host(url: str) -> str:
    """The host of a URL: lower case, punycode, without port and trailing dots, IPv6 in brackets; "" where there is
    none. Any text is taken; without a scheme it begins with the host."""
    return _split(url)[0]


def parse_line(line: str) -> list[str] | None:
    """The patterns that a line stands for, normalised: HOST or HOST/PATH[?QUERY]; none for a comment or a blank line.
    None for a line that is no pattern."""
    if _DOMAIN.fullmatch(line) and len(line) <= MAX_DOMAIN_CHARACTERS:
        return [line]
    words = line.split()
    for place, word in enumerate(words):
        if word.startswith("#"):
            del words[place:]
            break
    if len(words) > 1:
        if not _is_address(words[0]):
            return None
        patterns = [_pattern(word) for word in words[1:]]
        return [pattern for pattern in patterns if pattern is not None] if _all_hosts(patterns) else None
    pattern = _pattern(words[0]) if words else ""
    return None if pattern is None else [pattern] if pattern else []


def _all_hosts(patterns: list[str | None]) -> bool:
    return all(pattern is not None and "/" not in pattern for pattern in patterns)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _pattern(word: str) -> str | None:
    below = word.removeprefix("*").removeprefix(".") if word.startswith(("*.", ".")) else word
    host, path, query = _split(below)
    if "#" in word or not (_IPV6.fullmatch(host) or _DOMAIN.fullmatch(host)) or len(host) > MAX_DOMAIN_CHARACTERS:
        return None
    parts = _segments(path)
    if not parts and not query:
        return host
    if below is not word or len(parts) > MAX_SEGMENTS:
        return None
    return f"{host.removeprefix('www.')}/{'/'.join(parts)}" + (f"?{query}" if query else "")


def _split(url: str) -> tuple[str, str, str]:
    """Host (normalised), path and query (as written) of a URL."""
    url = url.strip(_SPACES)
    if "\n" in url or "\t" in url or "\r" in url:
        url = url.translate({9: None, 10: None, 13: None})
    url = url.partition("#")[0]
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :].lstrip("/\\") if scheme else url
    end = _END_OF_HOST.search(rest)
    authority = rest[: end.start()] if end else rest
    path, _, query = rest[end.start() :].partition("?") if end else ("", "", "")
    return _host(authority.rpartition("@")[2]), path, query


def _host(text: str) -> str:
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
        text = ".".join(_label(label) for label in _DOTS.split(text))
    return "" if _FORBIDDEN.search(text) else text.rstrip(".")


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit())


def _label(label: str) -> str:
    """A label in punycode; one that is none stays, so that its parent domains can still be looked up."""
    if label.isascii() or len(label) > 63:  # punycode takes quadratic time
        return label.lower()
    try:
        return idna.ToASCII(label).decode("ascii")
    except UnicodeError:
        return label.lower()


def _domains(host: str, most: int) -> Iterator[str]:
    """A host and the domains above it, shortest first, of at most that many labels; an IP address is its own."""
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


def _segments(path: str) -> list[str]:
    """The segments of a path, in one spelling each; empty ones and dots left out, `..` taken with the one before."""
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


def _key(pattern: str) -> int:
    return xxhash.xxh3_64_intdigest(pattern.encode("utf-8", "surrogatepass"))


def _index(keys: "array[int]") -> tuple["array[int]", "array[int]", int]:
    """Keys sorted, each once; the starts of their buckets; how far a key is shifted to give its bucket."""
    unique = np.unique(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.uint64)
    bits = max(len(unique).bit_length() - _BUCKET, 1)
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    starts = np.append(np.searchsorted(unique, edges), len(unique))
    return array("Q", unique.tobytes()), array("I", starts.astype(np.uint32).tobytes()), 64 - bits


def _lines(path: Path) -> Iterator[str | None]:
    """The lines of a list without their ends; None for one that is too long or not UTF-8."""
    try:
        with path.open("rb") as stored:
            packed = stored.read(2) == b"\x1f\x8b"
            stored.seek(0)
            file: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=stored) if packed else stored
            first = True
            whole = True
            while line := file.readline(MAX_LINE_BYTES):
                if b"\0" in line:
                    raise UserError(f"blocklist {path} is a binary file: give a list of text, one pattern a line")
                ended = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                if whole:
                    yield _text(line.removeprefix(b"\xef\xbb\xbf") if first else line) if ended else None
                first, whole = False, ended
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"blocklist {path} cannot be read ({error}): check the path and the file") from error


def _text(line: bytes) -> str | None:
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return None


@lru_cache(maxsize=2)
def load(paths: tuple[str, ...]) -> Blocklist:
    """The lists at some paths, loaded once a process. Raises UserError as `Blocklist.load` does."""
    return Blocklist.load(map(Path, paths))
