"""What a plan costs, as text for people."""

from rich.console import RenderableType
from rich.table import Table

from manifests.display import format_bytes, format_hours, format_tokens, number_table
from manifests.planning.cost import SIZES, Cost, Step, Training
from manifests.planning.rates import UNITS

ROUGH = 1_000
"""from so many times the measured bytes on, a cost is no more than an order of magnitude"""


def cost_parts(planned: Cost, engine_seconds: float, core_hour_price: float | None) -> list[RenderableType]:
    """The pipeline's cost by stage, what it leaves out, and its price where an hour's is given."""
    parts: list[RenderableType] = [_stages(planned)] if planned.steps else []
    if planned.steps:
        parts.append(_extrapolation(planned.scale, engine_seconds))
    if planned.uncounted:
        parts.append(f"Cost of the corpus without {', '.join(planned.uncounted)}: no rate was measured for them.")
    if core_hour_price is not None and planned.steps:
        hours = planned.cpu_seconds / 3600
        parts.append(f"At {core_hour_price:g} a core-hour: {hours * core_hour_price:,.2f}.")
    return parts


def _extrapolation(scale: float, engine_seconds: float) -> str:
    """How far the measured runs carry."""
    said = "Rates of runs that read " + (f"1/{scale:,.0f} of these dumps" if scale >= 1.5 else "as much")
    if scale >= ROUGH:
        said += ": an order of magnitude, no more"
    return f"{said}. The engine took {engine_seconds:.1f} s around the tasks of a job there, not counted."


def _stages(planned: Cost) -> Table:
    columns = ("CPU time", "core time", "of it fixed", "wall", "shuffled", "written", "peak memory")
    table = number_table(f"Cost of the corpus at measured rates, {planned.workers:,} workers", "stage", *columns)
    for stage in UNITS:
        mine = [step for step in planned.steps if step.stage.partition("/")[0] == stage]
        if mine:
            table.add_row(stage, _rate(mine, stage, planned.bytes_per_character), *_sums(mine))
    table.add_section()
    table.add_row("all", "", *_sums(list(planned.steps)))
    return table


def _rate(steps: list[Step], stage: str, bytes_per_character: float) -> str:
    """CPU seconds a MB, or a million tokens, of what the stage works on, without what is fixed."""
    unit = UNITS[stage]
    growing = [step for step in steps if step.unit == unit]
    # each source's own rate works on its part, a common one on all: the largest common amount, or the sum of the parts
    whole = max((step.amount for step in growing if not step.source), default=0.0)
    whole = whole or sum(step.amount for step in growing if step.stage == growing[0].stage)
    if not whole:
        return "once"
    per = sum(step.growing for step in growing) / whole * 1e6
    if unit.endswith("characters"):
        return f"{per / bytes_per_character:.2g} s a MB {unit.partition(' ')[0]}"
    return f"{per:.2g} s a " + ("M tokens" if unit == "tokens" else "MB stored")


def _sums(steps: list[Step]) -> tuple[str, str, str, str, str, str]:
    shuffled = [step.shuffled for step in steps if step.shuffled is not None]
    written = [step.written for step in steps if step.written is not None]
    return (
        format_hours(sum(step.cpu_seconds for step in steps)),
        format_hours(sum(step.fixed for step in steps)),
        format_hours(sum(step.wall_seconds for step in steps)),
        format_bytes(sum(shuffled)) if shuffled else "not recorded",
        format_bytes(sum(written)) if written else "not recorded",
        format_bytes(max(step.peak_bytes for step in steps)) if steps else "",
    )


def training_parts(
    trainings: list[Training], goal: float, utilisation: float, peak_tflops: float, gpu_hour_price: float | None
) -> list[RenderableType]:
    """Steps to `goal` tokens, and GPU-days by model size and tokens; prices where an hour's is given."""
    columns = ["parameters", "tokens a step", f"steps to {format_tokens(goal)}"]
    for tokens in sorted({one.tokens for one in trainings}):
        columns.append(f"GPU-days, {format_tokens(tokens)}")
        columns += ["price"] if gpu_hour_price is not None else []
    table = number_table("Training", "model", *columns)
    for model in dict.fromkeys(one.model for one in trainings):
        mine = [one for one in trainings if one.model == model]
        row = [model, format_tokens(SIZES[model].parameters), f"{SIZES[model].batch_tokens:,}"]
        row += [f"{one.steps:,}" for one in mine if one.tokens == goal]
        for one in mine:
            row.append(f"{one.gpu_days:,.0f}" if one.gpu_days >= 10 else f"{one.gpu_days:.2g}")
            row += [f"{one.gpu_days * 24 * gpu_hour_price:,.0f}"] if gpu_hour_price is not None else []
        table.add_row(*row)
    said = f"At {utilisation:.1%} of {peak_tflops:g} TFLOP/s a GPU and 6 FLOPs a parameter and token"
    return [table, said + (f", {gpu_hour_price:g} a GPU-hour." if gpu_hour_price is not None else ".")]
