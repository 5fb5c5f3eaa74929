"""The report's sections on documents: what they look like by source, and how alike they are."""

from collections.abc import Iterator

from manifests.display import format_count, format_edge, format_quantity, format_share
from manifests.report.data import Facts
from manifests.report.html import Html, bar, details, element, foreign, join, note, section, table, text, visible
from manifests.report.svg import coarser, histogram, ridges, s_curve, spread
from manifests.statistics import Bins, Names, SourceStatistics

SOURCES = 10
"""that are shown one by one: those with most documents"""
NAMES = 12
"""of domains, languages, years, licences of one source"""
BUCKETS = ("head", "middle", "tail", "all")
KINDS = {"domains": ("Top domains", "domain"), "language": ("Languages", "language"), "year": ("Years", "year")}
KINDS["licence"] = ("Licences", "licence")


def documents(facts: Facts) -> Html:
    """What the documents of each source look like."""
    statistics = facts.statistics
    if not statistics.sources:
        return section("documents", "Documents", note("This corpus has no statistics.json: give its run again."))
    ordered = sorted(statistics.sources.items(), key=lambda item: (-item[1].documents, item[0]))
    parts = []
    if statistics.manifest_sha and statistics.manifest_sha != facts.manifest.manifest_sha:
        parts.append(note(f"Counted in corpus {visible(statistics.manifest_sha, 16)}, which this one was made from."))
    for name, source in ordered[:SOURCES]:
        parts.append(element("h3", foreign(name), text(f": {format_quantity(source.documents, 'documents')}")))
        parts.append(element("div", *_multiples(name, source, facts), class_="multiples"))
    if len(ordered) > SOURCES:
        rest = sum(source.documents for _, source in ordered[SOURCES:])
        parts.append(note(f"and {len(ordered) - SOURCES:,} more sources with {format_count(rest)} documents together"))
    return section("documents", "Documents", note("Documents in shards, train and held out."), *parts)


def duplicates(facts: Facts) -> Html:
    """Sizes of clusters, and how well copies are found."""
    clusters, bands = coarser(facts.statistics.clusters), facts.statistics.bands
    figures = []
    if clusters.counts:
        caption = f"{format_quantity(clusters.total(), 'clusters')}; {spread(clusters, ' documents')}"
        figures.append(
            _figure("Documents a cluster", caption, histogram("Documents a cluster", clusters, ""), clusters)
        )
    if bands is not None:
        said = (
            f"{bands.bands} bands of {bands.rows} rows. The line is what they promise; dots are planted copies with "
            f"99% intervals; dashes mark the threshold {bands.threshold:g}."
        )
        caption = element("figcaption", element("b", text("Pairs found, by Jaccard similarity")), text(said))
        figures.append(element("figure", caption, s_curve(bands)))
    parts = [element("div", *figures, class_="multiples")] if figures else [note("None were looked for.")]
    if bands is not None and bands.planted:
        rows = [
            [
                text(f"{one.level:.2f}"),
                text(format_share(one.expected, 1)),
                text(format_share(one.found, one.planted)),
                text(f"{format_share(one.interval[0], 1)} to {format_share(one.interval[1], 1)}"),
                text(f"{format_count(one.found)} of {format_count(one.planted)}"),
            ]
            for one in bands.planted
            if one.planted
        ]
        columns = ["Jaccard", "promised", "found", "99% interval", "copies"]
        parts.append(table("Canaries: copies planted at known similarities, and how many share a band", columns, rows))
    elif bands is not None:
        parts.append(note("No copies were planted to measure recall."))
    return section("duplicates", "Near-duplicates", *parts)


def _multiples(name: str, source: SourceStatistics, facts: Facts) -> Iterator[Html]:
    """The charts and lists of one source."""
    for label, bins, unit in (
        ("Length in characters", coarser(source.characters), " characters"),
        ("Length in tokens", coarser(source.tokens), " tokens"),
        ("Likeness to cited pages", source.score, ""),
    ):
        if bins.counts:
            yield _figure(label, spread(bins, unit), histogram(f"{visible(name, 40)}: {label}", bins, unit), bins)
    buckets = [
        (bucket, coarser(source.perplexity[bucket]))
        for bucket in BUCKETS
        if source.perplexity.get(bucket, Bins()).counts
    ]
    if buckets:
        cuts = ((facts.manifest.findings.get("cuts") or {}).get(name) or {}).get("cuts") or {}
        said = "; ".join(
            f"{visible(str(code), 12)}: head below {format_edge(float(cut['head']))}, "
            f"tail from {format_edge(float(cut['tail']))}"
            for code, cut in sorted(cuts.items())[:4]
        )
        chart = ridges(f"{visible(name, 40)}: perplexity", buckets, "")
        yield _figure("Perplexity", said or spread(buckets[0][1], ""), chart, *(bins for _, bins in buckets))
    for kind, (title, one) in KINDS.items():
        names = source.names.get(kind, Names())
        if names.total and not names.top:
            most, total = format_count(names.error), format_count(names.total)
            yield note(f"{title}: no name stands for more than {most} of {total} documents")
        elif names.top:
            yield _names(title, one, names, source.documents)


def _figure(name: str, said: str, chart: Html, *histograms: Bins) -> Html:
    """A chart with its caption, and its numbers to be opened."""
    rows = [
        [
            text(f"{format_edge(low)} to {format_edge(high)}"),
            text(format_count(number)),
            text(format_share(number, bins.total())),
        ]
        for bins in histograms
        for low, high, number in zip(bins.edges, bins.edges[1:], bins.counts, strict=False)
        if number
    ]
    numbers = details(text("as a table"), table(name, ["from, to below", "documents", "share"], rows), class_="quiet")
    return element("figure", element("figcaption", element("b", text(name)), text(said)), chart, numbers)


def _names(title: str, kind: str, names: Names, documents: int) -> Html:
    most = names.top[0][1] or 1
    rows = [
        [
            join([foreign(name, 60), bar(number / most)]),
            text(format_count(number)),
            text(format_share(number, documents)),
        ]
        for name, number in names.top[:NAMES]
    ]
    rest = names.total - sum(number for _, number in names.top[:NAMES])
    if rest > 0:
        rows.append([text("others"), text(format_count(rest)), text(format_share(rest, documents))])
    short_by = f", each at most {format_count(names.error)} too few" if names.error else ""
    caption = f"{title}, by documents{short_by}"
    return table(caption, [kind, "number", "share"], rows)
