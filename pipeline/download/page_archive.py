"""The WARC file that fetched pages are written to, and that tells a later run what is done already.

A page is a `response` record under the URL that was asked for; `Final-URI` is the URL at the end of its redirects. A
URL without a page, for a reason that lasts, is a `metadata` record that names it.
"""

import io
import re
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any

from filters.errors import UserError
from filters.formats.stored import open_stored
from filters.formats.warc import Limits, read_frames
from pipeline.download.http import lock
from pipeline.download.page_request import Answer

LIMITS = Limits(1 << 30)  # no record that this module writes is larger
SOFTWARE = "teratoken"  # in the first record: by it a later run knows that the archive is one of this module
FINAL_URI = "Final-URI"
PAGE = "page"
_REASON = re.compile(rb"reason: ([a-z0-9-]+)\r\n")
_CODED = {"transfer-encoding": "X-Crawler-Transfer-Encoding"}  # renamed, since bodies are stored without this coding


class PageArchive:
    """An archive that is open for appending.

    Attributes:
        done: the outcome of each URL in the file: `PAGE`, or the reason for having none.
    """

    def __init__(self, path: Path, agent: str) -> None:
        """Open or create an archive; a last record that was cut short is removed.

        Raises:
            UserError: the file cannot be written, is no archive of pages, or another process writes it.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self.file = path.open("r+b")
            if not lock(self.file):
                raise UserError(f"{path}: another process is writing it: wait for its end, or give another --output")
            if not path.stat().st_size:
                self._begin(agent)
            self.done, end = _read_outcomes(path)
            self.file.truncate(end)
            self.file.seek(end)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): give another --output") from error

    def _begin(self, agent: str) -> None:
        """Write the first record. Raises OSError, and then the file is empty again."""
        try:
            self.path.write_bytes(_make_head(self.path.name, agent))
        except OSError:
            self.file.truncate(0)
            raise

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @property
    def counts(self) -> Counter[str]:
        """Return the number of URLs by outcome."""
        return Counter(self.done.values())

    def write_page(self, url: str, final: str, answer: Answer) -> None:
        """Append a page. Raises OSError."""
        from warcio.statusandheaders import StatusAndHeaders

        fields = [
            (_make_ascii(_CODED.get(name.lower(), name)), _make_ascii(value)) for name, value in answer.headers.items()
        ]
        head = StatusAndHeaders(f"{answer.status} {HTTPStatus(answer.status).phrase}", fields, protocol="HTTP/1.1")
        warc = {"WARC-IP-Address": answer.ip, FINAL_URI: final}
        self._append(_make_record(url, "response", answer.body, warc_headers_dict=warc, http_headers=head))
        self.done[url] = PAGE

    def write_reason(self, url: str, reason: str) -> None:
        """Append the reason for which a URL has no page. Raises OSError."""
        self._append(_make_record(url, "metadata", f"reason: {reason}\r\n".encode()))
        self.done[url] = reason

    def _append(self, record: bytes) -> None:
        self.file.write(record)
        self.file.flush()


def _make_ascii(text: str) -> str:
    """Return a part of a header as warcio can write it."""
    return text.encode("ascii", "replace").decode("ascii")


def _make_head(name: str, agent: str) -> bytes:
    """Return the record at the beginning of an archive."""
    writer = _make_writer()
    writer.write_record(writer.create_warcinfo_record(name, {"software": SOFTWARE, "http-header-user-agent": agent}))
    return bytes(writer.get_contents())


def _make_record(url: str, kind: str, body: bytes, **fields: object) -> bytes:
    writer = _make_writer()
    writer.write_record(writer.create_warc_record(url, kind, io.BytesIO(body), len(body), **fields))
    return bytes(writer.get_contents())


def _make_writer() -> Any:
    from warcio.warcwriter import BufferWARCWriter

    return BufferWARCWriter(gzip=True)


def _read_outcomes(path: Path) -> tuple[dict[str, str], int]:
    """Return the outcomes in an archive by URL, and the end of its last whole record. Raises UserError, OSError."""
    done: dict[str, str] = {}
    kind, end = "", 0
    with open_stored(path) as stored:
        for frame in read_frames(stored, LIMITS):
            if frame.problem is not None:
                continue  # after the last record: a process was killed as it wrote
            kind = (frame.headers.get("WARC-Type") or "").lower()
            if not end and (frame.offset or kind != "warcinfo" or f"software: {SOFTWARE}".encode() not in frame.block):
                break  # a dump, say, which must not be changed
            end = frame.offset + frame.length
            if kind == "response":
                done[frame.target_uri] = PAGE
            elif kind == "metadata" and (reason := _REASON.match(frame.block)):
                done[frame.target_uri] = reason[1].decode()
    if not end:
        raise UserError(f"{path} is not an archive that this command wrote: give another --output")
    return done, end
