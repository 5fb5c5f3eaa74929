"""The command `plan`: estimate the tokens and cost of a recipe, and compare them with a corpus built from it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import UserError
from manifests.display import render_text
from manifests.manifest import load_manifest
from manifests.planning import cost as costs
from manifests.planning import plan as plans
from manifests.planning import rates, supply
from manifests.planning.supply import MeasuredSource, Supply
from manifests.recipe import Recipe
from pipeline.beam.receipts import read_receipt
from pipeline.dedup.survivors import SURVIVORS
from pipeline.sources.inputs import is_matched, match

if TYPE_CHECKING:
    from rich.console import RenderableType

NO_RATES = (
    "Cost of the corpus: unknown without rates; give --corpus with one built by this version, or --rates with its "
    "runs/<start>.json."
)


@dataclass(frozen=True)
class PlanRequest:
    """The arguments of `plan` besides the recipe.

    Attributes:
        inputs: Globs of dumps, by source.
        unique: Number of unique tokens, by source.
        corpus: A corpus built from the recipe, on which tokens and factors are measured.
        rates: Paths of `runs/<start>.json`, from which processing rates are taken.
        run: Folder of a training run.
        workers: Number of processes for which the wall time is estimated.
        utilisation: Share of a GPU's peak performance that the training reaches.
        peak_tflops: Peak performance of a GPU, in TFLOP/s.
        core_hour_price: Price of a CPU core per hour, in any currency.
        gpu_hour_price: Price of a GPU per hour, in the same currency.
    """

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
class PlanResult:
    """The estimates of `plan`, and the measurements from which they are computed. `cost` is None without rates."""

    request: PlanRequest
    plan: plans.Plan
    cost: costs.Cost | None
    engine_seconds: float
    training: list[costs.TrainingCost]
    measured: dict[str, MeasuredSource]
    run: plans.TrainingRun | None
    notes: list[str]

    def text(self) -> str:
        """Return the estimates as tables of text."""
        request = self.request
        parts: list[RenderableType] = [*plans.plan_parts(self.plan), ""]
        if self.cost is not None:
            parts += costs.cost_parts(self.cost, self.engine_seconds, request.core_hour_price)
        else:
            parts.append(NO_RATES)
        gpu = (request.utilisation, request.peak_tflops, request.gpu_hour_price)
        parts += ["", *costs.training_parts(self.training, self.plan.trained, *gpu)]
        if self.measured:
            parts += ["", supply.measured_table(self.measured), *self.notes]
        if self.run is not None:
            parts += ["", plans.run_table(self.run)]
        return render_text(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the estimates as JSON values."""
        request = self.request
        sizes, cost = [asdict(size) for size in self.training], None
        if request.gpu_hour_price is not None:
            sizes = [{**size, "price": size["gpu_days"] * 24 * request.gpu_hour_price} for size in sizes]
        if self.cost is not None:
            cost = {**self.cost.as_dict(), "engine_seconds_a_job": self.engine_seconds}
            if request.core_hour_price is not None:
                cost["price"] = self.cost.cpu_seconds / 3600 * request.core_hour_price
        return {
            "plan": self.plan.as_dict(),
            "cost": cost,
            "training": {"utilisation": request.utilisation, "peak_tflops": request.peak_tflops, "sizes": sizes},
            "actual": [source.as_dict() for source in self.measured.values()],
            "run": self.run and asdict(self.run),
            "notes": self.notes,
        }


def plan(recipe: Recipe, request: PlanRequest) -> PlanResult:
    """Estimate the tokens and costs of a recipe. Raises UserError for a mistake in the request."""
    for option, sources in (("--input", request.inputs), ("--unique", request.unique)):
        for source in sources:
            if source not in recipe.sources:
                known = ", ".join(recipe.sources)
                raise UserError(f"{option} {source}=…: the recipe has no source {source!r}, only {known}")
    twice = sorted(set(request.inputs) & set(request.unique))
    if twice:
        raise UserError(f"source {twice[0]} has both --input and --unique: give one of them")
    corpus = request.corpus
    measured, notes = _measure(recipe, corpus) if corpus is not None else ({}, [])
    supplies = {name: _supply(name, recipe, request, measured) for name in recipe.sources}
    planned = plans.make_plan(recipe, supplies)
    paths = request.rates or (tuple(rates.find_run_records(corpus)) if corpus is not None else ())
    found = rates.read_rates(paths) if paths else None
    if request.rates and found is not None and not found.stored_bytes:
        raise UserError(f"{request.rates[0]} records no extraction: give the record of a whole run")
    sizes = recipe.split_bytes, recipe.shards.validation
    workload = {name: costs.estimate_workload(one, *sizes) for name, one in supplies.items()}
    cost = None
    if found is not None and found.stored_bytes:
        cost = costs.estimate_cost(found, workload, recipe.tokenizer.sample_bytes, request.workers)
    return PlanResult(
        request,
        planned,
        cost,
        found.engine_seconds if found is not None else 0.0,
        costs.estimate_training(planned, recipe.tokenizer.vocabulary, request.utilisation, request.peak_tflops),
        measured,
        plans.read_training_run(request.run) if request.run is not None else None,
        notes,
    )


def parse_unique_tokens(options: list[str]) -> dict[str, float]:
    """Parse options `SOURCE=TOKENS` to a dict from source to tokens.

    Raises:
        UserError: An option has another form, or a source is given twice.
    """
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


def _measure(recipe: Recipe, corpus: Path) -> tuple[dict[str, MeasuredSource], list[str]]:
    """Return the measurements of each source in a corpus, and notes about differences from the recipe."""
    manifest = load_manifest(corpus)
    if not set(manifest.sources) & set(recipe.sources):
        raise UserError(f"--corpus {corpus} holds none of the recipe's sources: give a corpus of this recipe")
    receipt = read_receipt(corpus, SURVIVORS, "all")
    vocabulary, wanted, notes = manifest.tokenizer.vocabulary, recipe.tokenizer.vocabulary, []
    if vocabulary != wanted:
        notes.append(
            f"{corpus} has a tokenizer of {vocabulary:,} pieces, the recipe asks for {wanted:,}: "
            "the bytes per token differ."
        )
    return supply.measure_sources(manifest, receipt.facts.get("text_bytes", {}) if receipt is not None else {}), notes


def _supply(name: str, recipe: Recipe, request: PlanRequest, measured: Mapping[str, MeasuredSource]) -> Supply:
    """Return the supply of a source.

    It is taken from the first that exists: the number of `--unique`, the files of `--input`, the corpus, the inputs of
    the recipe.
    """
    source = recipe.sources[name]
    kind = source.kind or name
    known = measured[name].supply if name in measured else None
    if name in request.unique:
        return supply.stated_supply(request.unique[name], known.factors if known else supply.default_factors(kind))
    own = [pattern for pattern in source.inputs if "://" in pattern or is_matched(pattern)]  # without missing files
    if patterns := request.inputs.get(name, [] if known else own):
        sizes, factors = _stored_sizes(name, patterns), known.factors if known else None
        return supply.estimate_supply(kind, sizes, factors, recipe.shards.validation)
    return known or supply.empty_supply(supply.default_factors(kind))


def _stored_sizes(source: str, patterns: list[str]) -> dict[str, int]:
    """Return a dict from name to stored bytes for the input files of a source. Nothing is downloaded."""
    for pattern in patterns:
        if "://" in pattern:
            raise UserError(
                f"source {source}: {pattern} would have to be downloaded to be measured: give --unique {source}=TOKENS"
            )
    try:
        found = match(source, patterns, Path())
        for folder in filter(Path.is_dir, found.values()):
            next(folder.iterdir())  # A folder is among the inputs only if it cannot be read. This raises the error.
        return {name: path.stat().st_size for name, path in found.items()}
    except OSError as error:
        raise UserError(f"source {source}: {error.filename} cannot be read ({error.strerror}): check it") from error
