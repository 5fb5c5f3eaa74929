"""Request pages from many hosts: a few hosts at a time, one page at a time per host, with a delay between requests.

Each host has a queue of pages. Pages that the host's robots.txt excludes are not requested (RFC 9309). A robots.txt
that cannot be reached excludes all pages; a robots.txt that does not exist excludes no page. If a page is redirected,
it moves to the queue of the redirect's host.
"""

import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPMessage
from typing import TextIO
from urllib.parse import urldefrag, urljoin

from filters.errors import UserError
from filters.formats.http import HttpError, Response, is_html, parse_response
from filters.formats.records import Headers
from pipeline.download import robots
from pipeline.download.http import RETRIED, RetryPolicy, parse_retry_after
from pipeline.download.page_archive import PageArchive
from pipeline.download.page_request import Address, Answer, FetchError, RequestRules, parse_url, send_request
from pipeline.download.robots import Robots, parse_robots

PRODUCT = "teratoken"  # the name of this program in a robots.txt
REDIRECTS = 5  # most redirects that are followed for a page, or for a robots.txt (RFC 9309, section 2.3.1.2)
MAX_WAIT = 300.0  # seconds; pages of a host that requests longer waits are not requested
MAX_DECODED_BYTES = 32 << 20  # size of a decompressed page; the default limit of the reader of web archives
RETRIED_STATUSES = RETRIED - {403}  # 403 is retried only for Common Crawl's servers
# Reasons that apply to all pages of an origin.
PERMANENT_FOR_ORIGIN = ("no-such-host", "private-address", "bad-certificate")
LINE_SECONDS = 15.0  # seconds between lines of progress


@dataclass(frozen=True)
class CrawlOptions:
    """Settings of a crawl.

    Attributes:
        request: limits and identity of all requests.
        delay: shortest time in seconds between two requests to a host.
        parallel: number of hosts to which requests are sent at the same time.
        max_bytes: largest size of a page, as sent.
        policy: number of attempts for a page, and the waits between them.
    """

    request: RequestRules
    delay: float = 5.0
    parallel: int = 8
    max_bytes: int = 4 << 20
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(attempts=3))


@dataclass(frozen=True, slots=True)
class Item:
    """A page to request.

    Attributes:
        cited: the cited URL.
        url: the URL to request: the cited URL, or the target of its last redirect.
        redirects: number of redirects so far.
        failures: number of failed attempts so far.
    """

    cited: str
    url: str
    redirects: int = 0
    failures: int = 0


