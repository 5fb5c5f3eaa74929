"""Texts to ids and back with a SentencePiece BPE model as LLaMA's (section 2.1): any text comes back as it was.

But for two rules, which `given_back` states: a lone surrogate, which UTF-8 cannot hold, is U+FFFD, and U+2581, which
SentencePiece writes for a space, comes back as a space. Words that look like pieces with a meaning of their own
(`<s>`, `<0x0A>`) are text like any other.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from filters.errors import UserError
from filters.models.protobuf import fields, message, number

CHUNK = 1 << 20
"""characters that are encoded at once: SentencePiece takes some 50 bytes for each byte of a text"""
LONGEST_STRETCH = 1 << 23
"""characters; a stretch without a place to cut that is longer than this is cut all the same"""

BLOCK = 1 << 12
"""characters among which a place to cut is looked for at once"""
PAIR_BITS = 20
"""a vocabulary of 32,000 has some 4,000 pairs"""

SPACE = "\u2581"
BPE = 2
"""TrainerSpec.model_type in sentencepiece_model.proto"""
SEPARATOR = "\0"
"""SentencePiece takes no piece with it into its dictionary, so that nothing is joined with it"""

_SURROGATES = re.compile("[\ud800-\udfff]")

Ids = npt.NDArray[Any]
Codes = npt.NDArray[np.uint32]
Pairs = npt.NDArray[np.bool_]
"""pairs of characters, by hash"""


def open_model(proto: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    """A SentencePieceProcessor from the bytes of a model; `name` stands in the messages.

    Raises UserError for bytes that are none, and for a model that has no BOS or EOS, is not BPE, or does not give
    every text back: one that normalises, drops spaces, or has no byte pieces.
    """
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except (OSError, RuntimeError) as error:
        raise UserError(f"tokenizer {name} cannot be read: give the path of a SentencePiece model") from error
    if model.bos_id() < 0 or model.eos_id() < 0:
        raise UserError(f"tokenizer {name} has no BOS or EOS piece: give a model trained with both")
    why = _unfit(proto, model)
    if why:
        raise UserError(
            f"tokenizer {name} {why}: give a BPE model with byte fallback, identity normalisation and all spaces kept, "
            "as LLaMA's"
        )
    return model


def encode_texts(texts: list[str], model: sentencepiece.SentencePieceProcessor, vocabulary: int) -> list[Ids]:
    """Each text as BOS, its pieces, EOS: (ids + 2,) uint16, or uint32 for a vocabulary of more than 65,536.

    The ids are those of SentencePiece on the whole text. A text of more than `CHUNK` characters is encoded in parts,
    each of which ends where no piece of the vocabulary could join the characters on both sides; a stretch of
    `LONGEST_STRETCH` characters without such a place is cut where it is, and may differ there by a few ids.
    """
    kind = np.result_type(np.uint16, np.min_scalar_type(vocabulary - 1))
    short = [utf8(text) for text in texts if len(text) <= CHUNK]
    found = iter(model.encode(short, return_type="numpy", num_threads=1, add_bos=True, add_eos=True))
    return [next(found).astype(kind) if len(text) <= CHUNK else _encode_long(text, model, kind) for text in texts]


def decode_ids(ids: Ids, model: sentencepiece.SentencePieceProcessor) -> str:
    """The text of a document's ids; BOS and EOS are no text. Raises IndexError for an id outside the vocabulary."""
    return str(model.decode(ids.tolist()))


def given_back(text: str) -> str:
    """What a text is once it was encoded and decoded."""
    return _SURROGATES.sub("\ufffd", text).replace(SPACE, " ")


def utf8(text: str) -> bytes:
    """UTF-8, with U+FFFD for each lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def chunks(text: str, inner: Pairs) -> Iterator[str]:
    """A text in parts of about `CHUNK` characters, cut between two characters that are no pair of `inner`, or after
    `LONGEST_STRETCH`. Each character is looked at once at the most."""
    start, end = 0, CHUNK
    while end < len(text):
        last = min(len(text), start + LONGEST_STRETCH)
        while end < last:
            codes = _codes(text[end - 1 : min(end + BLOCK, last)])
            free = np.flatnonzero(~inner[_hashes(codes[:-1], codes[1:])])
            end += int(free[0]) if len(free) else len(codes) - 1
            if len(free):
                break
        yield text[start:end]
        start, end = end, end + CHUNK
    if start < len(text):
        yield text[start:]


@lru_cache(maxsize=2)
def inner_pairs(model: sentencepiece.SentencePieceProcessor) -> Pairs:
    """The pairs of neighbours within the pieces of a model. BPE joins two symbols only to a piece, so between two
    characters that are no such pair it joins nothing, and what it does on one side does not depend on the other."""
    pieces = map(model.id_to_piece, range(model.get_piece_size()))
    pairs = {piece[at : at + 2] for piece in pieces for at in range(len(piece) - 1)}
    return pair_table(left + right for pair in pairs for left in _forms(pair[0]) for right in _forms(pair[1]))


def pair_table(pairs: Iterable[str]) -> Pairs:
    """(2**`PAIR_BITS`,) bool: true for the hashes of those pairs of characters. Another pair may share one: then a
    place to cut is passed over, and no harm done."""
    codes = _codes("".join(pairs))
    table = np.zeros(1 << PAIR_BITS, np.bool_)
    table[_hashes(codes[::2], codes[1::2])] = True
    return table


def _codes(text: str) -> Codes:
    """(characters,) uint32: code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _hashes(left: Codes, right: Codes) -> Codes:
    """(n,) uint32 below 2**`PAIR_BITS`: a multiplicative hash of each pair (Knuth, volume 3, section 6.4)."""
    return ((left * np.uint32(0x9E3779B1) + right) * np.uint32(0x85EBCA77)) >> np.uint32(32 - PAIR_BITS)


def _forms(character: str) -> str:
    """What a text has where a piece has that character."""
    return SPACE + " " if character == SPACE else character


def _encode_long(text: str, model: sentencepiece.SentencePieceProcessor, kind: np.dtype[Any]) -> Ids:
    """As SentencePiece on the whole, from parts. All but the first are encoded behind a separator, since SentencePiece
    puts a space before a text."""
    before = len(model.encode(SEPARATOR))
    found = [np.array([model.bos_id()], kind)]
    for part in chunks(text, inner_pairs(model)):
        first = len(found) == 1
        ids = model.encode(utf8(part if first else SEPARATOR + part), return_type="numpy")
        found.append(ids[0 if first else before :].astype(kind))
    return np.concatenate([*found, np.array([model.eos_id()], kind)])


def _unfit(proto: bytes, model: sentencepiece.SentencePieceProcessor) -> str:
    """What keeps a model from giving every text back, or "". The numbers are of sentencepiece_model.proto."""
    trainer, normalizer, denormalizer = (fields(message(fields(proto), place)) for place in (2, 3, 5))
    space = model.piece_to_id(SPACE)
    unfit = {
        "is not a BPE model": number(trainer, 3, 1) != BPE,
        "has no byte pieces": not number(trainer, 35, 0),
        "puts spaces behind words": bool(number(trainer, 24, 0)),
        "normalises text": bool(message(normalizer, 2) or message(denormalizer, 2)),
        "drops spaces": bool(number(normalizer, 4, 1)) or not number(normalizer, 5, 1),
        "has no piece for a space": space == model.unk_id(),
        "has unused pieces": any(map(model.is_unused, range(model.get_piece_size()))),
    }
    return next((why for why, found in unfit.items() if found), "")
