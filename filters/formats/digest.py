"""Checksums that WARC records bear of their blocks (ISO 28500:2017, section 5.8).

Only `WARC-Block-Digest` can be checked: it is over the block as stored. What `WARC-Payload-Digest` is over differs from
writer to writer (the body with or without its transfer and content codings), so a mismatch would prove nothing.
"""

import base64
import hashlib

ALGORITHMS = {"sha1": "sha1", "sha256": "sha256", "sha512": "sha512", "md5": "md5"}
"""by label, without hyphens"""


def block_mismatch(declared: str | None, block: bytes) -> str:
    """What is wrong with a block by its declared digest (`sha1:…`), empty if nothing is.

    Values come in base32 (most writers), hexadecimal (pywb, Webrecorder) or base64. Unknown algorithms, and values that
    are no digest of the algorithm named, are passed over: they say nothing of the block.
    """
    label, _, value = (declared or "").partition(":")
    algorithm = ALGORITHMS.get(label.strip().lower().replace("-", ""))
    if algorithm is None:
        return ""
    digest = hashlib.new(algorithm, block, usedforsecurity=False).digest()
    wanted = _decoded(value.strip().rstrip("="), len(digest))
    if wanted is None or wanted == digest:
        return ""
    return f"the block's {label.strip()[:10].lower()} is not the one declared"


def _decoded(value: str, size: int) -> bytes | None:
    """The digest of `size` bytes that a value spells; its length tells how. None if it spells none."""
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
