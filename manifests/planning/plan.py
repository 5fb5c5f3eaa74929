"""The plan: from what each source can give, its weight, its epoch cap and the token goal to what is trained on, and
what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from manifests.mixture import shares
from manifests.planning.supply import Supply
from manifests.recipe import Recipe

GAPS = {"books": "Books3, most of LLaMA's books, was withdrawn: bring your own collection"}
"""sources of the paper that cannot simply be downloaded again"""
DUMPS = {"common_crawl": (853e9 / 5, "dump"), "c4": (198e9 / 1024, "file")}
"""tokens of a dump or file where none is at hand: LLaMA's five dumps (section 2.1), the 1,024 files of C4's release"""


@dataclass(frozen=True, slots=True)
class Missing:
    """What more a source would need to give what its weight asks for: unique tokens, text, stored bytes, and pieces
    (files like those given, else dumps as LLaMA's; zero where unknown)."""

    tokens: float
    text_bytes: float
    stored_bytes: float
    pieces: float
    piece: str


@dataclass(frozen=True, slots=True)
class Line:
    """One source of the plan. `asked`: its weight as a share of all; `given`: its share of the tokens that can be
    reached; `tokens`: how many of it are seen; `missing`: none where it can give what its weight asks for."""

    source: str
    kind: str
    supply: Supply
    max_epochs: float
    asked: float
    given: float
    tokens: float
    missing: Missing | None

    @property
    def epochs(self) -> float:
        """How often its unique tokens are seen."""
        return self.tokens / self.supply.unique_tokens if self.supply.unique_tokens else 0.0

    @property
    def capped(self) -> bool:
        """Whether its cap is all that it gives."""
        return self.tokens >= self.max_epochs * self.supply.unique_tokens

    def as_dict(self, sequence_length: int) -> dict[str, Any]:
        """Plain values."""
        return {
            "source": self.source,
            "kind": self.kind,
            **self.supply.as_dict(),
            "max_epochs": self.max_epochs,
            "asked_share": self.asked,
            "given_share": self.given,
            "tokens_seen": self.tokens,
            "epochs": self.epochs,
            "cap_binds": self.capped,
            "sequences": int(self.tokens // sequence_length),
            "missing": None if self.missing is None else {name: getattr(self.missing, name) for name in _MISSING},
        }


_MISSING = ("tokens", "text_bytes", "stored_bytes", "pieces", "piece")


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan. `reached`: tokens that can be seen within the caps, at most `goal`; `sequence_length` and
    `batch_tokens` are those of the recipe's `model`."""

    recipe: str
    model: str
    goal: int
    sequence_length: int
    batch_tokens: int
    lines: tuple[Line, ...]

    @property
    def reached(self) -> float:
        """Tokens that can be seen."""
        return sum(line.tokens for line in self.lines)

    @property
    def short(self) -> float:
        """Tokens of the goal that all caps together do not allow; a millionth of a millionth is rounding."""
        short = self.goal - self.reached
        return short if short > self.goal * 1e-12 else 0.0

    @property
    def steps(self) -> int:
        """Whole optimiser steps of the recipe's model."""
        return steps(self.trained, self.batch_tokens)

    @property
    def trained(self) -> float:
        """The goal, or what can be reached of it."""
        return self.reached if self.short else float(self.goal)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recipe": self.recipe,
            "model": self.model,
            "goal_tokens": self.goal,
            "reached_tokens": self.trained,
            "short_tokens": self.short,
            "sequence_length": self.sequence_length,
            "batch_tokens": self.batch_tokens,
            "sequences": int(self.trained // self.sequence_length),
            "steps": self.steps,
            "sources": [line.as_dict(self.sequence_length) for line in self.lines],
        }


def steps(tokens: float, batch_tokens: int) -> int:
    """Whole optimiser steps that so many tokens give."""
    return int(tokens // batch_tokens)


def make_plan(recipe: Recipe, supplies: Mapping[str, Supply], sequence_length: int, batch_tokens: int) -> Plan:
    """The plan for a recipe; `supplies` has an entry for each of its sources. In the order of their weights, largest
    first, then of their names."""
    names = sorted(recipe.sources, key=lambda name: (-recipe.sources[name].weight, name))
    weights = np.array([recipe.sources[name].weight for name in names], np.float64)
    caps = np.array([recipe.sources[name].max_epochs * supplies[name].unique_tokens for name in names], np.float64)
    seen = shares(weights, caps, float(recipe.goal_tokens))
    asked = weights / weights.sum()
    reached = float(seen.sum())
    lines = []
    for name, share, tokens in zip(names, asked.tolist(), seen.tolist(), strict=True):
        source, supply = recipe.sources[name], supplies[name]
        kind = source.kind or name
        wanted = share * recipe.goal_tokens / source.max_epochs - supply.unique_tokens
        # a cap that is met to the last token leaves nothing to be had elsewhere
        missing = _missing(kind, supply, wanted) if wanted > supply.unique_tokens * 1e-12 else None
        given = tokens / reached if reached else 0.0
        lines.append(Line(name, kind, supply, source.max_epochs, share, given, tokens, missing))
    model = recipe.trainer.model
    return Plan(recipe.name, model, recipe.goal_tokens, sequence_length, batch_tokens, tuple(lines))


def _missing(kind: str, supply: Supply, tokens: float) -> Missing:
    if supply.files and supply.unique_tokens:
        pieces, piece = tokens / (supply.unique_tokens / supply.files), "file"
    elif kind in DUMPS:
        pieces, piece = tokens / DUMPS[kind][0], DUMPS[kind][1]
    else:
        pieces, piece = 0.0, ""
    factors = supply.factors
    return Missing(tokens, tokens * factors.bytes_per_token.value, factors.stored(tokens), pieces, piece)
