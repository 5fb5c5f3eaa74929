"""`trace`: find the document and the location in the dump of a token, by reading only the shard."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.display import safe, safe_line
from manifests.document import document_id
from manifests.tools.corpus import CorpusReader, StoredDocument

AROUND = 12  # Number of tokens that are printed before and after the token.


@dataclass(frozen=True)
class Lineage(StoredDocument):
    """The origin of a token.

    Attributes:
        token: index of the token in the shard.
        piece: the piece of the vocabulary.
        text: the decoded text around the token.
    """

    token: int
    piece: str
    text: str

    @property
    def has_derived_id(self) -> bool:
        """Return True if the id of the document equals the id computed from its source and locator."""
        return document_id(self.source, self.locator).hex() == self.document

    def as_dict(self) -> dict[str, Any]:
        """Return plain values. `position` is the index of the token in its document, which has `tokens` tokens."""
        return asdict(self) | {"position": self.token - self.start, "tokens": self.stop - self.start}

    def lines(self) -> list[str]:
        """Return lines for display, escaped for the terminal."""
        told = [
            f"token     {self.token} of {self.shard}: {self.piece!r}",
            f"document  {self.document}, token {self.token - self.start} of {self.stop - self.start}",
            f"source    {self.source}",
            f"url       {self.url or 'none'}",
            *self.origin(),
        ]
        return [*map(safe_line, told), safe(f"text      …{self.text}…")]


def trace(corpus: Path, shard_name: str, token: int) -> Lineage:
    """Return the lineage of a token.

    Args:
        corpus: the folder of the corpus.
        shard_name: the path of a shard below `shards/`.
        token: index into `tokens` of the shard.

    Raises:
        UserError: there is no such shard or token, or the corpus cannot be read.
    """
    reader = CorpusReader(corpus)
    shard = reader.shard(shard_name)
    try:
        found = reader.document(shard_name, shard.row_of(token))
    except IndexError as error:
        raise UserError(f"{shard_name} has no token {token}: {error}") from error
    (text,) = reader.decode(shard, [(max(found.start, token - AROUND), min(found.stop, token + AROUND + 1))])
    return Lineage(**vars(found), token=token, piece=reader.tokenizer.id_to_piece(int(shard.tokens[token])), text=text)
