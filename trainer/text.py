"""How many bytes of text a token stands for, so that a loss can be told in bits per byte, whatever the tokenizer."""

from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor

SPACE = "\u2581"
"""how SentencePiece writes a space"""


@dataclass(frozen=True)
class Pieces:
    """A tokenizer's pieces by id. `lengths`: (V,) bytes of each, 0 for BOS, EOS and their like; `spaced`: (V,) 1 where
    the tokenizer's own space before a document is the piece's first byte, were it the first piece."""

    lengths: Tensor
    spaced: Tensor
    bos: int

    def bytes_of(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(n, T) ids -> (n,) int64: bytes of the text of each sequence's targets."""
        added = (self.spaced[targets] * (inputs == self.bos)).sum(1)
        return self.lengths[targets].sum(1) - added


def pieces_of(corpus: Path, bos: int) -> Pieces | None:
    """The pieces of a corpus's tokenizer; None for a corpus without one."""
    path = corpus / "models/tokenizer.model"
    if not path.is_file():
        return None
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = range(model.vocab_size())
    texts = [model.id_to_piece(i).replace(SPACE, " ") for i in ids]
    nothing = [model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids]
    lengths = [0 if nothing[i] else 1 if model.is_byte(i) else len(texts[i].encode()) for i in ids]
    puts_one = model.encode("a", out_type=str)[0].startswith(SPACE)
    spaced = [int(puts_one and not nothing[i] and texts[i].startswith(" ")) for i in ids]
    return Pieces(torch.tensor(lengths), torch.tensor(spaced), bos)
