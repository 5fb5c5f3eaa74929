"""One HTTP request for a web page of an unknown server: bounded in size and time, and never to a private address.

Redirects are not followed: the caller asks for each in turn. Connections are direct, without a proxy, since the address
must be known before anything is sent to it.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPMessage
from typing import NamedTuple
from urllib.parse import quote, urlsplit

CHUNK_BYTES = 1 << 16
HEADERS = {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "gzip", "Connection": "close"}
_SAFE = "%!$&'()*+,;=:@/?~"  # characters of a path or query that are sent as they are


class FetchError(Exception):
    """A request without a page.

    Attributes:
        reason: its name in counts.
        settled: asking again, another day, would change nothing.
        retry: asking again, soon, may help.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, settled: bool = True, retry: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.settled, self.retry, self.retry_after = reason, settled, retry, retry_after


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Limits and identity that all requests share.

    Attributes:
        agent: the User-Agent.
        silence: seconds without data before a connection counts as broken.
        seconds: limit of one request, from its start to its last byte.
        allow_private: send requests to private and loopback addresses, too.
    """

    agent: str
    silence: float = 30.0
    seconds: float = 120.0
    allow_private: bool = False


class Address(NamedTuple):
    """The parts of a URL that a request needs. `target`: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Return the part of the URL before its path, to which a robots.txt applies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `body`: as sent, without the transfer coding; empty if it was not wanted. `ip`: the server's."""

    status: int
    headers: HTTPMessage
    body: bytes
    ip: str


def parse_url(url: str) -> Address:
    """Return the parts of an http(s) URL. Raises FetchError ("not-http") for any other text."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna").decode("ascii").removesuffix(".")
    except ValueError:  # UnicodeError, too
        raise FetchError("not-http") from None
    if parts.scheme not in ("http", "https") or not host:
        raise FetchError("not-http")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), target)


def send_request(
    address: Address,
    rules: RequestRules,
    max_bytes: int,
    is_wanted: Callable[[int, HTTPMessage], bool],
    truncate: bool = False,
) -> Answer:
    """Send a GET and return the response.

    Args:
        address: of the page.
        rules: of all requests.
        max_bytes: limit of the body.
        is_wanted: tells from status and headers if the body is to be read.
        truncate: return the beginning of a longer body.

    Raises:
        FetchError: "no-such-host", "private-address", "bad-certificate", "unreachable", "too-slow", "too-large" or
            "broken-response".
    """
    connection = (_SecureConnection if address.scheme == "https" else _Connection)(address, rules)
    expired = threading.Event()
    timer = threading.Timer(rules.seconds, _expire, (connection, expired))
    timer.daemon = True
    timer.start()
    try:
        connection.request("GET", address.target, headers={"User-Agent": rules.agent, **HEADERS})
        response = connection.getresponse()
        body = _read(response, max_bytes, truncate) if is_wanted(response.status, response.headers) else b""
        if expired.is_set():
            raise FetchError("too-slow")
        return Answer(response.status, response.headers, body, connection.ip)
    except ssl.SSLCertVerificationError as error:
        raise FetchError("bad-certificate") from error
    except socket.gaierror as error:
        known = error.errno == socket.EAI_NONAME
        raise FetchError("no-such-host" if known else "unreachable", settled=known, retry=not known) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if expired.is_set():
            raise FetchError("too-slow") from error
        broken = not isinstance(error, OSError | http.client.IncompleteRead)
        reason = "broken-response" if broken else "unreachable"
        raise FetchError(reason, settled=broken, retry=not broken) from error
    finally:
        timer.cancel()
        connection.close()


def _read(response: http.client.HTTPResponse, max_bytes: int, truncate: bool) -> bytes:
    length, body = response.length, bytearray()
    is_large = length is not None and length > max_bytes
    while (truncate or not is_large) and (chunk := response.read1(CHUNK_BYTES)):
        body += chunk
        is_large = is_large or len(body) > max_bytes
        if len(body) >= max_bytes and truncate:
            return bytes(body[:max_bytes])
    if is_large:
        raise FetchError("too-large")
    if length is not None and len(body) < length:
        raise http.client.IncompleteRead(bytes(body), length - len(body))
    return bytes(body)


def _expire(connection: "_Connection", expired: threading.Event) -> None:
    expired.set()
    if connection.raw is not None:
        with suppress(OSError):  # of the socket below TLS, which another thread is reading
            socket.socket.shutdown(connection.raw, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """A connection to the first address of a host that is public and answers."""

    def __init__(self, address: Address, rules: RequestRules) -> None:
        super().__init__(address.host, address.port, timeout=rules.silence)
        self.rules = rules
        self.raw: socket.socket | None = None
        self.ip = ""

    def connect(self) -> None:
        addresses = [place for place in find_addresses(self.host, self.port)
                     if self.rules.allow_private or is_public(place)]  # fmt: skip
        if not addresses:
            raise FetchError("private-address")
        for number, place in enumerate(addresses, 1):
            try:
                self.raw = socket.create_connection((place, self.port), self.rules.silence)
            except OSError:
                if number == len(addresses):
                    raise
            else:
                self.ip = place
                break
        self.sock = self.raw


class _SecureConnection(_Connection):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        assert self.raw is not None
        secure = _tls().wrap_socket(self.raw, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self.raw = secure  # known before the handshake, which may be endless, too
        secure.do_handshake()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def find_addresses(host: str, port: int) -> list[str]:
    """Return the distinct IP addresses of a host, in the system's order. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def is_public(address: str) -> bool:
    """Return True if an IP address belongs to the public Internet (IANA's registries of special addresses)."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast
