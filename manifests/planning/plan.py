"""The plan of a recipe: the tokens that each source contributes to the goal, and the tokens that are missing.

The plan is computed from the supply, the weight and the epoch cap of each source, and from the token goal. This module
also reads the mixture of a training run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import UserError
from manifests.display import format_bytes, format_tokens, number_table
from manifests.order import expected_counts, plan_from, quotas, shares
from manifests.planning.supply import Supply
from manifests.recipe import Recipe
from manifests.sizes import PRESETS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

# Sources of the paper that can no longer be downloaded.
GAPS = {"books": "Books3, most of LLaMA's books, was withdrawn: bring your own collection"}
# Assumed tokens per dump or file for sources without inputs: from LLaMA's five dumps (section 2.1), and from the 1,024
# files of the C4 release.
DUMPS = {"common_crawl": (853e9 / 5, "dump"), "c4": (198e9 / 1024, "file")}


@dataclass(frozen=True, slots=True)
class Missing:
    """The additional supply that a source needs to contribute in proportion to its weight.

    Attributes:
        tokens: Additional unique tokens.
        text_bytes: The same as bytes of text.
        stored_bytes: The same as stored bytes.
        pieces: The same as a number of files like the given files, or of dumps like LLaMA's; 0 if it is unknown.
        piece: "file", "dump" or "".
    """

    tokens: float
    text_bytes: float
    stored_bytes: float
    pieces: float
    piece: str


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """One source of the plan.

    Attributes:
        asked: Its weight as a share of all weights.
        given: Its share of the tokens that training sees.
        tokens: Number of its tokens that training sees, counting repetitions.
        missing: Additional supply needed; None if it can contribute in proportion to its weight.
    """

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
        """Return how many times training sees its unique tokens."""
        return self.tokens / self.supply.unique_tokens if self.supply.unique_tokens else 0.0

    @property
    def capped(self) -> bool:
        """Return True if it contributes the maximum that its epoch cap allows."""
        return self.tokens >= self.max_epochs * self.supply.unique_tokens

    def as_dict(self, sequence_length: int) -> dict[str, Any]:
        """Return plain values."""
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
            "missing": self.missing and asdict(self.missing),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a recipe. `sequence_length` and `batch_tokens` are taken from the preset `model` of the recipe."""

    recipe: str
    model: str
    goal: int
    sequence_length: int
    batch_tokens: int
    lines: tuple[PlannedSource, ...]

    @property
    def reached(self) -> float:
        """Return the number of tokens that training can see within the epoch caps, at most the goal."""
        return sum(line.tokens for line in self.lines)

    @property
    def short(self) -> float:
        """Return the number of tokens by which the epoch caps miss the goal. Rounding errors count as 0."""
        short = self.goal - self.reached
        return short if short > self.goal * 1e-12 else 0.0

    @property
    def steps(self) -> int:
        """Return the number of complete optimizer steps of the recipe's model."""
        return int(self.trained // self.batch_tokens)

    @property
    def trained(self) -> float:
        """Return the goal, or the number of tokens that can be reached if it is less."""
        return self.reached if self.short else float(self.goal)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
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


def make_plan(recipe: Recipe, supplies: Mapping[str, Supply]) -> Plan:
    """Return the plan of a recipe for the given supply of each source.

    The sources are sorted by descending weight, then by name.
    """
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
        more = share * recipe.goal_tokens / source.max_epochs - supply.unique_tokens
        # If the cap is met exactly, `more` is only a rounding error.
        missing = _estimate_missing(kind, supply, more) if more > supply.unique_tokens * 1e-12 else None
        given = tokens / reached if reached else 0.0
        lines.append(PlannedSource(name, kind, supply, source.max_epochs, share, given, tokens, missing))
    model, size = recipe.trainer.model, PRESETS[recipe.trainer.model]
    return Plan(recipe.name, model, recipe.goal_tokens, size.sequence_length, size.batch_tokens, tuple(lines))


def _estimate_missing(kind: str, supply: Supply, tokens: float) -> Missing:
    each, piece = DUMPS.get(kind, (0.0, ""))
    if supply.files and supply.unique_tokens:
        each, piece = supply.unique_tokens / supply.files, "file"
    factors = supply.factors
    text, stored = tokens * factors.bytes_per_token.value, factors.estimate_stored(tokens)
    return Missing(tokens, text, stored, tokens / each if each else 0.0, piece)


def plan_parts(plan: Plan) -> "list[RenderableType]":
    """Return tables and lines: the mixture, the steps, the missing tokens, and the factors of estimates."""
    parts: list[RenderableType] = [
        _mixture_table(plan),
        f"{plan.steps:,} steps of {plan.batch_tokens:,} tokens in sequences of {plan.sequence_length:,} ({plan.model})",
    ]
    wanting = [(line, line.missing) for line in plan.lines if line.missing is not None]
    if wanting:
        parts += ["", _missing_table(wanting)]
        gaps = [line for line, _ in wanting if line.kind in GAPS and not line.supply.unique_tokens]
        parts += [f"{line.source}: {GAPS[line.kind]}" for line in gaps]
        gained = [line for line in plan.lines if line.given > line.asked * (1 + 1e-9)]
        moved = ", ".join(f"{line.source} {line.asked:.1%} → {line.given:.1%}" for line in gained)
        parts += [f"Their shortfall goes to the other sources by weight: {moved}."] if gained else []
    if plan.short:
        short = (
            f"SHORT: {format_tokens(plan.short)} of {format_tokens(plan.goal)} tokens are out of reach within the caps"
        )
        lower = f"lower goal_tokens to {int(plan.reached):,}" if plan.reached else "give --input, --unique or --corpus"
        parts.append(f"{short}: add dumps, raise max_epochs, or {lower}.")
    estimated = [line for line in plan.lines if line.supply.origin == "estimated"]
    return [*parts, "", _factors_table(estimated)] if estimated else parts


def _mixture_table(plan: Plan) -> "Table":
    columns = ("unique", "from", "text", "weight", "share", "epochs", "cap", "tokens seen", "sequences")
    table = number_table(f"{plan.recipe}: {format_tokens(plan.goal)} tokens, {plan.model}", "source", *columns)
    for line in plan.lines:
        supply = line.supply
        table.add_row(
            line.source,
            format_tokens(supply.unique_tokens),
            {"none": "no input"}.get(supply.origin, supply.origin),
            format_bytes(supply.text_bytes),
            f"{line.asked:.1%}",
            f"{line.given:.1%}",
            f"{line.epochs:.2f}",
            f"{line.max_epochs:g}" + (" binds" if line.capped and supply.unique_tokens else ""),
            format_tokens(line.tokens),
            f"{line.tokens // plan.sequence_length:,.0f}",
        )
    table.add_section()
    unique = sum(line.supply.unique_tokens for line in plan.lines)
    table.add_row(
        "all",
        format_tokens(unique),
        "",
        format_bytes(sum(line.supply.text_bytes for line in plan.lines)),
        "100.0%",
        "100.0%" if plan.reached else "0.0%",
        f"{plan.reached / unique:.2f}" if unique else "0.00",
        "",
        format_tokens(plan.trained),
        f"{plan.trained // plan.sequence_length:,.0f}",
    )
    return table


def _missing_table(wanting: list[tuple[PlannedSource, Missing]]) -> "Table":
    columns = ("weight", "share", "more unique tokens", "text", "dumps, about", "that is, about")
    table = number_table("Missing to reach each weight within the cap on epochs", "source", *columns)
    for line, missing in wanting:
        number = f"{missing.pieces:,.0f}" if missing.pieces >= 9.95 else f"{missing.pieces:.1f}"
        like = "those here" if line.supply.files else "LLaMA's"
        table.add_row(
            line.source,
            f"{line.asked:.1%}",
            f"{line.given:.1%}",
            format_tokens(missing.tokens),
            format_bytes(missing.text_bytes),
            format_bytes(missing.stored_bytes),
            f"{number} {missing.piece}s like {like}" if missing.pieces else "",
        )
    return table


def _factors_table(lines: list[PlannedSource]) -> "Table":
    from rich.table import Table

    table = Table("source", title="Estimated from stored bytes", title_justify="left", box=None, pad_edge=False)
    table.add_column("stored", justify="right")
    table.add_column("files", justify="right")
    table.add_column("factor")
    table.add_column("", justify="right")
    table.add_column("from", overflow="fold")
    for line in lines:
        factors = line.supply.factors
        head = [line.source, format_bytes(line.supply.stored_bytes), f"{line.supply.files:,}"]
        named = {
            "text per stored byte": factors.text,
            "kept share": factors.kept,
            "bytes per token": factors.bytes_per_token,
        }
        for name, figure in named.items():
            table.add_row(*head, name, f"{figure.value:.3g}", figure.origin)
            head = ["", "", ""]
    return table


@dataclass(frozen=True, slots=True)
class MixedSource:
    """One source in a training run.

    Attributes:
        asked: Its weight as a share of all weights.
        planned_tokens: Number of its tokens in the whole run.
        seen_tokens: Number of its tokens up to the current step of the run.
        epochs: Number of its epochs up to the current step of the run.
    """

    source: str
    asked: float
    planned_tokens: int
    seen_tokens: float
    epochs: float


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The mixture of a training run.

    The planned tokens are exact. The tokens seen up to a step are exact to within a few sequences.
    """

    step: int
    steps: int
    sources: tuple[MixedSource, ...]


def read_training_run(run: Path) -> TrainingRun:
    """Read the mixture of a training run.

    Args:
        run: The output folder of `python -m trainer train`.

    Raises:
        UserError: It is not such a folder.
    """
    try:
        plan = plan_from(json.loads((run / "run.json").read_bytes())["plan"])
        weights = np.array([source.weight for source in plan.sources], np.float64)
        rows = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
        step = int(rows[-1].partition(",")[0]) if rows else 0
        length, asked = plan.sequence_length, weights / weights.sum()
        planned, seen = quotas(plan).tolist(), expected_counts(plan, step).tolist()
        mixed = [
            MixedSource(source.name, share, count * length, done * length, done / source.windows)
            for source, share, count, done in zip(plan.sources, asked.tolist(), planned, seen, strict=True)
        ]
        return TrainingRun(step, plan.steps, tuple(mixed))
    except OSError as error:
        problem = f"{error.filename} cannot be read ({error.strerror})"
        raise UserError(f"--run {run}: {problem}: give a run's folder") from error
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(f"--run {run} is not the folder of a training run: give the --output of the trainer") from error


def run_table(run: TrainingRun) -> "Table":
    """Return a table of the mixture of a training run."""
    columns = ("weight", "share", "tokens planned", "tokens seen", "epochs seen")
    table = number_table(f"Training run, step {run.step:,} of {run.steps:,}", "source", *columns)
    whole = sum(source.planned_tokens for source in run.sources)
    for source in run.sources:
        table.add_row(
            source.source,
            f"{source.asked:.1%}",
            f"{source.planned_tokens / whole:.1%}",
            format_tokens(source.planned_tokens),
            format_tokens(source.seen_tokens),
            f"{source.epochs:.2f}",
        )
    return table
