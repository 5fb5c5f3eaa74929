"""What a plan costs: a pipeline's work from the rates that earlier runs measured, a model's training from a stated
utilisation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from manifests.planning.plan import Plan, steps
from manifests.planning.rates import Rate, Rates
from manifests.planning.supply import Supply
from manifests.stages import kind_of

A100_TFLOPS = 312.0
"""dense bfloat16, as NVIDIA states it"""
UTILISATION = 0.477
"""LLaMA, section 2.4: 380 tokens a second and A100 at 65B, over 6 N FLOPs a token; 0.497 if attention's are counted"""
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Size:
    """A model size: parameters, and tokens in a sequence and in an optimiser step."""

    parameters: float
    sequence_length: int
    batch_tokens: int


SIZES = {
    "demo": Size(1_328_256, 256, 4_096),
    "125m": Size(134_105_856, 2_048, 524_288),
    "350m": Size(373_867_520, 2_048, 524_288),
    "1b3": Size(1_364_297_728, 2_048, 1_048_576),
    "7b": Size(6.7e9, 2_048, 4_194_304),
    "13b": Size(13.0e9, 2_048, 4_194_304),
    "33b": Size(32.5e9, 2_048, 4_194_304),
    "65b": Size(65.2e9, 2_048, 4_194_304),
}
"""7b to 65b: LLaMA, Table 2 ("4M" tokens taken as 2 ** 22). The others: `trainer/presets.py`, demo with 2,048 pieces,
the rest with 32,000; a test compares"""
PAPER = ("7b", "13b", "33b", "65b")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What the stages of one source work on: stored bytes, bytes of extracted and of kept text, tokens, and tasks
    (files, or pieces of large ones)."""

    stored: float
    extracted: float
    kept: float
    tokens: float
    tasks: float


def amounts_of(supply: Supply, split_bytes: int, held_out: float) -> Amounts:
    """What it takes to make a source's unique tokens, and those held out for validation, from its dumps."""
    kept = supply.text_bytes / (1 - held_out) if held_out < 1 else 0.0
    extracted = kept / supply.factors.kept.value if kept else 0.0
    return Amounts(
        supply.stored_bytes,
        extracted,
        kept,
        kept / supply.factors.bytes_per_token.value,
        max(supply.files, supply.stored_bytes / split_bytes),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """The planned cost of one step of a stage. `amount` in `unit`s. CPU seconds: `growing` with the amount, `fixed` by
    tasks and workers; `wall_seconds` with the plan's workers. `shuffled` and `written` in bytes, None where the runs
    recorded none."""

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
        """All of them."""
        return self.growing + self.fixed

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = Step.__dataclass_fields__
        return {name: getattr(self, name) for name in names} | {"cpu_seconds": self.cpu_seconds}


@dataclass(frozen=True, slots=True)
class Cost:
    """The planned cost of a corpus. `uncounted`: sources that no rate was measured for; `scale`: how many times more is
    extracted than in the measured runs."""

    workers: int
    steps: tuple[Step, ...]
    uncounted: tuple[str, ...]
    scale: float
    bytes_per_character: float

    @property
    def cpu_seconds(self) -> float:
        """Of all stages."""
        return sum(step.cpu_seconds for step in self.steps)

    @property
    def wall_seconds(self) -> float:
        """Of all stages, one after another, without the engine's own time."""
        return sum(step.wall_seconds for step in self.steps)


def cost(rates: Rates, needed: Mapping[str, Amounts], sample_bytes: int, workers: int) -> Cost:
    """The cost of making the sources' tokens at the measured rates: for each step a slope over what it works on, a
    fixed time a task, and a start-up a worker. Sources that no rate was measured for are left out, and named."""
    counted = {name: amounts for name, amounts in needed.items() if amounts.stored and name in rates.sources}
    uncounted = tuple(sorted(name for name, amounts in needed.items() if amounts.stored and name not in counted))
    whole = _sum(counted.values())
    found = []
    for rate in rates.steps:
        amounts = counted.get(rate.source) if rate.source else whole
        if amounts is None or not whole.stored:
            continue
        found.append(_step(rate, amounts, whole, sample_bytes, workers, rates.bytes_per_character))
    scale = whole.stored / rates.stored_bytes if rates.stored_bytes else 0.0
    return Cost(workers, tuple(found), uncounted, scale, rates.bytes_per_character)


def _step(
    rate: Rate, amounts: Amounts, whole: Amounts, sample_bytes: int, workers: int, bytes_per_character: float
) -> Step:
    planned = {
        "stored bytes": amounts.stored,
        "extracted characters": amounts.extracted / bytes_per_character,
        "kept characters": amounts.kept / bytes_per_character,
        "tokens": amounts.tokens,
        "sample bytes": min(float(sample_bytes), whole.kept),
    }
    once = rate.unit == "run"
    amount = 1.0 if once else planned[rate.unit]
    grown = 1.0 if once else amount / rate.amount
    tasks = 1.0 if once else max(amounts.tasks, 1.0)
    at_work = 1.0 if once or kind_of(rate.stage).serial else min(float(workers), tasks)
    growing, each = rate.per_unit * amount, rate.per_task * tasks
    return Step(
        rate.stage,
        rate.source,
        rate.unit,
        amount,
        growing,
        each + rate.start_up * at_work,
        (growing + each) / at_work + rate.start_up,
        None if rate.shuffled is None else rate.shuffled * grown,
        None if rate.written is None else rate.written * grown,
        rate.peak_bytes,
    )


def _sum(all_amounts: Iterable[Amounts]) -> Amounts:
    parts = list(all_amounts)
    return Amounts(
        *(sum(getattr(part, name) for part in parts) for name in ("stored", "extracted", "kept", "tokens", "tasks"))
    )


@dataclass(frozen=True, slots=True)
class Training:
    """What training one size on so many tokens takes, by 6 N FLOPs a token (N: all parameters)."""

    model: str
    parameters: float
    tokens: float
    steps: int
    gpu_days: float


def training(plan: Plan, utilisation: float, peak_tflops: float) -> list[Training]:
    """The paper's sizes, and the recipe's own, at 1.0 and 1.4 trillion tokens and at what the plan reaches."""
    names = [*PAPER, *(name for name in (plan.model,) if name not in PAPER)]
    counts = sorted({1.0e12, 1.4e12, plan.trained} - {0.0})
    return [
        Training(
            name,
            SIZES[name].parameters,
            tokens,
            steps(tokens, SIZES[name].batch_tokens),
            gpu_days(SIZES[name].parameters, tokens, utilisation, peak_tflops),
        )
        for name in names
        for tokens in counts
    ]


def gpu_days(parameters: float, tokens: float, utilisation: float, peak_tflops: float) -> float:
    """Days of one GPU: 6 FLOPs a parameter and token (Kaplan et al. 2020) at a share of the peak."""
    return 6.0 * parameters * tokens / (utilisation * peak_tflops * 1e12) / SECONDS_A_DAY


def as_dict(planned: Cost) -> dict[str, Any]:
    """Plain values."""
    return {
        "workers": planned.workers,
        "core_hours": planned.cpu_seconds / 3600,
        "wall_seconds": planned.wall_seconds,
        "uncounted_sources": list(planned.uncounted),
        "times_the_measured": planned.scale,
        "steps": [step.as_dict() for step in planned.steps],
    }