@dataclass(slots=True)
class Host:
    """The state of a host.

    Attributes:
        delay: seconds between two requests.
        ready: earliest time of the next request, on the monotonic clock.
        items: the queue of pages to request.
        queued: True if the host is in `Crawl.turns`, or a worker is processing one of its pages.
        robots: from origin to its rules, or to the reason for which no page of the origin is requested.
        failures: from origin to the number of failed attempts to get its robots.txt.
        lock: held during a request.
    """

    delay: float
    ready: float = 0.0
    items: deque[Item] = field(default_factory=deque)
    queued: bool = False
    robots: dict[str, Robots | FetchError] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Crawl:
    """A crawl: threads that send requests to each host when it is ready, until all pages have a result.

    Attributes:
        temporary_failures: from URL to the reason of a temporary failure. All other results are in the archive.
    """

    def __init__(self, archive: PageArchive, options: CrawlOptions, wanted: Sequence[str]) -> None:
        """Put each page into the queue of its host."""
        self.archive, self.options = archive, options
        self.temporary_failures: dict[str, str] = {}
        self.hosts: dict[str, Host] = {}
        self.turns: list[tuple[float, str]] = []  # heap of hosts with pages, by the earliest time of the next request
        self.changed = threading.Condition()  # also guards the archive
        self.stop = threading.Event()
        self.error: Exception | None = None
        self.left = self.total = len(wanted)
        for url in wanted:
            self._queue(Item(url, url), last=True)

    def run(self, terminal: TextIO | None) -> None:
        """Fetch all pages.

        Args:
            terminal: receives lines of progress; None for no output.

        Raises:
            UserError: the archive cannot be written.
        """
        for _ in range(self.options.parallel):
            threading.Thread(target=self._work, daemon=True).start()
        started = shown = time.monotonic()
        try:
            with self.changed:
                while self.left and not self.stop.is_set():
                    self.changed.wait(1.0)
                    if terminal is not None and time.monotonic() - shown >= LINE_SECONDS:
                        shown, done = time.monotonic(), self.total - self.left
                        rate = done / (shown - started)
                        print(f"{done:,}/{self.total:,} URLs, {rate:,.1f} per second", file=terminal, flush=True)
        finally:
            self.stop.set()
            with self.changed:  # waits until no record is being written, but not for open connections
                self.changed.notify_all()
        if isinstance(self.error, OSError):
            raise UserError(
                f"{self.archive.path} cannot be written ({self.error.strerror}): make room, then run again"
            ) from self.error
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        """Process one page after another, in a thread. An exception ends the crawl and is raised by `run`."""
        try:
            while (turn := self._wait_for_turn()) is not None:
                name, item = turn
                again = self._process(item)
                with self.changed:
                    self.hosts[name].queued = False
                    if again is None:
                        self.left -= 1
                    else:
                        self._queue(again)
                    self._schedule(name)
                    self.changed.notify_all()
        except Exception as error:
            with self.changed:
                self.error = error
                self.stop.set()
                self.changed.notify_all()

    def _wait_for_turn(self) -> tuple[str, Item] | None:
        """Wait until a host is ready, and return its name with a page. Return None at the end of the crawl."""
        with self.changed:
            while self.left and not self.stop.is_set():
                if not self.turns:
                    self.changed.wait()
                    continue
                name = self.turns[0][1]
                host, wait = self.hosts[name], self.turns[0][0] - time.monotonic()
                if wait > 0:
                    self.changed.wait(wait)
                elif host.ready > time.monotonic():  # another host's robots.txt was redirected to it
                    heapq.heapreplace(self.turns, (host.ready, name))
                else:
                    heapq.heappop(self.turns)
                    return name, host.items.popleft()
        return None

    def _queue(self, item: Item, last: bool = False) -> None:
        """Put a page at the front of its host's queue, or at the end. Pages with an invalid URL have the host ""."""
        try:
            name = parse_url(item.url).host
        except FetchError:
            name = ""
        items = self._find_host(name).items
        (items.append if last else items.appendleft)(item)
        self._schedule(name)

    def _schedule(self, name: str) -> None:
        """Put a host into the heap if it has pages and no worker is processing one of them."""
        host = self.hosts[name]
        if host.items and not host.queued:
            host.queued = True
            heapq.heappush(self.turns, (host.ready, name))

    def _find_host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host(self.options.delay))

    def _process(self, item: Item) -> Item | None:
        """Send the next request for a page. Return the page to request next, or None if the page has its result."""
        policy = self.options.policy
        try:
            address = parse_url(item.url)
            if not self._find_rules(address).allows(item.url):
                raise FetchError("robots-disallowed")
            answer = self._ask(address, self.options.max_bytes, _may_be_page)
            if 300 <= answer.status < 400:
                return _follow_redirect(item, answer)
            _check_page(answer)
            with self.changed:
                if not self.stop.is_set():
                    self.archive.write_page(item.cited, item.url, answer)
        except FetchError as error:
            failures = item.failures + 1
            if error.retry and failures < policy.attempts and error.retry_after <= MAX_WAIT:
                host = self._find_host(address.host)
                host.ready = time.monotonic() + max(host.delay, policy.wait(failures), error.retry_after)
                return replace(item, failures=failures)
            self._record_failure(item, error)
        return None

    def _record_failure(self, item: Item, error: FetchError) -> None:
        """Record the reason for which a URL has no page: in the archive if it is permanent, else in this object."""
        with self.changed:
            if error.permanent and not self.stop.is_set():
                self.archive.write_reason(item.cited, error.reason)
            elif not error.permanent:
                self.temporary_failures[item.cited] = error.reason

    def _ask(
        self,
        address: Address,
        max_bytes: int,
        is_wanted: Callable[[int, HTTPMessage], bool],
        truncate: bool = False,
    ) -> Answer:
        """Wait until the host of a URL is ready, and send a request. Raises FetchError.

        The parameters are the same as for `send_request`.
        """
        host = self._find_host(address.host)
        with host.lock:
            if self.stop.wait(host.ready - time.monotonic()):
                raise FetchError("stopped", permanent=False)
            try:
                return send_request(address, self.options.request, max_bytes, is_wanted, truncate)
            finally:
                host.ready = time.monotonic() + host.delay

    def _find_rules(self, address: Address) -> Robots:
        """Return the robots.txt rules of an origin, which are read once.

        Raises:
            FetchError: no page of the origin may be requested, or the robots.txt will be requested again.
        """
        host, origin = self._find_host(address.host), address.origin
        if origin not in host.robots:
            host.robots[origin] = self._read_robots(host, address)
        found = host.robots[origin]
        if isinstance(found, FetchError):
            raise FetchError(found.reason, found.permanent)  # a new object, because each raise extends its traceback
        host.delay = max(host.delay, found.delay)
        return found

    def _read_robots(self, host: Host, address: Address) -> Robots | FetchError:
        """Read the robots.txt of an origin (RFC 9309, section 2.3.1).

        Returns:
            The rules, or an error with the reason for which no page of the origin is requested.

        Raises:
            FetchError: the robots.txt cannot be reached, and another attempt will follow.
        """
        try:
            answer = self._ask_for_robots(address._replace(target="/robots.txt"))
        except FetchError as error:
            if error.reason in PERMANENT_FOR_ORIGIN:
                return FetchError(error.reason)
        else:
            if answer.status == 200:
                found = parse_robots(answer.body, PRODUCT)
                return found if found.delay <= MAX_WAIT else FetchError("long-crawl-delay")
            if answer.status < 500 and answer.status not in RETRIED_STATUSES:
                return Robots()
        host.failures[address.origin] += 1
        if host.failures[address.origin] >= self.options.policy.attempts:
            return FetchError("robots-unreachable", permanent=False)
        raise FetchError("robots-unreachable", permanent=False, retry=True)

    def _ask_for_robots(self, address: Address) -> Answer:
        """Request a robots.txt and follow its redirects, also to other hosts. Raises FetchError."""
        for _ in range(REDIRECTS + 1):
            answer = self._ask(address, robots.MAX_BYTES, lambda status, _: status == 200, truncate=True)
            location = _read_location(answer)
            if not 300 <= answer.status < 400 or location is None:
                break
            address = parse_url(urljoin(address.origin + address.target, location))
        return answer


