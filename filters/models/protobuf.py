"""The fields of a protocol-buffers message, without its schema (protobuf.dev, Encoding): enough to read settings."""

Fields = list[tuple[int, int | bytes]]
"""(field's number, its value) in the order of the bytes; a value is a number, or bytes for all that has a length"""

_FIXED = {1: 8, 5: 4}
"""bytes of a value, by wire type"""


def fields(encoded: bytes) -> Fields:
    """The fields of one message. What follows a mistake in the bytes is left out."""
    found: Fields = []
    at = 0
    while at < len(encoded):
        tag, at = _varint(encoded, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(encoded, at)
        elif kind == 2 or kind in _FIXED:
            size, at = _varint(encoded, at) if kind == 2 else (_FIXED[kind], at)
            value, at = encoded[at : at + size], at + size
        else:
            break
        if at > len(encoded):
            break
        found.append((tag >> 3, value))
    return found


def message(found: Fields, place: int) -> bytes:
    """The bytes of a message or string; of one that stands several times, all of them, which is how they are joined."""
    return b"".join([value for number, value in found if number == place and isinstance(value, bytes)])


def number(found: Fields, place: int, default: int) -> int:
    """The last value of a number."""
    return next((v for n, v in reversed(found) if n == place and isinstance(v, int)), default)


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends: past the bytes for one that does not end."""
    value = 0
    for shift, byte in enumerate(encoded[at : at + 10]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at + shift + 1
    return value, len(encoded) + 1
