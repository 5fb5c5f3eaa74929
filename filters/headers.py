"""Header blocks of WARC records and HTTP messages: names without regard to case, values as text, nothing refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields in order. `first`: the line above them (a version or status line)."""

    first: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The value of the first field of that name, whatever its case; None when there is none."""
        wanted = name.lower()
        return next((value for field, value in self.fields if field == wanted), None)

    def all(self, name: str) -> list[str]:
        """The values of all fields of that name."""
        wanted = name.lower()
        return [value for field, value in self.fields if field == wanted]


NO_HEADERS = Headers()


def parse_headers(block: bytes) -> Headers:
    """Parse a first line and the fields below it. Lines end in CRLF or LF; a line that begins with white space goes on
    with the one before (RFC 9112, section 5.2); a line without a colon is passed over; bytes that are no UTF-8 are read
    as Latin-1."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text = block.decode("latin-1")
    lines = text.split("\n")
    fields: list[tuple[str, str]] = []
    for line in lines[1:]:
        if line[:1] in (" ", "\t") and fields and line.strip():
            name, value = fields[-1]
            fields[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if colon:
            fields.append((name.strip().lower(), value.strip()))
    return Headers(lines[0].strip(), tuple(fields))
