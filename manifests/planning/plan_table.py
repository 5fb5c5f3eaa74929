"""The plan as text for people."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table

from manifests.display import WIDTH, format_bytes, format_tokens, number_table
from manifests.planning.plan import GAPS, Line, Missing, Plan
from manifests.planning.supply import Factors, Figure


def text_of(parts: Iterable[RenderableType]) -> str:
    """Tables and lines as text of at most `WIDTH` columns."""
    page = io.StringIO()
    console = Console(file=page, width=WIDTH, highlight=False, markup=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def plan_parts(plan: Plan) -> list[RenderableType]:
    """The mixture, where caps bind, what is missing, and the factors of what was estimated."""
    parts: list[RenderableType] = [_mixture(plan), *_said(plan)]
    if any(line.supply.origin == "estimated" for line in plan.lines):
        parts += ["", _factors(plan)]
    return parts


def _mixture(plan: Plan) -> Table:
    title = f"{plan.recipe}: {format_tokens(plan.goal)} tokens, {plan.model}"
    columns = ("unique", "from", "text", "asked", "given", "epochs", "cap", "tokens seen", "sequences")
    table = number_table(title, "source", *columns)
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


def _said(plan: Plan) -> list[RenderableType]:
    """Steps, what is missing, where it goes, and whether the goal is reached."""
    said: list[RenderableType] = [
        f"{plan.steps:,} steps of {plan.batch_tokens:,} tokens in sequences of {plan.sequence_length:,} ({plan.model})"
    ]
    wanting = [line for line in plan.lines if line.missing is not None]
    if not wanting:
        return said
    said += ["", _missing(wanting)]
    said += [f"{line.source}: {GAPS[line.kind]}" for line in wanting if _is_gap(line)]
    gained = [line for line in plan.lines if line.given > line.asked * (1 + 1e-9)]
    if gained:
        shared = ", ".join(f"{line.source} {line.asked:.1%} → {line.given:.1%}" for line in gained)
        said.append(f"What they cannot give goes to the others by weight: {shared}.")
    if plan.short:
        short = f"SHORT: {format_tokens(plan.short)} of {format_tokens(plan.goal)} tokens cannot be had within the caps"
        lower = f"lower goal_tokens to {int(plan.reached):,}" if plan.reached else "give --input, --unique or --corpus"
        said.append(f"{short}: bring more, raise max_epochs, or {lower}.")
    return said


def _is_gap(line: Line) -> bool:
    return line.kind in GAPS and not line.supply.unique_tokens


def _missing(wanting: list[Line]) -> Table:
    columns = ("asked", "given", "more unique tokens", "text", "dumps, about", "that is, about")
    table = number_table("Missing, to give what is asked within the cap", "source", *columns)
    for line in wanting:
        missing = line.missing
        assert missing is not None, "chosen by it"
        table.add_row(
            line.source,
            f"{line.asked:.1%}",
            f"{line.given:.1%}",
            format_tokens(missing.tokens),
            format_bytes(missing.text_bytes),
            format_bytes(missing.stored_bytes),
            _pieces(line, missing),
        )
    return table


def _pieces(line: Line, missing: Missing) -> str:
    if not missing.pieces:
        return ""
    number = f"{missing.pieces:,.0f}" if missing.pieces >= 9.95 else f"{missing.pieces:.1f}"
    return f"{number} {missing.piece}s " + ("like those here" if line.supply.files else "like LLaMA's")


def _factors(plan: Plan) -> Table:
    table = Table("source", title="Estimated from stored bytes", title_justify="left", box=None, pad_edge=False)
    table.add_column("stored", justify="right")
    table.add_column("files", justify="right")
    table.add_column("factor")
    table.add_column("", justify="right")
    table.add_column("from", overflow="fold")
    for line in plan.lines:
        supply = line.supply
        if supply.origin != "estimated":
            continue
        head = [line.source, format_bytes(supply.stored_bytes), f"{supply.files:,}"]
        for name, figure in _named(supply.factors):
            table.add_row(*head, name, f"{figure.value:.3g}", figure.origin)
            head = ["", "", ""]
    return table


def _named(factors: Factors) -> tuple[tuple[str, Figure], ...]:
    return (
        ("text a stored byte", factors.text),
        ("kept of it", factors.kept),
        ("bytes a token", factors.bytes_per_token),
    )
