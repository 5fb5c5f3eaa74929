"""The cost of a plan: the work of the pipeline at measured rates, and the training of models at a given utilization."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any

from manifests.display import format_bytes, format_hours, format_tokens, number_table
from manifests.planning.plan import Plan
from manifests.planning.rates import Rate, Rates
from manifests.planning.supply import Supply
from manifests.sizes import PRESETS
from manifests.stages import STAGES, STEPS, kind_of, stage_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

A100_TFLOPS = 312.0  # Peak for dense bfloat16, as stated by NVIDIA.
# LLaMA, section 2.4: the 65B model processes 380 tokens per second and A100. At 6 N FLOPs per token, this is a
# utilization of 0.477; with the FLOPs of attention it is 0.497.
UTILISATION = 0.477
SECONDS_PER_DAY = 86_400.0
# If a plan has at least this many times the stored bytes of the measured runs, its cost is described as an order of
# magnitude.
ROUGH_SCALE = 1_000


PAPER = ("7b", "13b", "33b", "65b")  # The model sizes of LLaMA, Table 2.


@dataclass(frozen=True, slots=True)
class Workload:
    """The amounts that the stages of one source process.

    Attributes:
        stored: Stored bytes.
        extracted: Bytes of extracted text.
        kept: Bytes of kept text.
        tokens: Number of tokens.
        tasks: Number of files, or of splits of large files.
    """

    stored: float = 0.0
    extracted: float = 0.0
    kept: float = 0.0
    tokens: float = 0.0
    tasks: float = 0.0


def estimate_workload(supply: Supply, split_bytes: int, held_out: float) -> Workload:
    """Return the amounts that must be processed to produce the training and validation tokens of a source.

    Args:
        supply: The supply of the source.
        split_bytes: Stored bytes per split.
        held_out: The share of tokens that goes to validation.
    """
    kept = supply.text_bytes / (1 - held_out) if held_out < 1 else 0.0
    extracted = kept / supply.factors.kept.value if kept else 0.0
    tasks = max(supply.files, supply.stored_bytes / split_bytes)
    return Workload(supply.stored_bytes, extracted, kept, kept / supply.factors.bytes_per_token.value, tasks)


@dataclass(frozen=True, slots=True)
class StepCost:
    """The planned cost of one step of a stage.

    Attributes:
        amount: The amount of work, in `unit`s.
        growing: CPU seconds that are proportional to the amount.
        fixed: CPU seconds that depend on the number of tasks and workers.
        wall_seconds: Wall time with the workers of the plan.
        shuffled: Bytes shuffled; None if no run recorded them.
        written: Bytes written; None if no run recorded them.
        peak_bytes: Peak memory of a process.
    """

    stage: str
    source: str
    unit: str
    amount: float
    growing: float
    fixed: float
    wall_seconds: float
    shuffled: float | None
    written: float | None
    peak_bytes: int

    @property
    def cpu_seconds(self) -> float:
        """Return all CPU seconds."""
        return self.growing + self.fixed


@dataclass(frozen=True, slots=True)
class Cost:
    """The planned cost of a corpus.

    Attributes:
        uncounted: Sources without a measured rate. The cost does not include them.
        scale: Stored bytes of the plan, divided by the stored bytes of the measured runs.
    """

    workers: int
    steps: tuple[StepCost, ...]
    uncounted: tuple[str, ...]
    scale: float
    bytes_per_character: float

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all stages."""
        return sum(step.cpu_seconds for step in self.steps)

    @property
    def wall_seconds(self) -> float:
        """Return the wall time of all stages in sequence, without the overhead of the Beam runner."""
        return sum(step.wall_seconds for step in self.steps)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "workers": self.workers,
            "core_hours": self.cpu_seconds / 3600,
            "wall_seconds": self.wall_seconds,
            "uncounted_sources": list(self.uncounted),
            "times_the_measured": self.scale,
            "steps": [{**asdict(step), "cpu_seconds": step.cpu_seconds} for step in self.steps],
        }


