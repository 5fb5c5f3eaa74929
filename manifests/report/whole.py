"""The report's sections on the corpus as a whole: headline, where everything went, why, mixture."""

from collections.abc import Mapping
from typing import get_args

from filters.reasons import DEAD_LETTERS, DESCRIPTIONS, Reason
from manifests.display import format_bytes, format_count, format_quantity, format_share, format_short
from manifests.ledger import STAGES, Tally, tally_from, total
from manifests.manifest import Manifest, SourceEntry
from manifests.report.data import Facts
from manifests.report.flows import Flow, River, Unit, amount, river
from manifests.report.html import Html, bar, details, element, foreign, join, note, section, table, text
from manifests.report.sankey import sankey
from manifests.statistics import Example

SOURCES = 60
"""rows of a table of sources; the rest is one row"""
REASONS = 60
"""shown of one stage, more than the catalogue has"""
EXAMPLES = 3
"""of one reason and stage, over all sources"""
EXAMPLE_CHARACTERS = 200
MEANINGS = {reason.value: DESCRIPTIONS[reason] for reason in Reason}
DONE = {
    "extract": "Dumps are read record by record, and documents taken out of them.",
    "annotate": "Filters by language, page rules and models; lines that are elsewhere go.",
    "neardup": "Copies of documents that are kept.",
    "tokenize": "Text becomes tokens in shards.",
}


def headline(facts: Facts) -> Html:
    """The corpus in eight numbers."""
    manifest = facts.manifest
    shards = manifest.shards()
    extract = _stage(manifest, "extract")
    train = sum(source.unique_tokens for source in manifest.sources.values())
    documents = sum(source.documents for source in manifest.sources.values())
    records = extract.entered["records"]
    numbers = [
        (format_short(documents), "documents"),
        (format_short(train), "tokens to train on"),
        (format_short(sum(shard.tokens for shard in shards) - train), "tokens held out"),
        (format_count(len(manifest.sources)), "sources" if len(manifest.sources) != 1 else "source"),
        (format_short(records), "records read"),
        (format_bytes(extract.entered["bytes"]), "read, as stored"),
        (format_share(documents, records), "of records became documents in shards"),
        (f"{len(shards):,}", f"shards, {format_bytes(sum(shard.bytes for shard in shards))}"),
    ]
    pairs = [element("div", element("dt", text(name)), element("dd", text(number))) for number, name in numbers]
    return element("dl", *pairs, class_="headline")


def where(facts: Facts) -> Html:
    """The rivers, and the same as tables."""
    rivers = [river(facts.manifest, unit) for unit in get_args(Unit)]
    said = {
        "records": "From dumps to shards.",
        "characters": "From extraction to the tokenizer.",
        "tokens": "Only text that stays becomes tokens.",
    }
    figures = [
        element(
            "figure",
            element("figcaption", element("b", text(one.unit.capitalize())), text(said[one.unit])),
            sankey(one),
        )
        for one in rivers
        if one.total()
    ]
    balanced = "The ledger balances: at every stage and for every source, what came in went on or left by name."
    verdict = (
        text(balanced)
        if not facts.imbalances
        else join([text("The ledger does NOT balance: "), foreign("; ".join(facts.imbalances), 1000)])
    )
    legend = (
        "† damaged: such records are in the dead letters. ‡ parts of documents that stayed. Widths are in proportion."
    )
    return section(
        "where",
        "Where it all went",
        element("p", verdict, class_="verdict"),
        element("div", *figures, class_="rivers"),
        note(legend),
        *(details(text(f"{one.unit.capitalize()} as a table"), _river_table(one)) for one in rivers if one.total()),
    )


