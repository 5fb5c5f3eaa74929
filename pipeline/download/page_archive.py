"""Write fetched pages to a WARC file, and read from it which URLs earlier runs have finished.

A page is a `response` record with the requested URL. Its header `Final-URI` is the URL at the end of the redirects. A
URL that has no page, for a permanent reason, is a `metadata` record with this reason.
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

LIMITS = Limits(1 << 30)  # records that this module writes are smaller
SOFTWARE = "teratoken"  # in the first record of each archive that this module has written
FINAL_URI = "Final-URI"
PAGE = "page"
_REASON = re.compile(rb"reason: ([a-z0-9-]+)\r\n")
_CODED = {"transfer-encoding": "X-Crawler-Transfer-Encoding"}  # renamed, because bodies are stored without this coding


class PageArchive:
    """An archive that is open for appending.

    Attributes:
        done: from each URL in the file to its result: `PAGE`, or the reason for which it has no page.
    """

    def __init__(self, path: Path, agent: str) -> None:
        """Open or create an archive. If the last record is incomplete, it is removed.

        Args:
            path: path of the archive.
            agent: the User-Agent header, which is recorded in a new archive.

        Raises:
            UserError: the file cannot be written, was not written by this module, or is open in another process.
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
        """Write the first record. If that fails, empty the file and raise OSError."""
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
        """The number of URLs per result."""
        return Counter(self.done.values())

    def write_page(self, url: str, final: str, answer: Answer) -> None:
        """Append a page. Raises OSError.

        Args:
            url: the requested URL.
            final: the URL at the end of the redirects.
            answer: the response.
        """
        from warcio.statusandheaders import StatusAndHeaders

        fields = [
            (_make_ascii(_CODED.get(name.lower(), name)), _make_ascii(value)) for name, value in answer.headers.items()
        ]
        head = StatusAndHeaders(f"{answer.status} {HTTPStatus(answer.status).phrase}", fields, protocol="HTTP/1.1")
        warc = {"WARC-IP-Address": answer.ip, FINAL_URI: final}
        self._append(_make_record(url, "response", answer.body, warc_headers_dict=warc, http_headers=head))
        self.done[url] = PAGE

    def write_reason(self, url: str, reason: str) -> None:
        """Append a URL with the reason for which it has no page. Raises OSError."""
        self._append(_make_record(url, "metadata", f"reason: {reason}\r\n".encode()))
        self.done[url] = reason

    def _append(self, record: bytes) -> None:
        self.file.write(record)
        self.file.flush()


def _make_ascii(text: str) -> str:
    """Replace the characters of a header that are not ASCII, because warcio cannot write them."""
    return text.encode("ascii", "replace").decode("ascii")


def _make_head(name: str, agent: str) -> bytes:
    """Return the first record of an archive."""
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
    """Read an archive.

    Returns:
        A dict from URL to its result, and the offset after the last complete record.

    Raises:
        UserError: this module did not write the file.
        OSError: the file cannot be read.
    """
    done: dict[str, str] = {}
    kind, end = "", 0
    with open_stored(path) as stored:
        for frame in read_frames(stored, LIMITS):
            if frame.problem is not None:
                continue  # the last record is incomplete, because its process was killed
            kind = (frame.headers.get("WARC-Type") or "").lower()
            if not end and (frame.offset or kind != "warcinfo" or f"software: {SOFTWARE}".encode() not in frame.block):
                break  # another web archive, such as a dump, which must not be changed
            end = frame.offset + frame.length
            if kind == "response":
                done[frame.target_uri] = PAGE
            elif kind == "metadata" and (reason := _REASON.match(frame.block)):
                done[frame.target_uri] = reason[1].decode()
    if not end:
        raise UserError(f"{path} is not an archive that this command wrote: give another --output")
    return done, end
