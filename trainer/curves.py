"""Draw the curves of a run from its CSV files: losses by source, held-out losses, learning rate, gradient norm."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.manifest import Manifest
from manifests.report.html import Html, element, read_style
from manifests.report.svg import Chart, Point, line_chart, stack_charts
from manifests.shard import open_shard
from trainer.events import VALIDATION, find_corpus, read_rows, read_run
from trainer.metrics import FILE, parse_finite

CURVE_POINTS = 200  # Maximum number of points per curve. If there are more, neighbors are averaged.
COUNT_TOKENS = 1 << 22  # tokens counted in one call of numpy.bincount


def plot(run: Path, output: Path | None, corpus: Path | None) -> str:
    """Draw a run's curves and write them to an HTML page or an SVG picture.

    Args:
        run: The run's folder.
        output: The file to write, with the suffix .html or .svg, or None for RUN/curves.html.
        corpus: The corpus's folder, if it has moved.

    Returns:
        The path of the written file.

    Raises:
        UserError: The file name has another suffix, or there is no run or corpus.
    """
    target = output or run / "curves.html"
    if target.suffix not in (".html", ".svg"):
        raise UserError(f"--output {target} does not end in .html or .svg: give a file name that does")
    charts = build_charts(run, compute_unigram_losses(run, corpus))
    drawn = stack_charts(charts) if target.suffix == ".svg" else render_page(run.resolve().name, charts)
    try:
        write_atomic(target, drawn.encode())
    except OSError as error:
        error.filename = str(target)  # It is the temporary name, which the user has not given.
        raise
    return str(target)


def compute_unigram_losses(run: Path, corpus: Path | None) -> dict[str, float]:
    """Return a dict from source name to unigram entropy in nats per token, or {} if the run's corpus is not found."""
    facts = read_run(run)
    if corpus is None and not (Path(facts["corpus"]) / "manifest.json").is_file():
        return {}
    try:
        return compute_unigram_entropy(*find_corpus(run, facts["plan"]["manifest_sha"], corpus))
    except FileNotFoundError:  # The corpus is a local cache of a remote corpus, and shards have been evicted.
        return {}


def compute_unigram_entropy(corpus: Path, manifest: Manifest) -> dict[str, float]:
    """Return a dict from source name to the entropy of its train tokens, in nats, including BOS and EOS.

    The entropy is the loss of a model that predicts each token by its frequency only. A trained model must reach a
    lower loss.
    """
    entropies = {}
    for name, source in sorted(manifest.sources.items()):
        counts = np.zeros(manifest.tokenizer.vocabulary, np.int64)
        for entry in source.train:
            tokens = open_shard(corpus / "shards" / entry.path).tokens
            for start in range(0, len(tokens), COUNT_TOKENS):
                counts += np.bincount(tokens[start : start + COUNT_TOKENS], minlength=len(counts))
        shares = counts[counts > 0] / max(1, counts.sum())
        entropies[name] = float(-(shares * np.log(shares)).sum())
    return entropies


def build_charts(run: Path, levels: dict[str, float]) -> list[Chart]:
    """Return the charts of a run: losses by source, held-out losses, learning rate, gradient norm.

    Charts without points are left out.

    Args:
        run: The run's folder.
        levels: A dict from source name to a loss, which is drawn as a dashed horizontal line.
    """
    rows, held_out = (list(csv.DictReader(read_rows(run / name))) for name in (FILE, VALIDATION))
    if not rows:
        raise UserError(f"{run} has no metrics yet: train first")
    sources = sorted(name[5:] for name in rows[0] if name.startswith("loss_"))
    colors = {name: number for number, name in enumerate(sources, start=1)}
    curves = {name: (colors[name], _curve(rows, f"loss_{name}")) for name in sources}
    loss = Chart("Training loss, nats per token", curves)
    loss.curves["all"] = (0, _curve(rows, "loss"))  # It is added last, so that it is drawn above the others.
    loss.levels = {f"{name}: unigrams": (colors[name], levels[name]) for name in sources if name in levels}
    validation = Chart("Held-out loss, nats per token")
    for name in sorted({row["source"] for row in held_out}):
        mine = [row for row in held_out if row["source"] == name]
        validation.curves[name] = (colors.get(name, 0), _curve(mine, "loss"))
    rate = Chart("Learning rate", {"": (0, _curve(rows, "learning_rate"))})
    norm = Chart("Gradient norm before clipping", {"": (0, _curve(rows, "gradient_norm"))})
    return [chart for chart in (loss, validation, rate, norm) if any(points for _, points in chart.curves.values())]


def _curve(rows: Iterable[dict[str, str]], column: str) -> list[Point]:
    """Return (step, value) of the rows whose value is finite. Neighbors are averaged to at most CURVE_POINTS points."""
    pairs = ((parse_finite(row.get("step")), parse_finite(row.get(column))) for row in rows)
    points = [(step, value) for step, value in pairs if step is not None and value is not None]
    size = -(-len(points) // CURVE_POINTS) or 1
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def render_page(name: str, charts: list[Chart]) -> Html:
    """Return an HTML page of charts that needs no other files and no scripts."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width"),
        element("title", name),
        element("style", read_style("colors", "page", "curves")),
    )
    body = element("body", element("header", element("h1", name)), element("main", *map(line_chart, charts)))
    return Html(f"<!doctype html>\n{element('html', head, body, lang='en')}\n")
