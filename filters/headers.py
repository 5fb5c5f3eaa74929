"""Header blocks of WARC records and HTTP messages: names without regard to case, values as text, nothing refused.

Fields are looked for when they are asked for: of the dozen that a record bears, its reader wants three.
"""

from typing import NamedTuple

_BLANKS = (b" ", b"\t")


class Headers(NamedTuple):
    """A first line (a version or status line) and the fields below it. `block`: their bytes; `lowered`: the same bytes
    with ASCII letters in lower case.

    Lines end in CRLF or LF; a line that begins with white space goes on with the one before (RFC 9112, section 5.2);
    blanks before a colon are no part of the name; a line without a colon is passed over; a value that is no UTF-8 is
    read as Latin-1.
    """

    block: bytes = b""
    lowered: bytes = b""

    @property
    def first(self) -> str:
        """The line above the fields."""
        return _text(self.block.partition(b"\n")[0].strip())

    def get(self, name: str) -> str | None:
        """The value of the first field of that name, whatever its case; None when there is none."""
        start = self._value_of(name, 0)
        return None if start < 0 else self._value_at(start)

    def all(self, name: str) -> list[str]:
        """The values of all fields of that name."""
        values: list[str] = []
        start = self._value_of(name, 0)
        while start >= 0:
            values.append(self._value_at(start))
            start = self._value_of(name, start)
        return values

    def _value_of(self, name: str, position: int) -> int:
        """Where the value of the next field of that name begins; -1 if there is none."""
        key = b"\n" + name.lower().encode()
        at = self.lowered.find(key, position)
        while at >= 0:
            colon = at + len(key)
            while self.lowered[colon : colon + 1] in _BLANKS:
                colon += 1
            if self.lowered[colon : colon + 1] == b":":
                return colon + 1
            at = self.lowered.find(key, colon)
        return -1

    def _value_at(self, start: int) -> str:
        stop = self.block.find(b"\n", start)
        while stop >= 0 and self.block[stop + 1 : stop + 2] in _BLANKS:
            stop = self.block.find(b"\n", stop + 1)
        value = self.block[start:stop] if stop >= 0 else self.block[start:]
        if b"\n" in value:
            value = b" ".join(line.strip() for line in value.split(b"\n") if line.strip())
        return _text(value.strip())


NO_HEADERS = Headers()


def parse_headers(block: bytes) -> Headers:
    """The header in `block`: a first line and the fields below it."""
    return Headers(block, block.lower())


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
