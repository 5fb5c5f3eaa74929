"""SVG charts: flow charts of the ledger, histograms, the recall curve of MinHash bands, and curves over training steps.

Colors are defined by the style sheets of the page. Every chart has a title and a description for screen readers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from manifests.display import format_count, format_edge, format_share, format_short
from manifests.report.data import Bands, Bins, Flow, LedgerFlow, fold_flows, sum_flows
from manifests.report.html import Html, element, join, read_style, visible

Point = tuple[float, float]


def _draw(title: str, description: str, parts: Sequence[Html], width: float, height: float, class_: str) -> Html:
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *parts,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=f"{title}: {description}",
        class_=class_,
    )


def _label(content: str, x: float, y: float, class_: str) -> Html:
    return element("text", content, x=x, y=y, class_=class_)


def _path(d: str, class_: str) -> Html:
    return element("path", d=d, class_=class_)


# The flow chart is a Sankey diagram from top to bottom, narrow enough for a phone. The bands of the sources come from
# the right and join a vertical trunk at the left. At each stage, one band per reason leaves the trunk to the right,
# where its name and number are written. All widths have the same scale. Each flow has a row of text, so that flows
# whose bands are too thin to be visible can also be read. The lengths below are in pixels.

FLOW_WIDTH = 352
TRUNK = 96.0  # Width of the trunk after all sources have entered.
# x positions: left edge of the trunk, right end of the bands, left edge of names, right edge of numbers.
LEFT, BANK, NAME, RIGHT = 4.0, 136.0, 144.0, 350.0
ROW, HEADING, GAP = 21.0, 26.0, 8.0  # Heights of a row, of a heading, and of the space after a stage.
HAIR = 0.75  # Minimum width of a band.
SEAM = 1.0  # Overlap of two segments of the trunk, so that no line is visible between them.
ROWS = 12  # Maximum rows of a stage or of the sources. The smallest flows are combined into one row.
NAME_CHARACTERS = 23


class _FlowCanvas:
    """The elements of a flow chart. Bands are drawn first and text on top of them. `y` is the top of the next row."""

    def __init__(self, total: int) -> None:
        self.total, self.scale = total, TRUNK / total
        self.bands: list[Html] = []
        self.words: list[Html] = []
        self.y = 0.0

    def heading(self, name: str, number: str) -> None:
        self.y += HEADING
        self.words.append(_label(name, NAME, self.y - 8, "stage"))
        self.words.append(_label(number, RIGHT, self.y - 8, "stage end"))

    def row(self, flow: Flow, sign: str) -> tuple[float, float]:
        """Add the row with the name and the number of a flow.

        Returns:
            The width of the band of the flow, and the y position of its center line.
        """
        width = flow.amount * self.scale
        height = max(ROW, width + 5)
        middle = self.y + height / 2
        self.y += height
        self.words.append(_label(visible(flow.name, NAME_CHARACTERS) + flow.mark, NAME, middle + 4, "name"))
        self.words.append(_label(sign + format_short(flow.amount), RIGHT, middle + 4, "end"))
        return width, middle

    def band(self, flow: Flow, path: str, width: float, kind: str) -> None:
        share = format_share(flow.amount, self.total)
        title = element("title", f"{visible(flow.name)}: {format_count(flow.amount)} ({share})")
        self.bands.append(element("path", title, d=path, class_=f"band {kind}", stroke_width=max(width, HAIR)))

    def trunk(self, amount: int, top: float, bottom: float) -> None:
        if amount > 0:
            size = {"width": amount * self.scale, "height": bottom - top + SEAM}
            self.bands.append(element("rect", x=LEFT, y=top - SEAM, **size, class_="trunk"))

    def enter(self, flows: list[Flow]) -> None:
        """Add the bands of the sources that enter the trunk, the first source at the left."""
        top, edge, paths = self.y, LEFT, []
        for flow in flows:
            width, middle = self.row(flow, "")
            center, bend = edge + width / 2, max(width / 2, 6.0)
            path = f"M{BANK:.2f} {middle:.2f}H{center + bend:.2f}" + _arc(bend, center, middle + bend)
            paths.append((flow, path, width))
            edge += width
        self.y = max(self.y, top + TRUNK)
        for flow, path, width in paths:
            self.band(flow, f"{path}V{self.y:.2f}", width, "in")

    def leave(self, flows: list[Flow], amount: int, sign: str) -> int:
        """Add the bands of flows that leave the trunk to the right, the first flow at the right edge.

        Args:
            flows: the flows.
            amount: the amount in the trunk above these flows.
            sign: the sign before the numbers.

        Returns:
            The amount that remains in the trunk.
        """
        top, edge, paths = self.y - HEADING, LEFT + amount * self.scale, []
        for flow in flows:
            width, middle = self.row(flow, sign)
            center, bend = edge - width / 2, max(width / 2, 6.0)
            start = f"M{center:.2f} {top - SEAM:.2f}V{middle - bend:.2f}"
            paths.append((flow, f"{start}{_arc(bend, center + bend, middle)}H{BANK:.2f}", width))
            edge -= width
        for flow, path, width in reversed(paths):
            self.band(flow, path, width, flow.kind)
        rest = amount - sum_flows(flows)
        self.trunk(rest, top, self.y)
        return rest


def _arc(radius: float, x: float, y: float) -> str:
    return f"A{radius:.2f} {radius:.2f} 0 0 0 {x:.2f} {y:.2f}"


def flow_chart(flow: LedgerFlow) -> Html:
    """Return the flow chart of a unit whose total is above zero."""
    total = flow.total
    canvas = _FlowCanvas(total)
    canvas.heading("enters", f"{format_short(total)} {flow.unit}")
    canvas.enter(fold_flows(flow.entered, ROWS))
    amount = total
    for stage, flows in flow.stages:
        canvas.heading(stage, format_short(amount))
        amount = canvas.leave(fold_flows(flows, ROWS), amount, "−")
        canvas.y += GAP
        canvas.trunk(amount, canvas.y - GAP, canvas.y)
    canvas.heading("shards", format_short(amount))
    canvas.leave(fold_flows(flow.arrived, ROWS), amount, "")
    counts = f"{format_count(total)} {flow.unit} came in, {format_count(sum_flows(flow.arrived))} are in shards"
    parts = [join(canvas.bands), join(canvas.words)]
    description = f"{counts}; the table has every number."
    return _draw(f"Flow of {flow.unit}", description, parts, FLOW_WIDTH, canvas.y + 4, "sankey")


# Histograms and the recall curve of MinHash bands.

WIDTH, HEIGHT = 280.0, 88.0  # Size of the plotting area.
AXIS, HEAD = 18.0, 4.0  # Heights of the labels below the plotting area, and of the space above it.
RIDGE_HEAD = 24.0  # Height of the name above each histogram, if there are several.
BAR = 24.0  # Maximum width of a bar.
MOST_BARS = 64
DIGIT, TICK_GAP = 6.4, 7.0  # Width of a character of a label, and minimum space between two labels.


def merge_bins(bins: Bins) -> Bins:
    """Merge neighboring bins of a histogram until it has at most `MOST_BARS` bins."""
    while len(bins.counts) > MOST_BARS:
        counts = [sum(bins.counts[place : place + 2]) for place in range(0, len(bins.counts), 2)]
        bins = Bins(edges=[*bins.edges[:-1:2], bins.edges[-1]], counts=counts)
    return bins


def describe_bins(bins: Bins, unit: str) -> str:
    """Return a text with the median and the range from the 5th to the 95th percentile."""
    low, middle, high = (bins.quantile(at) for at in (0.05, 0.5, 0.95))
    single = middle[0] >= 1 and middle[1] - middle[0] == 1
    half = format_edge(middle[0]) if single else f"{format_edge(middle[0])} to {format_edge(middle[1])}"
    return f"median {half}{unit}; nine in ten from {format_edge(low[0])} to {format_edge(high[1])}"


def histograms(title: str, rows: Sequence[tuple[str, Bins]], unit: str) -> Html:
    """Return a chart of one or more histograms, one below the other, with a common axis below the last one.

    All bars have the same width, whatever the widths of their bins. The axis is labeled at round edges.

    Args:
        title: The title for screen readers.
        rows: (name, histogram). The name is written above the histogram; it may be empty. Histograms whose edges differ
            from those of the first are left out.
        unit: The unit of the values, for the description.
    """
    rows = [(label, bins) for label, bins in rows if bins.counts and bins.edges == rows[0][1].edges]
    if not rows:
        return Html("")
    head, height = (RIDGE_HEAD, HEIGHT / 2) if rows[0][0] else (HEAD, HEIGHT)
    parts: list[Html] = []
    for place, (label, bins) in enumerate(rows):
        top = head + place * (height + head)
        parts.append(_bars(bins, top, height))
        parts += [_label(f"{label}: {format_short(bins.total())}", 0, top - 5, "name")] if label else []
    bottom = len(rows) * (height + head)
    parts.append(_edge_labels(rows[0][1].edges, bottom))
    described = (f"{label}: {describe_bins(bins, unit)}".removeprefix(": ") for label, bins in rows)
    return _draw(title, "; ".join(described), parts, WIDTH, bottom + AXIS, "chart")


def _bars(bins: Bins, top: float, height: float) -> Html:
    """Return the bars of a histogram on an axis. The highest bar has the given height."""
    step, most = _bar_step(bins.edges), max(bins.counts) or 1
    parts = [_path(f"M0 {top + height:.2f}H{step * len(bins.counts):.2f}", "grid")]
    width = max(step - min(1.0, step / 5), 0.5)
    for place, number in enumerate(bins.counts):
        if number:
            tall = max(height * number / most, 0.75)
            size = {"width": width, "height": tall}
            parts.append(element("rect", x=place * step, y=top + height - tall, **size, class_="bin"))
    return join(parts)


def _bar_step(edges: Sequence[float]) -> float:
    return min(WIDTH / max(len(edges) - 1, 1), BAR)


def _edge_labels(edges: Sequence[float], bottom: float) -> Html:
    """Return labels at round edges below an axis. Labels that would overlap the previous label are left out."""
    step = _bar_step(edges)
    places = [place for place, edge in enumerate(edges) if _is_round(edge)] or [0, len(edges) - 1]
    labels, free = [], -1.0
    for place in places:
        x, edge = place * step, edges[place]
        label = format_short(edge) if edge >= 10_000 else format_edge(edge)
        width = DIGIT * len(label)
        anchor, left = "tick mid", x - width / 2
        if left < 0:
            anchor, left = "tick", x
        elif left + width > WIDTH:
            anchor, left = "tick end", x - width
        if left > free:
            labels.append(_label(label, x, bottom + 14, anchor))
            free = left + width + TICK_GAP
    return join(labels)


def _is_round(edge: float) -> bool:
    """Return True for 1, 2 or 5 times a power of ten from 1 on, and for multiples of 0.2 below 1."""
    if edge < 1:
        return edge <= 0 or abs(edge * 5 - round(edge * 5)) < 1e-9
    return f"{edge:e}"[0] in "125" and float(f"{edge:.0e}") == edge


def recall_curve(bands: Bands) -> Html:
    """Return a chart of the share of pairs that become candidates over their similarity, with dots for canaries."""
    low = bands.curve[0][0] if bands.curve else 0.0

    def x(at: float) -> float:
        return 36 + (at - low) / (1 - low) * (WIDTH - 50)

    def y(at: float) -> float:
        return HEAD + (1 - at) * HEIGHT * 1.5

    bottom = y(0.0)
    parts = [_path(f"M{x(low)} {y(at):.2f}H{x(1.0)}", "grid") for at in (0.0, 0.5, 1.0)]
    parts += [_label(f"{at:.0%}", 32, y(at) + 4, "tick end") for at in (0.0, 0.5, 1.0)]
    parts.append(_path(f"M{x(bands.threshold):.2f} {y(1.0):.2f}V{bottom:.2f}", "mark"))
    parts.append(_path("M" + "L".join(f"{x(at):.2f} {y(likely):.2f}" for at, likely in bands.curve), "line"))
    for one in bands.planted:
        interval = f"M{x(one.jaccard):.2f} {y(one.interval[0]):.2f}V{y(one.interval[1]):.2f}"
        dot = element("circle", cx=x(one.jaccard), cy=y(one.found / one.planted), r=3.2, class_="dot")
        parts += [_path(interval, "interval"), dot]
    steps = [at / 10 for at in range(math.ceil(low * 10), 11)]
    parts += [_label(f"{at:.1f}", x(at), bottom + 14, "tick mid") for at in steps]
    description = (
        f"{bands.bands} bands of {bands.rows} rows: the line is the share of pairs at each similarity that become "
        f"candidates, dots are planted copies with their 99 % intervals, the dashed line is the threshold "
        f"{bands.threshold:g}"
    )
    return _draw("Pairs found, by Jaccard similarity", description, parts, WIDTH, bottom + AXIS, "chart")


# Charts of curves over training steps: solid curves and dashed horizontal levels in several colors. The name of each is
# written at its right end.

CHART_WIDTH, CHART_HEIGHT = 720, 300
CHART_LEFT, CHART_RIGHT, CHART_TOP, CHART_BOTTOM = 58, 720 - 185, 34, 300 - 34  # Edges of the plotting area.
LINE_HEIGHT = 14  # Minimum vertical distance between two names.
COLORS = 8  # Number of colors in curves.css. They are distinguishable for color-blind readers (after Okabe and Ito).


@dataclass
class Chart:
    """The content of a chart of curves.

    Attributes:
        title: the title.
        curves: dict from name to (number of the color, points).
        levels: dict from name to (number of the color, value) of dashed horizontal lines.
    """

    title: str
    curves: dict[str, tuple[int, list[Point]]] = field(default_factory=dict)
    levels: dict[str, tuple[int, float]] = field(default_factory=dict)


def stack_charts(charts: Sequence[Chart]) -> Html:
    """Return a self-contained SVG file of charts, one below the other, in the reader's light or dark color scheme."""
    height = CHART_HEIGHT * len(charts)
    parts = [line_chart(chart, CHART_HEIGHT * number) for number, chart in enumerate(charts)]
    style, box = element("style", read_style("colors", "curves")), f"0 0 {CHART_WIDTH} {height}"
    size: dict[str, str | float] = {"viewBox": box, "width": CHART_WIDTH, "height": height}
    return element("svg", style, *parts, xmlns="http://www.w3.org/2000/svg", **size)


