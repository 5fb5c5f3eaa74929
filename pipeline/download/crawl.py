"""Ask many hosts for pages, politely: few at a time, each for one page at a time, with a delay between two requests.

Every host has a queue of its own. It is asked for nothing that its robots.txt excludes (RFC 9309): a file that cannot
be reached excludes everything, a file that does not exist excludes nothing. A redirect puts the page into the queue of
the host that it leads to.
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

PRODUCT = "teratoken"  # the name by which a robots.txt addresses this program
REDIRECTS = 5  # followed for a page, and for a robots.txt (RFC 9309, section 2.3.1.2)
MAX_WAIT = 300.0  # seconds; a host that asks for longer waits is not asked
MAX_DECODED_BYTES = 32 << 20  # of a page without content codings, as the reader of web archives takes by default
BUSY = RETRIED - {403}  # statuses of a server that may answer later; RETRIED has 403 for Common Crawl's servers alone
HOPELESS = ("no-such-host", "private-address", "bad-certificate")  # reasons that hold for all pages of an origin
LINE_SECONDS = 15.0  # between lines of progress


@dataclass(frozen=True)
class CrawlOptions:
    """Settings of the requests for pages.

    Attributes:
        request: for all requests.
        delay: seconds between two requests to a host, at least.
        parallel: hosts asked at a time.
        max_bytes: of a page, as sent.
        policy: attempts for a page, and the waits between them.
    """

    request: RequestRules
    delay: float = 5.0
    parallel: int = 8
    max_bytes: int = 4 << 20
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(attempts=3))


@dataclass(frozen=True, slots=True)
class Item:
    """A page to ask for: the cited URL, where its redirects have led, how many they were, and the failed attempts."""

    cited: str
    url: str
    redirects: int = 0
    failures: int = 0


@dataclass(slots=True)
class Host:
    """The state of a host.

    Attributes:
        delay: seconds between two requests.
        ready: the time from which it may be asked, on the monotonic clock.
        items: pages to ask it for.
        queued: it waits for its turn, or a worker asks it.
        robots: by origin, its rules or why it is not asked.
        failures: attempts to get its robots.txt, by origin.
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
    """Workers that ask each host when it is ready, until all pages have an outcome.

    Attributes:
        unsettled: by URL, the reason for a failure that may not last; everything else is in the archive.
    """

    def __init__(self, archive: PageArchive, options: CrawlOptions, wanted: Sequence[str]) -> None:
        """Queue the pages, each at its host."""
        self.archive, self.options = archive, options
        self.unsettled: dict[str, str] = {}
        self.hosts: dict[str, Host] = {}
        self.turns: list[tuple[float, str]] = []  # heap of the queued hosts by the time from which they may be asked
        self.changed = threading.Condition()  # also guards the archive
        self.stop = threading.Event()
        self.error: Exception | None = None
        self.left = self.total = len(wanted)
        for url in wanted:
            self._queue(Item(url, url), last=True)

    def run(self, terminal: TextIO | None) -> None:
        """Fetch all pages. `terminal`: receives progress. Raises UserError if the archive cannot be written."""
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
            with self.changed:  # no record is half written; a silent connection must not delay an interruption
                self.changed.notify_all()
        if isinstance(self.error, OSError):
            raise UserError(
                f"{self.archive.path} cannot be written ({self.error.strerror}): make room, then run again"
            ) from self.error
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        try:
            while (turn := self._wait_for_turn()) is not None:
                name, item = turn
                again = self._step(item)
                with self.changed:
                    self.hosts[name].queued = False
                    if again is None:
                        self.left -= 1
                    else:
                        self._queue(again)
                    self._enter(name)
                    self.changed.notify_all()
        except Exception as error:
            with self.changed:
                self.error = error
                self.stop.set()
                self.changed.notify_all()

    def _wait_for_turn(self) -> tuple[str, Item] | None:
        """Wait for a host that may be asked, and return its name with a page; None at the end."""
        with self.changed:
            while self.left and not self.stop.is_set():
                if not self.turns:
                    self.changed.wait()
                    continue
                name = self.turns[0][1]
                host, wait = self.hosts[name], self.turns[0][0] - time.monotonic()
                if wait > 0:
                    self.changed.wait(wait)
                elif host.ready > time.monotonic():  # asked for a robots.txt that another host's is redirected to
                    heapq.heapreplace(self.turns, (host.ready, name))
                else:
                    heapq.heappop(self.turns)
                    return name, host.items.popleft()
        return None

    def _queue(self, item: Item, last: bool = False) -> None:
        """Put a page before the others of its host, or after them; what is no URL has the host ""."""
        try:
            name = parse_url(item.url).host
        except FetchError:
            name = ""
        items = self._find_host(name).items
        (items.append if last else items.appendleft)(item)
        self._enter(name)

    def _enter(self, name: str) -> None:
        host = self.hosts[name]
        if host.items and not host.queued:
            host.queued = True
            heapq.heappush(self.turns, (host.ready, name))

    def _find_host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host(self.options.delay))

    def _step(self, item: Item) -> Item | None:
        """Send the next request for a page; return what to ask for next, or None if the page has its outcome."""
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
            self._end(item, error)
        return None

    def _end(self, item: Item, error: FetchError) -> None:
        """Record why there is no page."""
        with self.changed:
            if error.settled and not self.stop.is_set():
                self.archive.write_reason(item.cited, error.reason)
            elif not error.settled:
                self.unsettled[item.cited] = error.reason

    def _ask(
        self,
        address: Address,
        max_bytes: int,
        is_wanted: Callable[[int, HTTPMessage], bool],
        truncate: bool = False,
    ) -> Answer:
        """Send a request when its host is ready. Raises FetchError."""
        host = self._find_host(address.host)
        with host.lock:
            if self.stop.wait(host.ready - time.monotonic()):
                raise FetchError("stopped", settled=False)
            try:
                return send_request(address, self.options.request, max_bytes, is_wanted, truncate)
            finally:
                host.ready = time.monotonic() + host.delay

    def _find_rules(self, address: Address) -> Robots:
        """Return the rules for an origin, which are read once. Raises FetchError if it is not to be asked."""
        host, origin = self._find_host(address.host), address.origin
        if origin not in host.robots:
            host.robots[origin] = self._read_robots(host, address)
        found = host.robots[origin]
        if isinstance(found, FetchError):
            raise FetchError(found.reason, found.settled)  # a new one: each raising adds to an exception's traceback
        host.delay = max(host.delay, found.delay)
        return found

    def _read_robots(self, host: Host, address: Address) -> Robots | FetchError:
        """Return the rules for an origin, or why it is not asked (RFC 9309, section 2.3.1).

        Raises:
            FetchError: the robots.txt cannot be reached, and another attempt is to follow.
        """
        try:
            answer = self._ask_for_robots(address._replace(target="/robots.txt"))
        except FetchError as error:
            if error.reason in HOPELESS:
                return FetchError(error.reason)
        else:
            if answer.status == 200:
                found = parse_robots(answer.body, PRODUCT)
                return found if found.delay <= MAX_WAIT else FetchError("long-crawl-delay")
            if answer.status < 500 and answer.status not in BUSY:
                return Robots()
        host.failures[address.origin] += 1
        if host.failures[address.origin] >= self.options.policy.attempts:
            return FetchError("robots-unreachable", settled=False)
        raise FetchError("robots-unreachable", settled=False, retry=True)

    def _ask_for_robots(self, address: Address) -> Answer:
        """Return the answer after some redirects, to whatever host they lead. Raises FetchError."""
        for _ in range(REDIRECTS + 1):
            answer = self._ask(address, robots.MAX_BYTES, lambda status, _: status == 200, truncate=True)
            location = _read_location(answer)
            if not 300 <= answer.status < 400 or location is None:
                break
            address = parse_url(urljoin(address.origin + address.target, location))
        return answer


def _follow_redirect(item: Item, answer: Answer) -> Item:
    """Return the page with the URL that a redirect leads to. Raises FetchError."""
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
    """Return the target of a redirect; bytes in it that are not ASCII are taken for UTF-8, as browsers do."""
    location: str | None = answer.headers.get("Location")
    return location and location.strip().encode("latin-1", "replace").decode("utf-8", "replace")


def _may_be_page(status: int, headers: HTTPMessage) -> bool:
    """Return True for a status of success with HTML, or with content of no stated type."""
    kind = headers.get("Content-Type")
    return status == 200 and (not kind or is_html(Response(200, Headers(_write_fields([("Content-Type", kind)])), b"")))


def _check_page(answer: Answer) -> None:
    """Raise FetchError for an answer that is no page of HTML."""
    if answer.status != 200:
        busy, wait = answer.status in BUSY, parse_retry_after(answer.headers.get("Retry-After"))
        raise FetchError(f"http-{answer.status}", settled=not busy, retry=busy, retry_after=wait)
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
    return "".join(f"\r\n{name}: {value}" for name, value in fields).encode("latin-1", "replace")
