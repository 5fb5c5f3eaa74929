"""Tests of block digests: the spellings of different writers, and values that are ignored."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.formats.records import check_block_digest

EMPTY = "3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ"  # The SHA-1 of an empty block in base32. It is frequent in web archives.


def test_a_published_digest() -> None:
    assert check_block_digest(f"sha1:{EMPTY}", b"") == ""
    assert check_block_digest(f"sha1:{EMPTY}", b"x") == "the block's sha1 differs from the declared one"


@pytest.mark.parametrize("label", ["sha1", "SHA-1", "sha256", "sha-256", "sha512", "md5"])
@given(st.binary(max_size=40))
def test_every_spelling(label: str, block: bytes) -> None:
    digest = hashlib.new(label.lower().replace("-", ""), block).digest()
    b32, b64 = base64.b32encode(digest).decode(), base64.b64encode(digest).decode()
    for value in (b32, b32.lower(), b32.rstrip("="), b64, b64.rstrip("="), digest.hex(), digest.hex().upper()):
        assert check_block_digest(f"{label}:{value}", block) == ""
        assert check_block_digest(f" {label} : {value} ", block + b"!") != ""


NO_DIGESTS = [None, "", "sha1", "sha1:", "sha1:-", "crc32:00000000", "xxh3:1234", EMPTY, f"sha1:{EMPTY[1:]}"]
NO_DIGESTS += ["sha1:" + "!" * 32, "sha1:" + "\u0663" * 40, "md5:" + "g" * 32]


@pytest.mark.parametrize("declared", NO_DIGESTS)
def test_what_is_no_digest_says_nothing(declared: str | None) -> None:
    assert check_block_digest(declared, b"block") == ""


@given(st.text(max_size=80), st.sampled_from(["sha1:", "md5:", ""]))
def test_nothing_raises(text: str, label: str) -> None:
    assert isinstance(check_block_digest(label + text, b"block"), str)
