"""What a plan costs, as text for people."""

from rich.console import RenderableType
from rich.table import Table

from manifests import amounts
from manifests.cost import SIZES, Cost, Step, Training
from manifests.rates import UNITS

ROUGH = 1_000
"""from so many times the measured bytes on, a cost is no more than an order of magnitude"""


def cost_parts(planned: Cost, engine_seconds: float, core_hour_price: float | None) -> list[RenderableType]:
    """The pipeline's cost by stage, what it leaves out, and its price where an hour's is given."""
    parts: list[RenderableType] = [_stages(planned)]
    scale = f"Rates of runs that read 1/{planned.scale:,.0f} of these dumps"
    if planned.scale < 1.5:
        scale = "Rates of runs that read as much"
    if planned.scale >= ROUGH:
        scale += ": an order of magnitude, no more"
    parts.append(f"{scale}. The engine took {engine_seconds:.1f} s around the tasks of a job there, not counted.")
    if planned.uncounted:
        parts.append(f"Not counted, no rate measured: {', '.join(planned.uncounted)}.")
    if core_hour_price is not None:
        hours = planned.cpu_seconds / 3600
        parts.append(f"At {core_hour_price:g} a core-hour: {hours * core_hour_price:,.2f}.")
    return parts


def _stages(planned: Cost) -> Table:
    columns = (
        "CPU time a unit",
        "core time",
        f"wall, {planned.workers:,} workers",
        "shuffled",
        "written",
        "peak memory",
    )
    table = amounts.ruled("Cost of the corpus, at measured rates", "stage", *columns)
    for stage in UNITS:
        mine = [step for step in planned.steps if step.stage.partition("/")[0] == stage]
        if mine:
            table.add_row(stage, _rate(mine, stage), *_sums(mine))
    table.add_section()
    table.add_row("all", "", *_sums(list(planned.steps)))
    return table


def _rate(steps: list[Step], stage: str) -> str:
    """CPU seconds a MB, or a million tokens, of what the stage works on."""
    unit = UNITS[stage]
    growing = [step for step in steps if step.unit == unit]
    # each source's own rate works on its part, a common one on all: the largest common amount, or the sum of the parts
    whole = max((step.amount for step in growing if not step.source), default=0.0)
    whole = whole or sum(step.amount for step in growing if step.stage == growing[0].stage)
    if not whole:
        return "once"
    per = sum(step.cpu_seconds for step in growing) / whole * 1e6
    return f"{per:.3g} s a " + {"tokens": "M tokens", "stored bytes": "MB stored"}.get(unit, f"M {unit}")


def _sums(steps: list[Step]) -> tuple[str, str, str, str, str]:
    shuffled = [step.shuffled for step in steps if step.shuffled is not None]
    written = [step.written for step in steps if step.written is not None]
    return (
        amounts.hours(sum(step.cpu_seconds for step in steps)),
        amounts.hours(sum(step.wall_seconds for step in steps)),
        amounts.size(sum(shuffled)) if shuffled else "not recorded",
        amounts.size(sum(written)) if written else "not recorded",
        amounts.size(max(step.peak_bytes for step in steps)) if steps else "",
    )


def training_parts(
    trainings: list[Training], utilisation: float, peak_tflops: float, gpu_hour_price: float | None
) -> list[RenderableType]:
    """GPU-days by model size, and their price where an hour's is given."""
    counts = sorted({training.tokens for training in trainings})
    columns = ["parameters", "tokens a step"]
    for tokens in counts:
        columns += [f"steps, {amounts.tokens(tokens)}", "GPU-days"]
        columns += ["price"] if gpu_hour_price is not None else []
    table = amounts.ruled("Training", "model", *columns)
    for model in dict.fromkeys(training.model for training in trainings):
        row = [model, amounts.tokens(SIZES[model].parameters), f"{SIZES[model].batch_tokens:,}"]
        for training in (training for training in trainings if training.model == model):
            row += [
                f"{training.steps:,}",
                f"{training.gpu_days:,.0f}" if training.gpu_days >= 10 else f"{training.gpu_days:.2g}",
            ]
            row += [f"{training.gpu_days * 24 * gpu_hour_price:,.0f}"] if gpu_hour_price is not None else []
        table.add_row(*row)
    said = f"At {utilisation:.1%} of {peak_tflops:g} TFLOP/s a GPU and 6 FLOPs a parameter and token"
    return [table, said + (f", {gpu_hour_price:g} a GPU-hour." if gpu_hour_price is not None else ".")]
