"""What a source can give: its unique tokens, measured, given, or estimated from the bytes of its dumps.

The estimate is a chain: stored bytes -> text bytes, by extraction -> the share that filters and de-duplication leave ->
tokens. Each factor says where it comes from. The defaults are rough: a trial run on a few files measures all three.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Origin = Literal["measured", "given", "estimated", "none"]

TABLE_1_UNIQUE_TOKENS = {
    "common_crawl": 853e9,
    "c4": 198e9,
    "github": 98e9,
    "wikipedia": 25.7e9,
    "books": 28.3e9,
    "arxiv": 33.0e9,
    "stackexchange": 27.2e9,
}
"""LLaMA, Table 1: proportion x 1.4 trillion tokens / epochs, rounded to where Table 1's epochs come out again"""
TABLE_1_BYTES = {
    "common_crawl": 3.3e12,
    "c4": 783e9,
    "github": 328e9,
    "wikipedia": 83e9,
    "books": 85e9,
    "arxiv": 92e9,
    "stackexchange": 78e9,
}
"""LLaMA, Table 1, "Disk size": text as it was tokenized"""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and where it comes from."""

    value: float
    origin: str


@dataclass(frozen=True, slots=True)
class Factors:
    """From stored bytes to tokens. `text`: text bytes extraction gives for a stored byte; `kept`: share of them that is
    tokenized; `bytes_per_token`: text bytes a token."""

    text: Figure
    kept: Figure
    bytes_per_token: Figure

    def tokens(self, stored: float) -> float:
        """Tokens that so many stored bytes give."""
        return stored * self.text.value * self.kept.value / self.bytes_per_token.value

    def stored(self, tokens: float) -> float:
        """Stored bytes that so many tokens take."""
        return tokens * self.bytes_per_token.value / (self.text.value * self.kept.value)


@dataclass(frozen=True, slots=True)
class Supply:
    """What is known of one source. `files` and `stored_bytes` are those of its dumps; where only tokens were given,
    `stored_bytes` is worked back through the factors and `files` is zero."""

    unique_tokens: float
    origin: Origin
    factors: Factors
    stored_bytes: float
    files: int = 0

    @property
    def text_bytes(self) -> float:
        """Of the text that is tokenized."""
        return self.unique_tokens * self.factors.bytes_per_token.value

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "text_bytes": self.text_bytes}


def given(tokens: float, factors: Factors) -> Supply:
    """A source whose unique tokens the user states."""
    return Supply(tokens, "given", factors, factors.stored(tokens))


def nothing(factors: Factors) -> Supply:
    """A source without inputs."""
    return Supply(0.0, "none", factors, 0.0)


def estimated(kind: str, sizes: Mapping[str, int], measured: Factors | None, held_out: float) -> Supply:
    """A source's tokens from the stored bytes of its files, by name. `measured`: factors of a corpus of the same
    recipe, in place of the defaults; `held_out`: the share that goes to validation."""
    stored = float(sum(sizes.values()))
    if measured is not None:
        return Supply(measured.tokens(stored) * (1 - held_out), "estimated", measured, stored, len(sizes))
    each = [(size, default_factors(kind, name)) for name, size in sizes.items()]
    largest = max(each, key=lambda one: one[0])[1] if each else default_factors(kind)
    tokens = sum(factors.tokens(size) for size, factors in each) * (1 - held_out)
    return Supply(tokens, "estimated", largest, stored, len(sizes))


def bytes_per_token(kind: str) -> Figure:
    """Table 1's disk size over its unique tokens."""
    return Figure(TABLE_1_BYTES[kind] / TABLE_1_UNIQUE_TOKENS[kind], "LLaMA, Table 1")


def default_factors(kind: str, name: str = "") -> Factors:
    """Factors for a kind of source where none were measured; `name`: a file's, whose ending tells WET from WARC and
    packed from plain."""
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
