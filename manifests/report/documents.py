"""Sections of the report on documents: their distributions by source, and near-duplicates."""

from collections.abc import Iterator

from manifests.display import format_count, format_edge, format_quantity, format_share
from manifests.report.data import ReportData
from manifests.report.html import Html, bar, details, element, foreign, join, note, table, visible
from manifests.report.statistics import Bands, Bins, Names, SourceStatistics
from manifests.report.svg import describe_bins, histograms, merge_bins, recall_curve

SOURCES = 10  # shown one by one: those with most documents
NAMES = 12  # of domains, languages, years, licences of one source
BUCKETS = ("head", "middle", "tail", "all")
KINDS = {
    "domains": ("Top domains", "domain"),
    "language": ("Languages", "language"),
    "year": ("Years", "year"),
    "licence": ("Licences", "licence"),
}


def document_charts(data: ReportData) -> Iterator[Html]:
    """Yield the distributions of each source's documents."""
    statistics = data.statistics
    if not statistics.sources:
        yield note("This corpus has no statistics.json: run the pipeline again.")
        return
    yield note("Documents in shards, train and held out.")
    if statistics.manifest_sha and statistics.manifest_sha != data.manifest.manifest_sha:
        sha = visible(statistics.manifest_sha, 16)
        yield note(f"Counted in corpus {sha}, from which this one was derived.")
    ordered = sorted(statistics.sources.items(), key=lambda item: (-item[1].documents, item[0]))
    for name, source in ordered[:SOURCES]:
        yield element("h3", foreign(name), f": {format_quantity(source.documents, 'documents')}")
        yield element("div", *_source_charts(name, source, data), class_="multiples")
    if rest := ordered[SOURCES:]:
        number = format_count(sum(source.documents for _, source in rest))
        yield note(f"and {len(rest):,} more sources with {number} documents together")


def _source_charts(name: str, source: SourceStatistics, data: ReportData) -> Iterator[Html]:
    for label, bins, unit in (
        ("Length in characters", merge_bins(source.characters), " characters"),
        ("Length in tokens", merge_bins(source.tokens), " tokens"),
        ("Likeness to cited pages", source.score, ""),
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
            yield note(f"{title}: no name stands for more than {most} of {total} documents")
        elif names.top:
            yield _name_table(title, column, names, source.documents)


def _figure(title: str, caption: str, chart: Html, *histograms: Bins) -> Html:
    """Return a chart with its caption, and its numbers as a table that opens."""
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


def duplicate_charts(data: ReportData) -> Iterator[Html]:
    """Yield the sizes of clusters and the recall of near-duplicates."""
    clusters, searched, title = merge_bins(data.statistics.clusters), data.statistics.bands, "Documents per cluster"
    figures = []
    if clusters.counts:
        sizes = describe_bins(clusters, " documents")
        caption = f"{format_quantity(clusters.total(), 'clusters')}; {sizes}"
        figures.append(_figure(title, caption, histograms(title, [("", clusters)], ""), clusters))
    for bands in searched:
        said = (
            f"{_sources_of(bands, searched)}{bands.bands} bands of {bands.rows} rows. The line is the expected recall; "
            f"dots are planted copies with 99% intervals; dashes mark the threshold {bands.threshold:g}."
        )
        caption = element("figcaption", element("b", "Pairs found, by Jaccard similarity"), said)
        figures.append(element("figure", caption, recall_curve(bands)))
    yield element("div", *figures, class_="multiples") if figures else note("Near-duplicates were not looked for.")
    for bands in searched:
        title = (
            f"{_sources_of(bands, searched)}Canaries: copies planted at known similarities, and how many share a band"
        )
        yield _recall_table(title, bands) if bands.planted else note("No copies were planted to measure recall.")


def _sources_of(bands: Bands, searched: list[Bands]) -> str:
    """Return the beginning of a sentence that names the sources of bands, where sources differ in them."""
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
        if one.planted
    ]
    columns = ["Jaccard", "expected", "found", "99% interval", "copies"]
    return table(title, columns, rows)