def estimate_cost(rates: Rates, needed: Mapping[str, Workload], sample_bytes: int, workers: int) -> Cost:
    """Return the cost of building a corpus at measured rates.

    The cost of a step is the sum of a part proportional to its amount of work, a fixed time per task, and a start-up
    time per worker.

    Args:
        rates: The measured rates.
        needed: Dict from source to amounts of work. Sources without a measured rate are listed in `Cost.uncounted`.
        sample_bytes: Size of the sample on which the tokenizer is trained.
        workers: Number of workers.
    """
    present = {name: work for name, work in needed.items() if work.stored}
    counted = {name: work for name, work in present.items() if name in rates.sources}
    whole = Workload(*map(sum, zip(*map(astuple, counted.values()), strict=True)))
    shares = {"": whole, **counted} if whole.stored else {}
    steps = tuple(
        _step_cost(rate, shares[rate.source], whole, sample_bytes, workers, rates.bytes_per_character)
        for rate in rates.steps
        if rate.source in shares
    )
    scale = whole.stored / rates.stored_bytes if rates.stored_bytes else 0.0
    return Cost(workers, steps, tuple(sorted(present.keys() - counted.keys())), scale, rates.bytes_per_character)


def _step_cost(
    rate: Rate, work: Workload, whole: Workload, sample_bytes: int, workers: int, bytes_per_character: float
) -> StepCost:
    amounts = {
        "run": 1.0,
        "stored bytes": work.stored,
        "extracted characters": work.extracted / bytes_per_character,
        "kept characters": work.kept / bytes_per_character,
        "tokens": work.tokens,
        "sample bytes": min(float(sample_bytes), whole.kept),
    }
    once, amount = rate.unit == "run", amounts[rate.unit]
    growth = 1.0 if once else amount / rate.amount
    tasks = 1.0 if once else max(work.tasks, 1.0)
    busy = 1.0 if once or kind_of(rate.stage).serial else min(float(workers), tasks)
    growing, each = rate.per_unit * amount, rate.per_task * tasks
    return StepCost(
        rate.stage,
        rate.source,
        rate.unit,
        amount,
        growing,
        each + rate.start_up * busy,
        (growing + each) / busy + rate.start_up,
        None if rate.shuffled is None else rate.shuffled * growth,
        None if rate.written is None else rate.written * growth,
        rate.peak_bytes,
    )


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The cost of training a model on a number of tokens, at 6 N FLOPs per token, where N is all parameters."""

    model: str
    parameters: int
    tokens: float
    steps: int
    gpu_days: float


def estimate_training(plan: Plan, vocabulary: int, utilisation: float, peak_tflops: float) -> list[TrainingCost]:
    """Return the cost of training the model sizes of the paper and of the recipe.

    Each size is trained on 1.0 trillion, 1.4 trillion, and the number of tokens of the plan.

    Args:
        plan: The plan of a recipe.
        vocabulary: Size of the vocabulary of the recipe's tokenizer.
        utilisation: Share of the peak FLOP/s that training reaches.
        peak_tflops: Peak of one GPU in TFLOP/s.
    """
    costs = []
    for name in dict.fromkeys((*PAPER, plan.model)):
        parameters, batch = PRESETS[name].count_parameters(vocabulary), PRESETS[name].batch_tokens
        for tokens in sorted({1.0e12, 1.4e12, plan.trained} - {0.0}):
            days = gpu_days(parameters, tokens, utilisation, peak_tflops)
            costs.append(TrainingCost(name, parameters, tokens, int(tokens // batch), days))
    return costs


def gpu_days(parameters: float, tokens: float, utilisation: float, peak_tflops: float) -> float:
    """Return the GPU-days of a training, at 6 FLOPs per parameter and token (Kaplan et al. 2020).

    Args:
        parameters: Number of parameters.
        tokens: Number of tokens.
        utilisation: Share of the peak FLOP/s that training reaches.
        peak_tflops: Peak of one GPU in TFLOP/s.
    """
    return 6.0 * parameters * tokens / (utilisation * peak_tflops * 1e12) / SECONDS_PER_DAY


def cost_parts(cost: Cost, engine_seconds: float, core_hour_price: float | None) -> "list[RenderableType]":
    """Return tables and lines: the cost of the pipeline by stage, the uncounted sources, and the price.

    Args:
        cost: The cost.
        engine_seconds: Overhead of the Beam runner per job.
        core_hour_price: Price of a core-hour; None for no price.
    """
    parts: list[RenderableType] = []
    if cost.steps:
        share = f"1/{cost.scale:,.0f} of the bytes of these dumps" if cost.scale >= 1.5 else "dumps of the same size"
        said = f"Measured on {share}"
        rough = ": an order of magnitude, no more" if cost.scale >= ROUGH_SCALE else ""
        engine = f"The engine's own {engine_seconds:.1f} s per job are not counted."
        parts += [_stage_table(cost), f"{said}{rough}. {engine}"]
    if cost.uncounted:
        parts.append(f"Cost of the corpus without {', '.join(cost.uncounted)}: they have no measured rate.")
    if core_hour_price is not None and cost.steps:
        price = cost.cpu_seconds / 3600 * core_hour_price
        parts.append(f"At {core_hour_price:g} per core-hour: {price:,.2f}.")
    return parts


def _stage_table(cost: Cost) -> "Table":
    columns = ("CPU time", "core time", "fixed part", "wall", "shuffled", "written", "peak memory")
    table = number_table(f"Cost of the corpus at measured rates, {cost.workers:,} workers", "stage", *columns)
    for stage in STAGES:
        mine = [step for step in cost.steps if stage_of(step.stage) == stage]
        if mine:
            table.add_row(stage, _format_rate(mine, stage, cost.bytes_per_character), *_format_sums(mine))
    table.add_section()
    table.add_row("all", "", *_format_sums(list(cost.steps)))
    return table


def _format_rate(steps: list[StepCost], stage: str, bytes_per_character: float) -> str:
    """Return the CPU seconds per MB or per million tokens of a stage as text, without the fixed part."""
    unit = STEPS[stage].unit
    growing = [step for step in steps if step.unit == unit]
    # A rate without a source applies to the amount of all sources together: use the largest such amount. If all rates
    # are per source, use the sum of the amounts of one step.
    whole = max((step.amount for step in growing if not step.source), default=0.0)
    whole = whole or sum(step.amount for step in growing if step.stage == growing[0].stage)
    if not whole:
        return "once"
    per = sum(step.growing for step in growing) / whole * 1e6
    if unit.endswith("characters"):
        return f"{per / bytes_per_character:.2g} s per MB {unit.partition(' ')[0]}"
    return f"{per:.2g} s per " + ("M tokens" if unit == "tokens" else "MB stored")


def _format_sums(steps: list[StepCost]) -> list[str]:
    seconds = [sum(getattr(step, name) for step in steps) for name in ("cpu_seconds", "fixed", "wall_seconds")]
    recorded = [[getattr(step, name) for step in steps] for name in ("shuffled", "written")]
    known = [[size for size in sizes if size is not None] for sizes in recorded]
    bytes_ = [format_bytes(sum(sizes)) if sizes else "not recorded" for sizes in known]
    return [*map(format_hours, seconds), *bytes_, format_bytes(max(step.peak_bytes for step in steps))]


def training_parts(
    costs: list[TrainingCost], goal: float, utilisation: float, peak_tflops: float, gpu_hour_price: float | None
) -> "list[RenderableType]":
    """Return a table of training steps, GPU-days and optionally prices by model size, and a line on the assumptions."""
    priced = gpu_hour_price is not None
    columns = ["parameters", "tokens per step", f"steps to {format_tokens(goal)}"]
    for tokens in sorted({one.tokens for one in costs}):
        columns += [f"GPU-days, {format_tokens(tokens)}", *(["price"] if priced else [])]
    table = number_table("Training", "model", *columns)
    for model in dict.fromkeys(one.model for one in costs):
        mine = [one for one in costs if one.model == model]
        row = [model, format_tokens(mine[0].parameters), f"{PRESETS[model].batch_tokens:,}"]
        row += [f"{one.steps:,}" for one in mine if one.tokens == goal]
        for one in mine:
            row.append(f"{one.gpu_days:,.0f}" if one.gpu_days >= 10 else f"{one.gpu_days:.2g}")
            row += [f"{one.gpu_days * 24 * gpu_hour_price:,.0f}"] if gpu_hour_price is not None else []
        table.add_row(*row)
    said = f"At {utilisation:.1%} of {peak_tflops:g} TFLOP/s per GPU and 6 FLOPs per parameter and token"
    return [table, said + (f", {gpu_hour_price:g} per GPU-hour." if priced else ".")]
