"""Encodings as the web means them: the labels and decoders of the WHATWG Encoding Standard.

A label names an encoding that is often larger than its own standard: `iso-8859-1` is windows-1252, `gb2312` is gb18030,
`shift_jis` has Microsoft's extensions. The table encodings.tsv gives each encoding of the standard Python's nearest
codec and all labels (Encoding Standard, section 4.2); code_points.tsv lists the byte sequences that this codec decodes
otherwise than the standard's index (section 5), or not at all.
"""

import codecs
import re
from functools import cache, partial

from filters.data_files import read_rows

DATA_FILES = ("encodings.tsv", "code_points.tsv")  # part of the code version of a step

REPLACEMENT = "replacement"  # the standard's encoding that gives one U+FFFD, since its codecs were used for attacks
UNDEFINED = "\ufffd"

_ROWS = read_rows("filters.formats", "encodings.tsv")
_CODECS = {encoding: codec for encoding, codec, _ in _ROWS}
_LABELS = {label: encoding for encoding, _, labels in _ROWS for label in labels.split()}
_MULTIBYTE = ("gb18030", "big5hkscs", "euc_jp", "cp932", "cp949")
_C1 = re.compile("[\x80-\x9f]")
_C1_IN_UTF8 = re.compile(rb"\xc2[\x80-\x9f]")
_ESCAPE = re.compile(rb"\x1b(\([BJI]|\$[@B])")  # ISO-2022-JP: ASCII, Roman, Katakana; JIS X 0208 of 1978 and 1983


def find_encoding(label: str) -> str | None:
    """Return the encoding that a label names, None for an unknown label (Encoding Standard, section 4.2)."""
    return _LABELS.get(label.strip("\t\n\f\r ").lower())


def decode_bytes(body: bytes, encoding: str) -> str:
    """Return the text of bytes in an encoding of the standard; what it does not define becomes U+FFFD.

    The text has no C1 controls (see `replace_c1`), no NULs and no surrogates.
    """
    codec = _CODECS[encoding]
    if codec == REPLACEMENT:
        return UNDEFINED if body else ""
    if codec == "iso-2022-jp":
        text = _decode_iso_2022_jp(body)
    elif codec in _MULTIBYTE:
        text = body.decode(codec, _register_errors(codec)).translate(_find_differences(codec)[1])
    elif codec.startswith("utf"):
        text = body.decode(codec, "replace")
    else:
        return codecs.charmap_decode(body, "replace", _single_byte_table(encoding))[0]
    return replace_c1(text.replace("\0", UNDEFINED))


def replace_c1(text: str) -> str:
    """Replace the C1 controls, which no text holds, by the characters that windows-1252 has in their places.

    They are left by conversions from windows-1252 that took it for ISO 8859-1. HTML reads numeric references to them in
    the same way (section 13.2.5.80). The five bytes that windows-1252 does not define become U+FFFD.
    """
    if text.isascii() or not _C1_IN_UTF8.search(text.encode("utf-8", "replace")):
        return text  # bytes are searched at several times the speed of text
    return text.translate(_windows_1252())


@cache
def _windows_1252() -> dict[int, str]:
    return {code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}


@cache
def _find_differences(codec: str) -> tuple[dict[bytes, str], dict[int, str]]:
    """Return what a codec lacks: byte sequences that it does not decode, and characters that it gives for others."""
    missing: dict[bytes, str] = {}
    other: dict[int, str] = {}
    for encoding, sequences, characters in read_rows("filters.formats", "code_points.tsv"):
        if _CODECS[encoding] == codec:
            for sequence, character in zip(map(bytes.fromhex, sequences.split()), characters, strict=True):
                try:
                    other[ord(sequence.decode(codec))] = character
                except UnicodeDecodeError:
                    missing[sequence] = character
    if codec == "cp932":  # bytes that only Microsoft's table defines
        other |= dict.fromkeys((0xA0, 0xF8F0, 0xF8F1, 0xF8F2, 0xF8F3), UNDEFINED)
    return missing, other


@cache
def _single_byte_table(encoding: str) -> str:
    """Return the 256 characters of an encoding, where U+FFFE stands for undefined bytes, as `charmap_decode` has it."""
    codec = _CODECS[encoding]
    if codec == "x-user-defined":  # section 14.5
        return "".join(map(chr, [*range(0x80), *range(0xF780, 0xF800)])).replace("\0", UNDEFINED)
    missing, other = _find_differences(codec)
    table = ""
    for code in range(256):
        raw = bytes([code])
        text = missing.get(raw) or raw.decode(codec, "replace").translate(other)
        if text == UNDEFINED or _C1.match(text):
            text = _windows_1252().get(code, UNDEFINED)
        table += text.replace(UNDEFINED, "\ufffe").replace("\0", UNDEFINED)
    return table


@cache
def _register_errors(codec: str) -> str:
    """Register the handler of a codec's errors and return its name."""
    name = f"encodings-{codec}"
    codecs.register_error(name, partial(_resolve_error, _find_differences(codec)[0], codec))
    return name


def _resolve_error(missing: dict[bytes, str], codec: str, error: UnicodeError) -> tuple[str, int]:
    """Return the text of bytes that a codec does not decode, and where to continue.

    A trail byte in ASCII is read again, so that a stray lead byte does not swallow a quote or a bracket, others are not
    (for example section 12.1.1).
    """
    assert isinstance(error, UnicodeDecodeError)
    start = error.start
    pair = error.object[start : start + 2]
    for sequence in (pair, pair[:1]):
        if sequence in missing:
            return missing[sequence], start + len(sequence)
    if codec == "euc_jp":
        if len(pair) == 2 and min(pair) >= 0xA1 and max(pair) <= 0xFE:
            return _decode_jis(pair), start + 2
        if pair[0] == 0x8F:  # leads three bytes
            pair = error.object[start : start + 3]
    return UNDEFINED, start + (len(pair) if pair[-1] >= 0x80 else 1)


def _decode_jis(pairs: bytes) -> str:
    """Return the text of JIS X 0208 in EUC form, with the rows that Microsoft added: Shift_JIS has the same index."""
    text = ""
    for lead, trail in zip(pairs[::2], pairs[1::2], strict=True):
        row, cell = divmod((lead - 0xA1) * 94 + trail - 0xA1, 188)
        moved = bytes((row + (0x81 if row < 0x1F else 0xC1), cell + (0x40 if cell < 0x3F else 0x41)))
        text += moved.decode("cp932", "replace")[:1]
    return text


def _decode_iso_2022_jp(body: bytes) -> str:
    """Return the text of ISO-2022-JP (section 12.2): stretches after escape sequences, the first in ASCII."""
    first, *rest = _ESCAPE.split(body)
    parts = [_ascii(first)]
    for escape, stretch in zip(rest[::2], rest[1::2], strict=True):
        if escape.startswith(b"$"):
            line, newline, after = stretch.partition(b"\n")  # a line ends in ASCII, whatever its escapes say
            pairs = bytes(byte | 0x80 for byte in line if 0x21 <= byte <= 0x7E)
            parts += [_decode_jis(pairs[: len(pairs) & ~1]), UNDEFINED * (len(pairs) & 1), _ascii(newline + after)]
        elif escape == b"(I":
            parts.append(bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in stretch).decode("cp932"))
        else:
            parts.append(_ascii(stretch))
    return "".join(parts)


def _ascii(raw: bytes) -> str:
    return raw.decode("ascii", "replace")
