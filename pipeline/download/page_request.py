"""Send one HTTP request for a web page to an unknown server, with limits of size and time.

Requests to private addresses are refused by default. Redirects are not followed; the caller sends a new request for
each redirect. Connections are direct, without a proxy, because the IP address must be checked before data is sent.
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
    """A request that did not return a page.

    Attributes:
        reason: name of the reason, which is used in counts.
        permanent: True if a later run should not request the page again.
        retry: True if this run should request the page again.
        retry_after: seconds to wait, as requested by the server.
    """

    def __init__(self, reason: str, permanent: bool = True, retry: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.permanent, self.retry, self.retry_after = reason, permanent, retry, retry_after


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Limits and identity that all requests share.

    Attributes:
        agent: the User-Agent header.
        idle_timeout: seconds without data after which a connection is closed.
        total_timeout: seconds from the start of a request to the last byte of its response.
        allow_private: allow requests to private and loopback addresses.
    """

    agent: str
    idle_timeout: float = 30.0
    total_timeout: float = 120.0
    allow_private: bool = False


class Address(NamedTuple):
    """The parts of a URL that a request needs. `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """The part of the URL before its path. A robots.txt applies to one origin."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        status: the HTTP status.
        headers: the headers.
        body: the body without the transfer coding, but with the content coding; empty if it was not read.
        ip: IP address of the server.
    """

    status: int
    headers: HTTPMessage
    body: bytes
    ip: str


def parse_url(url: str) -> Address:
    """Return the parts of an http(s) URL. Raises FetchError ("not-http") for any other text."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna").decode("ascii").removesuffix(".")
    except ValueError:  # includes UnicodeError
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
        address: the parts of the page's URL.
        rules: limits and identity of all requests.
        max_bytes: largest size of the body.
        is_wanted: returns True if the body should be read, given status and headers.
        truncate: return the first `max_bytes` of a larger body, instead of raising FetchError.

    Raises:
        FetchError: "no-such-host", "private-address", "bad-certificate", "unreachable", "too-slow", "too-large" or
            "broken-response".
    """
    connection = (_SecureConnection if address.scheme == "https" else _Connection)(address, rules)
    expired = threading.Event()
    timer = threading.Timer(rules.total_timeout, _expire, (connection, expired))
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
        raise FetchError("no-such-host" if known else "unreachable", permanent=known, retry=not known) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if expired.is_set():
            raise FetchError("too-slow") from error
        broken = not isinstance(error, OSError | http.client.IncompleteRead)
        reason = "broken-response" if broken else "unreachable"
        raise FetchError(reason, permanent=broken, retry=not broken) from error
    finally:
        timer.cancel()
        connection.close()


def _read(response: http.client.HTTPResponse, max_bytes: int, truncate: bool) -> bytes:
    """Read the body of a response. Raises FetchError if it is too large."""
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
    """Shut down a connection whose request took too long."""
    expired.set()
    if connection.raw is not None:
        with suppress(OSError):  # shuts down the socket below TLS, because another thread is reading
            socket.socket.shutdown(connection.raw, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """A connection to the first IP address of a host that is public and accepts the connection."""

    def __init__(self, address: Address, rules: RequestRules) -> None:
        super().__init__(address.host, address.port, timeout=rules.idle_timeout)
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
                self.raw = socket.create_connection((place, self.port), self.rules.idle_timeout)
            except OSError:
                if number == len(addresses):
                    raise
            else:
                self.ip = place
                break
        self.sock = self.raw


class _SecureConnection(_Connection):
    """The same with TLS."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        assert self.raw is not None
        secure = _tls().wrap_socket(self.raw, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self.raw = secure  # set before the handshake, so that `_expire` can also stop a slow handshake
        secure.do_handshake()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def find_addresses(host: str, port: int) -> list[str]:
    """Return the distinct IP addresses of a host, in the system's order. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def is_public(address: str) -> bool:
    """Return True if an IP address is public, according to IANA's registries of special-purpose addresses."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast
