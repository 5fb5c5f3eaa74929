"""SentencePiece pieces of normalised lines: what the language model's words are (CCNet: a unigram model of 65,536)."""

import io
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from filters.errors import UserError

RESERVED = frozenset([b"<unk>", b"<s>", b"</s>"])
"""words with a meaning of their own to an ARPA model"""
LONGEST_PIECE = 256
"""bytes; a longer run of characters that the model does not know is damage, and no word to learn"""
LONGEST_LINE = 1 << 16
"""bytes; longer lines are left out of the training of pieces, as SentencePiece leaves them out from 4,192"""
CACHED_WORDS = 1 << 17
LONGEST_CACHED = 256
"""characters of a word and bytes of its pieces; so many words take some 30 MB, and under 100 MB whatever they are"""

_TOO_HIGH = re.compile(r"value <= (\d+)")


class PieceEncoder(dict[str, bytes]):
    """A SentencePiece model, as the map from a word to its pieces in UTF-8, each with a blank before it.

    No piece reaches over a blank, so the best pieces of a line are those of its words, and a word is segmented once.
    SentencePiece on the whole line adds up its scores from the line's beginning, in 32 bits: it differs where two
    segmentations score the same ("0000" as 000 0 or 0 000), which it decides by rounding, and in nothing else.
    Pieces that cannot be words of a language model are `<unk>`. A model of another kind is refused. Raises UserError.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        try:
            self._model: Any = sentencepiece.SentencePieceProcessor(model_file=path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{path} is not a SentencePiece model that can be read: it is missing, cut short, or something else."
            ) from error
        if not _word_by_word(self._model):
            raise UserError(
                f"{path} has pieces that reach over blanks, or no blank before the first word: use a model trained "
                "with SentencePiece's defaults, as CCNet's are."
            )

    def __missing__(self, word: str) -> bytes:
        pieces = self._model.encode(word, out_type=bytes)
        joined = b" " + b" ".join(pieces) if pieces else b""
        if len(joined) > LONGEST_PIECE or not RESERVED.isdisjoint(pieces):
            joined = b"".join([b" <unk>" if len(p) > LONGEST_PIECE or p in RESERVED else b" " + p for p in pieces])
        if len(word) + len(joined) <= LONGEST_CACHED:
            if len(self) >= CACHED_WORDS:
                self.clear()  # cheaper than knowing which to drop, and common words are back at once
            self[word] = joined
        return joined

    def sentence(self, line: str) -> bytes:
        """The pieces of a normalised line, each with a blank before it; empty for a blank line."""
        return b"".join(map(self.__getitem__, line.split()))


def numbered(sentences: Iterable[bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], list[str]]:
    """Sentences (of `PieceEncoder.sentence`) as arrays: (ids int32, offsets int64, the pieces by id).

    Pieces are numbered as they come. `<unk>`, and sentences without pieces, are left out, as lmplz --skip_symbols does.
    """
    number: dict[bytes, int] = {}
    ids, offsets = array("i"), array("q", [0])
    for sentence in sentences:
        ids.extend([number.setdefault(piece, len(number)) for piece in sentence.split() if piece != b"<unk>"])
        if len(ids) > offsets[-1]:
            offsets.append(len(ids))
    return np.array(ids, np.int32), np.array(offsets, np.int64), [piece.decode() for piece in number]


def train_pieces(lines: Iterable[str], vocabulary: int, character_coverage: float, threads: int = 1) -> bytes:
    """Train a unigram model on normalised lines with SentencePiece's defaults, as CCNet's `spm_train`.

    The same lines, in order, and the same number of threads give the same bytes. All of the text is held in memory,
    some 20 bytes a character and more; a few hundred MB are plenty. Raises UserError for too little text.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_some(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            character_coverage=character_coverage,
            max_sentence_length=LONGEST_LINE,
            num_threads=threads,
            minloglevel=2,
        )
    except (OSError, RuntimeError) as error:
        largest = _TOO_HIGH.search(str(error))
        if largest:
            raise UserError(
                f"The text is too small for a vocabulary of {vocabulary:,} pieces: give more text, or set vocabulary "
                f"to {int(largest[1]):,} or less."
            ) from error
        raise UserError(f"No pieces could be trained from this text (vocabulary {vocabulary:,}): {error}.") from error
    return model.getvalue()


def _some(lines: Iterable[str]) -> Iterator[str]:
    """The lines, of which there must be one."""
    empty = True
    for line in lines:
        empty = False
        yield line
    if empty:
        raise UserError("There is no text to train pieces on: give texts with at least one line.")


def _word_by_word(model: Any) -> bool:
    """Whether the pieces of a line are those of its words: a blank begins a piece, is known, and leads every word."""
    blank = "\u2581"
    pieces = map(model.id_to_piece, range(model.get_piece_size()))
    return (
        not any(blank in piece[1:] and piece.strip(blank) for piece in pieces)
        and model.piece_to_id(blank) != model.unk_id()
        and model.encode(" a  b ", out_type=str) == model.encode("a", out_type=str) + model.encode("b", out_type=str)
        and model.encode("a", out_type=str)[0].startswith(blank)
    )
