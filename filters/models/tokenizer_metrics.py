"""What a tokenizer makes of a text, counted: bytes a token, what it has no piece for, whether the text comes back."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import sentencepiece

from filters.models.sentencepiece import SPACE, decode_ids, encode_texts, given_back, utf8

NO_BYTE = -1


def byte_values(model: sentencepiece.SentencePieceProcessor) -> npt.NDArray[np.int16]:
    """(pieces,) int16: the byte that a byte piece (`<0x0A>`) stands for, `NO_BYTE` for any other piece."""
    size = model.get_piece_size()
    values = [int(model.id_to_piece(at)[3:5], 16) if model.is_byte(at) else NO_BYTE for at in range(size)]
    return np.array(values, np.int16)


def measure(text: str, model: sentencepiece.SentencePieceProcessor, values: npt.NDArray[np.int16]) -> Counter[str]:
    """Counts of one document, to be added up. `values`: of `byte_values`.

    `documents`, `characters`, `newlines`, `bytes` (UTF-8); `tokens` (without BOS and EOS), `byte_tokens`,
    `byte_characters` (characters that became byte pieces), `unknown`; `space_marks` and `lone_surrogates` (documents
    that hold U+2581 and code points that UTF-8 has no form for), `differing` (documents that do not come back as
    `given_back` says). Newlines, which training never sees, are in neither `byte_tokens` nor `byte_characters`.
    """
    (ids,) = encode_texts([text], model, len(values))
    expected, stored = given_back(text), utf8(text)
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
        differing=int(decode_ids(ids, model) != expected),
    )


def summary(counts: Counter[str]) -> dict[str, int | float]:
    """The counts that a card shows, with their ratios: `bytes_per_token`, `covered` (share of the characters other
    than newlines that became no byte pieces) and `byte_token_share` (of the tokens)."""
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
    """How many documents were encoded, decoded and compared, how many came back changed by a stated rule, and how many
    came back otherwise."""
    return {name: counts[name] for name in ("documents", "characters", "space_marks", "lone_surrogates", "differing")}
