"""The supply of a source: its number of unique tokens, measured in a corpus, given by the user, or estimated.

The estimate multiplies the stored bytes of the dumps by three factors: text bytes per stored byte (extraction), the
share of the text that filters and deduplication keep, and tokens per text byte. Each factor has a description of its
origin. The default factors are rough. A trial run on a few files measures all three.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from manifests import display
from manifests.ledger import tally_from
from manifests.manifest import Manifest

if TYPE_CHECKING:
    from rich.table import Table

Origin = Literal["measured", "given", "estimated", "none"]

EXTRACT, TOKENIZE = "extract", "tokenize"  # The stages of the ledger from which the factors are computed.
# LLaMA, Table 1: unique tokens, and bytes of tokenized text ("Disk size"). Unique tokens are computed as
# proportion x 1.4 trillion tokens / epochs, and rounded such that they reproduce the epochs of Table 1.
TABLE_1 = {
    "common_crawl": (853e9, 3.3e12),
    "c4": (198e9, 783e9),
    "github": (98e9, 328e9),
    "wikipedia": (25.7e9, 83e9),
    "books": (28.3e9, 85e9),
    "arxiv": (33.0e9, 92e9),
    "stackexchange": (27.2e9, 78e9),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and a description of its origin."""

    value: float
    origin: str


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors that convert stored bytes to tokens.

    Attributes:
        text: Bytes of extracted text per stored byte.
        kept: The share of the extracted text that is tokenized.
        bytes_per_token: Bytes of text per token.
    """

    text: Figure
    kept: Figure
    bytes_per_token: Figure

    def estimate_tokens(self, stored: float) -> float:
        """Return the number of tokens for a number of stored bytes."""
        return stored * self.text.value * self.kept.value / self.bytes_per_token.value

    def estimate_stored(self, tokens: float) -> float:
        """Return the number of stored bytes for a number of tokens."""
        return tokens * self.bytes_per_token.value / (self.text.value * self.kept.value)


@dataclass(frozen=True, slots=True)
class Supply:
    """The unique tokens of one source.

    Attributes:
        unique_tokens: Number of unique tokens for training.
        origin: How the number was obtained; "none" for a source without inputs.
        factors: The factors between stored bytes and tokens.
        stored_bytes: Bytes of the dumps. If the user gave the number of tokens, they are estimated from it.
        files: Number of dump files; 0 if the user gave the number of tokens.
    """

    unique_tokens: float
    origin: Origin
    factors: Factors
    stored_bytes: float
    files: int = 0

    @property
    def text_bytes(self) -> float:
        """Return the bytes of tokenized text."""
        return self.unique_tokens * self.factors.bytes_per_token.value

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "text_bytes": self.text_bytes}


def stated_supply(tokens: float, factors: Factors) -> Supply:
    """Return the supply of a source whose number of unique tokens is given by the user."""
    return Supply(tokens, "given", factors, factors.estimate_stored(tokens))


def empty_supply(factors: Factors) -> Supply:
    """Return the supply of a source without inputs."""
    return Supply(0.0, "none", factors, 0.0)


def estimate_supply(kind: str, sizes: Mapping[str, int], measured: Factors | None, held_out: float) -> Supply:
    """Estimate the supply of a source from the stored bytes of its files.

    Args:
        kind: The kind of the source.
        sizes: Dict from file name to stored bytes.
        measured: Factors measured in a corpus of the same recipe; None for the default factors.
        held_out: The share of tokens that goes to validation.
    """
    stored = float(sum(sizes.values()))
    if measured is not None:
        return Supply(measured.estimate_tokens(stored) * (1 - held_out), "estimated", measured, stored, len(sizes))
    each = [(size, default_factors(kind, name)) for name, size in sizes.items()]
    largest = max(each, key=lambda one: one[0])[1] if each else default_factors(kind)
    tokens = sum(factors.estimate_tokens(size) for size, factors in each) * (1 - held_out)
    return Supply(tokens, "estimated", largest, stored, len(sizes))


def bytes_per_token(kind: str) -> Figure:
    """Return the bytes per token of a kind of source in LLaMA: disk size divided by unique tokens (Table 1)."""
    tokens, size = TABLE_1[kind]
    return Figure(size / tokens, "LLaMA, Table 1")


def default_factors(kind: str, name: str = "") -> Factors:
    """Return the default factors of a kind of source.

    Args:
        kind: The kind of the source.
        name: The name of a file. Its extension distinguishes WET from WARC, and compressed from plain files.
    """
    text, kept = _DEFAULTS[kind]
    if kind == "common_crawl" and ".wet" in name:
        text, kept = (_GZIPPED if name.endswith(".gz") else _PLAIN), _KEPT_OF_WET
    elif kind == "books" and name.endswith(".txt"):
        text = _PLAIN
    return Factors(text, kept, bytes_per_token(kind))


_ASSUMED = "assumed"
_PLAIN = Figure(1.0, "plain text")
_GZIPPED = Figure(2.5, "34 gzipped books")
_KEPT_OF_WET = Figure(0.0275, "Table 1's 3.3 TB of five dumps of 24 TB of text (CCNet, section 3.1)")
_DEFAULTS = {
    "common_crawl": (
        Figure(0.18, "this extractor: 0.15 on five crawls, 0.23 on 550 saved pages"),
        Figure(0.049, "Table 1's 3.3 TB of five dumps of 3 billion pages (CCNet, section 3.1) of 4.5 kB (assumed)"),
    ),
    "c4": (Figure(783 / 305, "Table 1's 783 GB of the release's 305 GB"), Figure(1.0, "taken as released")),
    "github": (Figure(4.2, "gzipped code of a sample"), Figure(0.3, _ASSUMED)),
    "wikipedia": (Figure(1.7, "articles of one English and ten other bz2 dumps"), Figure(0.95, _ASSUMED)),
    "books": (_GZIPPED, Figure(0.95, _ASSUMED)),
    "arxiv": (Figure(0.03, _ASSUMED), Figure(0.95, _ASSUMED)),
    "stackexchange": (Figure(1.9, "gzipped Posts.xml of two sites"), Figure(0.9, _ASSUMED)),
}


@dataclass(frozen=True, slots=True)
class MeasuredSource:
    """The measured numbers of one source in a corpus.

    Attributes:
        tokens: Tokens of train and validation shards together.
        supply: Supply of training tokens, with measured factors.
        defaults: The default factors.
        estimate: Number of tokens that the default factors give for the same stored bytes.
    """

    source: str
    documents: int
    tokens: int
    supply: Supply
    defaults: Factors
    estimate: float

    @property
    def ratio(self) -> float:
        """Return the ratio of actual to estimated tokens."""
        return self.tokens / self.estimate if self.estimate else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        factors = {
            name: {"estimated": getattr(self.defaults, name).value, "actual": getattr(self.supply.factors, name).value}
            for name in Factors.__dataclass_fields__
        }
        return {
            "source": self.source,
            "stored_bytes": self.supply.stored_bytes,
            "documents": self.documents,
            "tokens": self.tokens,
            "estimated_tokens": self.estimate,
            "ratio": self.ratio,
            "factors": factors,
        }


def measure_sources(manifest: Manifest, text_bytes: Mapping[str, int]) -> dict[str, MeasuredSource]:
    """Return a dict from source name to the measured numbers of the source.

    Args:
        manifest: The manifest of the corpus.
        text_bytes: UTF-8 bytes of tokenized text by source. For a missing source, one byte per character is assumed.
    """
    return {name: _measure(manifest, name, text_bytes.get(name, 0)) for name in sorted(manifest.sources)}


def _measure(manifest: Manifest, name: str, text_bytes: int) -> MeasuredSource:
    entry, settings = manifest.sources[name], manifest.recipe.get("sources", {}).get(name, {})
    empty: dict[str, Any] = {"in": {}, "out": {}, "dropped": {}, "removed": {}}
    extract, tokenize = (tally_from(manifest.ledger.get(stage, {}).get(name, empty)) for stage in (EXTRACT, TOKENIZE))
    stored, extracted = extract.entered["bytes"], extract.out["characters"]
    kept, tokens = tokenize.entered["characters"], tokenize.out["tokens"]
    kind, files = str(settings.get("kind") or name), list(settings.get("inputs", []))
    # The manifest contains no sizes of inputs, so the default factors of the majority of files are used.
    defaults = Counter(default_factors(kind, file) for file in files or [""]).most_common(1)[0][0]
    wide = text_bytes / kept if text_bytes and kept else 1.0
    origin = f"measured: {stored:,} bytes of this source"
    factors = Factors(
        Figure(extracted * wide / stored, origin) if stored and extracted else defaults.text,
        Figure(kept / extracted, origin) if kept else defaults.kept,
        Figure(kept * wide / tokens, origin) if tokens else bytes_per_token(kind),
    )
    supply = Supply(float(entry.unique_tokens), "measured", factors, float(stored), len(files))
    return MeasuredSource(name, entry.documents, tokens, supply, defaults, defaults.estimate_tokens(stored))


def measured_table(sources: Mapping[str, MeasuredSource]) -> "Table":
    """Return a table that compares estimates with actual numbers."""
    columns = ("stored", "documents", "estimated", "tokens", "ratio", "text per stored byte", "kept", "bytes per token")
    table = display.number_table("The corpus: estimated from bytes → actual", "source", *columns)
    for one in sources.values():
        pairs = one.as_dict()["factors"].values()
        table.add_row(
            one.source,
            display.format_bytes(one.supply.stored_bytes),
            f"{one.documents:,}",
            display.format_tokens(one.estimate),
            display.format_tokens(one.tokens),
            f"{one.ratio:.2f}",
            *(f"{pair['estimated']:.2g} → {pair['actual']:.2g}" for pair in pairs),
        )
    return table
