"""One HTTP request, and whether another one is worth it when it fails.

What a server says is never shown as it comes, since it may hold anything: reasons are in the standard's words.
"""

import email.utils
import http
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO

RETRIED = frozenset({403, 429, 500, 502, 503, 504})
"""403 too: Common Crawl's servers refuse with it whoever asks too fast"""
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try one file. All times in seconds."""

    attempts: int = 8
    backoff: float = 2.0
    """before the second attempt; doubled before each one after it"""
    longest: float = 120.0
    """no wait of ours is longer"""
    silence: float = 60.0
    """a connection on which nothing comes for so long is broken"""

    def wait(self, failures: int) -> float:
        """Seconds between the failure of that number (from 1) and the next attempt."""
        return float(min(self.backoff * 2 ** min(failures - 1, 40), self.longest))


class AgainError(Exception):
    """This attempt failed, another may not. `anew`: what is there already is of no use."""

    def __init__(self, reason: str, status: int = 0, retry_after: float = 0.0, anew: bool = False) -> None:
        super().__init__(reason)
        self.status, self.retry_after, self.anew = status, retry_after, anew


class GiveUpError(Exception):
    """This file cannot be had."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # or a redirect's body would be read to its end, however long
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def new_opener() -> urllib.request.OpenerDirector:
    """Speaks HTTP and HTTPS, nothing else: a redirect to a file or an FTP server leads nowhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def open_url(
    opener: urllib.request.OpenerDirector, url: str, headers: dict[str, str], silence: float
) -> http.client.HTTPResponse:
    """The answer to a GET, with its body to be read; `silence` in seconds. Raises AgainError and GiveUpError."""
    if not url.lower().startswith(("http://", "https://")):
        raise GiveUpError("neither http nor https")
    try:
        request = urllib.request.Request(url, headers=headers)
        response: http.client.HTTPResponse = opener.open(request, timeout=silence)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        reason = status_text(error.code)
        if error.code in RETRIED:
            raise AgainError(reason, error.code, _retry_after(error.headers.get("Retry-After"))) from error
        if error.code == 416 and "Range" in headers:
            raise AgainError("the partial file does not fit the server's", error.code, anew=True) from error
        raise GiveUpError(reason, error.code) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise GiveUpError("no valid URL") from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise GiveUpError("the server's certificate cannot be verified") from error
        raise AgainError(why(error, silence)) from error


def status_text(code: int) -> str:
    """A status in the standard's words."""
    if 300 <= code < 400:
        return f"HTTP {code}, redirected in circles, too often, or to nowhere"
    known = code in {int(status) for status in http.HTTPStatus}
    return f"HTTP {code} {http.HTTPStatus(code).phrase}" if known else f"HTTP {code}"


def why(error: BaseException, silence: float) -> str:
    """Why a connection ended, in a few words."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"silence for {silence:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return f"connection broken ({type(cause).__name__})"


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, section 10.2.3); 0 for none."""
    if value is None:
        return 0.0
    seconds = number(value)
    if seconds is not None:
        return float(seconds)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def number(value: str | None) -> int | None:
    """A header's value as a count; None if it is none."""
    return int(value) if value is not None and _NUMBER.fullmatch(value.strip()) else None