def _follow_redirect(item: Item, answer: Answer) -> Item:
    """Return the page with the target of a redirect as its URL. Raises FetchError."""
    location = _read_location(answer)
    if location is None:
        raise FetchError(f"http-{answer.status}")
    if item.redirects == REDIRECTS:
        raise FetchError("too-many-redirects")
    try:
        url = urldefrag(urljoin(item.url, location)).url
    except ValueError:
        raise FetchError("not-http") from None
    parse_url(url)
    return replace(item, url=url, redirects=item.redirects + 1)


def _read_location(answer: Answer) -> str | None:
    """Return the target of a redirect, or None. Bytes that are not ASCII are decoded as UTF-8, as browsers do."""
    location: str | None = answer.headers.get("Location")
    return location and location.strip().encode("latin-1", "replace").decode("utf-8", "replace")


def _may_be_page(status: int, headers: HTTPMessage) -> bool:
    """Return True for status 200 with HTML, or with content whose type is not stated."""
    kind = headers.get("Content-Type")
    return status == 200 and (not kind or is_html(Response(200, Headers(_write_fields([("Content-Type", kind)])), b"")))


def _check_page(answer: Answer) -> None:
    """Check that a response is an HTML page. Raises FetchError if it is not."""
    if answer.status != 200:
        busy, wait = answer.status in RETRIED_STATUSES, parse_retry_after(answer.headers.get("Retry-After"))
        raise FetchError(f"http-{answer.status}", permanent=not busy, retry=busy, retry_after=wait)
    if not _may_be_page(answer.status, answer.headers):
        raise FetchError("not-html")
    fields = [(name, value) for name, value in answer.headers.items() if name.lower() != "transfer-encoding"]
    try:
        response = parse_response(
            b"HTTP/1.1 200 OK" + _write_fields(fields) + b"\r\n\r\n" + answer.body, MAX_DECODED_BYTES
        )
    except HttpError as error:
        raise FetchError(str(error.reason)) from error
    if not response.body.strip():
        raise FetchError("empty-body")
    if not is_html(response):
        raise FetchError("not-html")


def _write_fields(fields: list[tuple[str, str]]) -> bytes:
    """Return header fields as bytes of HTTP/1.1."""
    return "".join(f"\r\n{name}: {value}" for name, value in fields).encode("latin-1", "replace")