def line_chart(chart: Chart, y: int = 0) -> Html:
    """Return a chart of curves as an SVG element. `y` is its vertical position in an enclosing SVG."""
    points = [point for _, curve in chart.curves.values() for point in curve]
    values = [y for _, y in points] + [level for _, level in chart.levels.values()]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    x1 += x0 == x1
    y0, y1 = min(values), max(values)
    slack = (y1 - y0) * 0.04 or abs(y0) * 0.1 or 1.0
    y0, y1 = y0 - slack, y1 + slack

    def across(x: float) -> float:
        return CHART_LEFT + (x - x0) / (x1 - x0) * (CHART_RIGHT - CHART_LEFT)

    def up(value: float) -> float:
        return CHART_BOTTOM - (value - y0) / (y1 - y0) * (CHART_BOTTOM - CHART_TOP)

    parts = [_label(chart.title, CHART_LEFT, 20, "name")]
    for tick in ticks(y0, y1):
        parts.append(_path(f"M{CHART_LEFT} {up(tick):.1f}H{CHART_RIGHT}", "grid"))
        parts.append(_label(f"{tick:.4g}", CHART_LEFT - 6, up(tick) + 4, "end"))
    for tick in ticks(x0, x1, max(1, min(6, int(x1 - x0)))):  # Ticks at whole steps.
        parts.append(_label(f"{tick:,.0f}", across(tick), CHART_BOTTOM + 18, "mid"))
    parts.append(_label("step", CHART_LEFT - 20, CHART_BOTTOM + 18, "end"))
    names: list[tuple[float, str, str]] = []
    for name, (number, level) in chart.levels.items():
        color = f"c{number % COLORS}"
        parts.append(_path(f"M{CHART_LEFT} {up(level):.1f}H{CHART_RIGHT}", f"level {color}"))
        names.append((up(level), name, color))
    for name, (number, curve) in chart.curves.items():
        if curve:
            color, single = f"c{number % COLORS}", len(curve) == 1
            line = "M" + "L".join(f"{across(x):.1f} {up(value):.1f}" for x, value in curve)
            parts.append(_path(line + "h.01" * single, f"curve{' one' * single} {color}"))
            names.append((up(curve[-1][1]), name, color))
    parts += [_label(name, CHART_RIGHT + 6, at + 4, color) for at, name, color in _spread(names, CHART_BOTTOM - 4)]
    label = f"{chart.title}, by step: {', '.join(filter(None, chart.curves))}".removesuffix(": ")
    box = f"0 0 {CHART_WIDTH} {CHART_HEIGHT}"
    size: dict[str, str | float] = {"viewBox": box, "width": CHART_WIDTH, "height": CHART_HEIGHT, "y": y}
    return element("svg", *parts, **size, role="img", aria_label=label, class_="lines")


def ticks(low: float, high: float, limit: int = 6) -> list[float]:
    """Return round numbers within a range. Their distance is 1, 2 or 5 times a power of ten.

    Args:
        low: the start of the range.
        high: the end of the range.
        limit: maximum number of intervals.
    """
    raw = (high - low) / limit
    power = 10.0 ** math.floor(math.log10(raw))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [number * apart for number in range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)]


def _spread(names: list[tuple[float, str, str]], bottom: float) -> list[tuple[float, str, str]]:
    """Move the names at the ends of curves so that they neither overlap nor lie below the chart.

    Args:
        names: (y position, name, color class).
        bottom: the maximum y position.
    """
    moved: list[tuple[float, str, str]] = []
    for y, name, color in sorted(names):
        moved.append((max(y, moved[-1][0] + LINE_HEIGHT) if moved else y, name, color))
    above = range(len(moved) - 1, -1, -1)
    return [(min(y, bottom - LINE_HEIGHT * n), name, color) for n, (y, name, color) in zip(above, moved, strict=True)]
