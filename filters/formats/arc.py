"""The records of ARC archives (Internet Archive, 1996): one line, then the block whose length it states.

Version 1: `URL IP-address Archive-date Content-type Archive-length`; version 2 has five fields more before the length.
The first record, `filedesc://`, is about the archive. Records become as those of WARC: its header names and dates.
https://archive.org/web/researcher/ArcFileFormat.php
"""

import re

from filters.formats.headers import Headers
from filters.formats.stream import Head, Syntax, Window
from filters.reasons import Reason

URL_BYTES = 1 << 13
"""of a record's URL; no server takes longer ones"""

# Blanks inside URLs are not allowed, but there are such: so the fields behind it decide where it ends. Lengths are
# bounded, so that a line takes linear time. Heritrix wrote `null` where it had no date.
_LINE = (
    rb"([A-Za-z][A-Za-z0-9+.-]{0,30}+:[^\r\n]{0,%d}?) ([^ \r\n]{1,64}+) ([0-9]{14}+|null) [^ \r\n]{1,256}+"
    rb"( [^ \r\n]{1,64}+ [^ \r\n]{1,128}+ [^ \r\n]{1,%d}+ [0-9]{1,18}+ [^ \r\n]{1,1024}+)? ([0-9]{1,18}+)[ ]{0,8}+\r?\n"
) % (URL_BYTES, URL_BYTES)


def _head(window: Window, first: int, line: re.Match[bytes]) -> Head | tuple[Reason, str]:
    uri, address, date, more, length = line.groups()
    kind = b"warcinfo" if uri[:9].lower() == b"filedesc:" else b"response"
    header = b"ARC\r\nWARC-Type: %b\r\nWARC-Target-URI: %b\r\nWARC-IP-Address: %b\r\nContent-Length: %b"
    header %= (kind, uri, address, length)
    if date != b"null":
        parts = (date[:4], date[4:6], date[6:8], date[8:10], date[10:12], date[12:])
        header += b"\r\nWARC-Date: %b-%b-%bT%b:%b:%bZ" % parts
    block = line.end() + window.base
    return Head(Headers(header), "ARC/2" if more else "ARC/1", block, block + int(length))


ARC = Syntax(
    line=re.compile(_LINE),
    next_line=re.compile(rb"\n(?=" + _LINE + rb")"),
    line_bytes=2 * URL_BYTES + 2048,
    head=_head,
    closed=b"",
    newlines=1,
)