def why(facts: Facts) -> Html:
    """Every reason for which something left, its meaning, how much it took and examples."""
    stages = []
    for stage in STAGES:
        tallies = {name: tally_from(plain) for name, plain in facts.manifest.ledger.get(stage, {}).items()}
        tally = total(tallies.values())
        reasons = [*tally.dropped.items(), *tally.removed.items()]
        if reasons:
            entered = tally.entered["records"]
            ordered = sorted(
                reasons, key=lambda item: (-item[1]["records"], -item[1]["lines"], -item[1]["characters"], item[0])
            )
            most = ordered[0][1]["records"]
            shown = [_reason(facts, tallies, name, entered, most) for name, _ in ordered[:REASONS]]
            stages.append(element("h3", text(stage)))
            stages.append(
                note(
                    f"{DONE[stage]} {format_quantity(entered, 'records')} came in, "
                    f"{format_count(tally.out['records'])} went on."
                )
            )
            stages.append(element("div", *shown))
            if len(ordered) > REASONS:
                stages.append(note(f"and {len(ordered) - REASONS:,} more reasons"))
    return section("why", "Why the rest left", *(stages or [note("Nothing left.")]))


def mixture(facts: Facts) -> Html:
    """What the recipe asks for, and what the corpus has."""
    manifest = facts.manifest
    weights = sum(source.weight for source in manifest.sources.values()) or 1.0
    ordered = sorted(manifest.sources.items(), key=lambda item: (-item[1].weight, item[0]))
    seen = {name: _seen(source, weights, manifest.goal_tokens) for name, source in ordered}
    whole = sum(seen.values())
    rows = [
        _mixed(name, source, weights, manifest.goal_tokens, seen[name], whole) for name, source in ordered[:SOURCES]
    ]
    foot = [text("all"), text("100.0%"), text(format_share(whole, whole)), text(format_short(manifest.goal_tokens)),
            text(format_short(sum(source.unique_tokens for source in manifest.sources.values()))), text(""), text(""),
            text(format_short(whole)), text("")]  # fmt: skip
    columns = [
        "source",
        "planned",
        "actual",
        "tokens wanted",
        "unique tokens",
        "epochs at goal",
        "cap",
        "tokens seen",
        "",
    ]
    missing = manifest.goal_tokens - whole
    reached = format_share(whole, manifest.goal_tokens)
    lack = f": {format_short(missing)} are missing." if missing > 0.5 else "."
    verdict = (
        f"Of the goal of {format_short(manifest.goal_tokens)} tokens, "
        f"{reached} can be had within the caps on epochs{lack}"
    )
    more = [note(f"and {len(ordered) - SOURCES:,} more sources, of smaller weights")] if len(ordered) > SOURCES else []
    return section(
        "mixture",
        "Mixture",
        element("p", text(verdict)),
        table("Planned by weight, and as the caps on epochs leave it", columns, rows, foot),
        *more,
        note("Epochs at goal: weight × goal ÷ unique tokens. Actual: of the tokens seen, each source up to its cap."),
    )


def _mixed(name: str, source: SourceEntry, weights: float, goal: int, seen: float, whole: float) -> list[Html]:
    wanted = source.weight / weights * goal
    epochs = wanted / source.unique_tokens if source.unique_tokens else 0.0
    capped = " (cap binds)" if epochs > source.max_epochs else ""
    return [
        foreign(name),
        text(format_share(source.weight, weights)),
        text(format_share(seen, whole)),
        text(format_short(wanted)),
        text(format_short(source.unique_tokens)),
        text(f"{epochs:.2f}{capped}" if source.unique_tokens else "no tokens"),
        text(f"{source.max_epochs:.2f}"),
        text(format_short(seen)),
        bar(seen / whole if whole else 0.0),
    ]


def _seen(source: SourceEntry, weights: float, goal: int) -> float:
    """Tokens of a source that training to the goal sees, within its cap on epochs."""
    return min(source.weight / weights * goal, source.max_epochs * source.unique_tokens)


