"""`plan`: what a recipe gives and costs, before it is run, and beside what a corpus of it turned out to hold."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from filters.errors import UserError
from manifests.manifest import load_manifest
from manifests.planning import cost as costs
from manifests.planning import plan as plans
from manifests.planning import rates, supply
from manifests.planning.supply import MeasuredSource, Supply
from manifests.recipe import Recipe
from pipeline.beam.task import read_receipt
from pipeline.sources.inputs import match
from pipeline.stages.survivors import CLUSTERS

NO_RATES = (
    "Cost of the corpus: no rates; give --corpus with one built by this version, or --rates with its runs/<start>.json."
)


@dataclass(frozen=True)
class Asked:
    """What `plan` was asked for beside the recipe. `inputs` and `unique`: by source, as on the command line; `rates`:
    records of runs; prices: an hour's, in any currency."""

    inputs: dict[str, list[str]]
    unique: dict[str, float]
    corpus: Path | None = None
    rates: tuple[Path, ...] = ()
    run: Path | None = None
    workers: int = 64
    utilisation: float = costs.UTILISATION
    peak_tflops: float = costs.A100_TFLOPS
    core_hour_price: float | None = None
    gpu_hour_price: float | None = None


@dataclass(frozen=True)
class Planned:
    """All that `plan` found."""

    asked: Asked
    plan: plans.Plan
    cost: costs.Cost | None
    engine_seconds: float
    training: list[costs.TrainingCost]
    actuals: dict[str, MeasuredSource]
    run: plans.TrainingRun | None
    notes: list[str]

    def text(self) -> str:
        """For people."""
        asked = self.asked
        parts: list[RenderableType] = plans.plan_parts(self.plan)
        if self.cost is not None:
            parts += ["", *costs.cost_parts(self.cost, self.engine_seconds, asked.core_hour_price)]
        else:
            parts += ["", NO_RATES]
        prices = (asked.utilisation, asked.peak_tflops, asked.gpu_hour_price)
        parts += ["", *costs.training_parts(self.training, self.plan.trained, *prices)]
        if self.actuals:
            parts += ["", supply.measured_table(self.actuals)]
            parts += self.notes
        if self.run is not None:
            parts += ["", plans.run_table(self.run)]
        return plans.render_text(parts)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        asked = self.asked
        days = [
            asdict(one)
            | ({"price": one.gpu_days * 24 * asked.gpu_hour_price} if asked.gpu_hour_price is not None else {})
            for one in self.training
        ]
        price = asked.core_hour_price
        spent = None
        if self.cost is not None:
            spent = {**self.cost.as_dict(), "engine_seconds_a_job": self.engine_seconds}
            spent |= {"price": self.cost.cpu_seconds / 3600 * price} if price is not None else {}
        return {
            "plan": self.plan.as_dict(),
            "cost": spent,
            "training": {"utilisation": asked.utilisation, "peak_tflops": asked.peak_tflops, "sizes": days},
            "actual": [one.as_dict() for one in self.actuals.values()],
            "run": self.run and asdict(self.run),
            "notes": self.notes,
        }


def plan(recipe: Recipe, asked: Asked) -> Planned:
    """Plan a recipe. Raises UserError."""
    for option, named in (("--input", asked.inputs), ("--unique", asked.unique)):
        for source in named:
            if source not in recipe.sources:
                known = ", ".join(recipe.sources)
                raise UserError(f"{option} {source}=…: the recipe has no source {source!r}, only {known}")
    twice = sorted(set(asked.inputs) & set(asked.unique))
    if twice:
        raise UserError(f"source {twice[0]} has both --input and --unique: give one of them")
    actuals, notes = _actuals(recipe, asked.corpus) if asked.corpus is not None else ({}, [])
    supplies = {name: _supply(name, recipe, asked, actuals) for name in recipe.sources}
    size = costs.SIZES[recipe.trainer.model]
    made = plans.make_plan(recipe, supplies, size.sequence_length, size.batch_tokens)
    paths = asked.rates or (tuple(rates.find_run_records(asked.corpus)) if asked.corpus is not None else ())
    found = rates.read_rates(paths) if paths else None
    if asked.rates and found is not None and not found.stored_bytes:
        raise UserError(f"{asked.rates[0]} counts nothing that was extracted: give the record of a whole run")
    sizes = recipe.split_bytes, recipe.shards.validation
    needed = {name: costs.estimate_workload(one, *sizes) for name, one in supplies.items()}
    spent = None
    if found is not None and found.stored_bytes:
        spent = costs.estimate_cost(found, needed, recipe.tokenizer.sample_bytes, asked.workers)
    return Planned(
        asked,
        made,
        spent,
        found.engine_seconds if found is not None else 0.0,
        costs.estimate_training(made, asked.utilisation, asked.peak_tflops),
        actuals,
        plans.read_training_run(asked.run) if asked.run is not None else None,
        notes,
    )


def unique_tokens(options: list[str]) -> dict[str, float]:
    """`SOURCE=TOKENS` options by source. Raises UserError."""
    found: dict[str, float] = {}
    for option in options:
        source, _, number = option.partition("=")
        try:
            tokens = float(number)
        except ValueError:
            tokens = -1.0
        if not source or not math.isfinite(tokens) or tokens < 0:
            raise UserError(f"--unique {option!r} is not SOURCE=TOKENS: for example --unique c4=198e9")
        if source in found:
            raise UserError(f"--unique {source}=… is given twice: give it once")
        found[source] = tokens
    return found


def _actuals(recipe: Recipe, corpus: Path) -> tuple[dict[str, MeasuredSource], list[str]]:
    """What a corpus holds, and what to mind when a recipe is planned by it."""
    manifest = load_manifest(corpus)
    if not set(manifest.sources) & set(recipe.sources):
        raise UserError(f"--corpus {corpus} holds none of the recipe's sources: give a corpus of this recipe")
    receipt = read_receipt(corpus, CLUSTERS, "all")
    pieces, wanted = manifest.tokenizer.vocabulary, recipe.tokenizer.vocabulary
    notes = []
    if pieces != wanted:
        notes.append(
            f"{corpus} has a tokenizer of {pieces:,} pieces, the recipe asks for {wanted:,}: other bytes a token."
        )
    return supply.measure_sources(manifest, receipt.facts.get("text_bytes", {}) if receipt is not None else {}), notes


def _supply(name: str, recipe: Recipe, asked: Asked, actuals: Mapping[str, MeasuredSource]) -> Supply:
    """What a source can give: as stated; from files named on the command line; as the corpus holds it; from the
    recipe's own inputs."""
    source = recipe.sources[name]
    kind = source.kind or name
    measured = actuals[name].supply if name in actuals else None
    if name in asked.unique:
        return supply.stated_supply(asked.unique[name], measured.factors if measured else supply.default_factors(kind))
    patterns = asked.inputs.get(name, [] if measured else source.inputs)
    if patterns:
        factors = measured.factors if measured else None
        return supply.estimate_supply(kind, _sizes(name, patterns), factors, recipe.shards.validation)
    return measured or supply.empty_supply(supply.default_factors(kind))


def _sizes(source: str, patterns: list[str]) -> dict[str, int]:
    """Stored bytes of the files that a source's inputs stand for; nothing is fetched."""
    for pattern in patterns:
        if "://" in pattern:
            raise UserError(
                f"source {source}: {pattern} would have to be fetched to be measured: give --unique {source}=TOKENS"
            )
    try:
        return {name: path.stat().st_size for name, path in match(source, patterns, Path()).items()}
    except OSError as error:
        raise UserError(f"source {source}: {error.filename} cannot be read ({error.strerror}): check it") from error
