"""Sections of the report on how the corpus was produced: cost, models, recipe and hashes."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from manifests.display import format_bytes, format_count, format_duration, format_short
from manifests.report.data import ReportData, StepCost
from manifests.report.html import Html, bar, details, element, foreign, join, note, pairs, table, visible

STEPS, MODELS, CODES = 60, 100, 60  # rows of a table
CARD_ROWS = 40
RECIPE_CHARACTERS = 60_000


def cost_tables(data: ReportData) -> Iterator[Html]:
    """Yield the cost of each stage and step."""
    costs, runs, _ = data.costs
    if not costs:
        yield note("This corpus has no records of its runs.")
        return
    stages: dict[str, StepCost] = {}
    whole = StepCost()
    for step, cost in costs.items():
        stages.setdefault(step.partition("/")[0], StepCost()).add(cost)
        whole.add(cost)
    columns = ["processor time", "wall time", "tasks", "records per core-second", "peak memory", ""]
    said = f"{runs:,} runs" if runs != 1 else "one run"
    foot = [*_cost_cells("all", whole), ""]
    yield table(f"Over {said}; no hash depends on these", ["stage", *columns], _cost_rows(stages), foot)
    yield details("The steps of each stage", table("Steps", ["step", *columns], _cost_rows(costs)))
    yield note("Processor time is of all workers together; memory is of the largest process during the step.")


def _cost_rows(costs: Mapping[str, StepCost]) -> list[list[str]]:
    """Return the rows of a table, the most expensive first."""
    most = max(cost.cpu_seconds for cost in costs.values()) or 1.0
    ordered = sorted(costs.items(), key=lambda item: (-item[1].cpu_seconds, item[0]))
    return [[*_cost_cells(name, cost), bar(cost.cpu_seconds / most)] for name, cost in ordered[:STEPS]]


def _cost_cells(name: str, cost: StepCost) -> list[str]:
    rate = format_short(cost.records / cost.cpu_seconds) if cost.records and cost.cpu_seconds else ""
    times = format_duration(cost.cpu_seconds), format_duration(cost.wall_seconds)
    return [foreign(name), *times, format_count(cost.tasks), rate, format_bytes(cost.peak_bytes)]


def model_tables(data: ReportData) -> Iterator[Html]:
    """Yield the hash of every model, and the cards of those that the run trained."""
    manifest, tokenizer = data.manifest, data.manifest.tokenizer
    pieces = f"{format_count(tokenizer.vocabulary)} pieces, {tokenizer.dtype}"
    rows = [["tokenizer", element("code", foreign(tokenizer.sha256)), pieces]]
    for name, entry in sorted(manifest.models.items())[:MODELS]:
        place = foreign(entry.path) if entry.path else "given"
        rows.append([foreign(name), element("code", foreign(entry.sha256)), place])
    yield table("Models and lists that the corpus depends on", ["use", "SHA-256", "where"], rows, text_columns=3)
    if len(manifest.models) > MODELS:
        yield note(f"and {len(manifest.models) - MODELS:,} more")
    cards, left_out = data.cards
    for path, card in cards.items():
        values = list(_flatten(card))
        more = [note(f"and {len(values) - CARD_ROWS:,} more")] if len(values) > CARD_ROWS else []
        yield details(foreign(path), join([_foreign_pairs(dict(values[:CARD_ROWS])), *more]))
    if left_out := [*left_out, *data.costs[2]]:
        yield note(f"Not shown, too large or not readable: {visible(', '.join(left_out), 400)}")


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values, each with its dotted name; a list of plain values is one value."""
    nested: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping):
        nested = iter(sorted(value.items()))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        nested = enumerate(value)
    if nested is not None:
        for key, inner in nested:
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif isinstance(value, float):
        yield name, f"{value:g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, format_count(value)
    else:
        yield name, "none" if value is None else str(value)


def hashes(data: ReportData) -> Iterator[Html]:
    """Yield the hashes and the recipe."""
    manifest, removal = data.manifest, data.manifest.removal
    values = {
        "manifest": manifest.manifest_sha,
        "recipe": manifest.recipe_sha,
        "tokenizer": manifest.tokenizer.sha256,
        "signatures": ", ".join(sorted(set(manifest.signatures.values()) - {""})) or "none",
        "derived from": manifest.parent or "no other corpus",
        "format": manifest.format,
        "seed": str(manifest.seed),
    }
    if removal is not None:
        removed = f"{format_count(removal.documents)} documents, {format_count(removal.tokens)} tokens"
        values["removed"] = f"{removed}, by the list {removal.list_sha256}"
    yield _foreign_pairs(values, 200)
    recipe = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True, width=100)
    lines: list[str] = [foreign(line, 400) for line in recipe[:RECIPE_CHARACTERS].split("\n")]
    lines += ["… the rest is in manifest.json"] if len(recipe) > RECIPE_CHARACTERS else []
    code = element("code", join(lines, "\n"))
    yield details("The recipe, with defaults", element("pre", code, tabindex="0", role="region", aria_label="Recipe"))
    yield details("Versions of the stages' code", _foreign_pairs(dict(sorted(manifest.code.items())[:CODES])))


def _foreign_pairs(values: Mapping[str, str], limit: int = 100) -> Html:
    return pairs((foreign(name), foreign(value, limit)) for name, value in values.items())
