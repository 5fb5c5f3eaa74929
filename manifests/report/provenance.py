"""The report's sections on how the corpus was made: cost, models, recipe and hashes."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from manifests.display import format_bytes, format_count, format_duration, format_short
from manifests.report.data import Cost, Facts
from manifests.report.html import Html, bar, details, element, foreign, join, note, section, table, text, visible

STEPS, MODELS, CODES = 60, 100, 60
"""rows of a table"""
CARD_ROWS = 40
RECIPE_CHARACTERS = 60_000


def cost(facts: Facts) -> Html:
    """What each step took."""
    if not facts.costs:
        return section("cost", "Cost", note("This corpus has no records of its runs."))
    stages: dict[str, Cost] = {}
    for step, one in facts.costs.items():
        stages.setdefault(step.partition("/")[0], Cost()).add(one)
    whole = Cost()
    for one in stages.values():
        whole.add(one)
    stage_rows, step_rows = _costs(stages), _costs(facts.costs)
    foot = [*_cost("all", whole, 1.0)[:-1], Html("")]
    columns = ["processor time", "wall time", "tasks", "records a core-second", "peak memory", ""]
    runs = f"{facts.runs:,} runs" if facts.runs != 1 else "one run"
    return section(
        "cost",
        "Cost",
        table(f"Over {runs}; no hash depends on these", ["stage", *columns], stage_rows, foot),
        details(text("The steps of each stage"), table("Steps", ["step", *columns], step_rows)),
        note("Processor time is of all workers together; memory is of the largest process while it was at this step."),
    )


def models(facts: Facts) -> Html:
    """Every model by hash, and the cards of those that the run trained."""
    manifest = facts.manifest
    tokenizer = manifest.tokenizer
    rows = [
        [
            text("tokenizer"),
            element("code", foreign(tokenizer.sha256, 64)),
            text(f"{format_count(tokenizer.vocabulary)} pieces, {tokenizer.dtype}"),
        ]
    ]
    rows += [
        [
            foreign(name),
            element("code", foreign(entry.sha256, 64)),
            foreign(entry.path) if entry.path else text("given"),
        ]
        for name, entry in sorted(manifest.models.items())[:MODELS]
    ]
    more = len(manifest.models) - MODELS
    return section(
        "models",
        "Models",
        table("Models and lists that the corpus depends on", ["use", "SHA-256", "where"], rows, (), 3),
        *([note(f"and {more:,} more")] if more > 0 else []),
        *(details(foreign(path), _card(plain)) for path, plain in facts.cards),
        *(
            [note(f"Not shown, for its size or form: {visible(', '.join(facts.left_out), 400)}")]
            if facts.left_out
            else []
        ),
    )


def identity(facts: Facts) -> Html:
    """The recipe and the hashes."""
    manifest = facts.manifest
    hashes = {
        "manifest": manifest.manifest_sha,
        "recipe": manifest.recipe_sha,
        "tokenizer": manifest.tokenizer.sha256,
        "signatures": manifest.signatures or "none",
        "made from": manifest.parent or "no other corpus",
        "format": manifest.format,
        "seed": str(manifest.seed),
    }
    if manifest.removal is not None:
        removal = manifest.removal
        counted = f"{format_count(removal.documents)} documents, {format_count(removal.tokens)} tokens"
        hashes["removed"] = f"{counted}, by the list {removal.list_sha256}"
    code = dict(sorted(manifest.code.items())[:CODES])
    written = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True, width=100)
    recipe = element("pre", element("code", _lines(written)), tabindex="0", role="region", aria_label="Recipe")
    return section(
        "identity",
        "Recipe and hashes",
        _pairs({name: foreign(value, 200) for name, value in hashes.items()}),
        details(text("The recipe, defaults filled in"), recipe),
        details(
            text("Versions of the stages' code"), _pairs({name: foreign(value, 64) for name, value in code.items()})
        ),
    )


def _lines(written: str) -> Html:
    """Text of many lines, foreign but for its line ends."""
    shown = [foreign(line, 400) for line in written[:RECIPE_CHARACTERS].split("\n")]
    cut = [text("… the rest is in manifest.json")] if len(written) > RECIPE_CHARACTERS else []
    return join([*shown, *cut], Html("\n"))


def _costs(costs: Mapping[str, Cost]) -> list[list[Html]]:
    """Rows of a table, the costliest first."""
    most = max((one.cpu_seconds for one in costs.values()), default=0.0) or 1.0
    ordered = sorted(costs.items(), key=lambda item: (-item[1].cpu_seconds, item[0]))
    return [_cost(name, one, most) for name, one in ordered[:STEPS]]


def _cost(name: str, one: Cost, most: float) -> list[Html]:
    rate = f"{format_short(one.records / one.cpu_seconds)}" if one.records and one.cpu_seconds else ""
    numbers = [
        format_duration(one.cpu_seconds),
        format_duration(one.wall_seconds),
        format_count(one.tasks),
        rate,
        format_bytes(one.peak_bytes),
    ]
    return [foreign(name), *map(text, numbers), bar(one.cpu_seconds / most)]


def _card(plain_values: Mapping[str, Any]) -> Html:
    """A card as pairs of a dotted name and a value."""
    pairs = list(_flat(plain_values, ""))
    shown = {name: foreign(value) for name, value in pairs[:CARD_ROWS]}
    return join(
        [_pairs(shown), note(f"and {len(pairs) - CARD_ROWS:,} more")] if len(pairs) > CARD_ROWS else [_pairs(shown)]
    )


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested values, each by its dotted name; lists of plain values as one."""
    if isinstance(value, Mapping):
        for key, inner in sorted(value.items()):
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{place}")
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif isinstance(value, float):
        yield name, f"{value:g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, format_count(value)
    else:
        yield name, "none" if value is None else str(value)


def _pairs(values: Mapping[str, Html]) -> Html:
    parts = [part for name, value in values.items() for part in (element("dt", foreign(name)), element("dd", value))]
    return element("dl", *parts, class_="card")
