"""The normal form of URLs and the site of a URL. The normal form is used to find cited pages among crawled pages.

URLs that usually show the same page have the same normal form, even if they are different URLs for a browser. They may
differ in "www.", a final slash, tracking parameters, or http and https. The URL of a copy in a web archive has the same
normal form as the URL of the original page.
"""

import re
from urllib.parse import unquote

import xxhash

# Longer text is not treated as a URL. RFC 9110, section 4.1, recommends that servers support at least 8,000 octets.
MAX_CHARACTERS = 1 << 13
TRACKING_PREFIXES = ("utm_", "mtm_", "pk_")  # prefixes of query parameters of Google Analytics and Matomo
TRACKING = frozenset(  # other parameters of advertisers and newsletters, and common parameters for the referring page
    (
        "_ga cmpid dclid fbclid feature gbraid gclid gclsrc igshid mc_cid mc_eid mkt_tok msclkid ncid ref ref_src"
        " ref_url referrer s_cid smid wbraid wt.mc_id yclid"
    ).split()
)
SECOND_LEVELS = frozenset(  # labels below which country registries sell names (.co.uk, .com.au, .ac.jp, .gob.mx)
    "ac asn co com edu go gob gouv gov gub gv id info ltd mil mod ne net nhs nom or org plc sch web".split()
)
PARTS = re.compile(r"(?:https?:)?[/\\]{2}([^/\\?#]*)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
WRAPPERS = {  # pattern of an archive's host -> pattern of paths that contain the URL of the original page
    re.compile(r"(?:(?:web|wayback)(?:-beta)?\.)?archive\.org"): re.compile(
        r"/(?:web/)?(?:[0-9]{1,14}\*?|\*)(?:[a-z]{2}_)?/(?:https?:/{0,2})?([^/.]+\..*)", re.IGNORECASE | re.DOTALL
    ),
    re.compile(r"archive\.(?:today|is|ph|fo|li|vn|md)"): re.compile(
        r"/(?:o/)?[\w.-]{1,32}/https?:/{1,2}(.+)", re.IGNORECASE | re.DOTALL
    ),
}

_NOT_IN_URLS = re.compile(r"[\t\n\r]")  # removed everywhere (WHATWG URL, section 4.4)
_TO_ENCODE = re.compile(r"%(?:[0-9A-Fa-f]{2})?|[^\w.~!$&'()*+,;=:@/?%-]|[^\x00-\x7f]")
# Bytes that are never percent-encoded in the normal form: unreserved ones (RFC 3986, section 2.3), and others that some
# authors encode and others do not.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!'()*,:@")
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_IPV6 = re.compile(r"(\[[0-9a-f:.]{2,45}\])(?::([0-9]*))?")
_IPV4 = re.compile(r"[0-9.]+")


def normalise(url: str) -> str:
    """Return the normal form of an http(s) URL, "//host/path?query" (RFC 3986, section 4.2); empty for any other text.

    Scheme, user, "www.", port 80 or 443, fragment, dot segments, final slashes and tracking parameters are removed. The
    host is in lower case and punycode (IDNA 2003). Percent-encoding is in upper case and only where it is needed. The
    other parameters of the query keep their order. If the URL of an archived copy contains the URL of the original
    page, the normal form of the original is returned. The function is idempotent.
    """
    while True:
        if len(url) > MAX_CHARACTERS:
            return ""
        parts = PARTS.match(_NOT_IN_URLS.sub("", url).strip(" \0"))
        host = _normalise_host(parts.group(1)) if parts else ""
        if not parts or not host:
            return ""
        path, query = _normalise_path(parts.group(2)), _normalise_query(parts.group(3) or "")
        original = _find_original(host, path)
        if original is None:
            return f"//{host}{path}{query}"
        url = f"//{original}{query}"


def url_hash(url: str) -> int:
    """Return a 64-bit hash (XXH3) of the normal form of a URL; 0 for text that is not an http(s) URL."""
    normal = normalise(url)
    return xxhash.xxh3_64_intdigest(normal.encode()) if normal else 0


def is_archived_copy(url: str) -> bool:
    """Return True if a URL has the host of a web archive, which stores copies of other pages."""
    parts = PARTS.match(url)
    host = _normalise_host(parts.group(1)) if parts else ""
    return any(hosts.fullmatch(host) for hosts in WRAPPERS)


def domain(url: str) -> str:
    """Return the site of a URL, approximately its registered domain; empty for text that is not an http(s) URL.

    The site is the last two labels of the host. It is the last three labels if the last label has two characters (as
    those of countries) and the label before it is in `SECOND_LEVELS`. For an IP address it is the whole address.
    """
    host = normalise(url)[2:].partition("/")[0].partition("?")[0]
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    name = host.partition(":")[0]
    if _IPV4.fullmatch(name):
        return name
    labels = name.split(".")
    long = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in SECOND_LEVELS
    return ".".join(labels[-3:] if long else labels[-2:])


def _normalise_host(authority: str) -> str:
    """Return the normal form of a host, with its port unless the port is 80 or 443; empty if the host is invalid."""
    place = authority.rpartition("@")[2]
    bracketed = _IPV6.fullmatch(place.lower())
    if bracketed:
        name, port = bracketed.group(1), bracketed.group(2) or ""
    else:
        name, _, port = unquote(place).partition(":")
        try:
            name = name.encode("idna").decode("ascii").lower().removesuffix(".")
        except UnicodeError:  # A label is empty or too long, or has characters that are not allowed in names.
            return ""
        if not _HOST.fullmatch(name):
            return ""
        while name.startswith("www.") and "." in name.removeprefix("www."):
            name = name.removeprefix("www.")
    if not port:
        return name
    if not (port.isascii() and port.isdigit() and len(port) < 9 and int(port) < 1 << 16):
        return ""
    return name if int(port) in (80, 443) else f"{name}:{int(port)}"


def _normalise_path(path: str) -> str:
    """Resolve percent-encoding and dot segments (RFC 3986, sections 5.2.4 and 6.2.2), and drop final slashes."""
    path = _TO_ENCODE.sub(_encode, path.replace("\\", "/"))
    if "/." in path:
        kept: list[str] = []
        for segment in path.split("/")[1:]:
            if segment == "..":
                del kept[-1:]
            elif segment != ".":
                kept.append(segment)
        path = "".join(f"/{segment}" for segment in kept)
    return path.rstrip("/")


def _normalise_query(query: str) -> str:
    kept = [part for part in _TO_ENCODE.sub(_encode, query).split("&") if part and not _is_tracking(part)]
    return "?" + "&".join(kept) if kept else ""


def _is_tracking(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return name in TRACKING or name.startswith(TRACKING_PREFIXES)


def _encode(found: re.Match[str]) -> str:
    piece = found.group()
    if piece == "%":
        return "%25"
    if piece[0] == "%":
        code = int(piece[1:], 16)
        return chr(code) if code in _PLAIN else piece.upper()
    return "".join(f"%{code:02X}" for code in piece.encode("utf-8", "replace"))


def _find_original(host: str, path: str) -> str | None:
    """Return the URL of the original page, without scheme, from the URL of an archived copy; None for other URLs."""
    for hosts, paths in WRAPPERS.items():
        if hosts.fullmatch(host):
            found = paths.match(path)
            return found.group(1).lstrip("/") if found else None
    return None
