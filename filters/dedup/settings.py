"""Settings of de-duplication: the recipe's block, and what a source changes of it for its own documents."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from filters.dedup.minhash import MinHash
from filters.settings import Count, Positive, Strict


class Comparison(Strict):
    """Settings of a comparison: the kinds of duplicates, and the documents among which they are looked for.

    Of a source, keys that are not given are the recipe's (`complete`), in `minhash` as well.
    """

    exact: bool = True  # documents with the same text
    minhash: MinHash | None = MinHash()  # similar documents
    scope: Literal["dump", "source", "all"] = "all"  # among the documents of a crawl, of a source, of all sources

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
        """Return the name of the signatures' scheme, empty for documents without signatures."""
        return self.minhash.scheme if self.minhash else ""

    def complete(self, default: "Comparison") -> "Comparison":
        """Return these settings with every key that was not given taken from `default`."""
        exact, minhash, scope = (
            (self if name in self.model_fields_set else default).__dict__[name]
            for name in ("exact", "minhash", "scope")
        )
        if minhash is not None and default.minhash is not None:
            minhash = default.minhash.model_copy(update=minhash.model_dump(include=minhash.model_fields_set))
        return Comparison(exact=exact, minhash=minhash, scope=scope)


class Deduplication(Comparison):
    """De-duplication of documents. `survivor` is a total order of the copies, ended by the smallest id."""

    against: list[str] = Field(default=[])  # earlier corpora, whose documents stay: their duplicates are removed here
    canaries: Count = 500  # documents copied with edits to measure recall; the corpus does not depend on them
    one_worker: Positive = 200_000_000  # edges up to which one worker joins clusters; more are joined in rounds of jobs
    # `dump`: of the crawl whose name comes first; `score`: most like Wikipedia's references; `cleanest`: a book that
    # names the makers of its file least often
    survivor: list[Literal["source", "longest", "newest", "oldest", "dump", "score", "cleanest"]] = Field(
        default=["source", "longest", "newest"]
    )
    source_priority: list[str] = Field(default=[])  # for `source`: earlier ones win, unnamed ones come last


def _is_off(plain: Any) -> bool:
    return plain is False or plain == "off"
