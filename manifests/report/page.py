"""The page of a report: headline, flow charts, dropped records by reason, mixture, and sections of other modules."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from filters.reasons import DEAD_LETTERS, describe_reason
from manifests.display import format_bytes, format_count, format_quantity, format_share, format_short
from manifests.files import write_atomic
from manifests.ledger import STAGES, Tally, imbalances, tally_from, total
from manifests.manifest import Manifest, SourceEntry
from manifests.report import documents, provenance
from manifests.report.data import Flow, LedgerFlow, ReportData, Unit, read_flow, sum_flows
from manifests.report.html import Html, bar, details, element, foreign, join, note, read_style, section, table, visible
from manifests.report.statistics import Example
from manifests.report.svg import flow_chart
from manifests.stages import STEPS

FILE = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # no script and no network, whatever the text
SOURCES = 60  # rows of a table of sources; the rest is one row
REASONS = 60  # shown of one stage, more than the catalogue has
EXAMPLES = 3  # of one reason and stage, over all sources
EXAMPLE_CHARACTERS = 200
UNIT_NOTES = {
    "records": "From dumps to shards.",
    "characters": "From extraction to the tokenizer.",
    "tokens": "Only kept text becomes tokens.",
}


def write_report(corpus: Path, output: Path | None = None) -> Path:
    """Write a corpus's report.

    Args:
        corpus: The corpus's folder.
        output: The file to write; None for report.html in the corpus.

    Returns:
        The path of the file.

    Raises:
        UserError: The folder is not a corpus, or a file of it cannot be read.
    """
    path = output or corpus / FILE
    write_atomic(path, render_page(ReportData(corpus)).encode("utf-8"))
    return path


def render_page(data: ReportData) -> str:
    """Return the whole page."""
    manifest = data.manifest
    sections = {
        "flow": ("Flow to the shards", _flow(data)),
        "dropped": ("Dropped records by reason", _dropped(data)),
        "mixture": ("Mixture", _mixture(data)),
        "documents": ("Documents", documents.document_charts(data)),
        "duplicates": ("Near-duplicates", documents.duplicate_charts(data)),
        "cost": ("Cost", provenance.cost_tables(data)),
        "models": ("Models", provenance.model_tables(data)),
        "identity": ("Recipe and hashes", provenance.hashes(data)),
    }
    links = [element("li", element("a", title, href=f"#{name}")) for name, (title, _) in sections.items()]
    name = str(manifest.recipe.get("name", "a corpus"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{visible(name, 80)}: corpus report"),
        element("style", read_style("colors", "page")),
    )
    derived = " It was derived from another corpus, named under Recipe and hashes." if manifest.parent else ""
    header = element(
        "header",
        element("p", "Corpus report", class_="eyebrow"),
        element("h1", foreign(name, 80)),
        element("p", f"The input of this corpus, its documents, and what was dropped and why.{derived}", class_="lede"),
        _headline(data),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    body = element(
        "body",
        element("a", "Skip to the report", href="#main", class_="skip"),
        header,
        element("main", *(section(name, title, *parts) for name, (title, parts) in sections.items()), id="main"),
        element("footer", element("p", "Manifest ", element("code", foreign(manifest.manifest_sha)), class_="quiet")),
    )
    return f"<!DOCTYPE html>\n{element('html', join([head, body], chr(10)), lang='en')}\n"


def _tallies(manifest: Manifest, stage: str) -> dict[str, Tally]:
    return {name: tally_from(plain) for name, plain in manifest.ledger.get(stage, {}).items()}


def _headline(data: ReportData) -> Html:
    """Return the corpus in eight numbers."""
    manifest = data.manifest
    shards, sources = manifest.shards(), manifest.sources.values()
    read = total(_tallies(manifest, "extract").values()).entered
    train = sum(source.unique_tokens for source in sources)
    kept = sum(source.documents for source in sources)
    numbers = [
        (format_short(kept), "documents"),
        (format_short(train), "tokens to train on"),
        (format_short(sum(shard.tokens for shard in shards) - train), "tokens held out"),
        (format_count(len(sources)), "sources" if len(sources) != 1 else "source"),
        (format_short(read["records"]), "records read"),
        (format_bytes(read["bytes"]), "read, as stored"),
        (format_share(kept, read["records"]), "of records became documents in shards"),
        (f"{len(shards):,}", f"shards, {format_bytes(sum(shard.bytes for shard in shards))}"),
    ]
    pairs = [element("div", element("dt", name), element("dd", number)) for number, name in numbers]
    return element("dl", *pairs, class_="headline")


def _flow(data: ReportData) -> list[Html]:
    """Return the flow charts, and their numbers as tables."""
    flows = [flow for unit in get_args(Unit) if (flow := read_flow(data.manifest, unit)).total]
    figures, tables = [], []
    for flow in flows:
        name = flow.unit.capitalize()
        caption = element("figcaption", element("b", name), UNIT_NOTES[flow.unit])
        figures.append(element("figure", caption, flow_chart(flow)))
        tables.append(details(f"{name} as a table", _flow_table(flow)))
    verdict = "The ledger balances: at every stage and for every source, input equals output plus losses by reason."
    if problems := imbalances(data.manifest.ledger):
        verdict = join(["The ledger does NOT balance: ", foreign("; ".join(problems), 1000)])
    marks = "† damaged: records in the dead letters. ‡ parts of documents that stayed. Widths are in proportion."
    rivers = element("div", *figures, class_="rivers")
    return [element("p", verdict, class_="verdict"), rivers, note(marks), *tables]


def _flow_table(flow: LedgerFlow) -> Html:
    groups = [("enters", "+", flow.entered, SOURCES), *((stage, "−", lost, REASONS) for stage, lost in flow.stages)]
    rows = []
    for stage, sign, flows, limit in [*groups, ("in shards", "=", flow.arrived, SOURCES)]:
        rest = flows[limit:]
        others = [Flow(f"{len(rest):,} others", sum_flows(rest), rest[0].kind)] if rest else []
        for one in [*flows[:limit], *others]:
            share = format_share(one.amount, flow.total)
            rows.append([join([foreign(one.name), one.mark]), stage, f"{sign} {format_count(one.amount)}", share])
    caption = f"{flow.unit.capitalize()}: entered (+), lost (−) and arrived (=)"
    foot = ["neither lost nor arrived", "", format_count(flow.balance), ""]
    return table(caption, ["", "stage", flow.unit, "share"], rows, foot, 2)


def _dropped(data: ReportData) -> list[Html]:
    """Return every reason by stage, with its meaning, its amount and examples."""
    parts = []
    for stage in STAGES:
        tallies = _tallies(data.manifest, stage)
        tally = total(tallies.values())
        reasons = [*tally.dropped.items(), *tally.removed.items()]
        if not reasons:
            continue
        reasons.sort(key=lambda item: (-item[1]["records"], -item[1]["lines"], -item[1]["characters"], item[0]))
        entered, most = tally.entered["records"], reasons[0][1]["records"]
        passed = format_count(tally.out["records"])
        parts += [
            element("h3", stage),
            note(f"{STEPS[stage].label} {format_quantity(entered, 'records')} entered, {passed} passed."),
            element("div", *(_reason(data, tallies, name, entered, most) for name, _ in reasons[:REASONS])),
        ]
        if len(reasons) > REASONS:
            parts.append(note(f"and {len(reasons) - REASONS:,} more reasons"))
    return parts or [note("Nothing was dropped.")]


def _reason(data: ReportData, tallies: Mapping[str, Tally], name: str, entered: int, most: int) -> Html:
    """Return one reason, whose details open."""
    lost = {source: tally.dropped.get(name) or tally.removed.get(name) for source, tally in tallies.items()}
    units = total(Tally(entered=counts) for counts in lost.values() if counts).entered
    whole = "records" in units
    unit = "records" if whole else "lines" if units["lines"] else "characters"
    number = units[unit]
    mark = " ‡" if not whole else " †" if name in DEAD_LETTERS else ""
    if whole:
        share = element("span", format_share(number, entered), class_="number quiet")
        columns = [element("span", format_count(number), class_="number"), share]
    else:
        columns = [element("span", format_quantity(number, unit), class_="parts number")]
    proportion = bar(number / most) if whole and most else element("span", class_="bar", aria_hidden="true")
    amounts = ", ".join(format_quantity(value, key) for key, value in sorted(units.items()) if value)
    by_source = sorted(((-counts[unit], source) for source, counts in lost.items() if counts))
    listed = join((join([foreign(source, 60), f" {format_count(-count)}"]) for count, source in by_source[:8]), ", ")
    more = f", and {len(by_source) - 8:,} more" if len(by_source) > 8 else ""
    meaning = describe_reason(name, data.manifest.findings)
    parts = [element("p", f"{meaning[:1].upper()}{meaning[1:]}. {amounts}.")]
    parts += [element("p", "By source: ", listed, more, class_="quiet")] if len(tallies) > 1 else []
    heading = join([element("span", foreign(name), mark), proportion, *columns])
    return details(heading, *parts, _examples(data, name), class_="reason")


def _examples(data: ReportData, reason: str) -> Html:
    """Return the examples of a reason with the smallest keys, over all sources."""
    found = [(one, name) for name, source in data.statistics.sources.items() for one in source.examples.get(reason, [])]
    chosen = sorted(found, key=lambda item: (item[0].key, item[1]))[:EXAMPLES]
    if not chosen:
        return note("No example was kept.")
    return element("ul", *(_example(one, source) for one, source in chosen), class_="examples")


def _example(one: Example, source: str) -> Html:
    shown = [foreign(one.text, EXAMPLE_CHARACTERS)] if one.text or not one.file else []
    if one.file:
        place = [foreign(one.file), f", {format_count(one.length)} bytes at {format_count(one.offset)}"]
    else:
        place = [foreign(one.url or source), " · document ", element("code", foreign(one.id, 32))]
    return element("li", *shown, element("span", *place, class_="where"))


def _mixture(data: ReportData) -> list[Html]:
    """Return the mixture of the recipe beside that of the corpus."""
    goal, sources = data.manifest.goal_tokens, data.manifest.sources
    weights = sum(source.weight for source in sources.values()) or 1.0
    ordered = sorted(sources.items(), key=lambda item: (-item[1].weight, item[0]))
    seen = {name: min(one.weight / weights * goal, one.max_epochs * one.unique_tokens) for name, one in ordered}
    whole = sum(seen.values())
    rows = [_mixture_row(name, one, one.weight / weights, goal, seen[name], whole) for name, one in ordered[:SOURCES]]
    unique = format_short(sum(source.unique_tokens for source in sources.values()))
    foot = ["all", "100.0%", format_share(whole, whole), format_short(goal), unique, "", "", format_short(whole), ""]
    columns = ["source", "planned", "actual", "tokens wanted", "unique tokens", "epochs at goal", "cap", "tokens seen"]
    missing = f": {format_short(goal - whole)} are missing." if goal - whole > 0.5 else "."
    reached = f"{format_share(whole, goal)} of the goal of {format_short(goal)} tokens"
    return [
        element("p", f"The caps on epochs allow {reached}{missing}"),
        table("Planned by weight, and as the caps on epochs leave it", [*columns, ""], rows, foot),
        *([note(f"and {len(ordered) - SOURCES:,} more sources, of smaller weights")] if len(ordered) > SOURCES else []),
        note("Epochs at goal: weight × goal ÷ unique tokens. Actual: of the tokens seen, each source up to its cap."),
    ]


def _mixture_row(name: str, source: SourceEntry, weight: float, goal: int, seen: float, whole: float) -> list[str]:
    epochs = weight * goal / source.unique_tokens if source.unique_tokens else 0.0
    capped = " (cap binds)" if epochs > source.max_epochs else ""
    return [
        foreign(name),
        format_share(weight, 1.0),
        format_share(seen, whole),
        format_short(weight * goal),
        format_short(source.unique_tokens),
        f"{epochs:.2f}{capped}" if source.unique_tokens else "no tokens",
        f"{source.max_epochs:.2f}",
        format_short(seen),
        bar(seen / whole if whole else 0.0),
    ]
