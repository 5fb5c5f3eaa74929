"""The HTML page of a report. Each section is built by one function from the data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from filters.errors import UserError
from filters.reasons import DEAD_LETTERS, describe_reason
from manifests.display import (
    format_bytes,
    format_count,
    format_duration,
    format_edge,
    format_quantity,
    format_share,
    format_short,
)
from manifests.files import write_atomic
from manifests.ledger import STAGES, Tally, imbalances, tally_from, total
from manifests.manifest import Manifest, SourceEntry
from manifests.report.data import (
    Bands,
    Bins,
    Example,
    LedgerFlow,
    Names,
    ReportData,
    SourceStatistics,
    StepCost,
    Unit,
    fold_flows,
    read_flow,
)
from manifests.report.html import (
    Html,
    bar,
    details,
    element,
    foreign,
    join,
    note,
    read_style,
    section,
    table,
    visible,
)
from manifests.report.svg import describe_bins, flow_chart, histograms, merge_bins, recall_curve
from manifests.stages import STEPS

FILE = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # Forbids scripts and network requests.
SOURCES = 60  # Maximum rows of sources or reasons in a table. The others are combined into one row.
EXAMPLES = 3  # Maximum number of examples per reason and stage, over all sources.
EXAMPLE_CHARACTERS = 200  # Maximum length of the text of an example.
SHOWN_SOURCES = 10  # Charts are shown for this number of sources: the sources with most documents.
NAMES = 12  # Maximum number of domains, languages, years or licences per source.
BUCKETS = ("head", "middle", "tail", "all")
KINDS = {
    "domains": ("Top domains", "domain"),
    "language": ("Languages", "language"),
    "year": ("Years", "year"),
    "licence": ("Licences", "licence"),
}
YAML_CHARACTERS = 60_000  # Maximum number of characters of the recipe and of each card.
UNIT_NOTES = {
    "records": "From dumps to shards.",
    "characters": "From extraction to the tokenizer.",
    "tokens": "Only kept text becomes tokens.",
}


def write_report(corpus: Path, output: Path | None = None) -> Path:
    """Write the report of a corpus.

    Args:
        corpus: The folder of the corpus.
        output: The file to write; None for report.html in the corpus.

    Returns:
        The path of the file.

    Raises:
        UserError: The folder is not a corpus, a file of the corpus cannot be read, or the report cannot be written.
    """
    path = output or corpus / FILE
    page = render_page(ReportData(corpus)).encode("utf-8")
    try:
        write_atomic(path, page)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): give --output FILE in another folder") from error
    return path


def render_page(data: ReportData) -> str:
    """Return the HTML of the whole page."""
    manifest = data.manifest
    sections = {
        "flow": ("Flow to the shards", _flow(data)),
        "dropped": ("Dropped records by reason", _dropped(data)),
        "mixture": ("Mixture", _mixture(data)),
        "documents": ("Documents", _documents(data)),
        "duplicates": ("Near-duplicates", _duplicates(data)),
        "cost": ("Cost", _cost(data)),
        "models": ("Models", _models(data)),
        "identity": ("Recipe and hashes", _identity(data)),
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
        element("p", f"The inputs, the documents, and the reasons for dropped records.{derived}", class_="lede"),
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
    """Return the eight main numbers of the corpus."""
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
    shown = [element("div", element("dt", name), element("dd", number)) for number, name in numbers]
    return element("dl", *shown, class_="headline")


def _flow(data: ReportData) -> list[Html]:
    """Return the section of flow charts, with their numbers as tables."""
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
    groups = [("enters", "+", flow.entered), *((stage, "−", lost) for stage, lost in flow.stages)]
    rows = []
    for stage, sign, flows in [*groups, ("in shards", "=", flow.arrived)]:
        for one in fold_flows(flows, SOURCES):
            share = format_share(one.amount, flow.total)
            rows.append([join([foreign(one.name), one.mark]), stage, f"{sign} {format_count(one.amount)}", share])
    caption = f"{flow.unit.capitalize()}: entered (+), lost (−) and arrived (=)"
    foot = ["neither lost nor arrived", "", format_count(flow.balance), ""]
    return table(caption, ["", "stage", flow.unit, "share"], rows, foot, 2)


def _dropped(data: ReportData) -> list[Html]:
    """Return the section of reasons by stage, with the meaning, the amount and examples of each reason."""
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
            element("div", *(_reason(data, tallies, name, entered, most) for name, _ in reasons)),
        ]
    return parts or [note("Nothing was dropped.")]


def _reason(data: ReportData, tallies: Mapping[str, Tally], name: str, entered: int, most: int) -> Html:
    """Return a reason as an element that opens to show details.

    Args:
        data: The data of the report.
        tallies: The tallies of the stage by source.
        name: The reason.
        entered: The number of records that entered the stage.
        most: The largest number of records of a reason of the stage, which has the full bar width.
    """
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
    """Return the examples of a reason: those with the smallest keys over all sources."""
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
    """Return the section that compares the mixture of the recipe with the mixture that the corpus allows."""
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
        table("Planned by weight, and within the caps on epochs", [*columns, ""], rows, foot),
        *([note(f"and {len(ordered) - SOURCES:,} more sources, of smaller weights")] if len(ordered) > SOURCES else []),
        note("Epochs at goal: weight × goal ÷ unique tokens. Actual: each source up to its cap."),
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


def _documents(data: ReportData) -> Iterator[Html]:
    """Yield the section of the distributions of documents by source."""
    statistics = data.statistics
    if not statistics.sources:
        yield note("This corpus has no statistics.json: run the pipeline again.")
        return
    yield note("Documents in shards, train and held out.")
    if statistics.manifest_sha and statistics.manifest_sha != data.manifest.manifest_sha:
        sha = visible(statistics.manifest_sha, 16)
        yield note(f"Counted in corpus {sha}, from which this one was derived.")
    ordered = sorted(statistics.sources.items(), key=lambda item: (-item[1].documents, item[0]))
    for name, source in ordered[:SHOWN_SOURCES]:
        yield element("h3", foreign(name), f": {format_quantity(source.documents, 'documents')}")
        yield element("div", *_source_charts(name, source, data), class_="multiples")
    if rest := ordered[SHOWN_SOURCES:]:
        number = format_count(sum(source.documents for _, source in rest))
        yield note(f"and {len(rest):,} more sources with {number} documents together")


def _source_charts(name: str, source: SourceStatistics, data: ReportData) -> Iterator[Html]:
    for label, bins, unit in (
        ("Length in characters", merge_bins(source.characters), " characters"),
        ("Length in tokens", merge_bins(source.tokens), " tokens"),
        ("Similarity to cited pages", source.score, ""),
    ):
        if bins.counts:
            chart = histograms(f"{visible(name, 40)}: {label}", [("", bins)], unit)
            yield _figure(label, describe_bins(bins, unit), chart, bins)
    buckets = [(one, merge_bins(source.perplexity[one])) for one in BUCKETS if one in source.perplexity]
    if buckets := [(bucket, bins) for bucket, bins in buckets if bins.counts]:
        cuts = ((data.manifest.findings.get("cuts") or {}).get(name) or {}).get("cuts") or {}
        caption = "; ".join(
            f"{visible(str(code), 12)}: head below {format_edge(float(cut['head']))}, "
            f"tail from {format_edge(float(cut['tail']))}"
            for code, cut in sorted(cuts.items())[:4]
        )
        chart = histograms(f"{visible(name, 40)}: perplexity", buckets, "")
        yield _figure("Perplexity", caption or describe_bins(buckets[0][1], ""), chart, *(bins for _, bins in buckets))
    for kind, (title, column) in KINDS.items():
        names = source.names.get(kind, Names())
        if names.total and not names.top:
            most, total = format_count(names.error), format_count(names.total)
            yield note(f"{title}: no name has more than {most} of {total} documents")
        elif names.top:
            yield _name_table(title, column, names, source.documents)


def _figure(title: str, caption: str, chart: Html, *histograms: Bins) -> Html:
    """Return a chart with its caption, and its numbers as a table in a `details` element."""
    rows = [
        [f"{format_edge(low)} to {format_edge(high)}", format_count(number), format_share(number, bins.total())]
        for bins in histograms
        for low, high, number in zip(bins.edges, bins.edges[1:], bins.counts, strict=False)
        if number
    ]
    numbers = details("as a table", table(title, ["from, to below", "documents", "share"], rows), class_="quiet")
    return element("figure", element("figcaption", element("b", title), caption), chart, numbers)


def _name_table(title: str, column: str, names: Names, documents: int) -> Html:
    shown, most = names.top[:NAMES], names.top[0][1] or 1
    rows: list[tuple[str, int]] = [(join([foreign(name, 60), bar(number / most)]), number) for name, number in shown]
    rest = names.total - sum(number for _, number in shown)
    rows += [("others", rest)] if rest > 0 else []
    error = f", counts at most {format_count(names.error)} too low" if names.error else ""
    cells = [[name, format_count(number), format_share(number, documents)] for name, number in rows]
    return table(f"{title}, by documents{error}", [column, "number", "share"], cells)


def _duplicates(data: ReportData) -> Iterator[Html]:
    """Yield the section of near-duplicates: sizes of clusters, and recall."""
    clusters, searched, title = merge_bins(data.statistics.clusters), data.statistics.bands, "Documents per cluster"
    figures = []
    if clusters.counts:
        sizes = describe_bins(clusters, " documents")
        caption = f"{format_quantity(clusters.total(), 'clusters')}; {sizes}"
        figures.append(_figure(title, caption, histograms(title, [("", clusters)], ""), clusters))
    for bands in searched:
        said = (
            f"{_sources_of(bands, searched)}{bands.bands} bands of {bands.rows} rows. The line is the expected recall; "
            f"dots are the canaries found, with 99% intervals; dashes mark the threshold {bands.threshold:g}."
        )
        caption = element("figcaption", element("b", "Pairs found, by Jaccard similarity"), said)
        figures.append(element("figure", caption, recall_curve(bands)))
    yield element("div", *figures, class_="multiples") if figures else note("Near-duplicates were not searched.")
    for bands in searched:
        title = f"{_sources_of(bands, searched)}Canaries by similarity, and the share of them with a common band"
        yield _recall_table(title, bands) if bands.planted else note("No canaries were made to measure recall.")


def _sources_of(bands: Bands, searched: list[Bands]) -> str:
    """Return a prefix with the names of the sources of bands; empty if all sources have the same bands."""
    return f"{visible(', '.join(bands.sources))}: " if len(searched) > 1 else ""


def _recall_table(title: str, bands: Bands) -> Html:
    rows = [
        [
            f"{one.level:.2f}",
            format_share(one.expected, 1),
            format_share(one.found, one.planted),
            f"{format_share(one.interval[0], 1)} to {format_share(one.interval[1], 1)}",
            f"{format_count(one.found)} of {format_count(one.planted)}",
        ]
        for one in bands.planted
    ]
    columns = ["Jaccard", "expected", "found", "99% interval", "copies"]
    return table(title, columns, rows)


def _cost(data: ReportData) -> Iterator[Html]:
    """Yield the section of costs by stage and by step."""
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
    """Return the rows of a table of costs, sorted by descending CPU time."""
    most = max(cost.cpu_seconds for cost in costs.values()) or 1.0
    ordered = sorted(costs.items(), key=lambda item: (-item[1].cpu_seconds, item[0]))
    return [[*_cost_cells(name, cost), bar(cost.cpu_seconds / most)] for name, cost in ordered]


def _cost_cells(name: str, cost: StepCost) -> list[str]:
    rate = format_short(cost.records / cost.cpu_seconds) if cost.records and cost.cpu_seconds else ""
    times = format_duration(cost.cpu_seconds), format_duration(cost.wall_seconds)
    return [foreign(name), *times, format_count(cost.tasks), rate, format_bytes(cost.peak_bytes)]


def _models(data: ReportData) -> Iterator[Html]:
    """Yield the section of models: the hash of each model, and the cards of the models that the run trained."""
    manifest, tokenizer = data.manifest, data.manifest.tokenizer
    pieces = f"{format_count(tokenizer.vocabulary)} pieces, {tokenizer.dtype}"
    rows = [["tokenizer", element("code", foreign(tokenizer.sha256)), pieces]]
    for name, entry in sorted(manifest.models.items()):
        place = foreign(entry.path) if entry.path else "given"
        rows.append([foreign(name), element("code", foreign(entry.sha256)), place])
    yield table("Models and lists that the corpus depends on", ["use", "SHA-256", "where"], rows, text_columns=3)
    cards, left_out = data.cards
    for path, card in cards.items():
        yield details(foreign(path), _yaml_block(card, "Card"))
    if left_out := [*left_out, *data.costs[2]]:
        yield note(f"Not shown because too large or not readable: {visible(', '.join(left_out), 400)}")


def _yaml_block(value: Any, label: str) -> Html:
    """Return nested values as a block of YAML, cut to `YAML_CHARACTERS`."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    lines: list[str] = [foreign(line, 400) for line in text[:YAML_CHARACTERS].split("\n")]
    lines += ["… the rest is in the corpus"] if len(text) > YAML_CHARACTERS else []
    code = element("code", join(lines, "\n"))
    return element("pre", code, tabindex="0", role="region", aria_label=label)


def _identity(data: ReportData) -> Iterator[Html]:
    """Yield the section of hashes and of the recipe."""
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
    yield details("The recipe, with defaults", _yaml_block(manifest.recipe, "Recipe"))
    yield details("Versions of the stages' code", _foreign_pairs(dict(sorted(manifest.code.items()))))


def _foreign_pairs(values: Mapping[str, str], limit: int = 100) -> Html:
    parts = [(element("dt", foreign(name)), element("dd", foreign(value, limit))) for name, value in values.items()]
    return element("dl", *map(join, parts), class_="card")
