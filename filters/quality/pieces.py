"""Prepare texts for an n-gram language model: lines in CCNet's normal form, split into SentencePiece pieces."""

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

REPLACED_MARKS = {  # replacements of the 34 marks that `duplicate_lines.REMOVED_MARKS` lists
    **dict.fromkeys("，、", ","),
    **dict.fromkeys("„”“«»１」「《》", '"'),
    **dict.fromkeys("´’", "'"),
    **dict.fromkeys("–━►", "-"),
    **dict(zip("。．∶：；？！％（）【】〈〉～", "..::;?!%()[]<>~", strict=True)),
    "—": " - ",
    "…": "...",
}
RESERVED = frozenset([b"<unk>", b"<s>", b"</s>"])  # words with a special meaning in an ARPA model
LONGEST_PIECE = 256  # Bytes. A longer run of characters that are not in the model is damage, not a word to learn.
LONGEST_LINE = 1 << 16  # Bytes of a line for training. SentencePiece's default limit is 4,192.
CACHED_WORDS = 1 << 17  # Words in the cache: usually about 30 MB, and always under 100 MB.
LONGEST_CACHED = 256  # Largest sum of the characters of a cached word and the bytes of its pieces.

_REPLACED = re.compile(f"[{''.join(REPLACED_MARKS)}]")
_C1 = re.compile("[\x80-\x9f]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]+")
_TOO_HIGH = re.compile(r"value <= (\d+)")  # the largest possible vocabulary, in an error message of SentencePiece


def normalize_for_lm(line: str) -> str:
    """Normalise a line for the model: strip, lower case, no accents, digits as 0, punctuation as ASCII.

    Line breaks are removed like other control characters. So a text of several lines becomes one line, and the words
    before and after a line break are joined.
    """
    return _normalize(line.strip()).replace("\n", "")


def lm_lines(text: str) -> list[str]:
    """Return `normalize_for_lm` of each line of a text, in order. Blank lines become empty strings."""
    return _normalize(strip_lines(text)).split("\n")


class PieceEncoder(dict[str, bytes]):
    """A cache of a SentencePiece model: a dict from word to its pieces in UTF-8, with a space before each piece.

    No piece crosses a space. So the pieces of a line are the pieces of its words, and each word is segmented only once.
    The results are those of SentencePiece on the whole line, with one exception: if two segmentations have equal scores
    ("0000" as 000 0 or 0 000), SentencePiece chooses by rounding errors, since it adds up 32-bit scores from the
    beginning of the line. Pieces that cannot be words of a language model become `<unk>`.

    Args:
        path: path of the SentencePiece model.

    Raises:
        UserError: the file cannot be read, or the model has pieces that cross spaces.
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
        if not _encodes_word_by_word(self._model):
            raise UserError(
                f"{path} has pieces that contain blanks inside, or no blank before the first word: use a model trained "
                "with SentencePiece's defaults, as CCNet's are."
            )

    def __missing__(self, word: str) -> bytes:
        """Encode a word and add it to the cache, unless it is long."""
        pieces = self._model.encode(word, out_type=bytes)
        joined = b" " + b" ".join(pieces) if pieces else b""
        if len(joined) > LONGEST_PIECE or not RESERVED.isdisjoint(pieces):
            joined = b"".join([b" <unk>" if len(p) > LONGEST_PIECE or p in RESERVED else b" " + p for p in pieces])
        if len(word) + len(joined) <= LONGEST_CACHED:
            if len(self) >= CACHED_WORDS:
                self.clear()  # This is cheaper than choosing words to drop, and common words soon return.
            self[word] = joined
        return joined

    def sentence(self, line: str) -> bytes:
        """Return the pieces of a normalised line, with a space before each; empty for a blank line."""
        return b"".join(map(self.__getitem__, line.split()))


def number_pieces(sentences: Iterable[bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], list[str]]:
    """Convert sentences from `PieceEncoder.sentence` to arrays of ids.

    Pieces are numbered in the order of their first occurrence. `<unk>` and sentences without pieces are left out, as in
    lmplz --skip_symbols.

    Returns:
        The ids of all sentences, int32; offsets, int64, where sentence i is ids[offsets[i]:offsets[i + 1]]; the pieces
        by id.
    """
    number: dict[bytes, int] = {}
    ids, offsets = array("i"), array("q", [0])
    for sentence in sentences:
        ids.extend([number.setdefault(piece, len(number)) for piece in sentence.split() if piece != b"<unk>"])
        if len(ids) > offsets[-1]:
            offsets.append(len(ids))
    return np.array(ids, np.int32), np.array(offsets, np.int64), [piece.decode() for piece in number]


def train_pieces(lines: Iterable[str], vocabulary: int, character_coverage: float) -> bytes:
    """Train a SentencePiece unigram model with default settings, as CCNet does. Return the bytes of its file.

    The same lines in the same order give the same bytes, because only one thread is used. The whole text is held in
    memory, with at least 20 bytes per character. A few hundred MB of text are enough.

    Args:
        lines: normalised lines.
        vocabulary: number of pieces.
        character_coverage: share of the characters of the text that the pieces cover.

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


def _encodes_word_by_word(model: Any) -> bool:
    """Return True if a model encodes a line word by word.

    This is the case if spaces occur only at the beginning of pieces and the model puts a space before every word.
    """
    blank = "\u2581"
    pieces = map(model.id_to_piece, range(model.get_piece_size()))
    return (
        not any(blank in piece[1:] and piece.strip(blank) for piece in pieces)
        and model.piece_to_id(blank) != model.unk_id()
        and model.encode(" a  b ", out_type=str) == model.encode("a", out_type=str) + model.encode("b", out_type=str)
        and model.encode("a", out_type=str)[0].startswith(blank)
    )


def _normalize(stripped: str) -> str:
    """Normalise text whose lines are stripped. Line feeds are kept, and no step looks across them."""
    text = stripped.lower()
    if not text.isascii():
        text = OTHER_DIGIT.sub("0", _remove_accents(text))
        text = _C1.sub("", _REPLACED.sub(lambda mark: REPLACED_MARKS[mark[0]], text))
    return encode_plain(text).decode()


def _remove_accents(text: str) -> str:
    """Convert a text to NFD and remove characters of the category Mn, by the Unicode tables of this Python version."""
    text = _basic_marks().sub("", unicodedata.normalize("NFD", text))
    if len(text.encode("utf-16-le")) == 2 * len(text):
        return text
    return _ASTRAL.sub(lambda run: "".join(c for c in run[0] if unicodedata.category(c) != "Mn"), text)


@lru_cache(maxsize=1)
def _basic_marks() -> re.Pattern[str]:
    """Return a pattern for the characters of category Mn in the basic plane.

    The pattern has no characters of other planes, because `re` would try their ranges one by one.
    """
    basic = map(chr, range(0x10000))
    return re.compile(f"[{''.join(c for c in basic if unicodedata.category(c) == 'Mn')}]")
