"""Small charts as SVG: histograms with round edges, and the curve of MinHash bands. Every chart has a name, a sentence
that says what it shows, and is drawn in the colours of the page."""

import math
from collections.abc import Sequence

from manifests.display import format_edge, format_short
from manifests.report.html import Html, element, join, text
from manifests.statistics import Bands, Bins

WIDTH, HEIGHT, AXIS, HEAD = 280.0, 88.0, 18.0, 4.0
"""of a chart's plane, of the line of labels below, and the space above"""
RIDGE_HEAD = 24.0
"""for the name above each of several histograms"""
BAR = 24.0
"""the widest bar"""
MOST_BARS = 64
LABELS = 6
"""on an axis, about"""
DIGIT, TICK_GAP = 6.4, 7.0
"""how wide a character of a label is, and the space between two, at least"""


def coarser(bins: Bins) -> Bins:
    """The histogram with neighbouring bins made one until they can be told apart."""
    while len(bins.counts) > MOST_BARS:
        counts = [sum(bins.counts[place : place + 2]) for place in range(0, len(bins.counts), 2)]
        bins = Bins(edges=[*bins.edges[:-1:2], bins.edges[-1]], counts=counts)
    return bins


def histogram(name: str, bins: Bins, unit: str) -> Html:
    """Bars of equal width, one a bin, with the edges that are 1, 2 or 5 times a power of ten below them."""
    if not bins.counts:
        return Html("")
    return _plane(name, spread(bins, unit), [_bars(bins, HEAD, HEIGHT), _edges(bins.edges)], HEAD + HEIGHT)


def ridges(name: str, rows: Sequence[tuple[str, Bins]], unit: str) -> Html:
    """Histograms with the same edges, one below the other over one axis; those with other edges are left out."""
    rows = [(label, bins) for label, bins in rows if bins.counts and bins.edges == rows[0][1].edges]
    if not rows:
        return Html("")
    edges = rows[0][1].edges
    height, parts = HEIGHT / 2, []
    for place, (label, bins) in enumerate(rows):
        top = RIDGE_HEAD + place * (height + RIDGE_HEAD)
        parts.append(_bars(bins, top, height))
        parts.append(element("text", text(f"{label}: {format_short(bins.total())}"), x=0, y=top - 5, class_="name"))
    bottom = len(rows) * (height + RIDGE_HEAD)
    said = "; ".join(f"{label}: {spread(bins, unit)}" for label, bins in rows)
    return _plane(name, said, [*parts, _edges(edges, bottom)], bottom)


def spread(bins: Bins, unit: str) -> str:
    """Where the middle and the outer twentieths of the values lie, in words."""
    low, middle, high = (bins.quantile(at) for at in (0.05, 0.5, 0.95))
    alone = middle[0] >= 1 and middle[1] - middle[0] == 1
    half = format_edge(middle[0]) if alone else f"{format_edge(middle[0])} to {format_edge(middle[1])}"
    return f"median {half}{unit}; nine in ten from {format_edge(low[0])} to {format_edge(high[1])}"


def s_curve(bands: Bands) -> Html:
    """The share of pairs that become candidates by their similarity; dots with intervals are planted copies."""
    low = bands.curve[0][0] if bands.curve else 0.0

    def x(at: float) -> float:
        return 36 + (at - low) / (1 - low) * (WIDTH - 50)

    def y(at: float) -> float:
        return HEAD + (1 - at) * HEIGHT * 1.5

    bottom = y(0.0)
    line = "M" + "L".join(f"{x(at):.2f} {y(likely):.2f}" for at, likely in bands.curve)
    parts = [element("path", d=f"M{x(low)} {y(at):.2f}H{x(1.0)}", class_="grid") for at in (0.0, 0.5, 1.0)]
    parts += [element("text", text(f"{at:.0%}"), x=32, y=y(at) + 4, class_="tick end") for at in (0.0, 0.5, 1.0)]
    at_threshold = x(bands.threshold)
    parts.append(element("path", d=f"M{at_threshold:.2f} {y(1.0):.2f}V{bottom:.2f}", class_="mark"))
    parts.append(element("path", d=line, class_="line"))
    for one in bands.planted:
        place = f"M{x(one.jaccard):.2f} {y(one.interval[0]):.2f}V{y(one.interval[1]):.2f}"
        parts.append(element("path", d=place, class_="interval"))
        parts.append(element("circle", cx=x(one.jaccard), cy=y(one.found / one.planted), r=3.2, class_="dot"))
    steps = [at / 10 for at in range(math.ceil(low * 10), 11)]
    parts += [element("text", text(f"{at:.1f}"), x=x(at), y=bottom + 14, class_="tick mid") for at in steps]
    said = (
        f"{bands.bands} bands of {bands.rows} rows: the line is the share of pairs at each similarity that become "
        f"candidates, dots are planted copies with their 99 % intervals, the dashed line is the threshold "
        f"{bands.threshold:g}"
    )
    return _plane("Pairs found, by Jaccard similarity", said, parts, bottom)


def _plane(name: str, said: str, parts: Sequence[Html], bottom: float) -> Html:
    return element(
        "svg",
        element("title", text(name)),
        element("desc", text(said)),
        *parts,
        viewBox=f"0 0 {WIDTH:.0f} {bottom + AXIS:.0f}",
        role="img",
        aria_label=f"{name}: {said}",
        class_="chart",
    )


def _bars(bins: Bins, top: float, height: float) -> Html:
    """Bars on an axis, the highest as high as there is room."""
    step, most = _step(bins.edges), max(bins.counts) or 1
    bars = [element("path", d=f"M0 {top + height:.2f}H{step * len(bins.counts):.2f}", class_="grid")]
    for place, number in enumerate(bins.counts):
        if number:
            tall = max(height * number / most, 0.75)
            x, width = place * step, max(step - min(1.0, step / 5), 0.5)
            bars.append(element("rect", x=x, y=top + height - tall, width=width, height=tall, class_="bin"))
    return join(bars)


def _edges(edges: Sequence[float], bottom: float = HEAD + HEIGHT) -> Html:
    """Labels below an axis, at round edges, as many as there is room for."""
    step = _step(edges)
    places = [place for place, edge in enumerate(edges) if _round(edge)] or [0, len(edges) - 1]
    labels, free = [], -1.0
    for place in places:
        x, edge = place * step, edges[place]
        said = format_short(edge) if edge >= 10_000 else format_edge(edge)
        width = DIGIT * len(said)
        anchor, left = "mid", x - width / 2
        if left < 0:
            anchor, left = "", x
        elif left + width > WIDTH:
            anchor, left = "end", x - width
        if left > free:
            labels.append(element("text", text(said), x=x, y=bottom + 14, class_=f"tick {anchor}".strip()))
            free = left + width + TICK_GAP
    return join(labels)


def _step(edges: Sequence[float]) -> float:
    return min(WIDTH / max(len(edges) - 1, 1), BAR)


def _round(edge: float) -> bool:
    """Whether an edge is worth a label: 1, 2 or 5 times a power of ten, and the tenths of probabilities."""
    if edge <= 0:
        return True
    if edge < 1:
        return abs(edge * 5 - round(edge * 5)) < 1e-9
    return f"{edge:e}"[0] in "125" and float(f"{edge:.0e}") == edge
