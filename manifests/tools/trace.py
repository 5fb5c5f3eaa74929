"""`trace`: from a token to the bytes it came from, from the shard alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import sentencepiece

from filters.errors import UserError
from manifests.display import safe
from manifests.document import Locator, document_id
from manifests.manifest import load_manifest
from manifests.shard import Shard, open_shard


@dataclass(frozen=True)
class Lineage:
    """Where a token comes from. `position`: the token's place among the document's `tokens`; `text`: the document
    around it, decoded."""

    shard: str
    token: int
    piece: str
    document: str
    source: str
    url: str
    locator: Locator
    row: int
    position: int
    tokens: int
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = ("shard", "token", "piece", "document", "source", "url", "row", "position", "tokens", "text")
        return {**{name: getattr(self, name) for name in names}, "locator": self.locator.as_dict()}

    def lines(self) -> list[str]:
        """The lineage for people."""
        place = self.locator
        stored = f"{place.file}, {place.length:,} stored bytes from {place.offset:,}"
        decoded = f"{place.inner_length:,} decoded bytes from {place.inner_offset:,}"
        told = [
            f"token     {self.token} of {self.shard}: {self.piece!r}",
            f"document  {self.document}, token {self.position} of {self.tokens}",
            f"source    {self.source}",
            f"url       {self.url or 'none'}",
            f"file      {stored}" + (f", member {place.member}" if place.member else ""),
            f"record    {decoded}",
            f"text      …{self.text}…",
        ]
        return [safe(line) for line in told]


AROUND = 12
"""tokens shown on either side"""


def trace(corpus: Path, shard_name: str, token: int) -> Lineage:
    """The lineage of one token. `shard_name`: the path below `shards/`; `token`: an index of its flat token column.
    Raises UserError for a shard or token that is not there."""
    manifest = load_manifest(corpus)
    shard = find_shard(corpus, shard_name)
    try:
        row = shard.row_of(token)
    except IndexError as error:
        raise UserError(f"{shard_name} has no token {token}: {error}") from error
    columns = shard.row(row)
    start, end = int(shard.offsets[row]), int(shard.offsets[row + 1])
    model = sentencepiece.SentencePieceProcessor(model_file=str(corpus / "models/tokenizer.model"))
    if model.get_piece_size() != manifest.tokenizer.vocabulary:
        raise UserError(
            f"{corpus}/models/tokenizer.model is not the manifest's: run `python -m manifests verify {corpus}`"
        )
    around = shard.tokens[max(start, token - AROUND) : min(end, token + AROUND + 1)].tolist()
    return Lineage(
        shard=shard_name,
        token=token,
        piece=model.id_to_piece(int(shard.tokens[token])),
        document=columns["document"].hex(),
        source=columns["source"],
        url=columns["url"],
        locator=shard.locator(row),
        row=row,
        position=token - start,
        tokens=end - start,
        text=model.decode(around),
    )


def find_shard(corpus: Path, name: str) -> Shard:
    """An open shard by its path below `shards/`. Raises UserError."""
    path = corpus / "shards" / name
    if not path.is_file():
        known = [entry.path for entry in load_manifest(corpus).shards()]
        raise UserError(f"no shard {name!r} in {corpus}: it has {', '.join(known[:6])}{'…' if len(known) > 6 else ''}")
    try:
        return open_shard(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shards/{name} cannot be read ({error}): run `python -m manifests verify {corpus}`") from error


def names_its_document(lineage: Lineage) -> bool:
    """Whether the document's id is the one its source and locator give."""
    return document_id(lineage.source, lineage.locator).hex() == lineage.document
