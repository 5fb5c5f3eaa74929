"""URLs brought to one form, so that a page that is cited can be found among pages that were crawled.

Other than for a browser, two URLs that show the same page in practice are one here: with and without "www.", a final
slash, tracking parameters, http and https, and the copy of a web archive for the original.
"""

import re

import xxhash

MAX_CHARACTERS = 1 << 13
"""of a URL; a longer one is taken for none (servers refuse a request line of more than 8,000 octets, RFC 9110, 4.1)"""
TRACKING_PREFIXES = ("utm_", "mtm_", "pk_")
"""of query parameters that say how a reader came: Google Analytics, Matomo"""
TRACKING = frozenset(
    re.findall(
        r"\S+",
        "_ga cmpid dclid fbclid feature gbraid gclid gclsrc igshid mc_cid mc_eid mkt_tok msclkid ncid ref ref_src"
        " ref_url referrer s_cid smid wbraid wt.mc_id yclid",
    )
)
"""further such parameters: of advertisers and newsletters, and the common names for "where from" """
SECOND_LEVELS = frozenset(
    re.findall(r"\w+", "ac asn co com edu go gob gouv gov gub gv id info ltd mil mod ne net nhs nom or org plc sch web")
)
"""labels below which country registries sell names (.co.uk, .com.au, .ac.jp, .gob.mx)"""
PARTS = re.compile(r"(?:https?:)?[/\\]{2}([^/\\?#]*)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
WRAPPERS = {
    re.compile(r"(?:(?:web|wayback)(?:-beta)?\.)?archive\.org"): re.compile(
        r"/(?:web/)?(?:[0-9]{1,14}\*?|\*)(?:[a-z]{2}_)?/(?:https?:/{0,2})?([^/.]+\..*)", re.IGNORECASE | re.DOTALL
    ),
    re.compile(r"archive\.(?:today|is|ph|fo|li|vn|md)"): re.compile(
        r"/(?:o/)?[\w.-]{1,32}/https?:/{1,2}(.+)", re.IGNORECASE | re.DOTALL
    ),
}
"""hosts of archived copies, and the paths in which the original's URL is to be seen"""

_NOT_IN_URLS = re.compile(r"[\t\n\r]")  # taken out wherever they stand (WHATWG URL, section 4.4)
_TO_ENCODE = re.compile(r"%(?:[0-9A-Fa-f]{2})?|[^\w.~!$&'()*+,;=:@/?%-]|[^\x00-\x7f]")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!'()*,:@")
"""bytes that mean the same encoded or not: unreserved (RFC 3986, section 2.3) and those that writers of links encode
or leave as they please"""
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_IPV6 = re.compile(r"(\[[0-9a-f:.]{2,45}\])(?::([0-9]*))?")
_IPV4 = re.compile(r"[0-9.]+")


def normalise(url: str) -> str:
    """The form of an http(s) URL that is compared: "//host/path?query", a network-path reference (RFC 3986, section
    4.2); empty for what is no such URL. Never raises; the normal form of a normal form is itself.

    Without scheme, user, "www.", port 80 or 443, fragment, dot segments, final slashes and tracking parameters; the
    host in lower case and punycode (IDNA 2003), percent-encoding only where needed and in upper case; the rest of the
    query in its order. The URL of an archived copy becomes the original's, where that can be seen.
    """
    while True:
        if len(url) > MAX_CHARACTERS:
            return ""
        parts = PARTS.match(_NOT_IN_URLS.sub("", url).strip(" \0"))
        host = _host(parts.group(1)) if parts else ""
        if not parts or not host:
            return ""
        path, query = _path(parts.group(2)), _query(parts.group(3) or "")
        original = _unwrapped(host, path)
        if original is None:
            return f"//{host}{path}{query}"
        url = f"//{original}{query}"


def url_hash(url: str) -> int:
    """A 64-bit number (XXH3) that is equal for equal normal forms; 0 for what is no http(s) URL."""
    normal = normalise(url)
    return xxhash.xxh3_64_intdigest(normal.encode()) if normal else 0


def domain(url: str) -> str:
    """The site a URL belongs to, roughly what someone registered: the last two labels of the host, or three if the last
    is a country's and the one before is among `SECOND_LEVELS`; an IP address whole; empty for no http(s) URL."""
    host = normalise(url)[2:].partition("/")[0].partition("?")[0]
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    name = host.partition(":")[0]
    if _IPV4.fullmatch(name):
        return name
    labels = name.split(".")
    long = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in SECOND_LEVELS
    return ".".join(labels[-3:] if long else labels[-2:])


def _host(authority: str) -> str:
    """The host and a port worth telling, empty if it cannot be one."""
    place = authority.rpartition("@")[2]
    bracketed = _IPV6.fullmatch(place.lower())
    if bracketed:
        name, port = bracketed.group(1), bracketed.group(2) or ""
    else:
        name, _, port = _decoded(place).partition(":")
        try:
            name = name.encode("idna").decode("ascii").lower().removesuffix(".")
        except UnicodeError:  # a label that is empty, too long, or of characters that no name may have
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


def _decoded(name: str) -> str:
    """A host with its percent-encoding undone (WHATWG URL, section 3.5)."""
    if "%" not in name:
        return name
    return re.sub(
        "(?:%[0-9A-Fa-f]{2})+", lambda run: bytes.fromhex(run.group().replace("%", "")).decode("utf-8", "replace"), name
    )


def _path(path: str) -> str:
    """Percent-encoding and dot segments resolved (RFC 3986, sections 5.2.4 and 6.2.2), final slashes dropped."""
    path = _TO_ENCODE.sub(_encoded, path.replace("\\", "/"))
    if "/." in path:
        kept: list[str] = []
        for segment in path.split("/")[1:]:
            if segment == "..":
                del kept[-1:]
            elif segment != ".":
                kept.append(segment)
        path = "".join(f"/{segment}" for segment in kept)
    return path.rstrip("/")


def _query(query: str) -> str:
    kept = [part for part in _TO_ENCODE.sub(_encoded, query).split("&") if part and not _tracks(part)]
    return "?" + "&".join(kept) if kept else ""


def _tracks(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return name in TRACKING or name.startswith(TRACKING_PREFIXES)


def _encoded(found: re.Match[str]) -> str:
    piece = found.group()
    if piece == "%":
        return "%25"
    if piece[0] == "%":
        code = int(piece[1:], 16)
        return chr(code) if code in _PLAIN else piece.upper()
    return "".join(f"%{code:02X}" for code in piece.encode("utf-8", "replace"))


def _unwrapped(host: str, path: str) -> str | None:
    """The original's URL within that of an archived copy, without its scheme; None if it is none."""
    for hosts, paths in WRAPPERS.items():
        if hosts.fullmatch(host):
            found = paths.match(path)
            return found.group(1).lstrip("/") if found else None
    return None