def _reason(facts: Facts, tallies: Mapping[str, Tally], name: str, entered: int, most: int) -> Html:
    """One reason, to be opened."""
    dropped = {source: tally.dropped.get(name) or tally.removed.get(name) for source, tally in tallies.items()}
    units = total(Tally(entered=found) for found in dropped.values() if found).entered
    records, whole = units["records"], "records" in units
    mark = " ‡" if not whole else " †" if name in DEAD_LETTERS else ""
    unit = "records" if whole else "lines" if units["lines"] else "characters"
    number = units[unit]
    heading = join(
        [
            element("span", foreign(name), text(mark)),
            bar(records / most) if whole and most else element("span", class_="bar", aria_hidden="true"),
            element(
                "span",
                text(format_count(number) if whole else format_quantity(number, unit)),
                class_="number" if whole else "parts number",
            ),
            element("span", text(format_share(records, entered)), class_="number quiet") if whole else Html(""),
        ]
    )
    parts = ", ".join(format_quantity(value, key) for key, value in sorted(units.items()) if value)
    sources = sorted(
        ((source, found[unit]) for source, found in dropped.items() if found), key=lambda item: (-item[1], item[0])
    )
    by_source = join(
        [
            text("By source: "),
            join(
                (join([foreign(source, 60), text(f" {format_count(value)}")]) for source, value in sources[:8]),
                text(", "),
            ),
            text("" if len(sources) <= 8 else f", and {len(sources) - 8:,} more"),
        ]
    )
    meaning = MEANINGS.get(name, "not a reason that this version knows")
    return details(
        heading,
        element("p", text(f"{meaning[:1].upper()}{meaning[1:]}. {parts}.")),
        element("p", by_source, class_="quiet") if len(tallies) > 1 else Html(""),
        _examples(facts, name),
        class_="reason",
    )


def _examples(facts: Facts, reason: str) -> Html:
    """Examples of a reason over all sources, those with the smallest keys."""
    found = [
        (one, source) for source, known in facts.statistics.sources.items() for one in known.examples.get(reason, [])
    ]
    chosen = sorted(found, key=lambda item: (item[0].key, item[1]))[:EXAMPLES]
    if not chosen:
        return note("No example was kept.")
    return element("ul", *(element("li", *_shown(one, source)) for one, source in chosen), class_="examples")


def _shown(one: Example, source: str) -> list[Html]:
    if one.file:
        place = f", {format_count(one.length)} bytes at {format_count(one.offset)}"
        what = [foreign(one.text, EXAMPLE_CHARACTERS)] if one.text else []
        return [*what, element("span", foreign(one.file), text(place), class_="where")]
    where = [
        foreign(one.url) if one.url else foreign(source),
        text(" · document "),
        element("code", foreign(one.id, 32)),
    ]
    return [foreign(one.text, EXAMPLE_CHARACTERS), element("span", *where, class_="where")]


def _river_table(one: River) -> Html:
    """A river's numbers, all of them."""
    whole = one.total()
    rows = [_flow(flow, "enters", "+", whole) for flow in one.entered[:SOURCES]]
    rows += [_rest(one.entered[SOURCES:], "enters", "+", whole)] if one.entered[SOURCES:] else []
    for stage, flows in one.stages:
        rows += [_flow(flow, stage, "−", whole) for flow in flows[:REASONS]]
        rows += [_rest(flows[REASONS:], stage, "−", whole)] if flows[REASONS:] else []
    rows += [_flow(flow, "in shards", "=", whole) for flow in one.arrived[:SOURCES]]
    rows += [_rest(one.arrived[SOURCES:], "in shards", "=", whole)] if one.arrived[SOURCES:] else []
    foot = [text("neither left nor arrived"), text(""), text(format_count(one.balance())), text("")]
    return table(
        f"{one.unit.capitalize()}: what came in (+), left (−) and arrived (=)",
        ["", "stage", one.unit, "share"],
        rows,
        foot,
        2,
    )


def _flow(flow: Flow, stage: str, sign: str, whole: int) -> list[Html]:
    mark = {"damaged": " †", "removed": " ‡"}.get(flow.kind, "")
    name = join([foreign(flow.name), text(mark)])
    return [name, text(stage), text(f"{sign} {format_count(flow.amount)}"), text(format_share(flow.amount, whole))]


def _rest(flows: list[Flow], stage: str, sign: str, whole: int) -> list[Html]:
    return _flow(Flow(f"{len(flows):,} others", amount(flows), flows[0].kind), stage, sign, whole)


def _stage(manifest: Manifest, stage: str) -> Tally:
    """A stage's tally over all sources."""
    found: Mapping[str, Mapping[str, object]] = manifest.ledger.get(stage, {})
    return total(map(tally_from, found.values()))
