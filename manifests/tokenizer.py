"""The tokenizer of a corpus: the number of text bytes of each token, and the conversion to Hugging Face's format."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from filters.errors import UserError
from manifests.manifest import advise_repair
from manifests.mirror import fetch

if TYPE_CHECKING:
    import sentencepiece

FILE = "models/tokenizer.model"
SPACE = "▁"  # SentencePiece replaces each space by this character.

Integers = npt.NDArray[np.int64]


def load(corpus: Path) -> "sentencepiece.SentencePieceProcessor":
    """Load the tokenizer of a corpus. Raises UserError if it cannot be read."""
    return read_model(fetch(corpus, FILE), advise_repair(corpus))


def read_model(path: Path, advice: str) -> "sentencepiece.SentencePieceProcessor":
    """Read a SentencePiece model. Raises UserError with the given advice if it cannot be read."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(path.read_bytes())  # The constructor would accept an empty file.
        return model
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read or is damaged: {advice}") from error


@dataclass(frozen=True)
class PieceBytes:
    """The number of bytes of text that each token of a vocabulary of V pieces represents.

    Attributes:
        lengths: (V,) bytes by token id; 0 for BOS, EOS and other control pieces.
        spaced: (V,) 1 if the piece starts with a space and the tokenizer inserts a space before a document, otherwise
            0. After BOS, this space is not part of the text.
        bos: the id of BOS.
    """

    lengths: Integers
    spaced: Integers
    bos: int

    def count_targets(self, tokens: npt.NDArray[Any]) -> Integers:
        """Return the number of text bytes of the targets of each sequence.

        Args:
            tokens: (n, L + 1) token ids. The targets are the ids 1 to L of each row.

        Returns:
            (n,) bytes.
        """
        targets = tokens[:, 1:]
        added = self.spaced[targets] * (tokens[:, :-1] == self.bos)
        return np.asarray((self.lengths[targets] - added).sum(1))


def piece_bytes(corpus: Path, bos: int) -> PieceBytes | None:
    """Return the number of text bytes of each token of a corpus; None for a corpus without a tokenizer."""
    if not fetch(corpus, FILE).is_file():
        return None
    model = load(corpus)
    ids = range(model.vocab_size())
    texts = [model.id_to_piece(i).replace(SPACE, " ") for i in ids]
    nothing = [model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids]
    lengths = [0 if nothing[i] else 1 if model.is_byte(i) else len(texts[i].encode()) for i in ids]
    puts_one = model.encode("a", out_type=str)[0].startswith(SPACE)
    spaced = [int(puts_one and not nothing[i] and texts[i].startswith(" ")) for i in ids]
    return PieceBytes(np.array(lengths), np.array(spaced), bos)


def tokenizer_json(pieces: "sentencepiece.SentencePieceProcessor") -> dict[str, Any]:
    """Convert a SentencePiece model to the content of Hugging Face's `tokenizer.json`.

    Both tokenizers give the same ids for every text.

    The byte-pair merges are derived from the pieces: every pair of pieces whose concatenation is also a piece is a
    merge. Merges are sorted by the score of the concatenation, highest first.
    """
    names = [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]
    ids = {name: number for number, name in enumerate(names)}
    special = [number for number in range(len(names)) if pieces.is_control(number) or pieces.is_unknown(number)]
    plain = [n for n in range(len(names)) if n not in special and not pieces.is_byte(n) and not pieces.is_unused(n)]
    merges = []
    for number in sorted(plain, key=lambda number: -pieces.get_score(number)):
        whole = names[number]
        splits = [(whole[:cut], whole[cut:]) for cut in range(1, len(whole))]
        merges += sorted((s for s in splits if s[0] in ids and s[1] in ids), key=lambda s: (ids[s[0]], ids[s[1]]))
    bos = names[pieces.bos_id()]
    plainly = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    begin, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unspace = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "added_tokens": [{"id": n, "content": names[n], "special": True, **plainly} for n in special],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, space]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text],
            "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {bos: {"id": bos, "ids": [pieces.bos_id()], "tokens": [bos]}},
        },
        "decoder": {"type": "Sequence", "decoders": [unspace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": {
            "type": "BPE",
            "unk_token": names[pieces.unk_id()],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": [list(merge) for merge in merges],
        },
    }


def tokenizer_config(pieces: "sentencepiece.SentencePieceProcessor", length: int) -> dict[str, Any]:
    """Return the content of Hugging Face's `tokenizer_config.json`.

    Names of special pieces that occur in a text, such as `</s>`, are tokenized as ordinary text. The class is not
    `LlamaTokenizer`, because transformers 5 rebuilds this class from vocabulary and merges, and then a text that begins
    with a space gets other ids.

    Args:
        pieces: the SentencePiece model.
        length: the maximum sequence length of the model, in tokens.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": pieces.id_to_piece(pieces.bos_id()),
        "eos_token": pieces.id_to_piece(pieces.eos_id()),
        "unk_token": pieces.id_to_piece(pieces.unk_id()),
        "model_max_length": length,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
