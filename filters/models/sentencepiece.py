"""Encode texts to token ids and decode ids with a SentencePiece BPE model like LLaMA's (section 2.1); compute metrics.

Decoding restores any text, with two exceptions (see `decoded_form`): a lone surrogate, which UTF-8 cannot represent,
becomes U+FFFD, and U+2581, which SentencePiece writes for a space, becomes a space. Words that look like special pieces
(`<s>`, `<0x0A>`) are encoded as ordinary text.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from filters.errors import UserError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

CHUNK = 1 << 20  # Characters encoded at once. SentencePiece takes about 50 bytes of memory for each byte of a text.
LONGEST_STRETCH = 1 << 23  # Characters. A longer stretch without a suitable place is cut anyway.
SPACE = "\u2581"
SEPARATOR = "\0"  # No piece of a SentencePiece model contains this character, so it is never joined with others.
NO_BYTE = -1

_BPE = 2  # TrainerSpec.model_type
_SURROGATES = re.compile("[\ud800-\udfff]")
_SETTINGS = """
    name: "tokenizer_settings.proto"
    message_type {
        name: "Trainer"
        field { name: "model_type" number: 3 label: LABEL_OPTIONAL type: TYPE_INT32 default_value: "1" }
        field { name: "treat_whitespace_as_suffix" number: 24 label: LABEL_OPTIONAL type: TYPE_BOOL }
        field { name: "byte_fallback" number: 35 label: LABEL_OPTIONAL type: TYPE_BOOL }
    }
    message_type {
        name: "Normalizer"
        field { name: "precompiled_charsmap" number: 2 label: LABEL_OPTIONAL type: TYPE_BYTES }
        field { name: "remove_extra_whitespaces" number: 4 label: LABEL_OPTIONAL type: TYPE_BOOL default_value: "true" }
        field { name: "escape_whitespaces" number: 5 label: LABEL_OPTIONAL type: TYPE_BOOL default_value: "true" }
    }
    message_type {
        name: "Model"
        field { name: "trainer" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Trainer" }
        field { name: "normalizer" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Normalizer" }
        field { name: "denormalizer" number: 5 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Normalizer" }
    }
"""  # The fields of sentencepiece_model.proto that are checked here. sentencepiece's own classes need a newer protobuf.

Ids = npt.NDArray[Any]


def open_model(proto: bytes, name: str) -> "SentencePieceProcessor":
    """Load a SentencePiece model and check that it can restore every text.

    Args:
        proto: the bytes of the model file.
        name: the name of the model in error messages.

    Raises:
        UserError: the bytes are not a model, or the model has no BOS or EOS, is not BPE, or does not restore every text
            (for example because it normalises text, drops spaces or has no byte pieces).
    """
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except (OSError, RuntimeError) as error:
        raise UserError(f"tokenizer {name} cannot be read: give the path of a SentencePiece model") from error
    if model.bos_id() < 0 or model.eos_id() < 0:
        raise UserError(f"tokenizer {name} has no BOS or EOS piece: give a model trained with both")
    defect = _find_defect(proto, model)
    if defect:
        raise UserError(
            f"tokenizer {name} {defect}: give a BPE model with byte fallback, identity normalisation and all spaces "
            "kept, as LLaMA's"
        )
    return model


def encode_texts(texts: list[str], model: "SentencePieceProcessor", vocabulary: int) -> list[Ids]:
    """Encode texts to token ids.

    The ids are those that SentencePiece gives for the whole text. A text of more than `CHUNK` characters is encoded in
    parts. It is cut only where no piece of the vocabulary can contain the characters on both sides. If a stretch of
    `LONGEST_STRETCH` characters has no such place, it is cut at its end, and a few ids there may differ.

    Args:
        texts: the texts.
        model: the tokenizer.
        vocabulary: number of pieces of the model.

    Returns:
        For each text the ids of BOS, its pieces and EOS, (pieces + 2,) uint16, or uint32 if the vocabulary is larger
        than 65,536.
    """
    dtype = np.result_type(np.uint16, np.min_scalar_type(vocabulary - 1))
    short = [utf8(text) for text in texts if len(text) <= CHUNK]
    found = iter(model.encode(short, return_type="numpy", num_threads=1, add_bos=True, add_eos=True))
    return [next(found).astype(dtype) if len(text) <= CHUNK else _encode_long(text, model, dtype) for text in texts]


def decode_ids(ids: Ids, model: "SentencePieceProcessor") -> str:
    """Decode the ids of a document to text. BOS and EOS are ignored. Raises IndexError for an unknown id."""
    return str(model.decode(ids.tolist()))


def decoded_form(text: str) -> str:
    """Return the text that results from encoding and decoding a text."""
    return _SURROGATES.sub("\ufffd", text).replace(SPACE, " ")


def utf8(text: str) -> bytes:
    """Encode a text in UTF-8, with U+FFFD for each lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def chunks(text: str, inner: frozenset[str]) -> Iterator[str]:
    """Split a text into parts of about `CHUNK` characters.

    Each character is looked at once at most.

    Args:
        text: the text.
        inner: pairs of characters between which the text is not cut, from `inner_pairs`. If a stretch of
            `LONGEST_STRETCH` characters consists of such pairs, it is cut at its end.
    """
    start, end = 0, CHUNK
    while end < len(text):
        last = min(len(text), start + LONGEST_STRETCH)
        while end < last and text[end - 1 : end + 1] in inner:
            end += 1
        yield text[start:end]
        start, end = end, end + CHUNK
    if start < len(text):
        yield text[start:]


@lru_cache(maxsize=2)
def inner_pairs(model: "SentencePieceProcessor") -> frozenset[str]:
    """Return all pairs of adjacent characters in the pieces of a model: about 4,000 pairs for 32,000 pieces.

    BPE joins symbols only if the result is a piece. So it never joins two adjacent characters that are not such a pair,
    and the pieces on one side of this place do not depend on the text on the other side.
    """
    pieces = map(model.id_to_piece, range(model.get_piece_size()))
    pairs = {piece[at : at + 2] for piece in pieces for at in range(len(piece) - 1)}
    forms = {SPACE: SPACE + " "}  # The character SPACE in a piece corresponds to SPACE or a space in the text.
    return frozenset(a + b for pair in pairs for a in forms.get(pair[0], pair[0]) for b in forms.get(pair[1], pair[1]))


def byte_values(model: "SentencePieceProcessor") -> npt.NDArray[np.int16]:
    """Return (pieces,) int16: the byte of each byte piece (10 for `<0x0A>`), and `NO_BYTE` for all other pieces."""
    size = model.get_piece_size()
    values = [int(model.id_to_piece(at)[3:5], 16) if model.is_byte(at) else NO_BYTE for at in range(size)]
    return np.array(values, np.int16)


def tokenizer_metrics(text: str, model: "SentencePieceProcessor", values: npt.NDArray[np.int16]) -> Counter[str]:
    """Encode and decode one document and count the results. The counts of several documents can be added up.

    Newlines are counted in neither `byte_tokens` nor `byte_characters`, because the training text of a tokenizer has no
    newlines.

    Args:
        text: text of the document.
        model: the tokenizer.
        values: the result of `byte_values` for the model.

    Returns:
        `documents` (1), `characters`, `newlines`, `bytes` (UTF-8); `tokens` (without BOS and EOS), `byte_tokens`,
        `byte_characters` (characters that became byte pieces), `unknown` (unknown tokens); whether the document
        contains U+2581 (`space_marks`) or `lone_surrogates`; whether decoding gives another text than `decoded_form`
        (`differing`), each as 0 or 1.
    """
    (ids,) = encode_texts([text], model, len(values))
    stored = utf8(text)
    found = values[ids[1:-1]]
    newlines = int((found == ord("\n")).sum())
    return Counter(
        documents=1,
        characters=len(text),
        newlines=text.count("\n"),
        bytes=len(stored),
        tokens=len(found),
        byte_tokens=int((found != NO_BYTE).sum()) - newlines,
        byte_characters=int(((found != NO_BYTE) & (found & 0xC0 != 0x80)).sum()) - newlines,
        unknown=int((ids == model.unk_id()).sum()),
        space_marks=int(SPACE in text),
        lone_surrogates=int(stored.decode() != text),
        differing=int(decode_ids(ids, model) != decoded_form(text)),
    )


def summarize_metrics(counts: Counter[str]) -> dict[str, int | float]:
    """Return the counts that a card contains, and three ratios.

    The ratios are `bytes_per_token`, `covered` (share of the characters, except newlines, that did not become byte
    pieces) and `byte_token_share` (share of byte pieces among the tokens).
    """
    shown = ("documents", "characters", "bytes", "tokens", "unknown")
    plain = max(counts["characters"] - counts["newlines"], 1)
    tokens = max(counts["tokens"], 1)
    return {
        **{name: counts[name] for name in shown},
        "bytes_per_token": round(counts["bytes"] / tokens, 4),
        "covered": round(1 - counts["byte_characters"] / plain, 6),
        "byte_token_share": round(counts["byte_tokens"] / tokens, 6),
    }


def round_trip(counts: Counter[str]) -> dict[str, int]:
    """Return the counts about decoding: documents, exceptions of `decoded_form`, and other differences."""
    return {name: counts[name] for name in ("documents", "characters", "space_marks", "lone_surrogates", "differing")}


def _encode_long(text: str, model: "SentencePieceProcessor", dtype: np.dtype[Any]) -> Ids:
    """Encode a long text in parts.

    SentencePiece adds a space before each text. So a separator is put before all parts except the first, and its ids
    are removed from the result.
    """
    before = len(model.encode(SEPARATOR))
    first, *others = chunks(text, inner_pairs(model))
    parts = [model.encode(utf8(first), return_type="numpy")]
    parts += [model.encode(utf8(SEPARATOR + part), return_type="numpy")[before:] for part in others]
    ends = ([model.bos_id()], [model.eos_id()])
    return np.concatenate([np.array(ids, dtype) for ids in (ends[0], *parts, ends[1])])


def _find_defect(proto: bytes, model: "SentencePieceProcessor") -> str:
    """Return a phrase that says why a model cannot be used, or "" if it can be used."""
    settings = _settings_class().FromString(proto)
    defects = {
        "is not a BPE model": settings.trainer.model_type != _BPE,
        "has no byte pieces": not settings.trainer.byte_fallback,
        "puts spaces behind words": settings.trainer.treat_whitespace_as_suffix,
        "normalises text": settings.normalizer.precompiled_charsmap or settings.denormalizer.precompiled_charsmap,
        "drops spaces": settings.normalizer.remove_extra_whitespaces or not settings.normalizer.escape_whitespaces,
        "has no piece for a space": model.piece_to_id(SPACE) == model.unk_id(),
        "has unused pieces": any(map(model.is_unused, range(model.get_piece_size()))),
    }
    return next((defect for defect, is_found in defects.items() if is_found), "")


@lru_cache(maxsize=1)
def _settings_class() -> Any:
    """Return a protobuf class that parses the fields in `_SETTINGS` and skips all other fields."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SETTINGS, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Model"))
