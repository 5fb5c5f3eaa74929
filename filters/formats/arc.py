"""Parse and search the header lines of ARC records, including the malformed lines of real crawls.

Version 1 is `URL IP-address Archive-date Content-type Archive-length`. Version 2 has five more fields before the length
(https://archive.org/web/researcher/ArcFileFormat.php). Real lines also have blanks and carriage returns within the URL
or the content type, dates with more or fewer digits, and fields that are missing or in another order. So fields are
recognised by their form, not by their position. `find_line`, which searches for a record after damage, is stricter: it
accepts only lines with an IP address and a date at the correct positions.
"""

import mmap
import re
from typing import NamedTuple

URL_BYTES = 1 << 13  # Servers do not accept longer URLs.
LINE_BYTES = 2 * URL_BYTES + 2_048  # Bytes of a header line. Longer lines are not header lines but text.

_SCHEME = rb"[A-Za-z][A-Za-z0-9+.-]{0,30}+:"
_LENGTH = rb" ([0-9]{1,18}+)[ \t]{0,8}+\r?+\n"
# The repetitions are bounded, so that matching takes linear time. A `filedesc:` line, which describes the archive, may
# have no usable length.
_LINE = re.compile(rb"(%b[^\n]{0,%d})%b|filedesc:[^\n]{0,1024}+\n" % (_SCHEME, 2 * URL_BYTES, _LENGTH))
_DATE = rb"(?:(?:19|20)[0-9]{8,16}[^ \r\n]{0,16}+|null)"
# `find_line` first searches for an address and a date, then for the end of the line, then for the URL before the
# address.
_ADDRESS_AND_DATE = re.compile(rb" [^ \r\n]{1,64}+ %b " % _DATE)
FIELD_BYTES = URL_BYTES + 2_048  # Bytes between the date and the length.
_ENDING = re.compile(_LENGTH)
ENDING_BYTES = 32  # The largest number of bytes that _ENDING matches.
_KNOWN = re.compile(rb"(?:https?|ftp|dns|filedesc|whois|gopher|nntp|news|rtsp|mms):")
_UNKNOWN = re.compile(rb"[A-Za-z]{3}[A-Za-z0-9+.-]{0,28}+:")  # Other schemes. Accepted only at the start of a line.
_ADDRESS = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{2,40}(?:[0-9.]{7,15})?|-|0|null")
_FULL_DATE = re.compile(_DATE)
_ANY_DATE = re.compile(rb"[0-9]{14,18}|[0-9a-f]{8}|-")
_DIGITS = re.compile(
    rb"((?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))([0-9]{2})?([0-9]{2})?([0-9]{2})?"
)


class ArcLine(NamedTuple):
    """A parsed header line.

    Attributes:
        header: The fields in the form of a WARC header.
        version: 1 or 2.
        length: The number of bytes of the block, None if the line does not state it.
        end: The offset of the end of the line in the parsed bytes.
    """

    header: bytes
    version: int
    length: int | None
    end: int


def read_line(data: bytes) -> ArcLine | None:
    """Parse the header line at the start of `data`, where a record is expected. Return None if it is not a header."""
    line = _LINE.match(data)
    if line is None or not (_KNOWN.match(data) or find_line(data, 0, 1, line.end()) == 0):
        return None
    words, length = (line[1] or line[0].rstrip()).split(b" "), int(line[2]) if line[2] else None
    stop, date, version = _find_fields(words)
    uri = b" ".join(words[:stop]).replace(b"\r", b"%0D")
    kind = b"warcinfo" if uri[:9].lower() == b"filedesc:" else b"response"
    if len(words) < 3 and kind == b"response":
        return None
    fields = [b"ARC", b"WARC-Type: " + kind, b"WARC-Target-URI: " + uri]
    fields += [b"WARC-IP-Address: " + word for word in words[stop : stop + 2] if _ADDRESS.fullmatch(word)][:1]
    fields += [b"Content-Length: %d" % length] if length is not None else []
    fields += [b"WARC-Date: " + date] if date else []
    return ArcLine(b"\r\n".join(fields), version, length, line.end())


def find_line(data: bytes | bytearray | mmap.mmap, start: int, stop: int, reach: int) -> int:
    """Return the offset of the first valid header line that begins in [start, stop) and ends by `reach`, or -1."""
    position, limit = start, min(reach, stop + LINE_BYTES)
    while fields := _ADDRESS_AND_DATE.search(data, position, limit):
        place, after = fields.span()
        position = place + 1
        newline = data.find(b"\n", after, min(after + FIELD_BYTES + ENDING_BYTES, limit))
        if newline < 0:
            continue
        if not _ENDING.search(data, max(after + 1, newline - ENDING_BYTES), newline + 1):
            position = newline  # The line has no length at its end, so no part of it is a header line.
            continue
        begin = max(data.rfind(b"\n", max(start, place - URL_BYTES), place) + 1, start, place - URL_BYTES)
        line = bytes(data[begin:place])
        url = _KNOWN.search(line) or _UNKNOWN.match(line)
        if url and begin + url.start() < stop:
            return begin + url.start()
    return -1


def _find_fields(words: list[bytes]) -> tuple[int, bytes, int]:
    """Find the fields of a header line among its words.

    The date is the first word in the form of a date that is the third word or follows an address. If there is none, it
    is the last word in the form of a date. The URL ends before the date, or before the address in front of the date.

    Returns:
        The number of words of the URL, the date in W3C form (empty without a date), and the version (1 or 2).
    """
    after_url = range(1, len(words))
    addresses = [place for place in after_url if _ADDRESS.fullmatch(words[place])]
    dates = [place for place in after_url if _FULL_DATE.fullmatch(words[place])]
    dates = dates or [place for place in after_url if _ANY_DATE.fullmatch(words[place])][:1]
    in_place = [place for place in dates if place == 2 or place - 1 in addresses]
    date = in_place[0] if in_place else dates[-1] if dates else len(words)
    stop = date - 1 if in_place else min([date, *addresses, max(len(words) - 1, 1)])
    return stop, _format_date(words[date]) if dates else b"", 2 if len(words) - date > 5 else 1


def _format_date(word: bytes) -> bytes:
    """Return a date of 8 to 18 digits in W3C form, with the precision of the digits. Other forms give b""."""
    digits = _DIGITS.match(word)
    if digits is None:
        return b""
    day, hour, minute, second = digits.groups()
    date = b"%b-%b-%b" % (day[:4], day[4:6], day[6:])
    if minute is None or second is None:
        return date + (b"T%b:%bZ" % (hour, minute) if minute else b"")
    return date + b"T%b:%b:%bZ" % (hour, minute, second)
