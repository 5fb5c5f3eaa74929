"""Digests that WARC records declare of their blocks."""

import base64
import hashlib

ALGORITHMS = {"sha1": "sha1", "sha256": "sha256", "sha512": "sha512", "md5": "md5"}  # by label, without hyphens


def agrees_with_digest(declared: str | None, block: bytes) -> bool | None:
    """Return True if a block has its `WARC-Block-Digest` (`sha1:…`), False if not, None if that cannot be checked.

    Values are in base32 (most writers), hexadecimal (pywb, Webrecorder) or base64. Unknown algorithms, and values that
    cannot be a digest of the algorithm named, are ignored. `WARC-Payload-Digest` is never checked: writers disagree on
    the bytes that it covers (ISO 28500:2017, section 5.8).
    """
    label, _, value = (declared or "").partition(":")
    algorithm = ALGORITHMS.get(label.strip().lower().replace("-", ""))
    if algorithm is None:
        return None
    digest = hashlib.new(algorithm, block, usedforsecurity=False).digest()
    wanted = _decode_digest(value.strip().rstrip("="), len(digest))
    return None if wanted is None else wanted == digest


def check_block_digest(declared: str | None, block: bytes) -> str:
    """Check a block against its `WARC-Block-Digest` and return the error, or ""."""
    if agrees_with_digest(declared, block) is not False:
        return ""
    return f"the block's {(declared or '').partition(':')[0].strip()[:10].lower()} differs from the declared one"


def _decode_digest(value: str, size: int) -> bytes | None:
    """Return a digest of `size` bytes; the length of its text tells the encoding."""
    try:
        if len(value) == 2 * size:
            return bytes.fromhex(value)
        padding = "=" * (-len(value) % 8)
        if len(value) == -(-size * 8 // 5):
            return base64.b32decode(value + padding, casefold=True)
        if len(value) == -(-size * 4 // 3):
            return base64.b64decode(value + padding, validate=False)
    except ValueError:
        pass
    return None
