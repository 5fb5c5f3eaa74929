"""The report's sections on the corpus's parts: documents by source, near-duplicates, cost, models, recipe, hashes."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from manifests.report.charts import histogram, ridges, s_curve, spread
from manifests.report.facts import Cost, Facts
from manifests.report.html import Html, bar, details, element, foreign, join, note, section, table, text, visible
from manifests.report.numbers import count, digits, duration, plain, share, short, size
from manifests.statistics import Bins, Names, SourceStatistics

SOURCES = 16
"""that are shown one by one: those with most documents"""
NAMES = 12
"""of domains, languages, years, licences of one source"""
CARD_ROWS = 60
RECIPE_CHARACTERS = 100_000
STEPS, MODELS, CODES = 60, 200, 60
BUCKETS = ("head", "middle", "tail", "all")
KINDS = {"domains": "Domains", "language": "Languages", "year": "Years", "licence": "Licences"}


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
        parts.append(element("h3", foreign(name), text(f": {count(source.documents)} documents")))
        parts.append(element("div", *_multiples(name, source, facts), class_="multiples"))
    if len(ordered) > SOURCES:
        rest = sum(source.documents for _, source in ordered[SOURCES:])
        parts.append(note(f"and {len(ordered) - SOURCES:,} more sources with {count(rest)} documents together"))
    return section("documents", "Documents", note("Documents in shards, train and held out."), *parts)


def duplicates(facts: Facts) -> Html:
    """Sizes of clusters, and how well copies are found."""
    clusters, bands = facts.statistics.clusters, facts.statistics.bands
    figures = []
    if clusters.counts:
        caption = f"{count(clusters.total())} clusters; {spread(clusters, ' documents')}"
        figures.append(
            _figure("Documents a cluster", caption, histogram("Documents a cluster", clusters, ""), clusters)
        )
    if bands is not None:
        said = f"{bands.bands} bands of {bands.rows} rows. The line is what they promise; dots are planted copies with 99 % intervals; dashes mark the threshold {bands.threshold:g}."
        figures.append(
            element(
                "figure",
                element("figcaption", element("b", text("Pairs found, by Jaccard similarity")), text(said)),
                s_curve(bands),
            )
        )
    parts = [element("div", *figures, class_="multiples")] if figures else [note("None were looked for.")]
    if bands is not None and bands.planted:
        rows = [
            [text(f"{one.level:.2f}"), text(f"{one.expected:.1%}"), text(f"{count(one.found)} of {count(one.planted)}"),
             text(f"{one.found / one.planted:.1%}"), text(f"{one.interval[0]:.1%} to {one.interval[1]:.1%}")]
            for one in bands.planted if one.planted
        ]  # fmt: skip
        columns = ["Jaccard", "promised", "found", "share", "99 % interval"]
        parts.append(table("Canaries: copies planted at known similarities, and how many share a band", columns, rows))
    elif bands is not None:
        parts.append(note("No copies were planted to measure recall."))
    return section("duplicates", "Near-duplicates", *parts)


def cost(facts: Facts) -> Html:
    """What each step took."""
    if not facts.costs:
        return section("cost", "Cost", note("This corpus has no records of its runs."))
    most = max((one.cpu_seconds for one in facts.costs.values()), default=0.0) or 1.0
    ordered = sorted(facts.costs.items(), key=lambda item: (-item[1].cpu_seconds, item[0]))
    rows = [_cost(name, one, most) for name, one in ordered[:STEPS]]
    whole = Cost(
        tasks=sum(one.tasks for one in facts.costs.values()),
        cpu_seconds=sum(one.cpu_seconds for one in facts.costs.values()),
        wall_seconds=sum(one.wall_seconds for one in facts.costs.values()),
        peak_bytes=max(one.peak_bytes for one in facts.costs.values()),
    )
    foot = _cost("all", whole, most)[:-1] + [Html("")]
    columns = ["step", "processor time", "wall time", "tasks", "records a core-second", "peak memory", ""]
    runs = f"{facts.runs:,} runs" if facts.runs != 1 else "one run"
    return section(
        "cost",
        "Cost",
        table(f"Over {runs}; nothing in a corpus's hashes depends on these", columns, rows, foot),
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
            text(f"{count(tokenizer.vocabulary)} pieces, {tokenizer.dtype}"),
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
        hashes["removed"] = (
            f"{count(manifest.removal.documents)} documents, {count(manifest.removal.tokens)} tokens, by the list {manifest.removal.list_sha256}"
        )
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


def _multiples(name: str, source: SourceStatistics, facts: Facts) -> Iterator[Html]:
    """The charts and lists of one source."""
    for label, bins, unit in (
        ("Length in characters", source.characters, " characters"),
        ("Length in tokens", source.tokens, " tokens"),
        ("Likeness to cited pages", source.score, ""),
    ):
        if bins.counts:
            yield _figure(label, spread(bins, unit), histogram(f"{visible(name, 40)}: {label}", bins, unit), bins)
    buckets = [
        (bucket, source.perplexity[bucket]) for bucket in BUCKETS if source.perplexity.get(bucket, Bins()).counts
    ]
    if buckets:
        cuts = ((facts.manifest.findings.get("cuts") or {}).get(name) or {}).get("cuts") or {}
        said = "; ".join(
            f"{visible(str(code), 12)}: head below {plain(float(cut['head']))}, tail from {plain(float(cut['tail']))}"
            for code, cut in sorted(cuts.items())[:4]
        )
        together = Bins(edges=buckets[0][1].edges, counts=buckets[0][1].counts)
        chart = ridges(f"{visible(name, 40)}: perplexity", buckets, "")
        yield _figure("Perplexity", said or spread(together, ""), chart, *(bins for _, bins in buckets))
    for kind, title in KINDS.items():
        names = source.names.get(kind, Names())
        if names.top:
            yield _names(title, names, source.documents)


def _figure(name: str, said: str, chart: Html, *histograms: Bins) -> Html:
    """A chart with its caption, and its numbers to be opened."""
    rows = [
        [text(f"{plain(low)} to {plain(high)}"), text(count(number)), text(share(number, bins.total()))]
        for bins in histograms
        for low, high, number in zip(bins.edges, bins.edges[1:], bins.counts, strict=False)
        if number
    ]
    numbers = details(text("as a table"), table(name, ["from, to below", "documents", "share"], rows), class_="quiet")
    return element("figure", element("figcaption", element("b", text(name)), text(said)), chart, numbers)


def _names(title: str, names: Names, documents: int) -> Html:
    most = names.top[0][1] or 1
    rows = [
        [foreign(name, 60), text(count(number)), text(share(number, documents)), bar(number / most)]
        for name, number in names.top[:NAMES]
    ]
    rest = names.total - sum(number for _, number in names.top[:NAMES])
    if rest > 0:
        rows.append([text("others"), text(count(rest)), text(share(rest, documents)), Html("")])
    short_by = f", each at most {count(names.error)} too few" if names.error else ""
    caption = f"{title}, by documents{short_by}"
    return element("div", table(caption, [title.lower(), "documents", "share", ""], rows), class_="bars")


def _cost(name: str, one: Cost, most: float) -> list[Html]:
    rate = f"{short(one.records / one.cpu_seconds)}" if one.records and one.cpu_seconds else ""
    numbers = [duration(one.cpu_seconds), duration(one.wall_seconds), count(one.tasks), rate, size(one.peak_bytes)]
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
        yield name, count(value)
    else:
        yield name, "none" if value is None else str(value)


def _pairs(values: Mapping[str, Html]) -> Html:
    parts = [part for name, value in values.items() for part in (element("dt", foreign(name)), element("dd", value))]
    return element("dl", *parts, class_="card")
