"""Where each page of a dump lies among its stored bytes, so that every one of these is accounted for, and read again.

The unit of a compressed dump is the run of bzip2 streams from one that begins with a page to the next such (of a
multistream dump, one stream; of any other, the whole file), and that of a gzipped one is the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from filters.formats.compression import as_utf8
from filters.formats.damage import Damage
from filters.formats.mediawiki import raw_pages
from filters.formats.mediawiki_streams import Chunk, Stored, begins_with_page, decoded, is_compressed, is_utf8
from filters.reasons import Reason

HELD = 1 << 25
"""decoded bytes of a unit held until its end is known; the places of a longer one's pages name all that is stored from
its beginning on"""


@dataclass(frozen=True, slots=True)
class Frame:
    """A page's element as `data`, or why there is none. It lies at [inner_offset, +inner_length) of what the stored
    bytes [offset, +length) decode to (as UTF-8), and accounts for `stored` bytes."""

    offset: int
    length: int
    inner_offset: int
    inner_length: int
    stored: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


def frames(stored: Stored, limit: int, start: int = 0, end: int | None = None) -> Iterator[Frame]:
    """The pages of a dump, or of a part between two `cuts`, and what is none, in order; their `stored` bytes sum to the
    part's. Never raises; takes linear time, and memory of the order of `limit` and `HELD`."""
    end = len(stored) if end is None else end
    complete = end == len(stored) and b"<mediawiki" in _opening(stored)
    if is_compressed(stored) or not is_utf8(stored):
        yield from _settled(_compressed(stored, start, end, limit, complete), end - start)
    else:
        yield from _settled(_plain(stored, start, end, limit, complete), end - start)


def read_element(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int) -> bytes:
    """The decoded bytes at a place; fewer if there are not so many."""
    if not is_compressed(stored) and is_utf8(stored):
        return bytes(stored[offset : offset + length])[inner_offset : inner_offset + inner_length]
    held, base = bytearray(), 0
    for data in as_utf8(chunk.data for chunk in decoded(stored, offset, min(offset + length, len(stored)))):
        assert isinstance(data, bytes)
        held += data
        if base + len(held) >= inner_offset + inner_length:
            break
        gone = min(len(held), max(inner_offset - base, 0))
        del held[:gone]
        base += gone
    return bytes(held[inner_offset - base :][:inner_length])


def _opening(stored: Stored) -> bytes:
    first = next((chunk.data for chunk in decoded(stored, 0, len(stored)) if chunk.data or chunk.damage), b"")
    return first[: 1 << 12].replace(b"\0", b"")


def _plain(stored: Stored, start: int, end: int, limit: int, complete: bool) -> Iterator[Frame]:
    for raw in raw_pages((chunk.data for chunk in decoded(stored, start, end)), limit, start, complete):
        length = len(raw.data) or raw.stop - raw.start
        place = raw.place if raw.data else raw.start
        yield Frame(place, length, 0, length, raw.stop - raw.start, raw.data, raw.problem, raw.detail)


@dataclass
class _Feed:
    """Chunks of one unit on their way to a scanner, and how its decoded bytes map to stored ones."""

    chunks: Iterator[Chunk]
    stop: int
    """stored bytes before it are of chunks that have been taken"""
    waiting: Chunk | None = None
    """the first chunk of the next unit"""
    whole: bool = False
    """whether all streams are one unit"""
    ended: bool = False
    """whether the unit has been taken to its end"""
    damaged: bool = False
    tail: bytes = b""
    span: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))
    """of the last chunk: decoded bytes from, to; stored bytes from, to"""

    def unit(self) -> Iterator[bytes | Damage]:
        """The bytes of the next unit."""
        begun, self.ended = self.stop, False
        self.span = (0, 0, begun, begun)
        while chunk := self.waiting or next(self.chunks, None):
            if self.waiting is None and self._opens(chunk) and self.stop > begun:
                self.waiting, self.ended = chunk, True
                return
            self.waiting = None
            self.damaged = chunk.damage is not None
            self.tail = (self.tail + chunk.data[-64:])[-64:]
            _, decoded_from, _, stored_from = self.span
            self.span = (decoded_from, decoded_from + len(chunk.data), stored_from, chunk.stop)
            self.stop = chunk.stop
            yield chunk.damage or chunk.data
        self.ended = True

    def _opens(self, chunk: Chunk) -> bool:
        begins = begins_with_page(chunk.data) or chunk.damage is not None
        return chunk.fresh and not self.whole and begins

    def stored_at(self, position: int) -> int:
        """How many stored bytes stand for the decoded ones before `position`, which lies in the last chunk."""
        decoded_from, decoded_to, stored_from, stored_to = self.span
        if position >= decoded_to:
            return stored_to
        return stored_from + (stored_to - stored_from) * max(position - decoded_from, 0) // (decoded_to - decoded_from)


def _compressed(stored: Stored, start: int, end: int, limit: int, complete: bool) -> Iterator[Frame]:
    """Each frame with its share of the stored bytes, by decoded ones."""
    whole = bytes(stored[:2]) == b"\x1f\x8b" or not is_utf8(stored)
    feed = _Feed(_transcoded(decoded(stored, start, end)) if whole else decoded(stored, start, end), start, whole=whole)
    while feed.stop < end or feed.waiting is not None:
        begun = accounted = feed.stop
        held: list[Frame] = []
        size, over = 0, whole
        for raw in raw_pages(feed.unit(), limit, 0, False):
            place = raw.place if raw.data else raw.start
            inner = len(raw.data) or raw.stop - raw.start
            share = max(feed.stored_at(raw.stop) - accounted, 0)
            accounted += share
            held.append(Frame(begun, len(stored) - begun, place, inner, share, raw.data, raw.problem, raw.detail))
            size += len(raw.data)
            over = over or size > HELD
            if over:
                yield from held
                held = []
        if not feed.ended:
            yield from held
            return  # a bomb: what is left counts for what was said last
        yield from (replace(frame, length=feed.stop - begun) for frame in _settled(iter(held), feed.stop - begun))
    if complete and not feed.damaged and b"</mediawiki" not in feed.tail:
        yield Frame(end, 0, 0, 0, 0, problem=Reason.TRUNCATED_RECORD, detail="the dump ends early")


def _transcoded(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same in UTF-8, chunk by chunk."""
    last = Chunk(b"", 0)

    def data() -> Iterator[bytes]:
        nonlocal last
        for chunk in chunks:
            last = chunk
            yield chunk.data

    for text in as_utf8(data()):
        assert isinstance(text, bytes)
        yield last._replace(data=text)
        last = Chunk(b"", last.stop)


def _settled(items: Iterator[Frame], size: int) -> Iterator[Frame]:
    """The same, the last with all stored bytes that are left of `size`."""
    held: Frame | None = None
    for item in items:
        if held is not None:
            size -= held.stored
            yield held
        held = item
    if held is not None:
        yield replace(held, stored=size)
