"""Header blocks of WARC records and HTTP messages: names without regard to case, values as text, nothing refused.

Fields are looked for when they are asked for: of the dozen that a record bears, its reader wants three.
"""

import re
from functools import cache
from typing import NamedTuple


class Headers(NamedTuple):
    """A first line (a version or status line) and the fields below it, in the bytes `block`.

    Lines end in CRLF or LF; a line that begins with white space goes on with the one before (RFC 9112, section 5.2);
    blanks before a colon are no part of the name; a line without a colon is passed over; a value that is no UTF-8 is
    read as Latin-1.
    """

    block: bytes = b""

    @property
    def first(self) -> str:
        """The line above the fields."""
        return _value(self.block.partition(b"\n")[0])

    def get(self, name: str) -> str | None:
        """The value of the first field of that name, whatever its case; None when there is none."""
        found = _field(name).search(self.block)
        return _value(found[1]) if found else None

    def all(self, name: str) -> list[str]:
        """The values of all fields of that name."""
        return [_value(value) for value in _field(name).findall(self.block)]


NO_HEADERS = Headers()


@cache
def _field(name: str) -> re.Pattern[bytes]:
    """A field of that name: its value, with the lines that go on with it."""
    return re.compile(rb"\n(?i:%b)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)" % re.escape(name.encode()))


def _value(value: bytes) -> str:
    if b"\n" in value:
        value = b" ".join(line.strip() for line in value.split(b"\n") if line.strip())
    value = value.strip()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
