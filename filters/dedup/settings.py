"""Settings of de-duplication: the block of the recipe, and the settings that a source changes for its documents."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from filters.dedup.minhash import MinHash
from filters.settings import Count, Positive, Strict


class Comparison(Strict):
    """Settings of a comparison: the kinds of duplicates, and which documents are compared.

    In the settings of a source, keys that are not given have the recipe's values (see `complete`). This is also true
    for the keys inside `minhash`.
    """

    exact: bool = True  # find documents with the same text
    minhash: MinHash | None = MinHash()  # find similar documents
    scope: Literal["dump", "source", "all"] = "all"  # compare the documents of one crawl, of one source, or of all

    @model_validator(mode="before")
    @classmethod
    def _read_off(cls, plain: Any) -> Any:
        if _is_off(plain):
            return {"exact": False, "minhash": None}
        if isinstance(plain, Mapping | Comparison):
            return plain
        raise ValueError("give settings such as {minhash: off}, or off for no de-duplication")

    @field_validator("minhash", mode="before")
    @classmethod
    def _read_minhash(cls, plain: Any) -> Any:
        if _is_off(plain) or plain is None:
            return None
        if isinstance(plain, Mapping | MinHash):
            return plain
        raise ValueError("give settings such as {threshold: 0.8}, or off")

    @property
    def scheme(self) -> str:
        """Return the name of the scheme of the signatures; empty if the documents have no signatures."""
        return self.minhash.scheme if self.minhash else ""

    def complete(self, default: "Comparison") -> "Comparison":
        """Return these settings, where keys that were not given have the values of `default`."""
        exact, minhash, scope = (
            (self if name in self.model_fields_set else default).__dict__[name]
            for name in ("exact", "minhash", "scope")
        )
        if minhash is not None and default.minhash is not None:
            minhash = default.minhash.model_copy(update=minhash.model_dump(include=minhash.model_fields_set))
        return Comparison(exact=exact, minhash=minhash, scope=scope)


class Deduplication(Comparison):
    """Settings of the de-duplication of documents.

    `survivor` lists the criteria by which the copy that stays is chosen. If they are all equal, the smallest id
    decides.
    """

    against: list[str] = Field(default=[])  # earlier corpora, whose documents stay; duplicates of them are removed here
    canaries: Count = 500  # number of documents copied with edits to measure recall; they do not change the corpus
    # largest number of edges that one worker joins to clusters; more edges are joined in rounds of jobs
    one_worker: Positive = 200_000_000
    # `dump`: the document of the crawl whose name comes first; `score`: the document most similar to Wikipedia's
    # references; `cleanest`: the book that names the makers of its file least often
    survivor: list[Literal["source", "longest", "newest", "oldest", "dump", "score", "cleanest"]] = Field(
        default=["source", "longest", "newest"]
    )
    # for `source`: the copy of the source that comes first in this list stays; sources not in the list come last
    source_priority: list[str] = Field(default=[])


def _is_off(plain: Any) -> bool:
    return plain is False or plain == "off"
