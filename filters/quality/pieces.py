"""Texts as a model of n-grams reads them: lines in CCNet's normal form, cut into SentencePiece pieces."""

import io
import itertools
import re
import unicodedata
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.errors import UserError
from filters.quality.duplicate_lines import OTHER_DIGIT, encode_plain, strip_lines

REPLACED_MARKS = {  # of the 34 marks that `duplicate_lines.REMOVED_MARKS` lists, the form in which the model reads each
    **dict.fromkeys("，、", ","),
    **dict.fromkeys("„”“«»１」「《》", '"'),
    **dict.fromkeys("´’", "'"),
    **dict.fromkeys("–━►", "-"),
    **dict(zip("。．∶：；？！％（）【】〈〉～", "..::;?!%()[]<>~", strict=True)),
    "—": " - ",
    "…": "...",
}
RESERVED = frozenset([b"<unk>", b"<s>", b"</s>"])  # words with a meaning of their own in an ARPA model
LONGEST_PIECE = 256  # bytes; a longer run of characters that the model does not know is damage, not a word to learn
LONGEST_LINE = 1 << 16  # bytes of a line that pieces are trained on; by default SentencePiece's limit is 4,192
CACHED_WORDS = 1 << 17  # some 30 MB, and under 100 MB whatever the words are
LONGEST_CACHED = 256  # characters of a word and bytes of its pieces

_REPLACED = re.compile(f"[{''.join(REPLACED_MARKS)}]")
_C1 = re.compile("[\x80-\x9f]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]+")
_TOO_HIGH = re.compile(r"value <= (\d+)")  # in SentencePiece's message, the largest vocabulary that the text allows


def normalize_for_lm(line: str) -> str:
    """Return a line as the model reads it: stripped, lower case, without accents, digits as 0, punctuation as ASCII.

    Line breaks are control characters and are removed, so a whole text becomes one line, its words joined there.
    """
    return _normalize(line.strip()).replace("\n", "")


def lm_lines(text: str) -> list[str]:
    """Return `normalize_for_lm` of each line of a text, in order; blank lines stay, empty."""
    return _normalize(strip_lines(text)).split("\n")


class PieceEncoder(dict[str, bytes]):
    """A SentencePiece model, as the map from a word to its pieces in UTF-8, each with a blank before it.

    No piece crosses a blank, so the best pieces of a line are those of its words, and a word is segmented once.
    SentencePiece on the whole line adds up its scores from the line's beginning, in 32 bits: the results differ only
    where two segmentations score the same ("0000" as 000 0 or 0 000), and SentencePiece's rounding chooses. Pieces that
    cannot be words of a language model are `<unk>`.

    Raises:
        UserError: the file cannot be read, or its pieces cross blanks.
    """

    def __init__(self, path: str) -> None:
        import sentencepiece

        super().__init__()
        try:
            self._model: Any = sentencepiece.SentencePieceProcessor(model_file=path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{path} is not a readable SentencePiece model: it is missing, truncated, or another kind of file."
            ) from error
        if not _segments_words(self._model):
            raise UserError(
                f"{path} has pieces that contain blanks inside, or no blank before the first word: use a model trained "
                "with SentencePiece's defaults, as CCNet's are."
            )

    def __missing__(self, word: str) -> bytes:
        pieces = self._model.encode(word, out_type=bytes)
        joined = b" " + b" ".join(pieces) if pieces else b""
        if len(joined) > LONGEST_PIECE or not RESERVED.isdisjoint(pieces):
            joined = b"".join([b" <unk>" if len(p) > LONGEST_PIECE or p in RESERVED else b" " + p for p in pieces])
        if len(word) + len(joined) <= LONGEST_CACHED:
            if len(self) >= CACHED_WORDS:
                self.clear()  # cheaper than to choose what to drop, and common words are back at once
            self[word] = joined
        return joined

    def sentence(self, line: str) -> bytes:
        """Return the pieces of a normalised line, each with a blank before it; empty for a blank line."""
        return b"".join(map(self.__getitem__, line.split()))


def number_pieces(sentences: Iterable[bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], list[str]]:
    """Return sentences of `PieceEncoder.sentence` as (ids int32, offsets int64, the pieces by id).

    Pieces are numbered in the order of their first occurrence. `<unk>`, and sentences without pieces, are left out, as
    lmplz --skip_symbols does.
    """
    number: dict[bytes, int] = {}
    ids, offsets = array("i"), array("q", [0])
    for sentence in sentences:
        ids.extend([number.setdefault(piece, len(number)) for piece in sentence.split() if piece != b"<unk>"])
        if len(ids) > offsets[-1]:
            offsets.append(len(ids))
    return np.array(ids, np.int32), np.array(offsets, np.int64), [piece.decode() for piece in number]


def train_pieces(lines: Iterable[str], vocabulary: int, character_coverage: float) -> bytes:
    """Return a unigram model trained on normalised lines with SentencePiece's defaults, as CCNet's `spm_train`.

    The same lines, in order, give the same bytes: one thread trains. All of the text is held in memory, at 20 bytes a
    character and more; a few hundred MB of text are enough.

    Raises:
        UserError: there is too little text.
    """
    import sentencepiece

    remaining = iter(lines)
    first = next(remaining, None)
    if first is None:
        raise UserError("There is no text to train pieces on: give texts with at least one line.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain([first], remaining),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            character_coverage=character_coverage,
            max_sentence_length=LONGEST_LINE,
            num_threads=1,
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


def _segments_words(model: Any) -> bool:
    """Return True if the pieces of a line are those of its words: a blank begins a piece, and precedes every word."""
    blank = "\u2581"
    pieces = map(model.id_to_piece, range(model.get_piece_size()))
    return (
        not any(blank in piece[1:] and piece.strip(blank) for piece in pieces)
        and model.piece_to_id(blank) != model.unk_id()
        and model.encode(" a  b ", out_type=str) == model.encode("a", out_type=str) + model.encode("b", out_type=str)
        and model.encode("a", out_type=str)[0].startswith(blank)
    )


def _normalize(stripped: str) -> str:
    """Return stripped text in normal form, with its line feeds: no step looks across them."""
    text = stripped.lower()
    if not text.isascii():
        text = OTHER_DIGIT.sub("0", _remove_accents(text))
        text = _C1.sub("", _REPLACED.sub(lambda mark: REPLACED_MARKS[mark[0]], text))
    return encode_plain(text).decode()


def _remove_accents(text: str) -> str:
    """Return NFD without category Mn, by this Python's Unicode tables."""
    text = _basic_marks().sub("", unicodedata.normalize("NFD", text))
    if len(text.encode("utf-16-le")) == 2 * len(text):
        return text
    return _ASTRAL.sub(lambda run: "".join(c for c in run[0] if unicodedata.category(c) != "Mn"), text)


@lru_cache(maxsize=1)
def _basic_marks() -> re.Pattern[str]:
    """Return a pattern of category Mn in the basic plane; beyond it, `re` would try its ranges one by one."""
    basic = map(chr, range(0x10000))
    return re.compile(f"[{''.join(c for c in basic if unicodedata.category(c) == 'Mn')}]")
